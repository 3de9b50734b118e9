"""Token columns: what the network reads of each row, and how it becomes numbers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from amago_ray.data.specs import ActionSpec, ObservationSpec

if TYPE_CHECKING:
    from jaxtyping import Bool, Float, Int, Shaped


@dataclass(frozen=True, eq=False)
class TokenColumns:
    """N rows of any number of sequences.

    observations: leaves `[N, ...]`, prev_action `[N, ...]`: as stored (see `data.specs`). prev_reward `[N]` float32.
    time_index `[N]` int64. action_mask `[N, mask_size]` bool or None (read by policy heads alone).
    At time_index 0 previous action and reward are read as nothing (all features zero), whatever the columns hold.
    """

    observations: Mapping[str, Shaped[Tensor, "N ..."]]
    prev_action: Shaped[Tensor, "N ..."]
    prev_reward: Float[Tensor, " N"]
    time_index: Int[Tensor, " N"]
    action_mask: Bool[Tensor, "N mask_size"] | None = None

    def rows(self, start: int, stop: int) -> TokenColumns:
        """Views of the rows from `start` up to `stop`."""
        return TokenColumns(
            {name: leaf[start:stop] for name, leaf in self.observations.items()},
            self.prev_action[start:stop],
            self.prev_reward[start:stop],
            self.time_index[start:stop],
            None if self.action_mask is None else self.action_mask[start:stop],
        )


MAX_FEATURE = 1e15
"""Features beyond are read as this, infinite ones too: float32 holds the sum of the squares of a batch of them."""


class TokenFeatures:
    """Flat float32 features: observation leaves in sorted order, then "rl2": previous reward and previous action.

    Discrete leaves and actions are one-hot, everything else is flattened as it is, within `MAX_FEATURE`.
    """

    def __init__(self, leaves: Mapping[str, ObservationSpec], action: ActionSpec) -> None:
        self._leaves = dict(sorted(leaves.items()))
        self._action = action
        self.num_features = sum(leaf.num_features for leaf in self._leaves.values()) + 1 + action.num_features
        """Width of the result."""

    def __call__(self, tokens: TokenColumns) -> Float[Tensor, "N num_features"]:
        """`[N, num_features]` of `tokens`."""
        time_index = tokens.time_index
        features = torch.zeros(len(time_index), self.num_features, device=time_index.device)
        start = 0
        for name, leaf in self._leaves.items():
            stop = start + leaf.num_features
            column = features[:, start:stop]
            if leaf.num_categories:
                _write_one_hot(column, tokens.observations[name], leaf.num_categories, 1.0)
            else:
                column.copy_(tokens.observations[name].reshape(len(column), -1))
            start = stop
        has_previous = (time_index != 0).to(torch.float32)
        torch.mul(tokens.prev_reward, has_previous, out=features[:, start])
        action = features[:, start + 1 :]
        if self._action.num_categories:
            _write_one_hot(action, tokens.prev_action, self._action.num_categories, has_previous)
        else:
            action.copy_(tokens.prev_action.reshape(len(action), -1)).mul_(has_previous[:, None])
        return features.clamp_(-MAX_FEATURE, MAX_FEATURE)


def _write_one_hot(columns: Tensor, values: Tensor, num_categories: tuple[int, ...], entry: Tensor | float) -> None:
    """Set to `entry` (a number, or one per row) the column of each value; values may have any integer dtype."""
    values = values.reshape(len(columns), -1).to(torch.int64)
    start = 0
    for i, size in enumerate(num_categories):
        # Each entry writes into its own columns, so that a value out of range is an error, not a neighbour's feature.
        target, index = columns[:, start : start + size], values[:, i : i + 1]
        if isinstance(entry, Tensor):
            target.scatter_(1, index, entry[:, None])
        else:
            target.scatter_(1, index, entry)
        start += size
