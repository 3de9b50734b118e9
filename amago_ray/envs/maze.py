"""Random mazes: walls of an n x n grid, and tables of where each move leads."""

from __future__ import annotations

from functools import lru_cache
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from amago_ray.envs.kernel import MOVES

_EXTRA_OPENINGS = 0.2
"""Share of the inner walls left by the spanning tree that are opened too, so that there is more than one way."""


class _Plan(NamedTuple):
    """What all mazes of a size share. Edges are walls between two rooms; all rooms on the strip are node 0."""

    walls: npt.NDArray[np.bool_]
    edge_cells: npt.NDArray[np.int64]
    edge_nodes: tuple[tuple[int, int], ...]
    num_nodes: int


def start_cell(size: int) -> int:
    """Flat index of the cell where every episode begins: the lower end of the middle bay."""
    return (size - 2) * size + size // 2


def random_walls(size: int, rng: np.random.Generator) -> npt.NDArray[np.bool_]:
    """Walls `[n, n]` of a random maze in which every free cell can be reached.

    Rows n-5 to n-2 are the open spawn area, equal in all mazes: a strip over the whole width, below it three bays, of
    which the middle one is a corridor that holds the start. Above the strip a random spanning tree (Kruskal's, over
    random edges) joins the rooms at odd coordinates, and some more walls are opened.
    """
    plan = _plan(size)
    order = rng.permutation(len(plan.edge_cells))
    opened = rng.random(len(plan.edge_cells)) < _EXTRA_OPENINGS
    parent = list(range(plan.num_nodes))
    missing = plan.num_nodes - 1
    for edge in order.tolist():
        if not missing:
            break
        a, b = plan.edge_nodes[edge]
        while parent[a] != a:
            parent[a] = a = parent[parent[a]]
        while parent[b] != b:
            parent[b] = b = parent[parent[b]]
        if a != b:
            parent[b] = a
            opened[edge] = True
            missing -= 1
    walls = plan.walls.copy()
    walls.ravel()[plan.edge_cells[opened]] = False
    return walls


@lru_cache(maxsize=8)
def _plan(size: int) -> _Plan:
    n = size
    walls = np.ones((n, n), np.bool_)
    strip, middle = n - 5, n // 2
    walls[1:strip:2, 1 : n - 1 : 2] = False
    walls[strip, 1 : n - 1] = False
    walls[strip + 1 : n - 1, 1 : middle - 1] = False
    walls[strip + 1 : n - 1, middle] = False
    walls[strip + 1 : n - 1, middle + 2 : n - 1] = False

    def node(row: int, column: int) -> int:
        """Rooms in the row next to the strip are joined by it already: they are all node 0."""
        return 0 if row == strip - 1 else 1 + (row // 2) * (n // 2) + column // 2

    cells, nodes = [], []
    for row in range(1, strip):
        for column in range(1, n - 1):
            if row % 2 and not column % 2:
                cells.append(row * n + column)
                nodes.append((node(row, column - 1), node(row, column + 1)))
            elif not row % 2 and column % 2:
                cells.append(row * n + column)
                nodes.append((node(row - 1, column), node(row + 1, column)))
    num_nodes = 1 + (n // 2) * ((strip - 2) // 2)
    return _Plan(walls, np.asarray(cells, np.int64), tuple(nodes), num_nodes)


def free_distances(walls: npt.NDArray[np.bool_]) -> npt.NDArray[np.int32]:
    """Free cells in a line from each cell to west, north, east, south, `[m, n, n, 4]`, for walls `[m, n, n]`.

    Values at wall cells mean nothing.
    """
    m, n, _ = walls.shape
    place = np.arange(n, dtype=np.int32)
    distances = np.empty((m, n, n, 4), np.int32)
    for axis, first, second in ((2, 0, 2), (1, 1, 3)):
        index = place if axis == 2 else place[:, None]
        before = np.maximum.accumulate(np.where(walls, index, np.int32(-1)), axis=axis)
        np.subtract(index - 1, before, out=distances[..., first])
        flipped = np.flip(np.where(walls, index, np.int32(n)), axis)
        after = np.flip(np.minimum.accumulate(flipped, axis=axis), axis)
        np.subtract(after - 1, index, out=distances[..., second])
    return distances


def move_table(distances: npt.NDArray[np.int32]) -> npt.NDArray[np.int32]:
    """Flat cell that each of the five actions leads to, `[m, n*n, 5]`, from distances `[m, n, n, 4]`."""
    m, n, _, _ = distances.shape
    cells = np.arange(n * n, dtype=np.int32)
    table = np.empty((m, n * n, 5), np.int32)
    steps = np.asarray([row * n + column for row, column in MOVES[:4]], np.int32)
    np.multiply(distances.reshape(m, n * n, 4) > 0, steps, out=table[..., :4])
    table[..., :4] += cells[:, None]
    table[..., 4] = cells
    return table
