"""Env steps per second of acting, end to end: policy, environments, episodes built and encoded for replay.

One process per runner, one thread each, as in a run. MazeRunner 11x11, 3 goals, 250 steps; Transformer 128 wide, 3
layers, 8 heads, context 250 unless told otherwise. Measured after 300 steps, when the caches are as full as in a long
run.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import statistics
import time
from pathlib import Path
from typing import Any

OVERRIDES = ["exploration.epsilon_start=0.05", "exploration.episode_end_epsilon_start=0.05"]


def act(arguments: argparse.Namespace, runner: int, barrier: Any, results: Any) -> None:
    """Run one env runner for the measured time and report its rates."""
    import torch

    torch.set_num_threads(1)
    from amago_ray.acting.env_runner import make_env_runner
    from amago_ray.config.load import load_config
    from amago_ray.data.arrow_codec import encode_episodes

    config = load_config(
        arguments.config,
        [
            *OVERRIDES,
            f"rollout.num_envs_per_env_runner={arguments.num_envs}",
            f"model.sequence_model.d_model={arguments.width}",
            f"model.sequence_model.num_layers={arguments.layers}",
        ],
    )
    env_runner = make_env_runner(config, runner=runner, incarnation=0)
    # Until every environment is in its second episode or past 300 steps: the cache is full.
    for _ in range(300):
        env_runner.step()
    barrier.wait()
    rates = []
    for _ in range(arguments.repeats):
        before, began = env_runner.env_steps, time.perf_counter()
        policy_before, env_before = env_runner.policy_time_s, env_runner.env_time_s
        while time.perf_counter() - began < arguments.seconds:
            finished = env_runner.step()
            if finished:
                encode_episodes([done.episode for done in finished])
        elapsed = time.perf_counter() - began
        rates.append(
            (
                (env_runner.env_steps - before) / elapsed,
                (env_runner.policy_time_s - policy_before) / elapsed,
                (env_runner.env_time_s - env_before) / elapsed,
            )
        )
    results.put(rates)


def main() -> None:
    """Measure each number of runners and print a table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--config", default="maze_runner")
    parser.add_argument("--runners", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--num-envs", type=int, default=24)
    parser.add_argument("--width", type=int, default=128)
    parser.add_argument("--layers", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=4.0)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--out", type=Path, help="write the result as JSON")
    arguments = parser.parse_args()

    context = multiprocessing.get_context("spawn")
    rows = []
    for num_runners in arguments.runners:
        barrier, results = context.Barrier(num_runners), context.Queue()
        processes = [
            context.Process(target=act, args=(arguments, runner, barrier, results)) for runner in range(num_runners)
        ]
        for process in processes:
            process.start()
        rates = [results.get() for _ in processes]
        for process in processes:
            process.join()
        totals = [sum(repeat[0] for repeat in repeats) for repeats in zip(*rates, strict=True)]
        policy = statistics.mean(repeat[1] for runner in rates for repeat in runner)
        env = statistics.mean(repeat[2] for runner in rates for repeat in runner)
        rows.append(
            {
                "runners": num_runners,
                "num_envs": arguments.num_envs,
                "env_steps_per_s": statistics.median(totals),
                "min": min(totals),
                "max": max(totals),
                "policy_share": policy,
                "environment_share": env,
            }
        )
        print(
            "  ".join(
                f"{name} {value:,.2f}" if isinstance(value, float) else f"{name} {value}"
                for name, value in rows[-1].items()
            )
        )
    if arguments.out:
        arguments.out.write_text(json.dumps({"arguments": {**vars(arguments), "out": None}, "rows": rows}, indent=1))


if __name__ == "__main__":
    main()
