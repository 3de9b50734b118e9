import pytest
import torch

from amago_ray.agent.filters import filter_weight
from amago_ray.config.agent import AgentConfig

ADVANTAGE = torch.tensor([-20.0, -0.5, 0.0, 0.02, 0.5, 20.0])


def weights(**config):
    return filter_weight(ADVANTAGE, AgentConfig(**config))


def test_binary():
    assert weights().tolist() == [0, 0, 0, 1, 1, 1]
    assert weights(binary_filter_threshold=0.1).tolist() == [0, 0, 0, 0, 1, 1]


def test_exponential_clips_advantage_and_weight():
    found = weights(
        advantage_filter="exponential",
        exponential_filter_beta=2.0,
        exponential_filter_clip_low=-1.0,
        exponential_filter_clip_high=1.0,
        exponential_filter_weight_low=0.3,
        exponential_filter_weight_high=4.0,
    )
    expected = (2 * ADVANTAGE.clamp(-1, 1)).exp().clamp(0.3, 4)
    assert torch.allclose(found, expected)


def test_exponential_without_clips():
    found = weights(
        advantage_filter="exponential", exponential_filter_clip_high=None, exponential_filter_weight_low=None
    )
    assert torch.allclose(found, ADVANTAGE.exp())


def test_leaky_passes_through_its_value_at_zero():
    found = weights(advantage_filter="leaky")
    assert torch.allclose(found[2], torch.tensor(0.01))
    assert found[0] == pytest.approx(1e-7)
    assert torch.allclose(found[4], 1 + 0.01 + 0.05 * 0.01 / 2 + torch.tensor((0.5 - 0.01) / 2))
    without = weights(advantage_filter="leaky", leaky_filter_adds_binary=False)
    assert torch.allclose(found - without, (ADVANTAGE > 0).float())


def test_none_weighs_everything_alike():
    assert weights(advantage_filter="none").tolist() == [1.0] * 6
