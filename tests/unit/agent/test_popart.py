import pytest
import torch
from helpers.numeric import assert_rounded

from amago_ray.agent.popart import STEP_SIZE, PopArt

pytestmark = pytest.mark.numeric


def filled(seed=0):
    popart = PopArt(2)
    popart.update(5 + 3 * torch.randn(50, 2, generator=torch.Generator().manual_seed(seed)))
    return popart


def largest(popart: PopArt, outputs: torch.Tensor) -> float:
    """What the numbers on the way from outputs to values add up to."""
    normalized = popart.scale * outputs.abs() + popart.shift.abs()
    return float((popart.std * normalized + popart.mean.abs()).max())


def test_updates_preserve_denormalised_outputs():
    popart = filled()
    outputs = torch.randn(20, 2)
    before = popart.denormalized_output(outputs)
    popart.update(40 * torch.randn(50, 2))
    assert_rounded(popart.denormalized_output(outputs), before, roundings=16, magnitude=largest(popart, outputs))


def test_normalised_outputs_and_targets_meet():
    popart = filled()
    outputs = torch.randn(20, 2)
    values = popart.denormalized_output(outputs)
    magnitude = largest(popart, outputs) / float(popart.std.min())
    assert_rounded(popart.normalized(values), popart.normalized_output(outputs), roundings=16, magnitude=magnitude)


def test_the_first_step_has_half_weight():
    popart = PopArt(1)
    popart.update(torch.full((4, 1), 8.0))
    # One pseudo-batch of (0, 100) counts beside the first real one.
    # The step is a difference of two numbers near 1: what is rounded there is larger than the step's own rounding.
    lost = 1 / (2 * STEP_SIZE)
    assert_rounded(popart.mean, 4.0, roundings=4, magnitude=4 * lost)
    assert_rounded(popart.mean_square, 82.0, roundings=4, magnitude=82 * lost)


def test_weightless_rows_do_not_count():
    weighted, alone = PopArt(2), PopArt(2)
    targets = torch.randn(6, 2)
    weighted.update(torch.cat([targets, torch.full((3, 2), 1e6)]), torch.tensor([1.0] * 6 + [0.0] * 3))
    alone.update(targets)
    assert_rounded(weighted.mean, alone.mean, roundings=12, magnitude=float(targets.abs().max()))
    assert_rounded(weighted.mean_square, alone.mean_square, roundings=12)


def test_disabled_is_the_identity():
    popart = PopArt(2, enabled=False)
    before = {name: value.clone() for name, value in popart.state_dict().items()}
    popart.update(torch.randn(5, 2))
    outputs = torch.randn(5, 2)
    assert popart.normalized_output(outputs) is outputs
    assert popart.denormalized_output(outputs) is outputs
    assert popart.normalized(outputs) is outputs
    assert all(torch.equal(value, before[name]) for name, value in popart.state_dict().items())
