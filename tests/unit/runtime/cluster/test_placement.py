"""Which node for which actor, and whether all find a place: without a cluster and without a GPU."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from amago_ray.config.load import load_config
from amago_ray.errors import TrainingError
from amago_ray.runtime.cluster.placement import Node, nodes_for, place_shards, require_room, roomiest, share_out

A, B, C = (Node(letter, f"host_{letter}", num_cpus=4) for letter in "abc")


def require(nodes: Sequence[Node], *overrides: str) -> None:
    config = load_config("quickstart", list(overrides))
    candidates = nodes_for("replay_shard", config, nodes)
    places = place_shards(config.replay.num_shards, candidates, spread=config.cluster.spread, before={})
    require_room(config, nodes, places)


def test_new_shards_go_round_the_nodes_or_all_to_the_first() -> None:
    spread = place_shards(5, [A, B, C], spread=True, before={})
    assert [place.host for place in spread] == ["host_a", "host_b", "host_c", "host_a", "host_b"]
    assert [place.node_id for place in place_shards(2, [A, B], spread=False, before={})] == ["a", "a"]


def test_nodes_of_one_host_share_its_shards() -> None:
    nodes = [Node("a", "host", num_cpus=4), Node("b", "host", num_cpus=4)]
    for before in ({}, {0: "host", 1: "host"}):
        assert [place.node_id for place in place_shards(2, nodes, spread=True, before=before)] == ["a", "b"]


def test_a_node_without_room_for_a_shard_gets_none_unless_no_node_has() -> None:
    head = Node("head", "host_head", num_cpus=0)
    places = place_shards(3, [head, A, B], spread=True, before={}, num_cpus=0.5)
    assert [place.node_id for place in places] == ["a", "b", "a"]
    assert [place.node_id for place in place_shards(1, [head], spread=True, before={}, num_cpus=0.5)] == ["head"]
    # At home it goes without.
    at_home = place_shards(1, [head, A], spread=True, before={0: "host_head"}, num_cpus=0.5)
    assert [place.node_id for place in at_home] == ["head"]


def test_a_shard_that_moves_goes_where_the_fewest_are() -> None:
    assert roomiest([A, B, C], {"a": 2, "b": 1, "c": 1}, 0.0) is B
    assert roomiest([A, B], {"b": 1}, 0.0) is A
    assert roomiest([A, B], {"a": 7, "b": 8}, 0.5) is A, "one more fits"
    assert roomiest([A, B], {"a": 8, "b": 9}, 0.5) is A, "nobody has room: the fewest"


def test_shards_stay_with_their_hosts_whatever_the_order_of_the_nodes() -> None:
    before = {0: "host_b", 1: "host_a", 2: "host_gone"}
    table = place_shards(3, [A, B, C], spread=True, before=before)
    assert [place.host for place in table] == ["host_b", "host_a", "host_c"]


@pytest.mark.parametrize(
    ("seen", "taken"),
    [
        ([[], []], [[], []]),
        ([[1, 2, 3]], [[1, 2, 3]]),
        # Two shards that see the same folders.
        ([[2, 3, 4], [2, 3, 4]], [[2, 4], [3]]),
        # Two nodes, each with folders of its own.
        ([[2], [3], [3, 5]], [[2], [], [3, 5]]),
    ],
)
def test_each_shard_that_is_no_longer_is_taken_over_once_where_it_is_seen(
    seen: list[list[int]], taken: list[list[int]]
) -> None:
    assert share_out(seen) == taken


ONE_GPU = [Node("a", "host", num_cpus=8, num_gpus=1)]
TWO_GPUS = [Node("a", "host", num_cpus=16, num_gpus=2)]
SPOT = Node("a", "host_a", num_cpus=2, labels={"market": "spot", "ray.io/node-id": "a"})
DEMAND = Node("b", "host_b", num_cpus=2, labels={"market": "demand"})
BY_MARKET = [
    "cluster.labels.env_runner={market: spot}",
    "cluster.labels.replay_shard={market: '!spot'}",
    "cluster.labels.learner={market: demand}",
]
APART = [Node("a", "host_a", num_cpus=8, num_gpus=1), Node("b", "host_b", num_cpus=8, num_gpus=1)]


@pytest.mark.parametrize(
    ("nodes", "overrides"),
    [
        (ONE_GPU, []),
        (ONE_GPU, ["rollout.num_gpus_per_env_runner=0.25", "learner.num_gpus_per_learner=0.75"]),
        (
            ONE_GPU,
            ["rollout.num_env_runners=4", "rollout.num_gpus_per_env_runner=0.25", "learner.num_gpus_per_learner=0"],
        ),
        (
            ONE_GPU,
            ["rollout.num_env_runners=3", "rollout.num_gpus_per_env_runner=0.3333", "learner.num_gpus_per_learner=0"],
        ),
        (TWO_GPUS, ["rollout.num_env_runners=4", "rollout.num_gpus_per_env_runner=0.25"]),
        (TWO_GPUS, ["learner.num_gpus_per_learner=2"]),
        (
            TWO_GPUS,
            ["rollout.num_env_runners=4", "rollout.num_gpus_per_env_runner=0.4", "learner.num_gpus_per_learner=0.2"],
        ),
        (APART, ["rollout.num_env_runners=12"]),
        ([A], ["rollout.num_env_runners=50", "rollout.min_env_runners=2"]),
        ([SPOT, DEMAND], ["rollout.num_env_runners=2", *BY_MARKET]),
        # Learners on one node, or on several.
        (TWO_GPUS, ["learner.num_learners=2"]),
        (APART, ["learner.num_learners=2"]),
        (ONE_GPU, ["learner.num_learners=2", "learner.num_gpus_per_learner=0.5"]),
        ([A, B], ["learner.num_learners=2", "learner.num_cpus_per_learner=3", "rollout.num_env_runners=1"]),
        ([Node("a", "host", num_cpus=1.5), Node("b", "other", num_cpus=1)], ["rollout.num_env_runners=1"]),
    ],
)
def test_what_fits_is_accepted(nodes: Sequence[Node], overrides: Sequence[str]) -> None:
    require(nodes, *overrides)


@pytest.mark.parametrize(
    ("nodes", "overrides", "part"),
    [
        # The learner takes a whole GPU where there is one, if it is not told otherwise.
        (ONE_GPU, ["rollout.num_gpus_per_env_runner=0.25"], "learner.num_gpus_per_learner is not set"),
        (ONE_GPU, ["learner.num_gpus_per_learner=2"], "2 for the learner"),
        ([A], ["rollout.num_gpus_per_env_runner=0.25"], "it has 0"),
        (ONE_GPU, ["learner.num_gpus_per_learner=1.5"], "learner.num_gpus_per_learner: expected a share"),
        # Shares that are enough in sum, but lie on two GPUs.
        (
            ONE_GPU,
            ["rollout.num_env_runners=2", "rollout.num_gpus_per_env_runner=0.4", "learner.num_gpus_per_learner=0.3"],
            "too small",
        ),
        (
            TWO_GPUS,
            ["rollout.num_env_runners=3", "rollout.num_gpus_per_env_runner=0.6", "learner.num_gpus_per_learner=0.2"],
            "nodes are too small",
        ),
        (APART, ["learner.num_gpus_per_learner=2"], "nodes are too small"),
        (ONE_GPU, ["learner.num_learners=2"], "1 for each of 2 learners (learner.num_gpus_per_learner is not set)"),
        ([A], ["learner.num_learners=4", "rollout.num_env_runners=1"], "the run reserves"),
        (
            [A, B],
            ["learner.num_learners=3", "learner.num_cpus_per_learner=2.5", "rollout.num_cpus_per_env_runner=0"],
            "2.5 for each of 3 learners",
        ),
        ([A], ["rollout.num_env_runners=5"], "the run reserves"),
        # CPUs that are enough in sum, but lie on two nodes.
        ([A, B], ["rollout.num_env_runners=1", "rollout.num_cpus_per_env_runner=5"], "nodes are too small"),
        ([A, B], ["learner.num_cpus_per_learner=4.5"], "nodes are too small"),
        ([A], ["rollout.num_env_runners=50", "rollout.min_env_runners=4"], "the run reserves"),
        # Room enough, but not where the labels are.
        ([SPOT, DEMAND, C], ["rollout.num_env_runners=3", *BY_MARKET], "nodes are too small"),
        (
            [SPOT, A],
            BY_MARKET,
            'cluster.labels.learner: expected a node with {market: "demand"}, got {market: "spot"} on host_a, {} on',
        ),
        ([A, B], ["replay.num_shards=10", "cluster.spread=false"], "replay shard 8"),
    ],
)
def test_what_would_wait_for_ever_is_refused_in_one_line(
    nodes: Sequence[Node], overrides: Sequence[str], part: str
) -> None:
    with pytest.raises(TrainingError) as caught:
        require(nodes, *overrides)
    assert part in str(caught.value)
    assert "\n" not in str(caught.value)
