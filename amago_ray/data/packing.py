"""Packing: slices of episodes, laid end to end in one `SequenceBatch`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from amago_ray.data.episode import Episode
from amago_ray.data.sequence_batch import SequenceBatch


class EpisodeSlice(NamedTuple):
    """Transitions `start:stop` of an episode, and thus its rows `start:stop + 1`; `0 <= start < stop <= T`."""

    episode: Episode
    start: int
    stop: int


def pack_sequences(slices: Sequence[EpisodeSlice]) -> SequenceBatch:
    """Copy B >= 1 slices of episodes of equal schema into one packed batch; nothing in it aliases an episode.

    Time indices are the episodes' own, and a slice's first token carries the action and reward of the step before
    it. `terminated` is True only at the last transition of a terminated episode, never where a slice cuts one.
    """
    num_transitions = np.array([stop - start for _, start, stop in slices], np.int64)
    starts = np.array([start for _, start, _ in slices], np.int64)
    cu_seqlens = np.zeros(len(slices) + 1, np.int64)
    np.cumsum(num_transitions + 1, out=cu_seqlens[1:])
    num_tokens = int(cu_seqlens[-1])
    terminated = np.zeros(num_tokens - len(slices), np.bool_)
    ends_terminated = [episode.terminated and stop == len(episode) for episode, _, stop in slices]
    terminated[np.cumsum(num_transitions) - 1] = ends_terminated
    masks = [episode.action_mask for episode, _, _ in slices]
    return SequenceBatch(
        observations={
            name: np.concatenate([episode.observations[name][start : stop + 1] for episode, start, stop in slices])
            for name in sorted(slices[0].episode.observations)
        },
        prev_action=_previous([(episode.actions, start, stop) for episode, start, stop in slices]),
        prev_reward=_previous([(episode.rewards, start, stop) for episode, start, stop in slices]),
        time_index=np.arange(num_tokens) + np.repeat(starts - cu_seqlens[:-1], num_transitions + 1),
        action=np.concatenate([episode.actions[start:stop] for episode, start, stop in slices]),
        reward=np.concatenate([episode.rewards[start:stop] for episode, start, stop in slices]),
        terminated=terminated,
        cu_seqlens=cu_seqlens.astype(np.int32),
        max_seqlen=int(num_transitions.max()) + 1,
        weight=np.ones(len(slices), np.float32),
        episode_ids=np.array([episode.episode_id for episode, _, _ in slices], np.int64),
        policy_versions=np.array([episode.last_policy_version for episode, _, _ in slices], np.int64),
        action_mask=None
        if masks[0] is None
        else np.concatenate(
            [
                episode.action_mask[start : stop + 1]
                for episode, start, stop in slices
                if episode.action_mask is not None
            ]
        ),
    )


def _previous(columns: Sequence[tuple[npt.NDArray[Any], int, int]]) -> npt.NDArray[Any]:
    """Each slice of a column, shifted by one step: the entry before it (zeros at the start), then its own."""
    zero = np.zeros((1, *columns[0][0].shape[1:]), columns[0][0].dtype)
    parts: list[npt.NDArray[Any]] = []
    for column, start, stop in columns:
        if start == 0:
            parts.append(zero)
            parts.append(column[:stop])
        else:
            parts.append(column[start - 1 : stop])
    return np.concatenate(parts)
