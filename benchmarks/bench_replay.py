"""Speed of one replay shard: transitions per second added, and drawn + relabeled + sliced + packed.

    python benchmarks/bench_replay.py --sizes 100000 1000000 10000000 --out replay.json
    python benchmarks/bench_replay.py --sizes 200000 --actor
    python benchmarks/bench_replay.py --sizes 10000000 --segment-bytes 200000
    python benchmarks/bench_replay.py --sizes --index 100000 50000000

Episodes look like MazeRunner's (250 steps; observation float32[7], desired_goal int32[3, 2], one achieved int32[2]
per row). Each size runs in a process of its own. Encoding happens in the env runner, so it is timed apart. The floor
printed beside a sample is a plain copy of as many bytes as the batch holds. With --actor, batches come from
a shard actor over Ray, too, `learner.prefetch` of them asked for at a time, as the learner does.
--index measures the index alone, filled as if so many transitions were stored: its memory, and draws from it.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import platform
import subprocess
import tempfile
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

import numpy as np

from amago_ray.config.relabel import InstructionRelabelConfig
from amago_ray.config.replay import ReplayConfig
from amago_ray.data import (
    AchievedGoals,
    ActionSpec,
    EnvSpec,
    Episode,
    EpisodeId,
    GoalRule,
    ObservationSpec,
    PolicyVersion,
    SequenceBatch,
)
from amago_ray.data.arrow_codec import EpisodeHeader, encode_episodes
from amago_ray.relabel import make_relabeler
from amago_ray.replay import ReplayShard
from amago_ray.replay.index import EpisodeTable, StoredEpisode

EPISODES_PER_ADD = 8
SPEC = EnvSpec(
    name="maze",
    observations={
        "desired_goal": ObservationSpec("box", (3, 2), "int32"),
        "observation": ObservationSpec("box", (7,), "float32"),
    },
    action=ActionSpec("discrete", (), (5,)),
    goal_dim=2,
    goal_dtype="int32",
    goal_rule=GoalRule(),
)


@dataclass(frozen=True)
class Settings:
    """What is measured; the same for all sizes."""

    episode_length: int
    context_length: int
    batch_size: int
    num_batches: int
    repeats: int
    strategy: str
    weighting: str
    sampling: str
    segment_bytes: int


@dataclass(frozen=True)
class Result:
    """Rates of one size, medians over repeats; transitions drawn are counted before relabeling cuts them."""

    stored_transitions: int
    stored_mb: float
    encode_transitions_per_s: float
    add_transitions_per_s: float
    drawn_transitions_per_s: float
    packed_transitions_per_s: float
    drawn_spread: float
    copy_floor_transitions_per_s: float
    reopen_s: float
    rss_anon_mb: float
    num_mapped: int
    """Segments mapped after the draws."""
    actor_batches_per_s: float | None = None
    plain_batches_per_s: float | None = None
    """Of the shard in this process, right before."""


def make_episode(rng: np.random.Generator, counter: int, length: int) -> Episode:
    """A walk in an 11 x 11 maze that rarely meets its goals."""
    steps = rng.integers(-1, 2, (length + 1, 2))
    cells = np.abs((steps.cumsum(0) + 5) % 20 - 10).astype(np.int32)
    goals = np.full((length + 1, 3, 2), 11, np.int32)
    return Episode(
        observations={"observation": rng.random((length + 1, 7), np.float32), "desired_goal": goals},
        actions=rng.integers(0, 5, length),
        rewards=np.zeros(length, np.float32),
        terminated=True,
        truncated=False,
        episode_id=EpisodeId(0, 0, 0, counter),
        env_name="maze",
        seed=counter,
        first_policy_version=PolicyVersion(0, 0),
        last_policy_version=PolicyVersion(0, 0),
        achieved_goals=AchievedGoals(cells, np.arange(length + 2, dtype=np.int32)),
    )


def open_shard(directory: Path, settings: Settings, size: int, incarnation: int = 0) -> ReplayShard:
    relabel = InstructionRelabelConfig(strategy=settings.strategy, weighting=settings.weighting)
    return ReplayShard(
        ReplayConfig(capacity_timesteps=2 * size, sampling=settings.sampling, segment_bytes=settings.segment_bytes),
        directory=directory,
        context_length=settings.context_length,
        relabeler=make_relabeler(relabel, SPEC),
        spec=SPEC,
        incarnation=incarnation,
    )


def fill(shard: ReplayShard, size: int, length: int) -> tuple[float, float]:
    """Add `size` transitions; returns seconds of encoding and of adding."""
    rng = np.random.default_rng(0)
    encode_s = add_s = 0.0
    for first in range(0, size // length, EPISODES_PER_ADD):
        episodes = [make_episode(rng, first + index, length) for index in range(EPISODES_PER_ADD)]
        began = time.perf_counter()
        group = encode_episodes(episodes)
        encoded = time.perf_counter()
        shard.add(group)
        encode_s += encoded - began
        add_s += time.perf_counter() - encoded
    return encode_s, add_s


def copy_floor_s(batch: SequenceBatch) -> float:
    """Seconds to copy what a batch holds."""
    columns = [*batch.observations.values(), batch.action, batch.prev_action, batch.reward, batch.prev_reward]
    source = np.empty(sum(column.nbytes for column in columns) + batch.time_index.nbytes, np.uint8)
    source[:] = 1
    target = np.empty_like(source)
    best = np.inf
    for _ in range(20):
        began = time.perf_counter()
        np.copyto(target, source)
        best = min(best, time.perf_counter() - began)
    return float(best)


def measure(size: int, settings: Settings) -> Result:
    """Fill a shard with `size` transitions, reopen it, and draw."""
    with tempfile.TemporaryDirectory() as folder:
        shard = open_shard(Path(folder), settings, size)
        encode_s, add_s = fill(shard, size, settings.episode_length)
        shard.close()
        began = time.perf_counter()
        shard = open_shard(Path(folder), settings, size, incarnation=1)
        reopen_s = time.perf_counter() - began
        for _ in range(settings.num_batches):
            batch = shard.sample(settings.batch_size)
        drawn, packed = [], []
        for _ in range(settings.repeats):
            before = shard.report().sampled_transitions
            began = time.perf_counter()
            for _ in range(settings.num_batches):
                batch = shard.sample(settings.batch_size)
            elapsed = time.perf_counter() - began
            num_drawn = settings.num_batches * settings.batch_size * settings.episode_length
            drawn.append(num_drawn / elapsed)
            packed.append((shard.report().sampled_transitions - before) / elapsed)
        report = shard.report()
        num_mapped = Path("/proc/self/maps").read_text().count(folder)
        shard.close()
        return Result(
            stored_transitions=report.stored_transitions,
            stored_mb=report.stored_bytes / 1e6,
            encode_transitions_per_s=report.stored_transitions / encode_s,
            add_transitions_per_s=report.stored_transitions / add_s,
            drawn_transitions_per_s=float(np.median(drawn)),
            packed_transitions_per_s=float(np.median(packed)),
            drawn_spread=(max(drawn) - min(drawn)) / float(np.median(drawn)),
            copy_floor_transitions_per_s=batch.num_transitions / copy_floor_s(batch),
            reopen_s=reopen_s,
            rss_anon_mb=rss_anon_mb(),
            num_mapped=num_mapped,
        )


@dataclass(frozen=True)
class IndexResult:
    """An index of so many transitions; times are medians over repeats."""

    stored_transitions: int
    num_episodes: int
    bytes_per_episode: float
    draw_episodes_us: float
    draw_timesteps_us: float
    """Of as many positions as a batch has, and where each of these lies."""


def measure_index(size: int, settings: Settings) -> IndexResult:
    """Fill an index as `size` transitions in episodes of `settings.episode_length` would, and draw."""
    table, num_episodes, before = EpisodeTable(), size // settings.episode_length, rss_anon_mb()
    version, layout = PolicyVersion(0, 0), (400, 7500, 9600, 11700, 13000, 14100, 15200)
    for counter in range(num_episodes):
        header = EpisodeHeader(EpisodeId(1, 0, 0, counter), "maze", counter, True, False, version, version)
        offset = 20_000 * (counter % 1600)
        table.append(StoredEpisode(counter // 1600, offset, 20_000, settings.episode_length, header, layout, counter))
    used = (rss_anon_mb() - before) * 1e6
    rng, times = np.random.default_rng(0), []
    for sampling in ("episodes", "timesteps"):
        of_repeat = []
        for _ in range(settings.repeats):
            began = time.perf_counter()
            for _ in range(settings.num_batches):
                for position in table.draw(settings.batch_size, sampling, rng).tolist():
                    table[position]
            of_repeat.append((time.perf_counter() - began) / settings.num_batches * 1e6)
        times.append(float(np.median(of_repeat)))
    return IndexResult(size, num_episodes, used / num_episodes, *times)


class Control:
    """Stands for the control actor, to which a shard reports."""

    def beat_shard(self, beat: object) -> None:
        """Hear it."""


def measure_actor(size: int, settings: Settings) -> tuple[float, float]:
    """Batches per second of a shard in this process, and of a shard actor as this process receives them; medians."""
    # Imported here: the rest needs no Ray.
    import ray

    from amago_ray.config import Config
    from amago_ray.config.env import EnvConfig
    from amago_ray.config.model import ModelConfig
    from amago_ray.replay.layout import shard_directory
    from amago_ray.replay.owner import Claim
    from amago_ray.runtime.processes.replay_shard_actor import ReplayShardActor

    base = Config(env=EnvConfig(id="maze"))
    sequence_model = replace(base.model.sequence_model, context_length=settings.context_length)
    config = replace(
        base,
        replay=ReplayConfig(capacity_timesteps=2 * size, sampling=settings.sampling),
        relabel=InstructionRelabelConfig(strategy=settings.strategy, weighting=settings.weighting),
        model=replace(ModelConfig(), sequence_model=sequence_model),
    )
    with tempfile.TemporaryDirectory() as folder:
        shard = open_shard(shard_directory(Path(folder), 0), settings, size)
        fill(shard, size, settings.episode_length)
        plain = rates(lambda: shard.sample(settings.batch_size), settings)
        shard.close()
        ray.init(address="local", num_cpus=2, include_dashboard=False, log_to_driver=False, logging_level="ERROR")
        control = ray.remote(num_cpus=0)(Control).options(name="control").remote()
        actor = ray.remote(num_cpus=0, concurrency_groups={"aside": 1})(ReplayShardActor).remote(
            config, SPEC, folder, Claim(0, "resume"), 0, 1, "control"
        )
        asked = deque(actor.sample.remote(settings.batch_size) for _ in range(config.learner.prefetch))

        def receive() -> None:
            asked.append(actor.sample.remote(settings.batch_size))
            ray.get(asked.popleft())

        over_ray = rates(receive, settings)
        del control
        ray.shutdown()
        return plain, over_ray


def rates(take: Callable[[], object], settings: Settings) -> float:
    """How often per second a batch can be taken; median over repeats, the first of which is left out."""
    found = []
    for _ in range(settings.repeats + 1):
        began = time.perf_counter()
        for _ in range(settings.num_batches):
            take()
        found.append(settings.num_batches / (time.perf_counter() - began))
    return float(np.median(found[1:]))


def rss_anon_mb() -> float:
    """Anonymous resident memory of this process; mapped segments do not count."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("RssAnon:"):
            return int(line.split()[1]) * 1024 / 1e6
    raise RuntimeError("/proc/self/status: no RssAnon")


