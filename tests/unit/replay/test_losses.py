"""What others do to a shard's files: every episode that was accepted is stored, evicted, or a loss with a name."""

import os
from pathlib import Path

import numpy as np
import pytest
from helpers.episodes import make_episode, stored_episodes

from amago_ray.config.replay import ReplayConfig
from amago_ray.data.arrow_codec import encode_episodes
from amago_ray.errors import DataError
from amago_ray.relabel import NoRelabeler
from amago_ray.replay import ReplayShard
from amago_ray.replay.layout import find_segments


def episode(counter):
    return make_episode(1 + counter % 7, counter=counter, grid=1000)


def open_shard(directory, incarnation=0, capacity=10**6, **settings):
    """Sixteen segments at most where the capacity is in use, of at least one group each."""
    config = ReplayConfig(capacity_timesteps=capacity, **settings)
    return ReplayShard(
        config, directory=directory, context_length=100, relabeler=NoRelabeler(), incarnation=incarnation
    )


def balance(shard, accepted):
    """Sees that the books close; `accepted` are the episodes whose adds were acknowledged, each once."""
    report = shard.report()
    for unit, number in (("episodes", len(accepted)), ("transitions", sum(len(episode(each)) for each in accepted))):
        stored, evicted, deleted, damaged = (
            getattr(report, f"{where}_{unit}") for where in ("stored", "evicted", "deleted", "damaged")
        )
        assert min(stored, evicted, deleted, damaged) >= 0
        assert stored + evicted + deleted + damaged == getattr(report, f"inserted_{unit}") == number


def draw(shard, count=30):
    """Draws and compares each episode with what was added; returns which came."""
    batch = shard.sample(count)
    for index, (start, stop) in enumerate(zip(batch.cu_seqlens[:-1], batch.cu_seqlens[1:], strict=True)):
        expected = episode(int(batch.episode_ids[index, 3]))
        for name, leaf in expected.observations.items():
            np.testing.assert_array_equal(batch.observations[name][start:stop], leaf)
        np.testing.assert_array_equal(batch.reward[start - index : stop - index - 1], expected.rewards)
    return set(batch.episode_ids[:, 3].tolist())


def flip(path: Path, position: float, bit: int = 4) -> None:
    """Flip a bit at this share of a file."""
    with path.open("r+b") as file:
        file.seek(int(position * path.stat().st_size))
        byte = file.read(1)
        file.seek(-1, os.SEEK_CUR)
        file.write(bytes([byte[0] ^ (1 << bit)]))


@pytest.mark.parametrize("is_running", [True, False])
@pytest.mark.parametrize("harm", ["deleted", "cut", "emptied", "flipped", "header"])
def test_what_is_lost_is_counted_by_its_cause_and_said_in_a_line(tmp_path, harm, is_running):
    shard = open_shard(tmp_path, capacity=480)
    accepted = list(range(40))
    for first in range(0, 40, 4):
        shard.add([episode(counter) for counter in accepted[first : first + 4]])
    assert draw(shard)
    path = find_segments(tmp_path)[1]
    if not is_running:
        shard.close()
    if harm == "deleted":
        path.unlink()
    elif harm == "flipped":
        flip(path, 0.9)
    elif harm == "header":
        flip(path, 0.1)
    else:
        os.truncate(path, 0 if harm == "emptied" else path.stat().st_size - 10)
    if is_running:
        draw(shard, 500)
        balance(shard, accepted)
        # What is mapped, and what nobody reads, is missed at the next opening.
        shard.close()
    shard = open_shard(tmp_path, 1, capacity=480)
    draw(shard)
    balance(shard, accepted)
    report = shard.report()
    cause = "deleted" if harm == "deleted" else "damaged"
    lost = getattr(report, f"{cause}_episodes")
    assert report.deleted_episodes + report.damaged_episodes == lost > 0
    if not is_running:
        transitions = getattr(report, f"{cause}_transitions")
        (line,) = report.warnings
        assert line == (f"{tmp_path}: segment 1 is {cause}: {lost} episodes with {transitions} transitions are lost")
    shard.add([episode(40)])
    shard.close()
    shard = open_shard(tmp_path, 2, capacity=480)
    balance(shard, [*accepted, 40])
    assert shard.report().num_warnings == 0


def test_a_newest_segment_that_is_deleted_takes_no_more_episodes(tmp_path):
    shard = open_shard(tmp_path)
    shard.add([episode(0)])
    find_segments(tmp_path)[0].unlink()
    shard.add([episode(1)])
    balance(shard, [0, 1])
    assert draw(shard) == {1}
    assert [each.episode_id.counter for each in stored_episodes(tmp_path)] == [1]
    assert shard.add([episode(0)]).num_episodes == 1


