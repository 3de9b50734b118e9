"""Batches of few different sizes, for devices that compile a kernel for each size they meet."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from amago_ray.data.sequence_batch import SequenceBatch

_SMALLEST_SIZE = 16
_SIZES_PER_OCTAVE = 5
"""Each size costs ten megabytes of kernels and a moment to generate them; each token added costs its work."""


def fill_up(batch: SequenceBatch) -> SequenceBatch:
    """`batch` and, if its lengths differ, a dummy sequence of weight 0, which counts in no loss and no statistic.

    Several sequences of equal lengths make batches of one size anyway. Else the dummy brings the number of tokens to
    the next of few sizes, each 15 % larger than the one before: 7 % more tokens on average. Batches of as many
    sequences and of one size have as many transitions, too.
    """
    lengths = np.diff(batch.cu_seqlens)
    if len(lengths) > 1 and (lengths == lengths[0]).all():
        return batch
    length = _next_size(batch.num_tokens + 1) - batch.num_tokens
    mask = batch.action_mask
    return replace(
        batch,
        observations={name: _append(column, length) for name, column in batch.observations.items()},
        prev_action=_append(batch.prev_action, length),
        prev_reward=_append(batch.prev_reward, length),
        # The first step all along: positions that are learned know no step beyond an episode's last.
        time_index=_append(batch.time_index, length),
        action=_append(batch.action, length - 1),
        reward=_append(batch.reward, length - 1),
        terminated=_append(batch.terminated, length - 1),
        cu_seqlens=np.append(batch.cu_seqlens, batch.cu_seqlens[-1] + np.int32(length)),
        max_seqlen=max(batch.max_seqlen, length),
        weight=_append(batch.weight, 1),
        episode_ids=_append(batch.episode_ids, 1),
        policy_versions=_append(batch.policy_versions, 1),
        action_mask=None if mask is None else np.concatenate([mask, np.ones((length, *mask.shape[1:]), np.bool_)]),
    )


def compiles_for_each_size(network: nn.Module, device: torch.device, dtype: torch.dtype) -> bool:
    """Whether the network runs kernels that are generated when a size is first met, and kept.

    On CPUs oneDNN does so for convolutions and for all products of bfloat16: packed batches, each of another size,
    would train at half the speed.
    """
    has_convolutions = any(isinstance(module, nn.Conv2d) for module in network.modules())
    return device.type == "cpu" and (dtype == torch.bfloat16 or has_convolutions)


def _next_size(num_tokens: int) -> int:
    """The smallest of the sizes that is at least `num_tokens`."""
    number = max(math.ceil(_SIZES_PER_OCTAVE * math.log2(num_tokens / _SMALLEST_SIZE)), 0)
    return math.ceil(_SMALLEST_SIZE * 2 ** (number / _SIZES_PER_OCTAVE))


def _append(column: npt.NDArray[Any], count: int) -> npt.NDArray[Any]:
    """`column` and so many zeros."""
    return np.concatenate([column, np.zeros((count, *column.shape[1:]), column.dtype)])
