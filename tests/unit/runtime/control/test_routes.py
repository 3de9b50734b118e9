"""Through whom env runners beat, and how often."""

from __future__ import annotations

import numpy as np
import pytest

from amago_ray.runtime.control.routes import MOST_BEATS_PER_S, Routes


def test_all_together_beat_a_bounded_number_of_times() -> None:
    routes = Routes(relays_above=256)
    routes.heard(np.array([0]), "a", 0, is_relayed=False)
    assert routes.beat_in_s("a", is_relayed=False) == 1 / MOST_BEATS_PER_S
    for _ in range(2):
        routes.heard(np.arange(600), "a", 0, is_relayed=False)
    assert routes.beat_in_s("a", is_relayed=False) == 600 / MOST_BEATS_PER_S
    for runner in range(300):
        routes.gone(runner)
    routes.gone(1000)
    assert routes.beat_in_s("a", is_relayed=False) == 300 / MOST_BEATS_PER_S


def test_a_relay_takes_as_many_beats_and_control_one_message_for_all_of_them() -> None:
    routes = Routes(relays_above=256)
    for relay in range(10):
        routes.add_relay(f"node {relay}", f"relay {relay}", 0)
        routes.heard(np.arange(relay * 1000, (relay + 1) * 1000), f"node {relay}", 0, is_relayed=True)
    assert routes.beat_in_s("node 3", is_relayed=True) == 1000 / MOST_BEATS_PER_S
    assert routes.beat_in_s("a", is_relayed=False) == 10 / MOST_BEATS_PER_S
    assert 10 / routes.gathering_s() <= MOST_BEATS_PER_S
    assert 10_000 / routes.gathering_s() == pytest.approx(10_000), "rows a second"


def test_nodes_of_a_small_run_need_no_relay() -> None:
    routes = Routes(relays_above=8)
    routes.heard(np.arange(8), "a", 0, is_relayed=False)
    assert routes.crowded(0) == []
    routes.heard(np.array([8]), "b", 0, is_relayed=False)
    assert routes.crowded(0) == ["a"], "but not a node of one runner"
    routes.gone(3)
    assert routes.crowded(0) == []


def test_a_silent_relay_is_named_to_nobody_and_its_node_needs_another() -> None:
    routes = Routes(relays_above=4)
    routes.heard(np.arange(8), "a", 0, is_relayed=False)
    assert routes.relay_of("a", 0) == []
    routes.add_relay("a", "relay", 0)
    assert routes.relay_of("a", 5) == ["relay"]
    assert routes.crowded(5) == [], "its runners have just heard of it"
    routes.heard(np.arange(8), "a", 8, is_relayed=True)
    assert routes.relay_of("a", 15) == ["relay"]
    routes.heard(np.arange(8), "a", 20, is_relayed=False)
    assert routes.relay_of("a", 20) == []
    assert routes.crowded(20) == ["a"]
    routes.add_relay("a", "another", 21)
    assert routes.relay_of("a", 21) == ["another"]
    assert routes.crowded(21) == []


def test_who_beats_through_another_node_counts_there() -> None:
    routes = Routes(relays_above=0)
    routes.heard(np.arange(3), "a", 0, is_relayed=False)
    routes.heard(np.arange(2), "b", 0, is_relayed=False)
    assert routes.crowded(0) == ["b"], "the other one has one runner left"
