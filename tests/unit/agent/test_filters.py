import pytest
import torch
from helpers.numeric import assert_as_exact_as, assert_rounded

from amago_ray.agent.filters import make_filter
from amago_ray.config.advantage_filter import (
    BinaryFilterConfig,
    ExponentialFilterConfig,
    LeakyFilterConfig,
    NoFilterConfig,
)

pytestmark = pytest.mark.numeric

ADVANTAGE = torch.tensor([-20.0, -0.5, 0.0, 0.02, 0.5, 20.0])


def weights(config):
    return make_filter(config)(ADVANTAGE)


def test_binary():
    assert weights(BinaryFilterConfig()).tolist() == [0, 0, 0, 1, 1, 1]
    assert weights(BinaryFilterConfig(threshold=0.1)).tolist() == [0, 0, 0, 0, 1, 1]


def test_exponential_clips_advantage_and_weight():
    found = weights(
        ExponentialFilterConfig(beta=2.0, advantage_low=-1.0, advantage_high=1.0, weight_low=0.3, weight_high=4.0)
    )
    plain, reference = ((2 * a.clamp(-1, 1)).exp().clamp(0.3, 4) for a in (ADVANTAGE, ADVANTAGE.double()))
    assert_as_exact_as(found, plain, reference=reference)


def test_exponential_without_clips():
    found = weights(ExponentialFilterConfig(advantage_high=None, weight_low=None))
    assert_as_exact_as(found, ADVANTAGE.exp(), reference=ADVANTAGE.double().exp())


def test_leaky_passes_through_its_value_at_zero():
    found = weights(LeakyFilterConfig())
    expected = [1e-7, 0.01 - 0.05 * 0.5 / 2, 0.01, 1 + 0.01 + 0.05 * 0.01 / 2 + (0.02 - 0.01) / 2]
    expected += [1 + 0.01 + 0.05 * 0.01 / 2 + (0.5 - 0.01) / 2, 1 + 10.0]
    assert_rounded(found, torch.tensor(expected, dtype=torch.float64).clamp_min(1e-7), roundings=6, magnitude=2)
    assert found[0] == torch.tensor(1e-7)
    without = weights(LeakyFilterConfig(adds_binary=False))
    assert torch.equal(found, without + (ADVANTAGE > 0))


def test_none_weighs_everything_alike():
    assert weights(NoFilterConfig()).tolist() == [1.0] * 6
