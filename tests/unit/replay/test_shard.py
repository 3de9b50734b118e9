"""A shard, whole: store, find again, draw, relabel, slice, pack."""

import json
import resource
import subprocess
import sys
from collections import Counter
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pytest
from helpers.episodes import goal_spec, make_episode, stored_episodes

from amago_ray.config.relabel import InstructionRelabelConfig
from amago_ray.config.replay import ReplayConfig
from amago_ray.data.arrow_codec import encode_episodes
from amago_ray.errors import DataError, ReplacedError
from amago_ray.relabel import NoRelabeler, Relabeler, make_relabeler
from amago_ray.replay import ReplayShard
from amago_ray.replay.draws import draw_window
from amago_ray.replay.layout import find_segments
from amago_ray.replay.owner import Claim
from amago_ray.replay.segment import Segment


def open_shard(directory, *, config=None, relabeler=None, **settings):
    return ReplayShard(
        config or ReplayConfig(),
        directory=directory,
        relabeler=relabeler or NoRelabeler(),
        **{"context_length": 100, **settings},
    )


def long_episode(counter, num_transitions=10, **settings):
    """An episode that never meets its goals, so that it has exactly its length."""
    return make_episode(num_transitions, counter=counter, grid=1000, **settings)


def counters(shard, num_draws=300):
    return set(shard.sample(num_draws).episode_ids[:, 3].tolist())


def assert_equal_batches(found, expected):
    for name, column in asdict(found).items():
        if name == "observations":
            for leaf, values in column.items():
                np.testing.assert_array_equal(values, expected.observations[leaf])
        else:
            np.testing.assert_array_equal(column, getattr(expected, name))


def test_what_is_added_is_drawn(tmp_path):
    shard = open_shard(tmp_path)
    episodes = [long_episode(counter, 3 + counter, has_action_mask=True) for counter in range(5)]
    report = shard.add(episodes[:2])
    assert (report.num_episodes, report.num_transitions, report.num_duplicates) == (2, 7, 0)
    report = shard.add(encode_episodes(episodes[2:]).to_pybytes())
    assert (report.stored_transitions, report.inserted_transitions) == (25, 25)
    batch = shard.sample(40)
    assert batch.num_sequences == 40
    for index, (start, stop) in enumerate(zip(batch.cu_seqlens[:-1], batch.cu_seqlens[1:], strict=True)):
        episode = episodes[batch.episode_ids[index, 3]]
        assert stop - start == len(episode) + 1
        for name, leaf in episode.observations.items():
            np.testing.assert_array_equal(batch.observations[name][start:stop], leaf)
        np.testing.assert_array_equal(batch.action_mask[start:stop], episode.action_mask)
        np.testing.assert_array_equal(batch.reward[start - index : stop - index - 1], episode.rewards)
    assert (shard.report().num_samples, shard.report().sampled_transitions) == (40, batch.num_transitions)


def test_an_empty_shard_says_so(tmp_path):
    with pytest.raises(DataError, match="expected stored episodes, got none"):
        open_shard(tmp_path).sample(1)


def test_duplicates_are_ignored_and_counted_after_reopening_too(tmp_path):
    shard = open_shard(tmp_path)
    group = encode_episodes([long_episode(0), long_episode(1)])
    shard.add(group)
    report = shard.add(group)
    assert (report.num_episodes, report.num_duplicates, report.stored_transitions) == (0, 2, 20)
    report = shard.add([long_episode(1), long_episode(2), long_episode(2)])
    assert (report.num_episodes, report.num_duplicates, report.stored_transitions) == (1, 2, 30)
    shard.close()
    shard = open_shard(tmp_path, incarnation=1)
    assert shard.add([long_episode(2), long_episode(3)]).num_duplicates == 1
    assert shard.report().stored_episodes == 4
    assert shard.report().num_duplicates == 1
    assert counters(shard) == {0, 1, 2, 3}


def test_episodes_of_other_runners_and_incarnations_are_no_duplicates(tmp_path):
    shard = open_shard(tmp_path)
    ids = [{"run": 1}, {"run": 2}, {"runner": 1}, {"incarnation": 1}]
    assert shard.add([long_episode(0, **each) for each in ids]).num_duplicates == 0


