import pytest
import torch
from helpers.batches import make_batch, make_config, make_spec

from amago_ray.agent.weights import load_snapshot
from amago_ray.errors import CheckpointError
from amago_ray.learning.learner import Learner
from amago_ray.learning.training_state import (
    POLICY_FILE,
    TRAINING_STATE_FILE,
    load_training_state,
    save_training_state,
    state_hash,
)


def make_learner(steps=0, seed=0, **options):
    learner = Learner(make_config(**options), make_spec(), device="cpu", seed=seed, incarnation=1)
    for step in range(steps):
        learner.step(make_batch(make_spec(), [6, 4], seed=step))
    return learner


def test_a_resumed_learner_goes_on_bit_for_bit(tmp_path):
    """Weights, targets, normalisers, optimizer, schedule, counters, randomness: all that is saved is loaded."""
    options = {"learner": {"warmup_steps": 10}}
    uninterrupted = make_learner(4, **options)
    save_training_state(tmp_path, uninterrupted.state_dict())
    resumed = make_learner(0, seed=9, **options)
    resumed.load_state_dict(load_training_state(tmp_path))
    assert state_hash(resumed.state_dict()) == state_hash(uninterrupted.state_dict())
    for learner in (uninterrupted, resumed):
        for step in range(3):
            learner.step(make_batch(make_spec(), [5, 7], seed=100 + step))
    assert resumed.learner_steps == 7
    assert state_hash(resumed.state_dict()) == state_hash(uninterrupted.state_dict())


def test_the_hash_sees_every_tensor_and_counter():
    state = make_learner(1).state_dict()
    reference = state_hash(state)
    changed = 0
    for group in (state["agent"], *state["optimizer"].values()):
        for name in group:
            kept = group[name]
            group[name] = kept + 1
            assert state_hash(state) != reference, name
            group[name] = kept
            changed += 1
    assert changed > 60
    for name in ("learner_steps", "seed"):
        assert state_hash({**state, name: 99}) != reference
    assert state_hash(state) == reference
    assert state_hash({**state, "incarnation": 99}) == reference


def test_policy_weights_are_readable_by_themselves(tmp_path):
    learner = make_learner(2)
    save_training_state(tmp_path, learner.state_dict())
    snapshot = load_snapshot(tmp_path / POLICY_FILE)
    assert snapshot.version == (1, 2)
    assert snapshot.arrays.keys() == learner.snapshot().arrays.keys()


def test_nothing_needs_unpickling(tmp_path):
    save_training_state(tmp_path, make_learner(1).state_dict())
    assert "state" in torch.load(tmp_path / TRAINING_STATE_FILE, weights_only=True)


def test_files_of_two_checkpoints_do_not_mix(tmp_path):
    learner = make_learner(1)
    save_training_state(tmp_path, learner.state_dict())
    policy = (tmp_path / POLICY_FILE).read_bytes()
    learner.step(make_batch(make_spec(), [6, 4]))
    save_training_state(tmp_path, learner.state_dict())
    (tmp_path / POLICY_FILE).write_bytes(policy)
    with pytest.raises(CheckpointError, match="expected content with hash"):
        load_training_state(tmp_path)


@pytest.mark.parametrize("name", [POLICY_FILE, TRAINING_STATE_FILE])
@pytest.mark.parametrize("damage", ["missing", "empty", "cut", "text"])
def test_broken_files_are_one_readable_line(tmp_path, name, damage):
    save_training_state(tmp_path, make_learner(1).state_dict())
    content = (tmp_path / name).read_bytes()
    (tmp_path / name).unlink()
    if damage != "missing":
        (tmp_path / name).write_bytes({"cut": content[: len(content) // 2], "empty": b"", "text": b"text\n"}[damage])
    with pytest.raises(CheckpointError, match="expected") as error:
        load_training_state(tmp_path)
    assert name in str(error.value)
    assert "\n" not in str(error.value)


def test_a_state_of_another_model_is_refused():
    state = make_learner(1).state_dict()
    with pytest.raises(CheckpointError, match="learner state: expected one of this agent"):
        make_learner(num_critics=3).load_state_dict(state)
    del state["agent"]["policy_head.mlp.layers.0.weight"]
    with pytest.raises(CheckpointError, match="policy_head"):
        make_learner().load_state_dict(state)


def test_a_state_without_an_optimizer_moment_is_refused():
    state = make_learner(1).state_dict()
    del state["optimizer"]["exp_avg"]["critics.layers.0.weight"]
    with pytest.raises(CheckpointError, match=r"optimizer exp_avg: .* \['critics.layers.0.weight'\]"):
        make_learner().load_state_dict(state)
