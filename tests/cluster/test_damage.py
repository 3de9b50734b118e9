"""Files of a run are damaged between two sessions: the next one goes on with what is sound, and names what is lost."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pytest
from helpers.deadly_parts import DeadlyRun
from helpers.node_cluster import NodeCluster
from helpers.stored import stored_episodes

from amago_ray.replay.layout import find_segments
from amago_ray.replay.segment import Segment

from .conftest import Fault, assert_nothing_is_left

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(300)]

SEGMENT_BYTES = 20_000


@pytest.fixture(scope="module")
def run(cluster: NodeCluster, tmp_path_factory: pytest.TempPathFactory) -> Iterator[DeadlyRun]:
    """A run that has ended, with several checkpoints, and many segments of one shard."""
    run = DeadlyRun(
        tmp_path_factory.mktemp("damage"), cluster, f"replay.segment_bytes={SEGMENT_BYTES}", "replay.num_shards=1"
    )
    run.start()
    try:
        run.wait_until_trained()
        run.wait_until(lambda: len(segments(run)) > 10 and len(list((run.path / "checkpoints").glob("step_*"))) > 1)
        run.stop()
        yield run
    finally:
        run.end()


def segments(run: DeadlyRun) -> list[Path]:
    return find_segments(run.replay / "shard_0")


def num_episodes(path: Path) -> int:
    return sum(1 for _ in Segment.open(path).scan())


def flip(path: Path, offset: int) -> None:
    """Change one byte."""
    content = bytearray(path.read_bytes())
    content[offset] ^= 0xFF
    path.write_bytes(content)


def resume(run: DeadlyRun, fault: Fault, what: str) -> str:
    """Go on for a while, and end; returns what was printed."""
    before = len(run.output)
    with fault(f"{what}, between two sessions: from the start until it goes on"):
        run.start("--resume")
        run.goes_on()
    run.stop()
    return run.output[before:]


def refused(run: DeadlyRun) -> str:
    """A session that does not begin; returns the line that it printed."""
    before = len(run.output)
    run.start("--resume")
    assert run.process.wait(timeout=120) != 0
    printed = run.output[before:].strip()
    assert "Traceback" not in printed, printed
    assert printed.count("error:") == 1, printed
    return printed


def test_an_episode(run: DeadlyRun, fault: Fault) -> None:
    """The others of its segment are there."""
    segment = Segment.open(segments(run)[0])
    first = next(segment.scan())
    before = stored_episodes(run.replay)
    flip(segment.path, first.offset + first.message.size - 50)
    damaged = run.last["replay/damaged_episodes"]
    printed = resume(run, fault, "flipped bytes in an episode")
    assert "segment 0 is damaged: 1 episodes with 40 transitions are lost" in printed
    assert run.last["replay/damaged_episodes"] == damaged + 1
    assert set(before) - set(stored_episodes(run.replay)) == {first.header.episode_id}


def test_the_header_of_a_segment(run: DeadlyRun, fault: Fault) -> None:
    """All of its episodes are lost, and counted."""
    path = segments(run)[1]
    lost = num_episodes(path)
    damaged = run.last["replay/damaged_episodes"]
    flip(path, 100)
    printed = resume(run, fault, "flipped bytes in a segment's header")
    assert f"segment 1 is damaged: {lost} episodes" in printed
    assert run.last["replay/damaged_episodes"] == damaged + lost


def test_a_segment_that_is_cut_short(run: DeadlyRun, fault: Fault) -> None:
    path = segments(run)[2]
    lost = num_episodes(path)
    damaged = run.last["replay/damaged_episodes"]
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    lost -= num_episodes(path)
    assert lost
    resume(run, fault, "a segment's end, cut off")
    assert run.last["replay/damaged_episodes"] == damaged + lost


def test_a_segment_that_is_deleted(run: DeadlyRun, fault: Fault) -> None:
    path = segments(run)[3]
    lost = num_episodes(path)
    deleted = run.last.get("replay/deleted_episodes", 0)
    path.unlink()
    printed = resume(run, fault, "a segment, deleted")
    assert f"segment {int(path.name.split('_')[1])} is deleted: {lost} episodes" in printed
    assert run.last["replay/deleted_episodes"] == deleted + lost


def test_the_newest_checkpoint(run: DeadlyRun, fault: Fault) -> None:
    """The one before it is taken."""
    checkpoints = run.path / "checkpoints"
    newest = checkpoints / (checkpoints / "latest").read_text()
    flip(newest / "training_state.pt", 100)
    printed = resume(run, fault, "flipped bytes in the newest checkpoint")
    assert f"skipping a broken checkpoint: {newest}" in printed


def test_the_pointer_to_the_newest_checkpoint(run: DeadlyRun, fault: Fault) -> None:
    """It is found all the same."""
    saved = run.saved
    (run.path / "checkpoints" / "latest").write_text("step_nowhere\0")
    resume(run, fault, "a broken pointer to the newest checkpoint")
    assert run.saved["learner_steps"] > saved["learner_steps"]
    counts = [report["learner_steps"] for report in run.reports]
    assert counts == sorted(counts)


def test_the_owner_of_a_shard(run: DeadlyRun, fault: Fault) -> None:
    """Nobody guesses whose it is; put back, the run goes on."""
    path = run.replay / "shard_0" / "owner.json"
    content = path.read_bytes()
    flip(path, 0)
    assert str(path) in refused(run)
    path.write_bytes(content)
    resume(run, fault, "flipped bytes in owner.json, put back after a refusal")


def test_episodes_of_a_later_version(run: DeadlyRun, fault: Fault) -> None:
    """Nobody guesses what they mean, and they are left alone; put back, the run goes on."""
    path = segments(run)[-1]
    content = path.read_bytes()
    later = of_a_later_version(content)
    path.write_bytes(later)
    assert "schema version" in refused(run)
    assert path.read_bytes() == later
    path.write_bytes(content)
    resume(run, fault, "a segment of a later version, put back after a refusal")


def of_a_later_version(content: bytes) -> bytes:
    """A segment as another program would have written it."""
    source = pa.BufferReader(content)
    schema = pa.ipc.open_stream(source).schema
    (name, fields), *_ = [(name, value) for name, value in schema.metadata.items() if b'"version"' in value]
    # Without a checksum of the header, as in earlier versions.
    kept = {each: value for each, value in schema.metadata.items() if b"crc" not in each}
    metadata = {**kept, name: json.dumps({**json.loads(fields), "version": 99}).encode()}
    return schema.with_metadata(metadata).serialize().to_pybytes() + content[source.tell() :]


def test_nothing_is_left(run: DeadlyRun, cluster: NodeCluster) -> None:
    """Last."""
    assert_nothing_is_left(cluster, run)