def test_reopening_cuts_a_torn_tail_and_reports_it(tmp_path):
    shard = open_shard(tmp_path)
    shard.add([long_episode(counter) for counter in range(5)])
    shard.close()
    (path,) = find_segments(tmp_path)
    size = path.stat().st_size
    with path.open("r+b") as file:
        file.truncate(size - 100)
    shard = open_shard(tmp_path, incarnation=1)
    report = shard.report()
    assert (report.stored_episodes, report.inserted_transitions) == (4, 50)
    assert (report.damaged_episodes, report.damaged_transitions) == (1, 10)
    assert report.torn_bytes > 0
    assert shard.add([long_episode(4)]).num_duplicates == 0
    assert counters(shard) == {0, 1, 2, 3, 4}


@pytest.mark.parametrize("column", ["header", "actions", "observations"])
def test_a_flipped_byte_costs_its_episode_alone_which_is_counted_and_named(tmp_path, column):
    shard = open_shard(tmp_path)
    episodes = [long_episode(counter) for counter in range(5)]
    shard.add(episodes)
    shard.close()
    (path,) = find_segments(tmp_path)
    content = bytearray(path.read_bytes())
    whole = {
        "header": json.dumps(episodes[2].episode_id).encode(),
        "actions": episodes[2].actions.tobytes(),
        "observations": next(iter(episodes[2].observations.values())).tobytes(),
    }
    content[content.rindex(whole[column]) + 1] ^= 1
    path.write_bytes(content)

    shard = open_shard(tmp_path, incarnation=1)
    report = shard.report()
    assert (report.damaged_episodes, report.stored_episodes, report.torn_bytes) == (1, 4, 0)
    assert report.warnings == (f"{tmp_path}: segment 0 is damaged: 1 episodes with 10 transitions are lost",)
    assert len(counters(shard)) == 4
    shard.add([long_episode(counter) for counter in range(5, 9)])
    assert len(counters(shard)) == 8
    shard.close()
    assert open_shard(tmp_path, incarnation=2).report().stored_episodes == 8


def test_a_killed_process_loses_nothing_acknowledged(tmp_path):
    code = f"""
import os, sys
sys.path.insert(0, {str(Path(__file__).parents[2])!r})
from pathlib import Path
from helpers.episodes import make_episode
from amago_ray.config.replay import ReplayConfig
from amago_ray.relabel import NoRelabeler
from amago_ray.replay import ReplayShard
shard = ReplayShard(ReplayConfig(), directory=Path({str(tmp_path)!r}), context_length=9, relabeler=NoRelabeler())
for counter in range(7):
    shard.add([make_episode(10, counter=counter, grid=1000)])
os.kill(os.getpid(), 9)
"""
    assert subprocess.run([sys.executable, "-c", code], check=False, timeout=60).returncode == -9
    report = open_shard(tmp_path, incarnation=1).report()
    assert (report.stored_episodes, report.torn_bytes) == (7, 0)


