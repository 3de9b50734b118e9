"""Which node for which actor, and whether there is room for all of them."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import ray
from ray._private.state import state
from ray.util.placement_group import placement_group, remove_placement_group
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy, PlacementGroupSchedulingStrategy

from amago_ray.config import Config
from amago_ray.config.cluster import matches
from amago_ray.config.plain import show
from amago_ray.errors import TrainingError
from amago_ray.runtime.protocol.actors import this_node

_PRECISION = 1e-4
"""Ray counts resources in steps of this size."""
_RAYS_OWN_LABELS = "ray.io/"

Role = Literal["env_runner", "replay_shard", "learner"]
"""Processes that `cluster.labels` has a place for."""


@dataclass(frozen=True)
class Node:
    """A node of the cluster. Its id is new whenever the node is started, its host stays."""

    node_id: str
    host: str
    num_cpus: float
    num_gpus: float = 0.0
    labels: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class ShardPlace:
    """Where a replay shard is to live."""

    number: int
    host: str
    node_id: str


def alive_nodes() -> list[Node]:
    """The nodes that are up, this process's first, the others by host."""
    here = ray.get_runtime_context().get_node_id()
    nodes = [
        Node(
            node["NodeID"],
            node["NodeManagerAddress"],
            node["Resources"].get("CPU", 0.0),
            node["Resources"].get("GPU", 0.0),
            node["Labels"],
        )
        for node in ray.nodes()  # type: ignore[no-untyped-call]
        if node["Alive"]
    ]
    return sorted(nodes, key=lambda node: (node.node_id != here, node.host, node.node_id))


def draining_nodes() -> frozenset[str]:
    """Ids of the nodes that are to be taken away: by an autoscaler, a spot market, or `ray drain-node`."""
    return frozenset(state.get_draining_nodes())


def nodes_for(role: Role, config: Config, nodes: Sequence[Node]) -> list[Node]:
    """The nodes where processes of a role may live, by `cluster.labels`.

    Raises:
        TrainingError: there is none.
    """
    wanted: Mapping[str, str] = getattr(config.cluster.labels, role)
    found = [node for node in nodes if matches(node.labels, wanted)]
    if not found:
        there = ", ".join(f"{_shown(node.labels)} on {node.host}" for node in nodes)
        raise TrainingError(f"cluster.labels.{role}: expected a node with {_shown(wanted)}, got {there}")
    return found


def _shown(labels: Mapping[str, str]) -> str:
    return show({key: value for key, value in labels.items() if not key.startswith(_RAYS_OWN_LABELS)})


def place_shards(
    num_shards: int,
    nodes: Sequence[Node],
    *,
    spread: bool,
    before: Mapping[int, str],
    num_cpus: float = 0.0,
) -> list[ShardPlace]:
    """Where to start the shards: each on the host where its files were `before`, if that is up; others in turn.

    spread: False puts those on the first node. num_cpus: what each reserves; where there is no room is none put, if
    there is room elsewhere.
    """
    shards_on: Counter[str] = Counter()
    places = []
    for number in range(num_shards):
        at_home = [node for node in nodes if node.host == before.get(number)]
        node = roomiest(at_home or (nodes if spread else nodes[:1]), shards_on, num_cpus)
        shards_on[node.node_id] += 1
        places.append(ShardPlace(number, node.host, node.node_id))
    return places


def roomiest(nodes: Sequence[Node], shards_on: Mapping[str, int], num_cpus: float) -> Node:
    """The first of the nodes with the fewest shards, by their ids, of those with room for one more if there are any."""
    held = {node.node_id: shards_on.get(node.node_id, 0) for node in nodes}
    fitting = [node for node in nodes if (held[node.node_id] + 1) * num_cpus <= node.num_cpus + _PRECISION]
    return min(fitting or nodes, key=lambda node: held[node.node_id])


