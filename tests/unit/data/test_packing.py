"""Slices of episodes packed end to end."""

from dataclasses import replace

import numpy as np
from helpers.episodes import episodes, goal_episodes, make_episode
from hypothesis import given
from hypothesis import strategies as st

from amago_ray.data.packing import EpisodeSlice, pack_sequences


def unpack(batch, index):
    """Rows of one sequence: (token slice, transition slice)."""
    start, stop = int(batch.cu_seqlens[index]), int(batch.cu_seqlens[index + 1])
    return slice(start, stop), slice(start - index, stop - index - 1)


def assert_sequence(batch, index, episode, start, stop):
    """The contract of a sequence, token by token."""
    tokens, transitions = unpack(batch, index)
    for name, leaf in episode.observations.items():
        np.testing.assert_array_equal(batch.observations[name][tokens], leaf[start : stop + 1])
    np.testing.assert_array_equal(batch.action[transitions], episode.actions[start:stop])
    np.testing.assert_array_equal(batch.reward[transitions], episode.rewards[start:stop])
    assert batch.time_index[tokens].tolist() == list(range(start, stop + 1))
    for token, row in enumerate(range(start, stop + 1)):
        previous_action = episode.actions[row - 1] if row else np.zeros_like(episode.actions[0])
        previous_reward = episode.rewards[row - 1] if row else 0
        np.testing.assert_array_equal(batch.prev_action[tokens][token], previous_action)
        assert batch.prev_reward[tokens][token] == previous_reward
    ends = [False] * (stop - start - 1) + [episode.terminated and stop == len(episode)]
    assert batch.terminated[transitions].tolist() == ends
    assert tuple(batch.episode_ids[index]) == episode.episode_id
    assert tuple(batch.policy_versions[index]) == episode.last_policy_version
    if episode.action_mask is not None:
        np.testing.assert_array_equal(batch.action_mask[tokens], episode.action_mask[start : stop + 1])


@given(episodes(), st.data())
def test_every_kind_of_episode_packs(episode, data):
    start = data.draw(st.integers(0, len(episode) - 1))
    stop = data.draw(st.integers(start + 1, len(episode)))
    batch = pack_sequences([EpisodeSlice(episode, start, stop), EpisodeSlice(episode, 0, len(episode))])
    assert_sequence(batch, 0, episode, start, stop)
    assert_sequence(batch, 1, episode, 0, len(episode))
    assert list(batch.observations) == sorted(episode.observations)
    assert batch.prev_action.dtype == batch.action.dtype == episode.actions.dtype
    assert batch.num_sequences == 2
    assert batch.num_transitions == len(batch.reward) == len(batch.terminated)
    assert batch.num_tokens == len(batch.time_index) == len(batch.prev_reward)
    assert batch.max_seqlen == len(episode) + 1
    assert isinstance(batch.max_seqlen, int)
    assert (batch.cu_seqlens.dtype, batch.time_index.dtype, batch.weight.dtype) == (np.int32, np.int64, np.float32)


@given(st.lists(goal_episodes(num_goals=st.just(2)), min_size=1, max_size=5), st.data())
def test_rewards_previous_rewards_and_ends_move_together_pitfall_a4(drawn, data):
    slices = []
    for _, episode in drawn:
        start = data.draw(st.integers(0, len(episode) - 1))
        slices.append(EpisodeSlice(episode, start, data.draw(st.integers(start + 1, len(episode)))))
    batch = pack_sequences(slices)
    for index, (episode, start, stop) in enumerate(slices):
        assert_sequence(batch, index, episode, start, stop)
        tokens, transitions = unpack(batch, index)
        np.testing.assert_array_equal(batch.prev_reward[tokens][1:], batch.reward[transitions])
        np.testing.assert_array_equal(batch.prev_action[tokens][1:], batch.action[transitions])


def test_a_cut_slice_of_a_terminated_episode_does_not_end():
    episode = replace(make_episode(9, grid=1000), terminated=True)
    batch = pack_sequences([EpisodeSlice(episode, 2, 8), EpisodeSlice(episode, 3, 9)])
    assert batch.terminated.tolist() == [False] * 11 + [True]


def test_a_truncated_episode_does_not_terminate():
    episode = replace(make_episode(3, grid=1000), terminated=False, truncated=True)
    assert not pack_sequences([EpisodeSlice(episode, 0, 3)]).terminated.any()


def test_nothing_in_a_batch_aliases_the_episode():
    episode = make_episode(5, grid=1000, has_action_mask=True)
    batch = pack_sequences([EpisodeSlice(episode, 0, 5)])
    for column in (*batch.observations.values(), batch.action, batch.reward, batch.action_mask):
        assert column.flags.writeable
        for stored in (*episode.observations.values(), episode.actions, episode.rewards, episode.action_mask):
            assert not np.shares_memory(column, stored)
