"""Env steps per second of acting, end to end: policy, environments, finished episodes encoded and added to replay.

    python benchmarks/bench_acting.py --runners 1 2 --num-envs 24

One process per runner, one thread each, as in a run. MazeRunner 11x11, 3 goals, 250 steps; Transformer 128 wide, 3
layers, 8 heads, context 250 unless told otherwise. Each runner adds its episodes to a replay shard of its own, in its
own process and so at its own cost. A repetition consists of whole episodes, after one that fills the caches.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import statistics
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from multiprocessing.connection import Connection
from multiprocessing.synchronize import Barrier
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING

from measuring.floors import Ceilings, NetworkSize

if TYPE_CHECKING:
    from amago_ray.acting.env_runner import EnvRunner
    from amago_ray.config import Config

OVERRIDES = ("exploration.epsilon_start=0.05", "exploration.episode_end_epsilon_start=0.05")


@dataclass(frozen=True)
class Rate:
    """What one runner, or all together, did in one repetition."""

    env_steps_per_s: float
    policy_share: float
    environment_share: float


class Acting:
    """One env runner with a replay shard, its caches as full as in a long run.

    Raises:
        ConfigError: the config does not fit.
    """

    def __init__(self, config: Config, folder: Path, runner: int = 0) -> None:
        # One thread, before anything runs in parallel.
        import torch

        torch.set_num_threads(1)
        from amago_ray.acting.env_runner import make_env_runner
        from amago_ray.envs.make import make_env_batch
        from amago_ray.replay.make import make_shard
        from amago_ray.replay.owner import NO_RUN

        spec = make_env_batch(config.envs, 1).spec
        self.episode_length = spec.horizon or config.model.sequence_model.context_length
        self.runner: EnvRunner = make_env_runner(config, run_id=0, runner=runner, incarnation=0)
        self._shard = make_shard(config, spec, folder, NO_RUN, runner)
        self.play_episodes()

    def play_episodes(self) -> None:
        """As many steps as an episode can have, of all environments."""
        from amago_ray.data.arrow_codec import encode_episodes

        for _ in range(self.episode_length):
            if self.runner.step():
                self._shard.add(encode_episodes(self.runner.take_episodes()))

    def measure(self, seconds: float) -> Rate:
        """Whole episodes for at least so long."""
        runner = self.runner
        steps, policy_s, env_s = runner.env_steps, runner.policy_time_s, runner.env_time_s
        began = time.perf_counter()
        elapsed = 0.0
        while elapsed < seconds:
            self.play_episodes()
            elapsed = time.perf_counter() - began
        return Rate(
            (runner.env_steps - steps) / elapsed,
            (runner.policy_time_s - policy_s) / elapsed,
            (runner.env_time_s - env_s) / elapsed,
        )


class Runners:
    """Several env runners side by side, each in a process of its own; measured together, whenever asked."""

    def __init__(self, config: str, overrides: Sequence[str], *, num_runners: int, num_envs: int) -> None:
        context = multiprocessing.get_context("spawn")
        barrier = context.Barrier(num_runners)
        self._connections: list[Connection] = []
        self._processes = []
        settings = [*OVERRIDES, *overrides, f"rollout.num_envs_per_env_runner={num_envs}"]
        for runner in range(num_runners):
            ours, its = context.Pipe()
            process = context.Process(target=_act, args=(config, settings, runner, barrier, its), daemon=True)
            process.start()
            its.close()
            self._connections.append(ours)
            self._processes.append(process)
        # Each answers when its caches are full.
        ceilings = [Ceilings(*connection.recv()) for connection in self._connections]
        self.ceilings = Ceilings(
            sum(ceiling.flops_per_s for ceiling in ceilings), sum(ceiling.read_bytes_per_s for ceiling in ceilings)
        )
        """Of all runners' threads, which were measured at the same time."""

    def measure(self, seconds: float) -> Rate:
        """All runners at once: the sum of their rates, and their mean shares."""
        for connection in self._connections:
            connection.send(seconds)
        rates = [connection.recv() for connection in self._connections]
        return Rate(
            sum(rate.env_steps_per_s for rate in rates),
            statistics.mean(rate.policy_share for rate in rates),
            statistics.mean(rate.environment_share for rate in rates),
        )

    def __enter__(self) -> Runners:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        for connection in self._connections:
            connection.close()
        for process in self._processes:
            process.join()


def _act(config_name: str, settings: list[str], runner: int, barrier: Barrier, connection: Connection) -> None:
    """One runner's process: ceilings when ready, then a rate for each number of seconds that arrives."""
    from measuring.ceilings import measure_ceilings

    from amago_ray.config.load import load_config

    config = load_config(config_name, settings)
    with tempfile.TemporaryDirectory() as folder:
        acting = Acting(config, Path(folder), runner)
        barrier.wait()
        ceilings = measure_ceilings(network_size(config, 0).cache_bytes(acting.episode_length * acting.runner.num_envs))
        connection.send((ceilings.flops_per_s, ceilings.read_bytes_per_s))
        while True:
            try:
                seconds = connection.recv()
            except EOFError:
                return
            barrier.wait()
            connection.send(acting.measure(seconds))


def network_size(config: Config, inputs: int) -> NetworkSize:
    """The config's sizes, for floors."""
    encoder, sequence = config.model.timestep_encoder, config.model.sequence_model
    return NetworkSize(inputs, encoder.hidden_dim, encoder.output_dim, sequence.d_model, sequence.num_layers)


def main() -> None:
    """Measure each number of runners and print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--config", default="maze_runner")
    parser.add_argument("--runners", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--num-envs", type=int, default=24, help="of each runner")
    parser.add_argument("--width", type=int, default=128)
    parser.add_argument("--layers", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=4.0, help="of a repetition, at least")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--out", type=Path, help="write the result as JSON")
    arguments = parser.parse_args()

    overrides = [
        f"model.sequence_model.d_model={arguments.width}",
        f"model.sequence_model.num_layers={arguments.layers}",
    ]
    rows = []
    for num_runners in arguments.runners:
        with Runners(arguments.config, overrides, num_runners=num_runners, num_envs=arguments.num_envs) as runners:
            rates = [runners.measure(arguments.seconds) for _ in range(arguments.repeats)]
        steps = [rate.env_steps_per_s for rate in rates]
        rows.append(
            {
                "runners": num_runners,
                "num_envs": arguments.num_envs,
                "env_steps_per_s": statistics.median(steps),
                "min": min(steps),
                "max": max(steps),
                "policy_share": statistics.mean(rate.policy_share for rate in rates),
                "environment_share": statistics.mean(rate.environment_share for rate in rates),
                **asdict(runners.ceilings),
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
