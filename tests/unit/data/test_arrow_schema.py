"""Schemas of episodes: made, written, compared, refused."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from helpers.episodes import goal_spec, make_episode

from amago_ray.data import ActionSpec, EnvSpec, GoalRule, ObservationSpec
from amago_ray.data.arrow_codec import decode_episodes, encode_episodes, read_stream
from amago_ray.data.arrow_schema import EpisodeSchema
from amago_ray.errors import DataError


def pa_stream(schema):
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, schema):
        pass
    return sink.getvalue()


def test_other_schema_version_is_refused_by_number():
    with pa.ipc.open_stream(encode_episodes([make_episode(3)])) as reader:
        batch, metadata = reader.read_next_batch_with_custom_metadata()
        key = b"amago_ray.schema"
        schema = reader.schema.with_metadata(
            {key: reader.schema.metadata[key].replace(b'"version": 3', b'"version": 7')}
        )
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, schema) as writer:
        writer.write_batch(batch, custom_metadata=metadata)
    with pytest.raises(DataError, match="expected episodes of schema version 3, got version 7"):
        decode_episodes(sink.getvalue())


def test_episodes_of_version_2_are_read_as_they_were_recorded():
    recorded = (Path(__file__).parent / "recorded" / "episodes_v2.arrow").read_bytes()
    episodes = decode_episodes(recorded)
    assert len(episodes) == 2
    for counter, episode in zip((4, 5), episodes, strict=True):
        expected = make_episode(3, counter=counter, num_goals=2, has_action_mask=True)
        assert episode.episode_id == expected.episode_id
        assert np.array_equal(episode.actions, expected.actions)
        assert np.array_equal(episode.rewards, expected.rewards)
        assert np.array_equal(episode.action_mask, expected.action_mask)
        assert np.array_equal(episode.achieved_goals.values, expected.achieved_goals.values)
        for name, leaf in expected.observations.items():
            assert np.array_equal(episode.observations[name], leaf)


def test_columns_that_belie_their_metadata_are_refused():
    schema = EpisodeSchema.from_episode(make_episode(3)).to_arrow()
    lying = pa.schema([*list(schema)[:-1], pa.field("achieved_goals", pa.int64())], metadata=schema.metadata)
    with pytest.raises(DataError, match="columns do not fit schema version 3"):
        read_stream(pa_stream(lying), "here")


def test_foreign_arrow_data_is_refused():
    with pytest.raises(DataError, match="got other Arrow data"):
        decode_episodes(pa_stream(pa.schema([pa.field("x", pa.int32())])))


def test_schema_of_spec_equals_that_of_its_episodes():
    spec = goal_spec(3, has_action_mask=True)
    assert EpisodeSchema.from_spec(spec) == EpisodeSchema.from_episode(
        make_episode(4, num_goals=3, has_action_mask=True)
    )
    plain = EnvSpec("e", {"o": ObservationSpec("box", (2,), "float32")}, ActionSpec("multi_binary", (3,)))
    episode = replace(
        make_episode(2, grid=1000),
        observations={"o": np.zeros((3, 2), np.float32)},
        actions=np.zeros((2, 3), np.int8),
        achieved_goals=None,
    )
    assert EpisodeSchema.from_spec(plain) == EpisodeSchema.from_episode(episode)


def test_goal_rule_travels_with_the_episodes():
    rule = GoalRule(match="within", tolerance=0.5, marker=None)
    with pa.ipc.open_stream(encode_episodes([make_episode(3)], goal_rule=rule)) as reader:
        assert GoalRule(**json.loads(reader.schema.metadata[b"amago_ray.goal_rule"])) == rule
    with pa.ipc.open_stream(encode_episodes([make_episode(3)])) as reader:
        assert b"amago_ray.goal_rule" not in reader.schema.metadata


def test_dtype_without_fixed_width_is_refused():
    episode = make_episode(2, grid=1000)
    names = np.array(["a"] * 3, dtype=object)
    with pytest.raises(DataError, match="expected a number or bool dtype, got object"):
        encode_episodes([replace(episode, observations={"name": names})])
