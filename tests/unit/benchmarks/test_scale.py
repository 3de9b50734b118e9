from dataclasses import replace

import pytest
from measuring.scale import Figures, Machines, Setup, balance, calls_per_s, control_figures, predict

FIGURES = Figures(
    acting_s=1e-4,
    add_s=1e-6,
    sample_s=1e-6,
    update_s=0.1,
    update_wall_s=0.1,
    transitions_per_update=1000,
    beat_s=1e-3,
    relayed_beat_s=1e-6,
    relay_message_s=1e-3,
    relay_beat_s=1e-3,
    reserve_s=1e-3,
    learner_beat_s=1e-3,
    shard_beat_s=1e-5,
    snapshot_bytes=1e6,
    batch_bytes_per_transition=100,
    episode_bytes_per_transition=100,
    gradient_bytes=4e6,
)
MANY = Machines(num_nodes=1, cores_per_node=1e9)


def test_runners_limit_while_the_rest_has_room():
    few = predict(FIGURES, Setup(num_runners=2, samples_per_insert=0.1), MANY)
    assert few.bottleneck == "env runners"
    assert few.env_steps_per_s == pytest.approx(20_000)
    assert few.loads["env runners"] == 1.0
    assert all(load <= 1 for load in few.loads.values())


def test_a_learner_limits_by_the_ratio():
    prediction = predict(FIGURES, Setup(num_runners=100, samples_per_insert=25), MANY)
    # 10 updates/s of 1,000 transitions, each env step trained 25 times.
    assert prediction.bottleneck == "learners"
    assert prediction.updates_per_s == pytest.approx(10)
    assert prediction.env_steps_per_s == pytest.approx(10 * 1000 / 25)


def test_learners_share_the_work_but_for_what_they_sum():
    one = predict(FIGURES, Setup(num_runners=1000), MANY)
    four = predict(FIGURES, Setup(num_runners=1000, num_learners=4), MANY)
    # A ring passes 1.5 times the gradients through each card: 6 MB at 1.25 GB/s beside updates of 0.1 s.
    assert four.env_steps_per_s / one.env_steps_per_s == pytest.approx(4 * 0.1 / (0.1 + 6e6 / 1.25e9))
    assert four.updates_per_s < one.updates_per_s


def test_few_cores_are_shared_by_all():
    prediction = predict(FIGURES, Setup(num_runners=8, samples_per_insert=1), Machines(cores_per_node=2))
    used = prediction.env_steps_per_s * (1e-4 + 2e-6 + 0.1 / 1000 + 2e-3 / 1000 + 1e-5 / 400) + 80 * 1e-3
    assert prediction.bottleneck == "processors"
    assert used == pytest.approx(2)


def test_runners_that_beat_the_control_actor_themselves_fill_it_and_relays_do_not():
    setup = Setup(num_runners=10_000, samples_per_insert=1, num_learners=200, num_shards=1000, beats_per_s=1e6)
    with pytest.raises(ValueError, match="the control actor"):
        predict(FIGURES, setup, MANY)
    relayed = predict(FIGURES, replace(setup, num_relays=10, beats_per_s=300), MANY)
    assert relayed.loads["control actor"] <= 1


def test_networks_count_on_several_nodes_only():
    setup = Setup(num_runners=100_000, num_learners=64, num_shards=10_000, samples_per_insert=1)
    alone = predict(FIGURES, setup, MANY)
    slow = predict(FIGURES, setup, replace(MANY, num_nodes=2, network_bytes_per_s=1e3))
    assert "network" not in alone.bottleneck
    assert "network" in slow.bottleneck


def test_a_balanced_setup_is_limited_by_its_runners():
    setup = Setup(num_runners=50, samples_per_insert=0.5, beats_per_s=1)
    balanced = balance(FIGURES, setup, MANY)
    assert predict(FIGURES, replace(balanced, batches_per_reserve=100), MANY).loads["env runners"] > 0.8
    fewer = replace(balanced, num_learners=balanced.num_learners - 1)
    assert predict(FIGURES, fewer, MANY).bottleneck == "learners"


def test_costs_of_calls_are_read_off_the_shares_that_they_explain() -> None:
    costs = {"beat_s": 1e-3, "relay_message_s": 2e-3, "relayed_beat_s": 1e-5, "reserve_s": 5e-4}
    rows = []
    for runners, relays, reserves in (
        (8, 0, 300),
        (99, 0, 280),
        (300, 0, 200),
        (999, 4, 250),
        (3000, 10, 260),
        (10_000, 100, 90),
    ):
        calls = calls_per_s(Setup(num_runners=runners, num_relays=relays))
        share = (
            calls.direct * costs["beat_s"]
            + calls.relayed * costs["relayed_beat_s"]
            + calls.messages * costs["relay_message_s"]
            + reserves / 10 * costs["reserve_s"]
        )
        beats = calls.direct + calls.relayed
        rows.append(
            {
                "runners": runners,
                "relays": relays,
                "reserves": reserves,
                "beats_per_s": beats,
                "control_cpu_share": share,
            }
        )
    rows.append({"relays": "relay actor", "relay_cpu_share": 0.2, "beats_per_s": 100.0})
    figures = control_figures(rows, 10.0)
    assert {name: figures[name] for name in costs} == pytest.approx(costs)
    assert figures["relay_beat_s"] == pytest.approx(2e-3)
    assert figures["shard_beat_s"] == figures["beat_s"]