def test_capacity_counts_transitions_whatever_the_length_of_episodes_pitfall_a15(tmp_path):
    for num_transitions in (5, 50):
        config = ReplayConfig(capacity_timesteps=2000, num_shards=2)
        shard = open_shard(tmp_path / str(num_transitions), config=config, num_shards=2)
        for counter in range(4000 // num_transitions):
            shard.add([long_episode(counter, num_transitions)])
            assert shard.report().stored_transitions <= 1000
        report = shard.report()
        assert report.stored_transitions >= 1000 * 14 / 16
        assert report.inserted_transitions == 4000
        assert report.evicted_transitions == 4000 - report.stored_transitions
        newest = 4000 // num_transitions
        assert counters(shard, 3000) == set(range(newest - report.stored_episodes, newest))
        assert (
            sum(path.stat().st_size for path in find_segments(tmp_path / str(num_transitions))) == report.stored_bytes
        )


def test_capacity_counts_bytes_pitfall_a15(tmp_path):
    config = ReplayConfig(capacity_bytes=200_000)
    shard = open_shard(tmp_path, config=config, num_shards=2)
    for counter in range(200):
        shard.add([long_episode(counter, 20)])
        assert shard.report().stored_bytes <= 100_000
    assert shard.report().stored_bytes > 75_000
    assert sum(path.stat().st_size for path in find_segments(tmp_path)) == shard.report().stored_bytes


def test_one_episode_above_capacity_is_kept(tmp_path):
    shard = open_shard(tmp_path, config=ReplayConfig(capacity_timesteps=10))
    for counter in range(3):
        shard.add([long_episode(counter, 50)])
        assert shard.report().stored_episodes == 1
        assert counters(shard, 5) == {counter}


RUN = Claim(7, "resume")


def two_shards(tmp_path, claim=RUN):
    """The directories of two shards of one run, with eight episodes in each, in several segments."""
    config = ReplayConfig(segment_bytes=2000)
    for number in (0, 1):
        shard = open_shard(tmp_path / f"shard_{number}", config=config, claim=claim, shard=number)
        for counter in range(8):
            shard.add([long_episode(10 * number + counter)])
        shard.close()
    assert len(find_segments(tmp_path / "shard_1")) > 1
    return config


def test_a_shard_takes_over_the_episodes_of_one_that_is_no_longer(tmp_path):
    config = two_shards(tmp_path)
    shard = open_shard(tmp_path / "shard_0", config=config, claim=RUN, incarnation=2)
    assert shard.adopt(tmp_path / "shard_1") == 8
    assert not (tmp_path / "shard_1").exists()
    assert counters(shard) == {*range(8), *range(10, 18)}
    shard.close()
    reopened = open_shard(tmp_path / "shard_0", config=config, claim=RUN, incarnation=3)
    assert counters(reopened) == {*range(8), *range(10, 18)}
    assert reopened.report().inserted_episodes == 16


def test_taking_over_goes_on_where_it_was_broken_off(tmp_path):
    config = two_shards(tmp_path)
    copy = [long_episode(10 + counter) for counter in range(3)]
    shard = open_shard(tmp_path / "shard_0", config=config, claim=RUN, incarnation=2)
    shard.add(copy)
    assert shard.adopt(tmp_path / "shard_1") == 5
    assert counters(shard) == {*range(8), *range(10, 18)}
    assert shard.report().num_duplicates == 0, "nobody sent them twice"


def test_an_empty_shard_takes_over_too_and_an_empty_one_is_taken_over(tmp_path):
    config = two_shards(tmp_path)
    shard = open_shard(tmp_path / "shard_2", config=config, claim=RUN, shard=2, incarnation=2)
    assert shard.adopt(tmp_path / "shard_1") == 8
    empty = open_shard(tmp_path / "shard_3", claim=RUN, shard=3)
    empty.begin()
    empty.close()
    assert shard.adopt(tmp_path / "shard_3") == 0
    assert not (tmp_path / "shard_3").exists()


def test_another_runs_shard_is_not_taken_over(tmp_path):
    two_shards(tmp_path, claim=Claim(8, "new"))
    shard = open_shard(tmp_path / "shard_2", claim=RUN, shard=2)
    with pytest.raises(DataError, match="expected replay of run id 7, got that of run id 8"):
        shard.adopt(tmp_path / "shard_1")
    assert find_segments(tmp_path / "shard_1")


def test_evicted_ids_may_come_again(tmp_path):
    shard = open_shard(tmp_path, config=ReplayConfig(capacity_timesteps=10))
    shard.add([long_episode(0)])
    shard.add([long_episode(1)])
    assert shard.add([long_episode(0)]).num_episodes == 1


@pytest.mark.parametrize(("sampling", "share"), [("episodes", 0.5), ("timesteps", 0.9)])
def test_sampling(tmp_path, sampling, share):
    shard = open_shard(tmp_path, config=ReplayConfig(sampling=sampling))
    shard.add([long_episode(0, 5), long_episode(1, 45)])
    assert abs(np.mean(shard.sample(4000).episode_ids[:, 3] == 1) - share) < 0.03


class EachStart:
    """Stands for a random generator: the range of starts, in order."""

    def __init__(self, low, high):
        self.low, self.high, self.next = low, high, low

    def integers(self, low, high):
        assert (low, high) == (self.low, self.high)
        self.next += 1
        return self.next - 1


@pytest.mark.parametrize(("num_transitions", "context"), [(2, 1), (7, 3), (10, 9), (40, 7)])
def test_each_transition_lies_in_as_many_windows_as_any_other_pitfall_a8(num_transitions, context):
    starts = EachStart(1 - context, num_transitions)
    counts = Counter()
    for _ in range(num_transitions + context - 1):
        start, stop = draw_window(num_transitions, context, starts)
        assert 0 <= start < stop <= num_transitions
        assert stop - start <= context
        counts.update(range(start, stop))
    assert counts == dict.fromkeys(range(num_transitions), context)


@pytest.mark.parametrize(("num_transitions", "context"), [(1, 1), (5, 5), (5, 9)])
def test_episodes_that_fit_are_taken_whole_pitfall_a8(num_transitions, context):
    assert draw_window(num_transitions, context, np.random.default_rng(0)) == (0, num_transitions)


def test_slices_show_the_episodes_own_time_and_their_past_pitfall_a8(tmp_path):
    shard = open_shard(tmp_path, context_length=4)
    episode = replace(long_episode(0, 20), rewards=np.arange(1, 21, dtype=np.float32), terminated=True, truncated=False)
    shard.add([episode])
    batch = shard.sample(500)
    assert batch.max_seqlen == 5
    np.testing.assert_array_equal(batch.observations["observation"][:, 0], batch.time_index)
    np.testing.assert_array_equal(batch.prev_reward, batch.time_index)
    starts = batch.time_index[batch.cu_seqlens[:-1]]
    ends = batch.time_index[batch.cu_seqlens[1:] - 1]
    assert set(starts) == set(range(20))
    assert set(ends) == set(range(1, 21))
    last_transitions = batch.cu_seqlens[1:] - np.arange(1, 501) - 1
    np.testing.assert_array_equal(batch.terminated[last_transitions], ends == 20)
    assert batch.terminated.sum() == (ends == 20).sum()


def test_relabeled_sequences_end_where_their_new_instruction_does(tmp_path):
    spec = goal_spec()
    relabeler = make_relabeler(InstructionRelabelConfig(strategy="all"), spec)
    shard = open_shard(tmp_path, relabeler=relabeler, spec=spec)
    shard.add([long_episode(counter, 30) for counter in range(4)])
    before = find_segments(tmp_path)[0].read_bytes()
    batch = shard.sample(50)
    last = batch.cu_seqlens[1:] - np.arange(1, 51) - 1
    assert batch.terminated[last].all()
    assert batch.terminated.sum() == 50
    assert (batch.reward[last] == 1).all()
    assert batch.reward.sum() == 100
    assert shard.report().num_relabeled == 50
    assert find_segments(tmp_path)[0].read_bytes() == before


def test_a_mixture_of_environments_shares_a_shard(tmp_path):
    shard = open_shard(tmp_path)
    shard.add([long_episode(0, env_name="a"), long_episode(1, env_name="b")])
    assert [episode.env_name for episode in stored_episodes(tmp_path)] == ["a", "b"]


def test_other_schemas_are_refused_by_column(tmp_path):
    shard = open_shard(tmp_path, spec=goal_spec(2))
    with pytest.raises(
        DataError, match=r"add: column 'observations/desired_goal'.*expected int32\[2, 2\], got int32\[3, 2\]"
    ):
        shard.add([long_episode(0, num_goals=3)])
    shard.add([long_episode(1)])
    with pytest.raises(DataError, match="expected none, got bool"):
        shard.add([long_episode(2, has_action_mask=True)])
    shard.close()
    with pytest.raises(DataError, match=r"expected int32\[3, 2\], got int32\[2, 2\]"):
        open_shard(tmp_path, spec=goal_spec(3), incarnation=1)


def test_a_malformed_group_is_refused_whole(tmp_path):
    shard = open_shard(tmp_path)
    group = encode_episodes([long_episode(0), long_episode(1)]).to_pybytes()
    with pytest.raises(DataError, match="add: broken at byte"):
        shard.add(group[:-400])
    assert shard.report().stored_episodes == 0


@pytest.mark.parametrize("room_bytes", [10, 2000])
def test_a_full_disk_is_said_and_the_same_group_fits_once_there_is_room(tmp_path, room_bytes):
    shard = open_shard(tmp_path, config=ReplayConfig(capacity_timesteps=160))
    shard.add([long_episode(0)])
    before, files = shard.report(), find_segments(tmp_path)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (room_bytes, hard))
    try:
        with pytest.raises(DataError, match=r"disk full: cannot append \d+ bytes; nothing of them was stored"):
            shard.add([long_episode(counter, 50) for counter in range(1, 3)])
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    after = shard.report()
    assert after.is_full
    said = {"stored_bytes": 0, "is_full": False, "num_warnings": 0, "warnings": ()}
    assert replace(after, **said) == replace(before, **said)
    assert after.stored_bytes == sum(path.stat().st_size for path in find_segments(tmp_path))
    assert not list(tmp_path.glob("*.tmp"))
    assert find_segments(tmp_path)[:1] == files
    assert shard.add([long_episode(counter, 50) for counter in range(1, 3)]).num_episodes == 2
    assert counters(shard) == {0, 1, 2}


