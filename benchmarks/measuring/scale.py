"""A model of scale: from what one process of each role needs, the throughput of many and what limits it first.

Everything that a run uses grows in proportion to its env steps, once the governor holds the ratio of transitions
trained to transitions inserted. So each resource by itself allows so many env steps per second, and the run makes the
least of these; the resource is its bottleneck. What is there at all times, such as beats, is taken off beforehand.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np


@dataclass(frozen=True)
class Figures:
    """What was measured; `_s` are seconds of one processor, but for `update_wall_s`.

    An env step is one transition inserted. The learner's rows of a batch are transitions trained.
    """

    acting_s: float
    """Env runner: one env step, its environment, policy, encoding and handing over included."""
    add_s: float
    """Replay shard: one transition stored."""
    sample_s: float
    """Replay shard: one transition drawn, relabeled, packed and handed over."""
    update_s: float
    """Learner: one update, with taking its batch."""
    update_wall_s: float
    """Learner: one update by the clock, when it never waits."""
    transitions_per_update: float
    beat_s: float
    """Control actor: one beat of an env runner that has no relay."""
    relayed_beat_s: float
    """Control actor: one env runner within a relay's message."""
    relay_message_s: float
    """Control actor: one message of a relay, by itself."""
    relay_beat_s: float
    """Relay: one beat of an env runner."""
    reserve_s: float
    """Control actor: one call of a learner that reserves."""
    learner_beat_s: float
    """Control actor: one beat of a learner."""
    shard_beat_s: float
    """Control actor: one beat of a shard."""
    snapshot_bytes: float
    """Weights that are broadcast."""
    batch_bytes_per_transition: float
    episode_bytes_per_transition: float
    gradient_bytes: float = 0.0
    """What the learners of a group sum in each update."""
    driver_s: float = 0.0
    """Driver, control actor apart: in a second, whatever the size."""


@dataclass(frozen=True)
class Machines:
    """What a run is given; shares of one network card per node."""

    num_nodes: int = 1
    cores_per_node: float = 2.0
    network_bytes_per_s: float = 1.25e9
    """Each way, of one node (10 Gbit/s)."""
    collective_bytes_per_s: float = 1.25e9
    """At which a group of learners sums gradients, of one learner."""


@dataclass(frozen=True)
class Setup:
    """How a run is laid out."""

    num_runners: int = 1
    num_shards: int = 1
    num_learners: int = 1
    samples_per_insert: float = 25.0
    broadcast_interval: int = 1
    episodes_per_add: float = 8.0
    transitions_per_episode: float = 50.0
    batches_per_reserve: float = 1.0
    beats_per_s: float = 300.0
    """That an actor takes from all who beat it."""
    beat_interval_s: float = 0.1
    """Between two beats of a runner, or two messages of a relay, at least."""
    relayed_per_s: float = 10_000.0
    """Runners in all messages of relays together, at most."""
    num_relays: int = 0
    """0: every runner beats the control actor itself."""


@dataclass(frozen=True)
class Prediction:
    """Env steps and updates (of the whole group) per second; the share of each resource that is used at that rate."""

    env_steps_per_s: float
    updates_per_s: float
    bottleneck: str
    loads: Mapping[str, float]


@dataclass(frozen=True)
class Calls:
    """Per second: beats that runners send the control actor, beats that relays get, and messages of relays."""

    direct: float
    relayed: float
    messages: float


def calls_per_s(setup: Setup) -> Calls:
    """How often who beats whom, by the rules of `runtime/control/routes.py`."""
    if not setup.num_relays:
        return Calls(min(setup.num_runners / setup.beat_interval_s, setup.beats_per_s), 0.0, 0.0)
    relayed = min(setup.num_runners / setup.beat_interval_s, setup.beats_per_s * setup.num_relays)
    gathering_s = max(
        setup.beat_interval_s, setup.num_relays / setup.beats_per_s, setup.num_runners / setup.relayed_per_s
    )
    return Calls(0.0, relayed, setup.num_relays / gathering_s)