def test_a_shard_that_lost_all_says_so_and_takes_new_episodes(tmp_path):
    shard = open_shard(tmp_path)
    shard.add([episode(0)])
    os.truncate(find_segments(tmp_path)[0], 0)
    with pytest.raises(DataError, match="expected stored episodes, got none"):
        shard.sample(1)
    assert shard.report().stored_transitions == 0
    shard.add([episode(1)])
    assert draw(shard) == {1}
    balance(shard, [0, 1])


def test_what_no_one_acknowledged_before_a_kill_counts_once(tmp_path):
    """Killed between the data and the inventory: found again, and a duplicate when it is sent again."""
    shard = open_shard(tmp_path)
    shard.add([episode(0)])
    inventory = (tmp_path / "inventory.bin").read_bytes()
    shard.add([episode(1)])
    (tmp_path / "inventory.bin").write_bytes(inventory)
    shard = open_shard(tmp_path, 1)
    balance(shard, [0, 1])
    assert shard.add([episode(1)]).num_duplicates == 1
    balance(shard, [0, 1])


@pytest.mark.parametrize("harm", ["missing", "header", "row"])
def test_without_its_inventory_a_directory_counts_what_it_holds(tmp_path, harm):
    """As directories of earlier versions do."""
    shard = open_shard(tmp_path, capacity=160)
    for counter in range(100):
        shard.add([episode(counter)])
    before = shard.report()
    shard.close()
    if harm == "missing":
        (tmp_path / "inventory.bin").unlink()
    else:
        flip(tmp_path / "inventory.bin", 0.0 if harm == "header" else 0.999)
    report = open_shard(tmp_path, 1, capacity=160).report()
    assert report.stored_episodes == before.stored_episodes
    assert report.evicted_transitions == before.evicted_transitions
    assert report.inserted_episodes == 100
    assert (report.deleted_episodes, report.damaged_episodes) == (0, 0)


def test_a_segment_of_a_later_version_is_refused_in_one_line_and_left_as_it_is(tmp_path):
    shard = open_shard(tmp_path)
    shard.add([episode(0)])
    shard.close()
    (path,) = find_segments(tmp_path)
    content = path.read_bytes()
    # As an episode's group of a later version, without a checksum of the header.
    later = content.replace(b'"version": 3', b'"version": 9').replace(
        b"amago_ray.segment_crc32", b"amago_ray.segment_crc99"
    )
    path.write_bytes(later)
    with pytest.raises(DataError, match="expected episodes of schema version 3, got version 9") as error:
        open_shard(tmp_path, 1)
    assert "\n" not in str(error.value)
    assert path.read_bytes() == later


OPERATIONS = ["add"] * 8 + ["again", "draw", "draw", "reopen", "kill", "delete", "cut", "flip", "header"]


@pytest.mark.parametrize("seed", range(20))
def test_whatever_happens_the_books_close(tmp_path, seed):
    """accepted = stored + evicted + deleted + damaged, in episodes and transitions, over restarts."""
    rng = np.random.default_rng(seed)
    incarnation, counter, accepted = 0, 0, []
    shard = open_shard(tmp_path, capacity=120)
    for operation in rng.choice(OPERATIONS, 40):
        number = int(rng.integers(2**16))
        if operation == "add":
            group = list(range(counter, counter + 1 + number % 5))
            counter += len(group)
            assert shard.add(encode_episodes([episode(each) for each in group])).num_episodes == len(group)
            accepted += group
        elif operation == "again" and accepted:
            again = accepted[-1 - number % min(len(accepted), 3)]
            if shard.add([episode(again)]).num_episodes:
                # Evicted or lost meanwhile: accepted once more.
                accepted.append(again)
        elif operation == "draw":
            if shard.report().stored_episodes:
                try:
                    draw(shard, 5)
                except DataError:
                    assert shard.report().stored_episodes == 0
        elif operation in ("reopen", "kill"):
            if operation == "reopen":
                shard.close()
            incarnation += 1
            shard = open_shard(tmp_path, incarnation, capacity=120)
        elif operation in ("delete", "cut", "flip", "header") and (segments := find_segments(tmp_path)):
            path = segments[number % len(segments)]
            if operation == "delete":
                path.unlink()
            elif operation == "cut":
                os.truncate(path, int(path.stat().st_size * rng.random()))
            elif path.stat().st_size:
                flip(path, rng.random() ** (4 if operation == "header" else 1), number % 8)
        balance(shard, accepted)
    shard.close()
    shard = open_shard(tmp_path, incarnation + 1, capacity=120)
    balance(shard, accepted)
    if shard.report().stored_episodes:
        draw(shard, 200)
        balance(shard, accepted)