def test_an_older_copy_cannot_write_beside_a_newer_one(tmp_path):
    old = open_shard(tmp_path, incarnation=0)
    old.add([long_episode(0)])
    new = open_shard(tmp_path, incarnation=1)
    new.add([long_episode(1)])
    with pytest.raises(ReplacedError, match="belongs to incarnation 1"):
        old.add([long_episode(2)])
    assert counters(new) == {0, 1}
    assert counters(old) == {0}


def test_an_older_copy_deletes_nothing_that_a_newer_one_uses(tmp_path):
    config = ReplayConfig(capacity_timesteps=160)
    old = open_shard(tmp_path, config=config, incarnation=0)
    for counter in range(16):
        old.add([long_episode(counter)])
    new = open_shard(tmp_path, config=config, incarnation=1)
    before = find_segments(tmp_path)
    for counter in range(16, 20):
        with pytest.raises(ReplacedError):
            old.add([long_episode(counter)])
    assert find_segments(tmp_path) == before
    assert counters(new) == set(range(16))


def test_what_an_older_copy_wrote_too_late_is_not_stored_twice(tmp_path, monkeypatch):
    old = open_shard(tmp_path, incarnation=0)
    old.add([long_episode(0)])
    original = Segment.append

    def claimed_before_the_write(self, *args, **settings):
        monkeypatch.setattr(Segment, "append", original)
        newer = open_shard(tmp_path, incarnation=1)
        written = original(self, *args, **settings)
        # Not acknowledged by the old copy, it comes to the new one.
        assert newer.add([long_episode(1)]).num_episodes == 1
        newer.close()
        return written

    monkeypatch.setattr(Segment, "append", claimed_before_the_write)
    with pytest.raises(ReplacedError):
        old.add([long_episode(1)])
    newest = open_shard(tmp_path, incarnation=2)
    assert newest.report().stored_episodes == 2
    assert newest.report().inserted_episodes == 2
    assert newest.report().evicted_episodes == 0
    assert counters(newest) == {0, 1}


