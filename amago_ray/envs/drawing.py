"""Pictures of grid worlds: crisp cells, discs and digits on an RGB array."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Color = tuple[int, int, int]

PAPER: Color = (246, 246, 242)
WALL: Color = (52, 58, 70)
TRAIL: Color = (118, 170, 224)
AGENT: Color = (214, 56, 44)
MUTED: Color = (196, 198, 200)
WHITE: Color = (255, 255, 255)
PALETTE: tuple[Color, ...] = ((35, 139, 69), (230, 145, 20), (117, 82, 180), (0, 134, 149), (190, 60, 130))
"""Colours of first, second, ... goals."""

_GLYPHS = (
    "111101101101111",
    "010110010010111",
    "111001111100111",
    "111001111001111",
    "101101111001001",
    "111100111001111",
    "111100111101111",
    "111001001010010",
    "111101111101111",
    "111101111001111",
)


class GridPicture:
    """A picture `[rows * cell, columns * cell, 3]` of a grid, painted cell by cell."""

    def __init__(self, rows: int, columns: int, width_px: int = 352) -> None:
        self.cell = max(8, width_px // max(rows, columns))
        self.pixels = np.full((rows * self.cell, columns * self.cell, 3), PAPER, np.uint8)

    def fill(self, row: int, column: int, color: Color, inset: float = 0.0, strength: float = 1.0) -> None:
        """Paint a cell, less `inset` (a share of it) at each side; `strength` below 1 mixes with what is there."""
        margin = round(inset * self.cell)
        top, left = row * self.cell + margin, column * self.cell + margin
        area = self.pixels[top : (row + 1) * self.cell - margin, left : (column + 1) * self.cell - margin]
        area[:] = np.rint(area * (1 - strength) + np.asarray(color) * strength)

    def fill_where(self, mask: npt.NDArray[np.bool_], color: Color) -> None:
        """Paint all cells of a mask `[rows, columns]`."""
        self.pixels[np.kron(mask, np.ones((self.cell, self.cell), np.bool_))] = color

    def disc(self, row: int, column: int, color: Color, radius: float = 0.36) -> None:
        """Paint a disc in the middle of a cell; `radius` is a share of the cell."""
        place = np.arange(self.cell) - (self.cell - 1) / 2
        inside = place[:, None] ** 2 + place**2 <= (radius * self.cell) ** 2
        area = self.pixels[row * self.cell : (row + 1) * self.cell, column * self.cell : (column + 1) * self.cell]
        area[inside] = color

    def digit(self, row: int, column: int, value: int, color: Color) -> None:
        """Write one digit (the last one of `value`) into a cell."""
        glyph = np.asarray([character == "1" for character in _GLYPHS[value % 10]]).reshape(5, 3)
        scale = max(1, self.cell * 6 // 10 // 5)
        ink = np.kron(glyph, np.ones((scale, scale), np.bool_))
        top = row * self.cell + (self.cell - ink.shape[0]) // 2
        left = column * self.cell + (self.cell - ink.shape[1]) // 2
        self.pixels[top : top + ink.shape[0], left : left + ink.shape[1]][ink] = color
