"""`GrowingRows`: columns of the running episodes of E environments, in memory that follows what they hold."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt

Column = npt.NDArray[np.generic]
Kinds = Mapping[str, tuple[tuple[int, ...], str]]
"""Shape and dtype of one row of each column, by name."""

# A chunk has at most so many rows, and fewer where those of one environment would take more than so many bytes.
_CHUNK_ROWS = 256
_CHUNK_BYTES = 256 * 1024
_LEAST_CHUNK_ROWS = 8


class GrowingRows:
    """Rows that grow by one in all environments at a time, each environment's from where its episode began.

    They are written side by side into a chunk `[rows, E, ...]`. When it is full, each environment's part is copied
    away and the chunk is used again, so an episode takes what it holds, and at most one chunk beside. Of a ragged
    column a row has any number of entries.
    """

    def __init__(self, num_envs: int, columns: Kinds, ragged: Kinds | None = None) -> None:
        row_bytes = sum(_row_bytes(shape, dtype) for shape, dtype in columns.values())
        self._chunk_rows = min(max(_CHUNK_BYTES // max(row_bytes, 1), _LEAST_CHUNK_ROWS), _CHUNK_ROWS)
        self._chunk: dict[str, Column] = {
            name: np.zeros((self._chunk_rows, num_envs, *shape), dtype) for name, (shape, dtype) in columns.items()
        }
        self._ragged = {
            name: _RaggedChunk(self._chunk_rows, num_envs, shape, dtype)
            for name, (shape, dtype) in (ragged or {}).items()
        }
        self._row = 0
        self._first: npt.NDArray[np.int64] = np.zeros(num_envs, np.int64)
        self._past: list[list[dict[str, Column]]] = [[] for _ in range(num_envs)]

    def __getitem__(self, name: str) -> Column:
        """The newest row of a column in all environments, `[E, ...]`, to be read and written."""
        column: Column = self._chunk[name][self._row]
        return column

    def put_ragged(
        self, name: str, indices: npt.NDArray[np.int64], values: Column, offsets: npt.NDArray[np.int32]
    ) -> None:
        """Write the newest row of a ragged column: entries `offsets[j] : offsets[j + 1]` are those of `indices[j]`."""
        self._ragged[name].put(self._row, indices, values, offsets)

    def begin(self, indices: npt.NDArray[np.int64]) -> None:
        """In these environments the newest row is an episode's first; what was before is forgotten."""
        self._first[indices] = self._row
        for index in indices.tolist():
            self._past[index] = []

    def advance(self) -> None:
        """Every environment gets another row, which becomes the newest."""
        self._row += 1
        if self._row < self._chunk_rows:
            return
        for index, past in enumerate(self._past):
            past.append({name: column.copy() for name, column in self._rows_here(index).items()})
        for ragged in self._ragged.values():
            ragged.clear()
        self._row = 0
        self._first[:] = 0

    def episode(self, index: int) -> dict[str, Column]:
        """A copy of the environment's rows since its episode began, the newest one included.

        Of a ragged column: its entries, and as `NAME counts` how many each row has.
        """
        past, here = self._past[index], self._rows_here(index)
        if not past:
            return {name: column.copy() for name, column in here.items()}
        return {name: np.concatenate([*(part[name] for part in past), column]) for name, column in here.items()}

    def newest(self, name: str, index: int, count: int) -> Column:
        """A copy of the environment's `count` newest rows of a column that is not ragged, oldest first."""
        parts = [self._chunk[name][self._first[index] : self._row + 1, index]]
        for past in reversed(self._past[index]):
            if sum(map(len, parts)) >= count:
                break
            parts.append(past[name])
        return np.concatenate(parts[::-1])[-count:]

    def _rows_here(self, index: int) -> dict[str, Column]:
        """The part of the environment's episode that lies in the chunk; views where columns are not ragged."""
        first, end = int(self._first[index]), min(self._row + 1, self._chunk_rows)
        rows = {name: column[first:end, index] for name, column in self._chunk.items()}
        for name, ragged in self._ragged.items():
            rows[name], rows[f"{name} counts"] = ragged.entries(first, end, index)
        return rows


class _RaggedChunk:
    """A chunk of rows with any number of entries: where each row's entries begin in one buffer, and how many."""

    def __init__(self, num_rows: int, num_envs: int, shape: tuple[int, ...], dtype: str) -> None:
        self._values: Column = np.zeros((num_envs, *shape), dtype)
        self._num_values = 0
        self._begins = np.zeros((num_rows, num_envs), np.int64)
        self._counts = np.zeros((num_rows, num_envs), np.int64)

    def put(self, row: int, indices: npt.NDArray[np.int64], values: Column, offsets: npt.NDArray[np.int32]) -> None:
        end = self._num_values + len(values)
        if end > len(self._values):
            grown = np.zeros((max(end, 2 * len(self._values)), *self._values.shape[1:]), self._values.dtype)
            grown[: self._num_values] = self._values[: self._num_values]
            self._values = grown
        self._values[self._num_values : end] = values
        self._begins[row, indices] = self._num_values + offsets[:-1]
        self._counts[row, indices] = offsets[1:] - offsets[:-1]
        self._num_values = end

    def entries(self, first: int, end: int, index: int) -> tuple[Column, npt.NDArray[np.int64]]:
        """The entries of some rows of an environment, and how many each row has."""
        counts, begins = self._counts[first:end, index], self._begins[first:end, index]
        before = np.cumsum(counts) - counts
        return self._values[np.repeat(begins - before, counts) + np.arange(counts.sum())], counts.copy()

    def clear(self) -> None:
        self._num_values = 0


def _row_bytes(shape: tuple[int, ...], dtype: str) -> int:
    return np.dtype(dtype).itemsize * int(np.prod(shape, dtype=np.int64))
