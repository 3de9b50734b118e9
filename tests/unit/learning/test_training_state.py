import io

import pytest
import torch
from helpers.batches import make_batch, make_config, make_spec

from amago_ray.agent.weights import snapshot_from_bytes
from amago_ray.errors import CheckpointError
from amago_ray.learning.learner import Learner
from amago_ray.learning.training_state import (
    POLICY_FILE,
    TRAINING_STATE_FILE,
    state_from_files,
    state_hash,
    state_to_files,
)


def make_learner(steps=0, seed=0, **options):
    learner = Learner(make_config(**options), make_spec(), device="cpu", seed=seed, incarnation=1)
    for step in range(steps):
        learner.step(make_batch(make_spec(), [6, 4], seed=step))
    return learner


def test_a_resumed_learner_goes_on_bit_for_bit():
    """Weights, targets, normalisers, optimizer, schedule, counters, randomness: all that is saved is loaded."""
    options = {"learner": {"warmup_steps": 10}}
    uninterrupted = make_learner(4, **options)
    files = state_to_files(uninterrupted.state_dict())
    resumed = make_learner(0, seed=9, **options)
    resumed.load_state_dict(state_from_files(files.__getitem__))
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


def test_policy_weights_are_readable_by_themselves():
    learner = make_learner(2)
    snapshot = snapshot_from_bytes(state_to_files(learner.state_dict())[POLICY_FILE], POLICY_FILE)
    assert snapshot.version == (1, 2)
    assert snapshot.arrays.keys() == learner.snapshot().arrays.keys()


def test_nothing_needs_unpickling():
    content = state_to_files(make_learner(1).state_dict())[TRAINING_STATE_FILE]
    assert "state" in torch.load(io.BytesIO(content), weights_only=True)


def test_files_of_two_checkpoints_do_not_mix():
    learner = make_learner(1)
    before = state_to_files(learner.state_dict())
    learner.step(make_batch(make_spec(), [6, 4]))
    after = state_to_files(learner.state_dict())
    with pytest.raises(CheckpointError, match="expected content with hash"):
        state_from_files({**after, POLICY_FILE: before[POLICY_FILE]}.__getitem__)


@pytest.mark.parametrize("name", [POLICY_FILE, TRAINING_STATE_FILE])
@pytest.mark.parametrize("damage", ["empty", "cut", "text"])
def test_broken_files_are_one_readable_line(name, damage):
    files = state_to_files(make_learner(1).state_dict())
    content = files[name]
    files[name] = {"cut": content[: len(content) // 2], "empty": b"", "text": b"text\n"}[damage]
    with pytest.raises(CheckpointError, match="expected") as error:
        state_from_files(files.__getitem__)
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