def git_commit() -> str:
    command = ["git", "-C", str(Path(__file__).parent), "rev-parse", "--short", "HEAD"]
    return subprocess.run(command, capture_output=True, text=True, check=False).stdout.strip()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--index", type=int, nargs="+", default=[], help="transitions as if stored, of the index alone")
    parser.add_argument("--sizes", type=int, nargs="*", default=[100_000, 1_000_000], help="transitions stored")
    parser.add_argument("--episode-length", type=int, default=250)
    parser.add_argument("--context-length", type=int, default=250)
    parser.add_argument("--batch-size", type=int, default=24)
    parser.add_argument("--num-batches", type=int, default=100, help="batches per repeat")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--strategy", default="some")
    parser.add_argument("--weighting", default="uniform")
    parser.add_argument("--sampling", default="episodes")
    parser.add_argument("--segment-bytes", type=int, default=ReplayConfig.segment_bytes)
    parser.add_argument("--actor", action="store_true", help="measure a shard actor over Ray, too")
    parser.add_argument("--out", type=Path, help="write the results here as JSON")
    arguments = vars(parser.parse_args())
    sizes, out, with_actor = arguments.pop("sizes"), arguments.pop("out"), arguments.pop("actor")
    indexed = arguments.pop("index")
    settings = Settings(**arguments)
    results = []
    print("   stored      MB  encode/s     add/s   drawn/s  packed/s  spread   floor/s  reopen s  RssAnon MB  mapped")
    for size in sizes:
        # A fresh process each: memory is this size's own, and nothing is warm from the last.
        with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
            result = pool.submit(measure, size, settings).result()
            if with_actor:
                plain, over_ray = pool.submit(measure_actor, size, settings).result()
                result = replace(result, plain_batches_per_s=plain, actor_batches_per_s=over_ray)
        results.append(asdict(result))
        print(
            f"{result.stored_transitions:9,} {result.stored_mb:7.0f} {result.encode_transitions_per_s:9,.0f} "
            f"{result.add_transitions_per_s:9,.0f} {result.drawn_transitions_per_s:9,.0f} "
            f"{result.packed_transitions_per_s:9,.0f} {result.drawn_spread:6.0%} "
            f"{result.copy_floor_transitions_per_s:9,.0f} {result.reopen_s:9.2f} {result.rss_anon_mb:11.0f} "
            f"{result.num_mapped:7}"
        )
        if with_actor:
            print(
                f"batches/s of {settings.batch_size} x {settings.episode_length}: "
                f"{result.plain_batches_per_s:.0f} in one process, {result.actor_batches_per_s:.0f} from an actor"
            )
    for size in indexed:
        with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
            index = pool.submit(measure_index, size, settings).result()
        results.append(asdict(index))
        print(
            f"index of {size:,} in {index.num_episodes:,} episodes: {index.bytes_per_episode:.0f} bytes each, "
            f"{settings.batch_size} draws in {index.draw_episodes_us:.0f} us, "
            f"by length {index.draw_timesteps_us:.0f} us"
        )
    if out is not None:
        context = {
            "date": datetime.now(UTC).isoformat(timespec="seconds"),
            "commit": git_commit(),
            "machine": platform.platform(),
            "num_cpus": os.cpu_count(),
            "settings": asdict(settings),
        }
        out.write_text(json.dumps({**context, "results": results}, indent=2) + "\n")


if __name__ == "__main__":
    main()
