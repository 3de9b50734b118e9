"""`SequenceLayout`: where the sequences of a packed batch lie, on the torch side."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from amago_ray.nets.length_groups import LengthGroups, group_by_length

if TYPE_CHECKING:
    from jaxtyping import Int


@dataclass(frozen=True, eq=False)
class SequenceLayout:
    """B sequences laid end to end: sequence i is rows `cu_seqlens[i]:cu_seqlens[i + 1]` of every token column.

    cu_seqlens: int32 `[B + 1]` on the device. lengths: its differences on the host, each at least 1.
    Everything derived is computed once and kept, so one layout serves all layers of all networks without host syncs.
    """

    cu_seqlens: Int[Tensor, " B+1"]
    lengths: tuple[int, ...]
    max_seqlen: int

    @classmethod
    def from_lengths(cls, lengths: Sequence[int], device: torch.device | str = "cpu") -> SequenceLayout:
        """The layout of sequences of these many tokens.

        Raises:
            ValueError: no sequence, or an empty one.
        """
        host = tuple(int(length) for length in lengths)
        if not host or min(host) < 1:
            raise ValueError(f"layout: expected at least one sequence and no empty one, got lengths {host}")
        cu_seqlens = np.zeros(len(host) + 1, dtype=np.int32)
        np.cumsum(host, out=cu_seqlens[1:])
        return cls(to_device(cu_seqlens, torch.device(device)), host, max(host))

    @property
    def num_sequences(self) -> int:
        """B."""
        return len(self.lengths)

    @cached_property
    def num_tokens(self) -> int:
        """N."""
        return sum(self.lengths)

    @cached_property
    def is_uniform(self) -> bool:
        """Whether all sequences have the same length, so that columns can be viewed as `[B, L, ...]`."""
        return min(self.lengths) == self.max_seqlen

    @property
    def device(self) -> torch.device:
        """Where row indices live."""
        return self.cu_seqlens.device

    @cached_property
    def starts(self) -> npt.NDArray[np.int64]:
        """`[B]` first row of each sequence, on the host."""
        return np.concatenate([[0], np.cumsum(self.lengths[:-1])]).astype(np.int64)

    @cached_property
    def longest_first(self) -> npt.NDArray[np.int64]:
        """`[B, 2]` first row and length of each sequence, the longest first, on the host."""
        lengths = np.asarray(self.lengths, dtype=np.int64)
        return np.stack([self.starts, lengths], axis=1)[np.argsort(-lengths, kind="stable")]

    @cached_property
    def transition_rows(self) -> Int[Tensor, " M"]:
        """`[M]` int64: token rows that start a transition, that is all but each sequence's last."""
        keep = np.ones(self.num_tokens, dtype=bool)
        keep[self.starts + np.asarray(self.lengths) - 1] = False
        return to_device(np.flatnonzero(keep), self.device)

    @cached_property
    def sequence_index(self) -> Int[Tensor, " N"]:
        """`[N]` int64: the sequence of each token."""
        return to_device(np.repeat(np.arange(self.num_sequences), self.lengths), self.device)

    @cached_property
    def length_groups(self) -> tuple[LengthGroups, Int[Tensor, " N"]]:
        """Sequences grouped by length, and the groups' `padded_rows [N]` on the device."""
        groups = group_by_length(self.lengths)
        return groups, to_device(groups.padded_rows, self.device)


def to_device(array: npt.NDArray[np.generic], device: torch.device) -> Tensor:
    """A copy of a host array on `device`, transferred without waiting for the device."""
    tensor = torch.from_numpy(np.ascontiguousarray(array))
    return tensor.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else tensor.to(device, copy=True)
