"""A model of scale: from what one process of each role needs, the throughput of many and what limits it first.

Everything that a run uses grows in proportion to its env steps, once the governor holds the ratio of transitions
trained to transitions inserted. So each resource by itself allows so many env steps per second, and the run makes the
least of these; the resource is its bottleneck. What is there at all times, such as beats, is taken off beforehand.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace


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
    """Of all runners together, at most."""
    beat_interval_s: float = 0.1
    """Between two beats of a runner, at least."""
    runners_per_relay: int | None = None
    """None: every runner beats the control actor itself."""
    relay_interval_s: float = 0.5


@dataclass(frozen=True)
class Prediction:
    """Env steps and updates (of the whole group) per second; the share of each resource that is used at that rate."""

    env_steps_per_s: float
    updates_per_s: float
    bottleneck: str
    loads: Mapping[str, float]


def collective_s(figures: Figures, setup: Setup, machines: Machines) -> float:
    """Seconds in which a group of G learners sums its gradients: a ring passes 2 (G-1)/G of them through each card."""
    share = 2 * (setup.num_learners - 1) / setup.num_learners
    return share * figures.gradient_bytes / machines.collective_bytes_per_s


def predict(figures: Figures, setup: Setup, machines: Machines) -> Prediction:
    """Throughput and the first bottleneck.

    Raises:
        ValueError: what is there at all times takes more than there is.
    """
    beats = min(setup.num_runners / setup.beat_interval_s, setup.beats_per_s)
    num_relays = 0 if setup.runners_per_relay is None else math.ceil(setup.num_runners / setup.runners_per_relay)
    if num_relays:
        # Relays hear each runner within their own bound, and send what they heard in one message.
        relayed = min(setup.num_runners / setup.beat_interval_s, setup.beats_per_s * num_relays)
        messages = num_relays / setup.relay_interval_s
        control_fixed = messages * figures.relay_message_s + relayed * figures.relayed_beat_s
        relay_fixed = relayed * figures.relay_beat_s
    else:
        control_fixed, relay_fixed = beats * figures.beat_s, 0.0

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
