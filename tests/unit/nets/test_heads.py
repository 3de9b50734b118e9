import math

import numpy as np
import pytest
import torch
from helpers.numeric import as_float64, assert_as_exact_as
from torch.nn import functional

from amago_ray.config.model import HeadConfig
from amago_ray.nets.heads import PolicyHead, StateActionCritics, StateCritics

pytestmark = pytest.mark.numeric

CONFIG = HeadConfig(num_layers=2, hidden_dim=6)
DISCOUNTS = (0.5, 0.9, 0.999)


def members(critics, x):
    """Each critic evaluated by itself."""
    results = []
    for index in range(critics.num_critics):
        *hidden, last = [(layer.weight[index], layer.bias[index, 0]) for layer in critics.layers]
        y = x
        for weight, bias in hidden:
            y = functional.leaky_relu(y @ weight + bias, 0.01)
        results.append(y @ last[0] + last[1])
    return torch.stack(results)


def test_policy_head_reads_its_output_by_discount():
    head = PolicyHead(5, CONFIG, 3, 4)
    state = torch.randn(7, 5)
    assert head(state).shape == (7, 3, 4)
    assert torch.equal(head(state).flatten(1), head.mlp(state))
    assert set(dict(head.named_parameters())) == {
        f"mlp.layers.{i}.{leaf}" for i in range(3) for leaf in ("weight", "bias")
    }


def test_state_critics_are_independent_members():
    critics = StateCritics(5, CONFIG, num_critics=3, num_discounts=2, num_actions=4)
    state = torch.randn(7, 5)
    values = critics(state)
    assert values.shape == (3, 7, 2, 4)
    assert_as_exact_as(values.flatten(2), members(critics, state), reference=members(*as_float64((critics, state))))


def test_state_action_critics_equal_a_concatenated_input():
    critics = StateActionCritics(5, CONFIG, num_critics=3, discounts=DISCOUNTS, action_dim=2, num_outputs=4)
    state, action = torch.randn(7, 5), torch.rand(7, 2, 3, 2) * 2.4 - 1.2
    values = critics(state, action)
    assert values.shape == (3, 7, 2, 3, 4)
    # In float32 as the original has it: 1 - 0.999 is off by 3e-5 of itself.
    feature = torch.tensor([np.log1p(1 / max(1 - np.float32(discount), np.float32(1e-6))) for discount in DISCOUNTS])
    joined = torch.cat(
        [
            state[:, None, None].expand(7, 2, 3, 5),
            feature[:, None].expand(7, 2, 3, 1),
            action.clamp(-0.999, 0.999),
        ],
        -1,
    )
    assert_as_exact_as(values, members(critics, joined), reference=members(*as_float64((critics, joined))))


def test_one_action_for_all_discounts_equals_a_copy_for_each():
    critics = StateActionCritics(5, CONFIG, num_critics=2, discounts=DISCOUNTS, action_dim=2)
    state, action = torch.randn(7, 5), torch.rand(7, 1, 1, 2)
    copies = action.expand(7, 1, 3, 2)
    reference = as_float64(critics)(state.double(), copies.double())
    assert_as_exact_as(critics(state, action), critics(state, copies), reference=reference)


def test_frozen_critics_let_gradients_through_to_their_inputs_only():
    critics = StateActionCritics(5, CONFIG, num_critics=2, discounts=DISCOUNTS, action_dim=2)
    action = torch.rand(7, 1, 3, 2, requires_grad=True)
    critics(torch.randn(7, 5), action, frozen=True).sum().backward()
    assert action.grad.abs().max() > 0
    assert all(parameter.grad is None for parameter in critics.parameters())


def test_critics_start_in_the_range_of_the_original():
    critics = StateCritics(100, HeadConfig(num_layers=1, hidden_dim=200), num_critics=4, num_discounts=1, num_actions=2)
    first = critics.layers[0]
    assert 0.95 * math.sqrt(3 / 100) < first.weight.abs().max() <= math.sqrt(3 / 100)
    assert 0.9 / math.sqrt(100) < first.bias.abs().max() <= 1 / math.sqrt(100)
    assert not torch.equal(first.weight[0], first.weight[1])
