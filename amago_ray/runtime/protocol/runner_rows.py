"""Columns with a row for each env runner, by its number."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from jaxtyping import Int, Shaped


def with_rows_for(
    runners: Int[np.ndarray, " R"], column: Shaped[np.ndarray, "N ..."], empty: float
) -> Shaped[np.ndarray, "N2 ..."]:
    """The column where it has a row for each of the runners, else a longer copy whose further rows are `empty`."""
    missing = int(runners.max(initial=-1)) + 1 - len(column)
    if missing <= 0:
        return column
    # At least twice as long, so that growing row by row copies each row a few times only.
    more = np.full((max(missing, len(column)), *column.shape[1:]), empty, column.dtype)
    return np.concatenate([column, more])