def play(shard, steps, *, first):
    """Interleave adds and samples; returns the samples."""
    batches = []
    for counter in range(first, first + steps):
        shard.add([long_episode(counter, 12), long_episode(10_000 + counter, 12)])
        batches.append(shard.sample(6))
    return batches


@pytest.mark.parametrize("weighting", ["uniform", "rarity_per_step"])
def test_a_resume_is_bit_for_bit(tmp_path, weighting):
    """A run that goes on, and one that is stopped later, reopened and taken back to the mark, draw the same."""
    spec = goal_spec()
    settings = {
        "config": ReplayConfig(capacity_timesteps=400),
        "context_length": 7,
        "spec": spec,
        "seed": 3,
    }
    relabel = InstructionRelabelConfig(strategy="some", weighting=weighting)
    expected = []
    for name, extra_steps in (("whole", 0), ("killed", 25)):
        shard = open_shard(tmp_path / name, relabeler=make_relabeler(relabel, spec), **settings)
        play(shard, 30, first=0)
        mark, state = json.loads(json.dumps([shard.watermark(), shard.state()]))
        if name == "whole":
            expected = play(shard, 30, first=30)
            expected_report = shard.report()
            shard.close()
        else:
            play(shard, extra_steps, first=500)
            shard.close()
            shard = open_shard(tmp_path / name, relabeler=make_relabeler(relabel, spec), **settings)
            shard.truncate(mark)
            shard.load_state(state)
            for found, batch in zip(play(shard, 30, first=30), expected, strict=True):
                assert_equal_batches(found, batch)
            assert shard.report() == expected_report


def test_going_back_to_an_empty_shard(tmp_path):
    shard = open_shard(tmp_path)
    mark = shard.watermark()
    shard.add([long_episode(0)])
    shard.truncate(mark)
    assert shard.report().stored_episodes == 0
    assert shard.report().inserted_transitions == 0
    assert find_segments(tmp_path) == []
    shard.add([long_episode(0)])
    assert counters(shard, 5) == {0}


def test_going_back_within_a_segment(tmp_path):
    shard = open_shard(tmp_path)
    shard.add([long_episode(0), long_episode(1)])
    mark = shard.watermark()
    shard.add([long_episode(2), long_episode(3)])
    assert counters(shard) == {0, 1, 2, 3}
    shard.truncate(mark)
    assert counters(shard) == {0, 1}
    assert shard.add([long_episode(2)]).inserted_transitions == 30
    assert counters(shard) == {0, 1, 2}


