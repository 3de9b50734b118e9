import pytest
import torch
from helpers.batches import ACTIONS, make_config

from amago_ray.agent.make import make_objective


def draw(action, seed=0, **agent):
    config = make_config(**agent).agent
    return make_objective(config, ACTIONS[action]).make_draws(config, 40, torch.Generator().manual_seed(seed))


def test_critics_are_drawn_with_replacement_for_every_transition_and_discount():
    subset = draw("discrete", num_critics=3, num_critics_in_target=2).critic_subset
    assert subset.shape == (40, 2, 3)
    assert set(subset.unique().tolist()) == {0, 1, 2}
    assert (subset[:, 0] == subset[:, 1]).any()
    assert (subset[:, :, 0] != subset[:, :, 1]).any()


def test_exact_expectations_draw_no_actions():
    draws = draw("discrete")
    assert draws.target_action is draws.policy_action is draws.value_action is None


@pytest.mark.parametrize("action", ["multi_discrete", "multi_binary", "box"])
def test_sampled_actions_have_their_numbers(action):
    draws = draw(action, num_action_samples_in_critic_loss=2, num_action_samples_in_policy_loss=5)
    assert draws.target_action.shape[:3] == (40, 2, 3)
    assert draws.policy_action.shape[:3] == (40, 5, 3)
    part = draws.rows(10, 14)
    assert torch.equal(part.policy_action, draws.policy_action[10:14])
    assert part.critic_subset.shape == (4, 2, 3)


def test_multi_task_draws_what_its_terms_need():
    offline = draw("discrete", kind="multi_task", online_coefficient=0.0)
    assert offline.policy_action is None
    assert offline.value_action.shape == (40, 1, 3)
    online = draw("discrete", kind="multi_task", offline_coefficient=0.0)
    assert online.value_action is None
    assert online.policy_action.shape == (40, 1, 3, 4)


def test_the_generator_decides():
    assert torch.equal(draw("box").policy_action, draw("box").policy_action)
    assert not torch.equal(draw("box").policy_action, draw("box", seed=1).policy_action)
