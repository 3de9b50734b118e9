"""The control actor of up to 10,000 env runners: how long a learner waits for it, and how much of a processor it takes.

The control actor is real, and so are relays and messages; env runners are synthetic. A few caller processes play many
of them each: they beat as often as they are told, with totals that grow and episodes that end, and step no environment.
In cases with relays the relay's class runs in the caller's process with the runners of its node, so that what the
control actor gets is what it would get from as many nodes, while calls from runners to relays, which nodes of their own
would pay for, cost this machine nothing; "relay actor" measures one of those relays as an actor.

Callers run at the lowest priority, as others' processes would on other machines, and the control actor at that of the
learner, who is this process: otherwise it is the sharing of few cores that is measured.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import resource
import time
from pathlib import Path
from typing import Any

import numpy as np
import ray

from amago_ray.config.load import load_config
from amago_ray.data.episode import PolicyVersion
from amago_ray.data.episode_stats import EpisodeStats
from amago_ray.data.snapshot import Snapshot
from amago_ray.replay.reports import ShardReport
from amago_ray.runtime.cluster.ray_connection import NAMESPACE
from amago_ray.runtime.control.control_actor import ControlActor
from amago_ray.runtime.processes.relay import Relay
from amago_ray.runtime.processes.relay_actor import CALLS_UNDER_WAY, RelayActor
from amago_ray.runtime.protocol.actors import get, start_actor
from amago_ray.runtime.protocol.ledger import LedgerState
from amago_ray.runtime.protocol.messages import NO_VERSION, ControlState, NotYet, RunnerBeat, ShardBeat
from amago_ray.runtime.protocol.packed_stats import pack
from amago_ray.runtime.protocol.runner_ledger import RunnerTotals

CASES = [(8, 0), (99, 0), (300, 0), (999, 0), (999, 4), (3000, 10), (10_000, 10), (10_000, 100)]
"""Env runners and relays."""
SHORTEST_INTERVAL_S = 0.1
"""Of an env runner that acts, as in `EnvRunnerActor`."""
WEIGHTS_BYTES = 1_000_000


class MeasuredControl(ControlActor):
    """The control actor, which says how much of a processor it has taken."""

    async def cpu_s(self) -> float:
        """Seconds of processor time of all its threads so far."""
        return processor_time_s()


class MeasuredRelay(RelayActor):
    """A relay, which says how much of a processor it has taken."""

    async def cpu_s(self) -> float:
        """Seconds of processor time of all its threads so far."""
        return processor_time_s()


def processor_time_s() -> float:
    """Seconds of processor time of this process."""
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime


class Callers:
    """Plays env runners, of some nodes with relays or without."""

    def __init__(self, control: Any) -> None:
        os.nice(19)
        self._control = control
        self._num_beats = 0

    async def play(self, first_runner: int, num_runners: int, num_relays: int, seconds: float) -> int:
        """Let so many runners beat, equally many through each relay; returns the beats that were answered."""
        self._num_beats = 0
        until_s = time.monotonic() + seconds
        nodes = [f"{os.getpid()} {number}" for number in range(num_relays)]
        relays = [Relay(node, self._control.beat_runners.remote, fetch) for node in nodes]

        async def beat(runner: int, beat: RunnerBeat) -> Any:
            if relays:
                return await relays[runner % num_relays].beat(beat)
            return await self._control.beat_runner.remote(beat)

        await asyncio.gather(
            *(self._run(first_runner + number, beat, until_s, number / num_runners) for number in range(num_runners))
        )
        return self._num_beats

    async def _run(self, runner: int, send: Any, until_s: float, share: float) -> None:
        version, num_episodes, beat_in_s = NO_VERSION, 0, 0.0
        # Runners of a run do not begin at the same moment.
        await asyncio.sleep(share)
        while (now := time.monotonic()) < until_s:
            num_episodes += 1
            totals = RunnerTotals(1000 * num_episodes, num_episodes, num_episodes, acting_s=float(num_episodes))
            episodes = [pack(EpisodeStats("maze", 1.0, 1000, num_episodes, version, 1.0))]
            orders = await send(runner, RunnerBeat(runner, 1, version, totals, episodes=episodes, node="here"))
            self._num_beats += 1
            if not isinstance(orders, NotYet) and orders.weights:
                version = PolicyVersion(1, version.learner_steps + 1)
            beat_in_s = max(orders.beat_in_s, SHORTEST_INTERVAL_S)
            await asyncio.sleep(max(now + beat_in_s - time.monotonic(), 0.0))


async def fetch(reference: Any) -> Any:
    """The reference itself: all nodes are this one."""
    return reference


class Case:
    """A control actor of its own, with callers."""

    def __init__(self, num_callers: int) -> None:
        config = load_config("quickstart", ["replay.samples_per_insert=null"])
        self.control = start_actor(MeasuredControl, config, num_cpus=0)
        self.callers = [start_actor(Callers, self.control, num_cpus=0) for _ in range(num_callers)]
        get(self.control.fill.remote(ControlState(LedgerState())))
        report = dict.fromkeys(ShardReport.__dataclass_fields__, 0) | {
            "stored_episodes": 10**3,
            "stored_transitions": 10**6,
            "inserted_transitions": 10**6,
        }
        get(self.control.beat_shard.remote(ShardBeat(0, 1, ShardReport(**report))))

    def play(self, num_runners: int, num_relays: int, seconds: float) -> list[Any]:
        """References to the beats of each caller."""
        each, relays = num_runners // len(self.callers), num_relays // len(self.callers)
        return [caller.play.remote(number * each, each, relays, seconds) for number, caller in enumerate(self.callers)]

    def end(self) -> None:
        """End the processes."""
        for actor in (self.control, *self.callers):
            ray.kill(actor)


def measure(num_runners: int, num_relays: int, arguments: argparse.Namespace) -> dict[str, Any]:
    """Seconds that `reserve` takes while runners beat, and what the control actor takes of a processor."""
    case = Case(1 if num_runners < 100 else arguments.callers)
    arrays: dict[str, np.ndarray] = {"w": np.zeros(WEIGHTS_BYTES // 4, np.float32)}
    playing = case.play(num_runners, num_relays, arguments.warm_up_s + arguments.seconds)
    time.sleep(arguments.warm_up_s)
    waited_s, version, pushed_at_s, collected_s = [], 0, 0.0, []
    cpu_s, began_s = get(case.control.cpu_s.remote()), time.monotonic()
    while (now := time.monotonic()) < began_s + arguments.seconds:
        if now - pushed_at_s > arguments.broadcast_s:
            pushed_at_s, version = now, version + 1
            get(case.control.push_weights.remote(Snapshot(PolicyVersion(1, version), arrays)))
            began = time.perf_counter()
            get(case.control.collect.remote())
            collected_s.append(time.perf_counter() - began)
        began = time.perf_counter()
        get(case.control.reserve.remote(6000, 3))
        waited_s.append(time.perf_counter() - began)
        time.sleep(0.01)
    cpu_s, elapsed_s = get(case.control.cpu_s.remote()) - cpu_s, time.monotonic() - began_s
    beats = sum(get(playing))
    case.end()
    return {
        "runners": num_runners,
        "relays": num_relays,
        "beats_per_s": beats / (arguments.warm_up_s + arguments.seconds),
        "reserve_p50_ms": 1e3 * float(np.percentile(waited_s, 50)),
        "reserve_p99_ms": 1e3 * float(np.percentile(waited_s, 99)),
        "reserve_max_ms": 1e3 * max(waited_s),
        "reserves": len(waited_s),
        "collect_max_ms": 1e3 * max(collected_s),
        "control_cpu_share": cpu_s / elapsed_s,
    }


def measure_relay(num_runners: int, arguments: argparse.Namespace) -> dict[str, Any]:
    """What one relay that is an actor takes of a processor."""
    config = load_config("quickstart")
    control = start_actor(MeasuredControl, config, num_cpus=0)
    get(control.fill.remote(ControlState(LedgerState())))
    relay = start_actor(MeasuredRelay, "node", control, num_cpus=0, max_concurrency=CALLS_UNDER_WAY)
    caller = start_actor(Callers, relay, num_cpus=0)
    playing = caller.play.remote(0, num_runners, 0, arguments.warm_up_s + arguments.seconds)
    time.sleep(arguments.warm_up_s)
    before = get([relay.cpu_s.remote(), control.cpu_s.remote()])
    began_s = time.monotonic()
    time.sleep(arguments.seconds)
    after, elapsed_s = get([relay.cpu_s.remote(), control.cpu_s.remote()]), time.monotonic() - began_s
    beats = get(playing)
    for actor in (control, relay, caller):
        ray.kill(actor)
    relay_share, control_share = ((end - begin) / elapsed_s for begin, end in zip(before, after, strict=True))
    return {
        "runners": num_runners,
        "relays": "relay actor",
        "beats_per_s": beats / (arguments.warm_up_s + arguments.seconds),
        "relay_cpu_share": relay_share,
        "control_cpu_share": control_share,
    }


def show(row: dict[str, Any]) -> None:
    """Print a row."""
    print(
        "  ".join(
            f"{name} {value:.2f}" if isinstance(value, float) else f"{name} {value}" for name, value in row.items()
        )
    )


def main() -> None:
    """Measure and print a table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cases", type=int, nargs="*", help="of the list of cases, by number; all by default")
    parser.add_argument(
        "--relay-actor", type=int, default=300, help="runners of one relay that is an actor; 0 for none"
    )
    parser.add_argument("--callers", type=int, default=2, help="processes that play env runners")
    parser.add_argument("--seconds", type=float, default=10.0)
    parser.add_argument("--warm-up-s", type=float, default=5.0)
    parser.add_argument("--broadcast-s", type=float, default=2.0, help="between new weights, and between reports")
    parser.add_argument("--out", type=Path, help="write the result as JSON")
    arguments = parser.parse_args()

    os.environ.update(RAY_worker_niceness="0")
    ray.init(
        address="local",
        num_cpus=1,
        include_dashboard=False,
        namespace=NAMESPACE,
        log_to_driver=False,
        logging_level="ERROR",
    )
    rows = []
    for number, (num_runners, num_relays) in enumerate(CASES):
        if arguments.cases is None or number in arguments.cases:
            rows.append(measure(num_runners, num_relays, arguments))
            show(rows[-1])
    if arguments.relay_actor:
        rows.append(measure_relay(arguments.relay_actor, arguments))
        show(rows[-1])
    ray.shutdown()
    if arguments.out:
        settings = {**vars(arguments), "out": None}
        arguments.out.write_text(json.dumps({"arguments": settings, "rows": rows}, indent=1) + "\n")


if __name__ == "__main__":
    main()