def share_out(surplus: Sequence[Sequence[int]]) -> list[list[int]]:
    """Which shard takes over which that are no longer: each one of those that it sees, and none twice.

    surplus: what each shard sees.
    """
    taken: list[list[int]] = [[] for _ in surplus]
    for number in sorted({number for seen in surplus for number in seen}):
        takers = [taker for taker, seen in enumerate(surplus) if number in seen]
        taken[takers[number % len(takers)]].append(number)
    return taken


def on_node(node_id: str) -> NodeAffinitySchedulingStrategy:
    """Keeps an actor on one node: restarted anywhere else, it would not find its files."""
    return NodeAffinitySchedulingStrategy(node_id, soft=False)


def on_drivers_node() -> NodeAffinitySchedulingStrategy:
    """Keeps an actor on the node of this process, without which there is no run: no other node's end can harm it."""
    return on_node(this_node())


class LearnerPlaces:
    """Room for several learners, on as few nodes as can be; they find it all at once or wait. For one: any node.

    Of nodes, those with the labels of `cluster.labels.learner`.
    """

    def __init__(self, config: Config, num_gpus: float) -> None:
        number, num_cpus = config.learner.num_learners, config.learner.num_cpus_per_learner
        self._labels = dict(config.cluster.labels.learner)
        needs = {name: amount for name, amount in (("CPU", num_cpus), ("GPU", num_gpus)) if amount}
        self._group = None
        # Ray reserves no places that need nothing.
        if number > 1 and needs:
            labels = [self._labels] * number if self._labels else None
            self._group = placement_group([needs] * number, strategy="PACK", bundle_label_selector=labels)

    def options(self, rank: int) -> Mapping[str, Any]:
        """Where a learner is started; on another node, when the one that it was on is gone."""
        if self._group is None:
            return {"label_selector": self._labels}
        return {"scheduling_strategy": PlacementGroupSchedulingStrategy(self._group, rank)}

    def remove(self) -> None:
        """Give the room back."""
        if self._group is not None:
            remove_placement_group(self._group)


def required_cpus(config: Config, num_env_runners: int) -> float:
    """Logical CPUs that the run's actors reserve together, of which so many are env runners."""
    return (
        num_env_runners * config.rollout.num_cpus_per_env_runner
        + config.replay.num_shards * config.replay.num_cpus_per_shard
        + config.learner.num_learners * config.learner.num_cpus_per_learner
    )


def gpus_per_learner(config: Config, nodes: Sequence[Node]) -> float:
    """GPUs of each learner: as set, or one where a node has one."""
    if config.learner.num_gpus_per_learner is not None:
        return config.learner.num_gpus_per_learner
    return 1.0 if any(node.num_gpus >= 1 for node in nodes) else 0.0