class Watcher(Relabeler):
    """Remembers what is stored."""

    watches_storage = True

    def __init__(self):
        self.stored = []

    def observe(self, episode):
        self.stored.append(episode.episode_id.counter)

    def forget(self, episode):
        self.stored.remove(episode.episode_id.counter)

    def relabel(self, episode, rng):
        return episode


def test_a_watching_relabeler_sees_what_comes_and_goes(tmp_path):
    watcher, config = Watcher(), ReplayConfig(capacity_timesteps=160)
    shard = open_shard(tmp_path, relabeler=watcher, config=config)
    for counter in range(40):
        shard.add([long_episode(counter)])
    stored = [episode.episode_id.counter for episode in stored_episodes(tmp_path)]
    assert len(stored) == shard.report().stored_episodes
    assert watcher.stored == stored
    mark = shard.watermark()
    shard.add([long_episode(counter) for counter in range(40, 45)])
    shard.close()
    watcher = Watcher()
    shard = open_shard(tmp_path, relabeler=watcher, config=config)
    shard.truncate(mark)
    assert watcher.stored == stored


def test_equal_seeds_draw_equally_and_others_do_not(tmp_path):
    ids = []
    for name, seed, shard_index in (("a", 0, 0), ("b", 0, 0), ("c", 1, 0), ("d", 0, 1)):
        shard = open_shard(tmp_path / name, seed=seed, shard=shard_index)
        shard.add([long_episode(counter, 3) for counter in range(50)])
        ids.append(shard.sample(20).episode_ids[:, 3].tolist())
    assert ids[0] == ids[1]
    assert ids[0] != ids[2]
    assert ids[0] != ids[3]


def test_using_a_shard_never_loads_torch_or_ray(tmp_path):
    code = f"""
import sys
sys.path.insert(0, {str(Path(__file__).parents[2])!r})
from pathlib import Path
from helpers.episodes import goal_spec, make_episode
from amago_ray.config.relabel import HerRelabelConfig, InstructionRelabelConfig, NoRelabelConfig
from amago_ray.config.replay import ReplayConfig
from amago_ray.relabel import make_relabeler
from amago_ray.replay import ReplayShard
spec = goal_spec(1)
for relabel in (NoRelabelConfig(), InstructionRelabelConfig(), HerRelabelConfig()):
    shard = ReplayShard(
        ReplayConfig(), directory=Path({str(tmp_path)!r}) / relabel.kind, context_length=5,
        relabeler=make_relabeler(relabel, spec), spec=spec,
    )
    shard.add([make_episode(10, num_goals=1)])
    assert shard.sample(3).num_sequences == 3
loaded = [name for name in ("torch", "ray", "gymnasium", "pydantic", "pandas") if name in sys.modules]
assert not loaded, loaded
"""
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


# --- runs -----------------------------------------------------------------------------------------------------------


def test_episodes_of_merged_runs_are_all_kept(tmp_path):
    """Runs of equal seed name their episodes alike but for the run id."""
    shard = open_shard(tmp_path, claim=Claim(2**62, "new"))
    for run in (2**62, 2**62 + 1, 2**63 - 1):
        report = shard.add([long_episode(counter, run=run) for counter in range(8)])
        assert (report.num_episodes, report.num_duplicates) == (8, 0)
    assert shard.report().stored_episodes == 24


def test_overwriting_starts_empty_and_deletes_with_the_first_episodes(tmp_path):
    old = open_shard(tmp_path, claim=Claim(1, "new"))
    old.add([long_episode(counter) for counter in range(8)])
    old.close()
    before = [path.read_bytes() for path in find_segments(tmp_path)]
    shard = open_shard(tmp_path, claim=Claim(2, "overwrite"))
    assert shard.report().stored_episodes == 0
    assert shard.report().inserted_transitions == 0
    assert [path.read_bytes() for path in find_segments(tmp_path)] == before
    shard.add([long_episode(100)])
    assert shard.report().stored_episodes == 1
    assert counters(shard) == {100}
    shard.close()
    again = open_shard(tmp_path, claim=Claim(2, "resume"))
    assert counters(again) == {100}


def test_a_shard_that_is_cleared_is_as_a_new_one(tmp_path):
    shard = open_shard(tmp_path)
    shard.add([long_episode(counter) for counter in range(8)])
    shard.clear()
    assert shard.report().stored_episodes == shard.report().inserted_transitions == 0
    assert find_segments(tmp_path) == []
    shard.add([long_episode(3)])
    assert counters(shard) == {3}
