"""Labels of nodes: which are labels at all, and which nodes are meant."""

from __future__ import annotations

from typing import Any

import pytest

from amago_ray.config.cluster import matches
from amago_ray.config.load import config_from_dict
from amago_ray.errors import ConfigError


def with_labels(labels: dict[str, Any]) -> Any:
    return config_from_dict({"env": "A-v0", "cluster": {"labels": labels}}).cluster.labels


@pytest.mark.parametrize(
    ("selector", "meant"),
    [
        ("spot", {"spot"}),
        ("!spot", {"demand", None}),
        ("in(spot, demand)", {"spot", "demand"}),
        ("in(spot,other)", {"spot"}),
        ("!in(spot,demand)", {None}),
    ],
)
def test_a_label_means_the_nodes_that_ray_would_take(selector: str, meant: set[str | None]) -> None:
    labels = with_labels({"env_runner": {"market": selector}}).env_runner
    nodes: dict[str | None, dict[str, str]] = {
        "spot": {"market": "spot"},
        "demand": {"market": "demand", "zone": "a"},
        None: {"zone": "spot"},
    }
    assert {name for name, node in nodes.items() if matches(node, labels)} == meant


def test_all_labels_of_a_role_have_to_hold_and_none_mean_any_node() -> None:
    labels = with_labels({"learner": {"market": "demand", "example.com/gpu": "h100"}}).learner
    assert matches({"market": "demand", "example.com/gpu": "h100", "zone": "a"}, labels)
    assert not matches({"market": "demand"}, labels)
    assert matches({}, with_labels({}).learner)


@pytest.mark.parametrize("labels", [{"-a": "b"}, {"a": "b-"}, {"a": "in()"}, {"a": "in(b"}, {"a": ""}, {"a/": "b"}])
def test_what_ray_would_not_take_is_one_line(labels: dict[str, str]) -> None:
    with pytest.raises(ConfigError, match=r"^cluster\.labels\.env_runner: expected labels of nodes by key, .*, got \{"):
        with_labels({"env_runner": labels})


def test_labels_are_texts_and_roles_are_known() -> None:
    with pytest.raises(ConfigError, match=r"^cluster\.labels\.learner: expected labels of nodes .*, got \{gpus: 8\}"):
        with_labels({"learner": {"gpus": 8}})
    with pytest.raises(ConfigError, match=r'labels\.env_runners: unknown key; did you mean "env_runner"\?'):
        with_labels({"env_runners": {"a": "b"}})
