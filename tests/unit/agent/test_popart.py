import torch

from amago_ray.agent.popart import PopArt


def filled(seed=0):
    popart = PopArt(2)
    popart.update(5 + 3 * torch.randn(50, 2, generator=torch.Generator().manual_seed(seed)))
    return popart


def test_updates_preserve_denormalised_outputs():
    popart = filled()
    outputs = torch.randn(20, 2)
    before = popart.denormalized_output(outputs)
    popart.update(40 * torch.randn(50, 2))
    assert torch.allclose(popart.denormalized_output(outputs), before, rtol=1e-4, atol=1e-4)


def test_normalised_outputs_and_targets_meet():
    popart = filled()
    outputs = torch.randn(20, 2)
    values = popart.denormalized_output(outputs)
    assert torch.allclose(popart.normalized(values), popart.normalized_output(outputs), atol=1e-5)


def test_the_first_step_has_half_weight():
    popart = PopArt(1)
    popart.update(torch.full((4, 1), 8.0))
    # One pseudo-batch of (0, 100) counts beside the first real one.
    assert torch.allclose(popart.mean, torch.tensor([4.0]), rtol=1e-3)
    assert torch.allclose(popart.mean_square, torch.tensor([82.0]), rtol=1e-3)


def test_weightless_rows_do_not_count():
    weighted, alone = PopArt(2), PopArt(2)
    targets = torch.randn(6, 2)
    weighted.update(torch.cat([targets, torch.full((3, 2), 1e6)]), torch.tensor([1.0] * 6 + [0.0] * 3))
    alone.update(targets)
    assert torch.allclose(weighted.mean, alone.mean)
    assert torch.allclose(weighted.mean_square, alone.mean_square)


def test_disabled_is_the_identity():
    popart = PopArt(2, enabled=False)
    before = {name: value.clone() for name, value in popart.state_dict().items()}
    popart.update(torch.randn(5, 2))
    outputs = torch.randn(5, 2)
    assert popart.normalized_output(outputs) is outputs
    assert popart.denormalized_output(outputs) is outputs
    assert popart.normalized(outputs) is outputs
    assert all(torch.equal(value, before[name]) for name, value in popart.state_dict().items())