def control_figures(rows: Sequence[Mapping[str, Any]], seconds: float) -> dict[str, float]:
    """Processor seconds per call, from the rows of `bench_control.py`: what explains the shares that it took best.

    seconds: of each row's measurement. A shard's and a learner's beat are taken to cost what a direct beat does.
    """
    measured = [row for row in rows if row["relays"] != "relay actor"]
    regressors, shares = [], []
    for row in measured:
        calls = calls_per_s(Setup(num_runners=row["runners"], num_relays=row["relays"]))
        is_relayed = row["relays"] > 0
        beats = row["beats_per_s"]
        regressors.append(
            [0.0 if is_relayed else beats, calls.messages, beats if is_relayed else 0.0, row["reserves"] / seconds]
        )
        shares.append(row["control_cpu_share"])
    solution = np.linalg.lstsq(np.array(regressors), np.array(shares), rcond=None)[0]
    beat_s, message_s, relayed_s, reserve_s = np.maximum(solution, 0.0).tolist()
    relay = next(row for row in rows if row["relays"] == "relay actor")
    return {
        "beat_s": beat_s,
        "relay_message_s": message_s,
        "relayed_beat_s": relayed_s,
        "reserve_s": reserve_s,
        "learner_beat_s": beat_s,
        "shard_beat_s": beat_s,
        "relay_beat_s": relay["relay_cpu_share"] / relay["beats_per_s"],
    }


def collective_s(figures: Figures, setup: Setup, machines: Machines) -> float:
    """Seconds in which a group of G learners sums its gradients: a ring passes 2 (G-1)/G of them through each card."""
    share = 2 * (setup.num_learners - 1) / setup.num_learners
    return share * figures.gradient_bytes / machines.collective_bytes_per_s


def predict(figures: Figures, setup: Setup, machines: Machines) -> Prediction:
    """Throughput and the first bottleneck.

    Raises:
        ValueError: what is there at all times takes more than there is.
    """
    calls = calls_per_s(setup)
    control_fixed = (
        calls.direct * figures.beat_s
        + calls.messages * figures.relay_message_s
        + calls.relayed * figures.relayed_beat_s
    )
    relay_fixed = calls.relayed * figures.relay_beat_s

    # Everything per env step.
    trained = setup.samples_per_insert
    updates = trained / (figures.transitions_per_update * setup.num_learners)
    batches = updates * setup.num_learners
    adds = 1 / (setup.episodes_per_add * setup.transitions_per_episode)
    update_wall_s = figures.update_wall_s + collective_s(figures, setup, machines)
    shard_s = figures.add_s + trained * figures.sample_s
    learner_s = batches * figures.update_s
    control_s = (
        batches * (figures.reserve_s / setup.batches_per_reserve + figures.learner_beat_s) + adds * figures.shard_beat_s
    )
    pushes = updates / setup.broadcast_interval
    learner_bytes = trained / setup.num_learners * figures.batch_bytes_per_transition
    is_alone = machines.num_nodes == 1

    capacities = {
        "env runners": setup.num_runners / figures.acting_s,
        "learners": 1 / (updates * update_wall_s),
        "replay shards": setup.num_shards / shard_s,
        "control actor": _left(1.0, control_fixed, "the control actor") / control_s,
        "processors": _left(
            machines.num_nodes * machines.cores_per_node,
            control_fixed + relay_fixed + figures.driver_s,
            "the processors",
        )
        / (figures.acting_s + shard_s + learner_s + control_s),
        "learner's network": math.inf if is_alone else machines.network_bytes_per_s / learner_bytes,
        # Episodes and batches leave and enter the shards' nodes; weights leave the control actor's once per node.
        "shards' network": math.inf
        if is_alone
        else min(setup.num_shards, machines.num_nodes)
        * machines.network_bytes_per_s
        / (figures.episode_bytes_per_transition + trained * figures.batch_bytes_per_transition),
        "weights' network": math.inf
        if is_alone
        else machines.network_bytes_per_s / (pushes * figures.snapshot_bytes * (machines.num_nodes - 1)),
    }
    bottleneck = min(capacities, key=lambda name: capacities[name])
    env_steps_per_s = capacities[bottleneck]
    return Prediction(
        env_steps_per_s,
        env_steps_per_s * updates,
        bottleneck,
        {name: env_steps_per_s / capacity for name, capacity in capacities.items()},
    )


def balance(figures: Figures, setup: Setup, machines: Machines) -> Setup:
    """The fewest shards and learners with which that many runners are the bottleneck, if learners can be enough."""
    rate = setup.num_runners / figures.acting_s
    shard_s = figures.add_s + setup.samples_per_insert * figures.sample_s
    balanced = replace(setup, num_shards=max(1, math.ceil(rate * shard_s)))
    for num_learners in range(1, 4097):
        candidate = replace(balanced, num_learners=num_learners)
        updates = setup.samples_per_insert / (figures.transitions_per_update * num_learners)
        if 1 / (updates * (figures.update_wall_s + collective_s(figures, candidate, machines))) >= rate:
            return candidate
    return candidate


def _left(have: float, used: float, what: str) -> float:
    if used >= have:
        raise ValueError(f"{what}: {used:.2f} s of a second are used without an env step, of {have:g}")
    return have - used
