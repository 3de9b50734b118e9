"""`DeviceBatch`: a `SequenceBatch` as tensors where the agent lives, and what in it counts."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from amago_ray.agent.terms import Transitions
from amago_ray.data.sequence_batch import SequenceBatch
from amago_ray.nets.layout import SequenceLayout
from amago_ray.nets.tokens import TokenColumns


@dataclass(frozen=True)
class Counts:
    """Tokens and transitions of batches, sequences counting by their weights."""

    num_tokens: float
    num_transitions: float

    @classmethod
    def of(cls, batch: SequenceBatch) -> Counts:
        """Those of one batch."""
        weight, lengths = batch.weight.astype(np.float64), np.diff(batch.cu_seqlens)
        return cls(float(np.dot(weight, lengths)), float(np.dot(weight, lengths - 1)))


@dataclass(frozen=True, eq=False)
class DeviceBatch:
    """Token columns, transition columns, and where sequences lie.

    token_weight `[N]` is None where all sequences count alike. counts: sums of weights.
    """

    tokens: TokenColumns
    layout: SequenceLayout
    transitions: Transitions
    token_weight: Tensor | None
    counts: Counts

    @property
    def num_transitions(self) -> float:
        """M, without weightless ones."""
        return self.counts.num_transitions


def to_device_batch(batch: SequenceBatch, device: torch.device, *, n_step: int = 1) -> DeviceBatch:
    """Copy a batch to `device`, without waiting for it. The arrays may be read-only; none is kept or written."""
    lengths = np.diff(batch.cu_seqlens)
    layout = SequenceLayout(_copy(batch.cu_seqlens, device), tuple(lengths.tolist()), batch.max_seqlen)
    mask = None if batch.action_mask is None else _copy(batch.action_mask, device)
    tokens = TokenColumns(
        observations={name: _copy(column, device) for name, column in batch.observations.items()},
        prev_action=_copy(batch.prev_action, device),
        prev_reward=_copy(batch.prev_reward, device),
        time_index=_copy(batch.time_index, device),
        action_mask=mask,
    )
    steps = lengths - 1
    counts_alike = bool((batch.weight == 1.0).all())
    transitions = Transitions(
        action=_copy(batch.action, device),
        reward=_copy(batch.reward, device),
        terminated=_copy(batch.terminated, device),
        weight=None if counts_alike else _copy(np.repeat(batch.weight, steps), device),
        steps_left=_copy(_steps_left(steps), device) if n_step > 1 else None,
        action_mask=None if mask is None else mask[layout.transition_rows],
        next_action_mask=None if mask is None else mask[layout.transition_rows + 1],
    )
    return DeviceBatch(
        tokens=tokens,
        layout=layout,
        transitions=transitions,
        token_weight=None if counts_alike else _copy(np.repeat(batch.weight, lengths), device),
        counts=Counts.of(batch),
    )


def _steps_left(steps: npt.NDArray[np.int32]) -> npt.NDArray[np.int64]:
    """For each transition of sequences of `steps` transitions: how many are left, itself included."""
    ends = np.repeat(np.cumsum(steps, dtype=np.int64), steps)
    return ends - np.arange(len(ends))


def _copy(array: npt.NDArray[np.generic], device: torch.device) -> Tensor:
    # Never torch.from_numpy on the batch's own memory: it may be read-only, and writes to it would be undefined.
    if device.type == "cpu":
        return torch.from_numpy(np.array(array))
    dtype = torch.from_numpy(np.empty(0, array.dtype)).dtype
    pinned = torch.empty(array.shape, dtype=dtype, pin_memory=device.type == "cuda")
    np.copyto(pinned.numpy(), array)
    return pinned.to(device, non_blocking=True)
