"""Environment-only speed of the built-in environments: steps/s and resets/s of their kernels, in one process."""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

from amago_ray.config.env import EnvConfig
from amago_ray.envs import make_env_batch

CASES = {
    "MazeRunner 7x7": EnvConfig(id="amago_ray/MazeRunner-v0", kwargs={"size": 7, "num_goals": 1, "episode_length": 50}),
    "MazeRunner 11x11": EnvConfig(id="amago_ray/MazeRunner-v0"),
    "MazeRunner 15x15": EnvConfig(id="amago_ray/MazeRunner-v0", kwargs={"size": 15, "episode_length": 400}),
    "DarkKeyDoor 9x9": EnvConfig(id="amago_ray/DarkKeyDoor-v0"),
    "TMaze 20": EnvConfig(id="amago_ray/TMaze-v0"),
    "HiddenVelocityPendulum": EnvConfig(id="amago_ray/HiddenVelocityPendulum-v0"),
    "CartPole-v1 (wrapped)": EnvConfig(id="CartPole-v1"),
}


def seconds_per_call(function: Callable[[int], object], budget_s: float, repetitions: int = 5) -> list[float]:
    """Seconds per call, once for each repetition; all together take about `budget_s`."""
    calls = 1
    while True:
        began = time.perf_counter()
        for call in range(calls):
            function(call)
        spent = time.perf_counter() - began
        if spent > budget_s / repetitions / 4:
            break
        calls *= 2
    calls = max(1, round(calls * budget_s / repetitions / spent))
    times = []
    for _ in range(repetitions):
        began = time.perf_counter()
        for call in range(calls):
            function(call)
        times.append((time.perf_counter() - began) / calls)
    return times


def measure(config: EnvConfig, num_envs: int, budget_s: float) -> dict[str, float]:
    """Medians over repetitions: a step of all environments, a reset of one, and a step with resets as they fall."""
    batch = make_env_batch([config], num_envs)
    rng = np.random.default_rng(0)
    spec = batch.spec.action
    shape = (64, num_envs, *spec.shape)
    if spec.kind == "box":
        actions: np.ndarray = rng.uniform(-1, 1, shape).astype(np.float32)
    else:
        actions = rng.integers(spec.num_categories[0], size=shape)
    everything = np.arange(num_envs)
    batch.reset(everything, everything)
    resets = 0

    def play(call: int) -> None:
        nonlocal resets
        columns = batch.step(actions[call % 64])
        ended = columns.terminated | columns.truncated
        if ended.any():
            indices = np.flatnonzero(ended)
            resets += len(indices)
            batch.reset(indices, indices + resets)

    def reset_one(call: int) -> None:
        batch.reset(everything[:1], np.asarray([call]))

    def reset_all(call: int) -> None:
        batch.reset(everything, everything + call * num_envs)

    play_s, one_s, all_s = (seconds_per_call(function, budget_s / 3) for function in (play, reset_one, reset_all))
    batch.close()
    return {
        "num_envs": num_envs,
        "env_steps_per_s": num_envs / statistics.median(play_s),
        "batch_step_us": statistics.median(play_s) * 1e6,
        "batch_step_us_best": min(play_s) * 1e6,
        "reset_one_us": statistics.median(one_s) * 1e6,
        "reset_in_batch_us": statistics.median(all_s) / num_envs * 1e6,
        "resets_per_s": num_envs / statistics.median(all_s),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--num-envs", type=int, default=64, help="environments stepped together")
    parser.add_argument("--seconds", type=float, default=3.0, help="time for each environment")
    parser.add_argument("--only", default="", help="measure environments whose name contains this")
    parser.add_argument("--out", type=Path, help="write the figures to this JSON file")
    arguments = parser.parse_args()
    results = {}
    print(f"{'environment':<26}{'env steps/s':>14}{'step of all':>14}{'reset of one':>14}{'reset in batch':>16}")
    for name, config in CASES.items():
        if arguments.only in name:
            row = results[name] = measure(config, arguments.num_envs, arguments.seconds)
            print(
                f"{name:<26}{row['env_steps_per_s']:>14,.0f}{row['batch_step_us']:>11.1f} us"
                f"{row['reset_one_us']:>11.1f} us{row['reset_in_batch_us']:>13.1f} us"
            )
    if arguments.out:
        machine = {"machine": platform.machine(), "python": platform.python_version(), "numpy": np.__version__}
        arguments.out.write_text(json.dumps({"host": machine, "results": results}, indent=2) + "\n")


if __name__ == "__main__":
    main()
