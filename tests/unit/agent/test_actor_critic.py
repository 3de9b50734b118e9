import pytest
import torch
from helpers.batches import ACTIONS, make_config, make_spec

from amago_ray.agent.make import build_actor_critic
from amago_ray.data.specs import ActionSpec, EnvSpec, ObservationSpec
from amago_ray.errors import SpaceError


@pytest.mark.parametrize("action", ACTIONS)
def test_targets_start_as_copies_and_are_not_trained(action):
    agent = build_actor_critic(make_config(), make_spec(action))
    targets, online = agent.target_pairs()
    assert len(targets) == len(online) > 0
    assert all(torch.equal(a, b) and a.data_ptr() != b.data_ptr() for a, b in zip(targets, online, strict=True))
    assert not any("target" in name for name in agent.trained_parameters())
    assert len(agent.trained_parameters()) == len(list(agent.parameters())) - len(targets)


def test_acting_needs_encoder_sequence_model_and_policy_head():
    agent = build_actor_critic(make_config(), make_spec())
    names = agent.acting_state()
    assert {name.split(".")[0] for name in names} == {"timestep_encoder", "sequence_model", "policy_head"}
    assert "timestep_encoder.input_norm.mean" in names


def test_an_action_space_without_choices_is_refused():
    spec = EnvSpec("empty", {"observation": ObservationSpec("box", (2,), "float32")}, ActionSpec("box", (0,)))
    with pytest.raises(SpaceError, match="empty: expected an action space with at least one choice, got box"):
        build_actor_critic(make_config(), spec)
