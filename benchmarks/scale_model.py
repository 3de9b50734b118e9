"""Predicts a run's throughput and first bottleneck at any size, from one small run, and checks itself against others.

    python benchmarks/scale_model.py --validate 2 4 8 --control control.json --out scale.json

A run of one env runner is watched: what its env runner, replay shard, learner and driver use of the processors, per env
step, transition and update. `bench_control.py --out control.json` tells what the control actor needs per call. From
these figures `measuring/scale.py` predicts; `--validate` runs the same task with more env runners and says how far off
the prediction was. Then it prints a table of sizes for nodes with `--cores` cores each.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import pickle
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from measuring.machine import commit, hardware, now
from measuring.run_usage import Usage, watch_run
from measuring.scale import Figures, Machines, Setup, balance, control_figures, predict

from amago_ray.acting.env_runner import make_env_runner
from amago_ray.config import Config
from amago_ray.config.cluster import ClusterConfig
from amago_ray.config.load import load_config
from amago_ray.data.arrow_codec import encode_episodes
from amago_ray.data.episode import Episode
from amago_ray.envs.make import make_env_batch
from amago_ray.learning.learner import Learner
from amago_ray.replay.make import make_shard
from amago_ray.replay.owner import NO_RUN

SIZES = (1, 3, 10, 30, 100, 300, 1_000, 3_000, 10_000)
_NUM_GROUPS = 40


@dataclass(frozen=True)
class Sizes:
    """What no run has to tell: costs and bytes of single objects of this config."""

    add_s: float
    """Processor seconds in which a shard stores one transition, in groups as in a run."""
    episode_bytes_per_transition: float
    batch_bytes_per_transition: float
    transitions_per_episode: float
    snapshot_bytes: float
    gradient_bytes: float


def measure_sizes(config: Config) -> Sizes:
    """Play, store and draw some episodes in this process, and make a learner."""
    runner = make_env_runner(config, run_id=0, runner=0, incarnation=0)
    group_size = config.rollout.episodes_per_add
    episodes: list[Episode] = []
    while len(episodes) < _NUM_GROUPS * group_size:
        runner.step()
        episodes.extend(runner.take_episodes())
    episodes = episodes[: _NUM_GROUPS * group_size]
    groups = [encode_episodes(episodes[first : first + group_size]) for first in range(0, len(episodes), group_size)]
    num_transitions = sum(len(episode) for episode in episodes)
    spec = make_env_batch(config.envs, 1).spec
    with tempfile.TemporaryDirectory() as folder:
        shard = make_shard(config, spec, Path(folder), NO_RUN, 0)
        shard.begin()
        began = time.process_time()
        for group in groups:
            shard.add(group)
        add_s = (time.process_time() - began) / num_transitions
        batch = shard.sample(config.learner.batch_size)
        shard.close()
    batch_bytes = len(pickle.dumps(batch, protocol=5))
    learner = Learner(config, spec)
    return Sizes(
        add_s=add_s,
        episode_bytes_per_transition=sum(map(len, groups)) / num_transitions,
        batch_bytes_per_transition=batch_bytes / batch.num_transitions,
        transitions_per_episode=num_transitions / len(episodes),
        snapshot_bytes=sum(array.nbytes for array in learner.snapshot().arrays.values()),
        gradient_bytes=4 * sum(each.numel() for each in learner.agent.trained_parameters().values()),
    )


def figures_of(usage: Usage, sizes: Sizes, control: Mapping[str, float], learner_threads: float) -> Figures:
    """What the model needs, from a run's usage, single objects and the control actor's calls."""
    counts, used = usage.counts, usage.processor_s
    sample_s = max(used.get("replay shards", 0.0) - sizes.add_s * counts["inserted"], 0.0) / counts["trained"]
    update_s = used["learners"] / counts["learner_steps"]
    return Figures(
        acting_s=used["env runners"] / counts["env_steps"],
        add_s=sizes.add_s,
        sample_s=sample_s,
        update_s=update_s,
        update_wall_s=update_s / learner_threads,
        transitions_per_update=counts["trained"] / counts["learner_steps"],
        snapshot_bytes=sizes.snapshot_bytes,
        batch_bytes_per_transition=sizes.batch_bytes_per_transition,
        episode_bytes_per_transition=sizes.episode_bytes_per_transition,
        gradient_bytes=sizes.gradient_bytes,
        driver_s=used["Ray and driver"] / usage.elapsed_s,
        **control,
    )


def table(figures: Figures, setup: Setup, cores: float, network_bytes_per_s: float) -> list[dict[str, Any]]:
    """For each size, shards and learners that balance its env runners, on as many nodes as they need."""
    rows: list[dict[str, Any]] = []
    for num_runners in SIZES:
        machines = Machines(1, cores, network_bytes_per_s, network_bytes_per_s)
        sized = balance(figures, replace(setup, num_runners=num_runners), machines)
        learner_cores = figures.update_s / figures.update_wall_s
        needed = sized.num_runners + sized.num_shards + sized.num_learners * learner_cores + 1
        machines = replace(machines, num_nodes=math.ceil(needed / cores))
        if num_runners > ClusterConfig.relays_above:
            sized = replace(sized, num_relays=machines.num_nodes)
        prediction = predict(figures, sized, machines)
        rows.append(
            {
                "runners": num_runners,
                "shards": sized.num_shards,
                "learners": sized.num_learners,
                "nodes": machines.num_nodes,
                **asdict(prediction),
            }
        )
    return rows


def validate(
    figures: Figures, setup: Setup, sizes: Sequence[int], arguments: argparse.Namespace
) -> list[dict[str, Any]]:
    """Predictions for this machine beside runs of it."""
    rows: list[dict[str, Any]] = []
    machines = Machines(1, float(os.cpu_count() or 1))
    for num_runners in sizes:
        prediction = predict(figures, replace(setup, num_runners=num_runners), machines)
        usage = _watch(arguments, num_runners)
        measured = usage.env_steps_per_s
        off_by = prediction.env_steps_per_s / measured - 1
        rows.append(
            {"runners": num_runners, "measured": measured, "off_by": off_by, "usage": asdict(usage)}
            | asdict(prediction)
        )
        print(
            f"{num_runners:3} env runners: predicted {prediction.env_steps_per_s:,.0f} env steps/s, measured "
            f"{measured:,.0f} ({off_by:+.0%}); {prediction.bottleneck} first; others took "
            f"{usage.others_s / usage.elapsed_s:.2f} processors",
            flush=True,
        )
    return rows


def main() -> None:
    """Measure, validate, print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("overrides", nargs="*", metavar="section.key=value", help="settings to change")
    parser.add_argument("--config", default="quickstart")
    parser.add_argument("--control", type=Path, required=True, help="what bench_control.py wrote")
    parser.add_argument("--validate", type=int, nargs="*", default=[], help="env runners of runs to compare with")
    parser.add_argument("--cores", type=float, default=32, help="of each node of the table")
    parser.add_argument("--gigabits-per-s", type=float, default=10, help="of each node's network")
    parser.add_argument("--warm-up-s", type=float, default=10)
    parser.add_argument("--window-s", type=float, default=30)
    parser.add_argument("--out", type=Path, help="write the result as JSON")
    arguments = parser.parse_args()

    config = load_config(arguments.config, arguments.overrides)
    benched = json.loads(arguments.control.read_text())
    control = control_figures(benched["rows"], benched["arguments"]["seconds"])
    sizes = measure_sizes(config)
    usage = _watch(arguments, config.rollout.num_env_runners)
    threads = config.learner.num_threads or max(int(config.learner.num_cpus_per_learner), 1)
    figures = figures_of(usage, sizes, control, threads)
    for name, value in asdict(figures).items():
        print(f"{name:30} {value:.3g}")
    setup = Setup(
        samples_per_insert=config.replay.samples_per_insert or 1.0,
        broadcast_interval=config.learner.broadcast_interval,
        episodes_per_add=config.rollout.episodes_per_add,
        transitions_per_episode=sizes.transitions_per_episode,
        batches_per_reserve=config.learner.prefetch,
    )
    compared = validate(figures, setup, arguments.validate, arguments)
    rows = table(figures, setup, arguments.cores, arguments.gigabits_per_s * 1e9 / 8)
    print("  runners  shards  learners  nodes  env steps/s  updates/s  first bottleneck")
    for row in rows:
        print(
            f"{row['runners']:9,} {row['shards']:7,} {row['learners']:9,} {row['nodes']:6,} "
            f"{row['env_steps_per_s']:12,.0f} {row['updates_per_s']:10,.1f}  {row['bottleneck']}"
        )
    if arguments.out:
        about = {"time": now(), "commit": commit(Path(__file__).parents[1]), **hardware()}
        settings = {"config": arguments.config, "overrides": arguments.overrides}
        results = {"usage": asdict(usage), "figures": asdict(figures), "validation": compared, "table": rows}
        arguments.out.write_text(json.dumps({**about, **settings, **results}, indent=1) + "\n")


def _watch(arguments: argparse.Namespace, num_runners: int) -> Usage:
    return watch_run(
        arguments.config,
        [*arguments.overrides, f"rollout.num_env_runners={num_runners}"],
        warm_up_s=arguments.warm_up_s,
        window_s=arguments.window_s,
        timeout_s=120 + arguments.warm_up_s + arguments.window_s,
    )


if __name__ == "__main__":
    main()