def require_room(config: Config, nodes: Sequence[Node], shards: Sequence[ShardPlace]) -> None:
    """See that all actors find a place without which the run does not start: each on one node, shares of a GPU on one.

    Raises:
        TrainingError: they do not; some would wait for ever.
    """
    rollout, learner = config.rollout, config.learner
    num_runners = rollout.fewest_env_runners
    gpus = gpus_per_learner(config, nodes)
    for setting, number in (
        ("rollout.num_gpus_per_env_runner", rollout.num_gpus_per_env_runner),
        ("learner.num_gpus_per_learner", gpus),
    ):
        if number > 1 and number != math.floor(number):
            raise TrainingError(f"{setting}: expected a share of one GPU or a whole number of GPUs, got {number:g}")
    have_cpus, have_gpus = (sum(node.num_cpus for node in nodes), sum(node.num_gpus for node in nodes))
    want_cpus = required_cpus(config, num_runners)
    want_gpus = num_runners * rollout.num_gpus_per_env_runner + learner.num_learners * gpus
    if have_cpus < want_cpus - _PRECISION:
        raise TrainingError(f"the cluster is too small: the run reserves {want_cpus:g} CPUs, it has {have_cpus:g}")
    is_implicit = learner.num_gpus_per_learner is None and gpus > 0
    who = "the learner" if learner.num_learners == 1 else f"each of {learner.num_learners} learners"
    learners = f"{gpus:g} for {who}" + (" (learner.num_gpus_per_learner is not set)" if is_implicit else "")
    reserves = f"{rollout.num_gpus_per_env_runner:g} for each of {num_runners} env runners and {learners}"
    if have_gpus < want_gpus - _PRECISION:
        raise TrainingError(
            f"the cluster is too small: the run reserves {want_gpus:g} GPUs ({reserves}), it has {have_gpus:g}"
        )
    free = {node.node_id: _Free(node.num_cpus, [1.0] * round(node.num_gpus)) for node in nodes}
    for place in shards:
        free[place.node_id].num_cpus -= config.replay.num_cpus_per_shard
        if free[place.node_id].num_cpus < -_PRECISION:
            raise TrainingError(
                f"the cluster is too small: replay shard {place.number} reserves {config.replay.num_cpus_per_shard:g} "
                f"CPUs on {place.host}, where too few are left"
            )
    runner_nodes = nodes_for("env_runner", config, nodes)
    learner_nodes = nodes_for("learner", config, nodes)
    for candidate in learner_nodes:
        rest = {other: each.copy() for other, each in free.items()}
        first_there = sorted(learner_nodes, key=lambda node: node is not candidate)
        places = [rest[node.node_id] for node in first_there]
        if not _take_all(places, learner.num_learners, learner.num_cpus_per_learner, gpus):
            continue
        fitting = sum(
            rest[node.node_id].count(rollout.num_cpus_per_env_runner, rollout.num_gpus_per_env_runner, num_runners)
            for node in runner_nodes
        )
        if fitting >= num_runners:
            return
    gpu_part = f"; GPUs: {reserves}" if want_gpus else ""
    raise TrainingError(
        "the cluster's nodes are too small: each process needs its CPUs and GPUs on one node that takes it "
        f"({rollout.num_cpus_per_env_runner:g} CPUs for each of {num_runners} env runners, "
        f"{config.replay.num_cpus_per_shard:g} for each of {len(shards)} replay shards, "
        f"{learner.num_cpus_per_learner:g} for {who}{gpu_part}); found "
        + ", ".join(f"{node.num_cpus:g} CPUs and {node.num_gpus:g} GPUs on {node.host}" for node in nodes)
    )


@dataclass
class _Free:
    """What of a node is not reserved yet; of each GPU, which share."""

    num_cpus: float
    gpus: list[float]

    def copy(self) -> _Free:
        return _Free(self.num_cpus, list(self.gpus))

    def take(self, num_cpus: float, num_gpus: float) -> bool:
        """Reserve for one process; False, and nothing is changed, where there is no room."""
        if self.num_cpus < num_cpus - _PRECISION:
            return False
        whole = [index for index, share in enumerate(self.gpus) if share > 1 - _PRECISION]
        if num_gpus >= 1:
            if len(whole) < num_gpus:
                return False
            taken = dict.fromkeys(whole[: round(num_gpus)], 1.0)
        elif num_gpus > 0:
            fits = [index for index, share in enumerate(self.gpus) if share > num_gpus - _PRECISION]
            if not fits:
                return False
            # The fullest that has room, so that whole GPUs stay whole.
            taken = {min(fits, key=lambda index: self.gpus[index]): num_gpus}
        else:
            taken = {}
        self.num_cpus -= num_cpus
        for index, share in taken.items():
            self.gpus[index] -= share
        return True

    def count(self, num_cpus: float, num_gpus: float, most: int) -> int:
        """How many equal processes find room, at most `most`."""
        return next((number for number in range(most) if not self.take(num_cpus, num_gpus)), most)


def _take_all(free: Sequence[_Free], number: int, num_cpus: float, num_gpus: float) -> bool:
    """Reserve for so many equal processes, on the first nodes that have room; False where it is not enough."""
    for each in free:
        number -= each.count(num_cpus, num_gpus, number)
    return number == 0
