"""`MetricSums`: means of scalars over many updates, kept on the device until somebody asks."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor


class MetricSums:
    """Sums scalars of the same names from call to call; one transfer to the host per `drain`."""

    def __init__(self) -> None:
        self._names: tuple[str, ...] = ()
        self._sums: Tensor | None = None

    def add(self, values: Mapping[str, Tensor], counts: Tensor) -> None:
        """Add scalars; where `counts` is 0.0 (not 1.0) they are left out, whatever they are."""
        names = tuple(values)
        row = torch.stack([counts, *(value.detach().float() for value in values.values())])
        row = torch.where(counts > 0, row, 0.0)
        if self._sums is None:
            self._names, self._sums = names, row
        else:
            assert names == self._names
            self._sums = self._sums + row

    def drain(self) -> dict[str, float]:
        """Means since the last call, and start anew; empty where nothing counted."""
        if self._sums is None:
            return {}
        count, *sums = self._sums.tolist()
        self._sums = None
        return {name: total / count for name, total in zip(self._names, sums, strict=True)} if count else {}
