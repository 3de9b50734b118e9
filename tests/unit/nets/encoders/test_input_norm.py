import numpy as np
import pytest
import torch
from helpers.numeric import assert_as_exact_as, assert_rounded

from amago_ray.nets.encoders.input_norm import InputNorm

pytestmark = pytest.mark.numeric


def formula(x: np.ndarray, step: np.float32) -> dict[str, np.ndarray]:
    """The first update, and what it makes of `x`, in the precision of `x`."""
    step = x.dtype.type(step)
    mean, mean_square = step * x.mean(0), (1 - step) + step * (x**2).mean(0)
    return {"output": (x - mean) / np.sqrt(mean_square - mean**2 + 1e-5), "mean": mean, "mean_square": mean_square}


def test_moments_move_by_the_float32_step_before_use() -> None:
    torch.manual_seed(0)
    norm = InputNorm(3)
    x = torch.randn(50, 3) * torch.tensor([1.0, 5.0, 0.1]) + 2
    ours = {"output": norm(x), "mean": norm.mean, "mean_square": norm.mean_square}
    base = np.float32(0.9999)
    step = np.float32(1e-4) / (np.float32(1) - base ** np.float32(2))
    assert_as_exact_as(ours, formula(x.numpy(), step), reference=formula(x.double().numpy(), step))
    assert norm.num_updates.item() == 2


def test_step_size_is_evaluated_in_float32_not_in_float64() -> None:
    norm = InputNorm(1)
    norm.update(torch.ones(2, 1))
    exact = 1e-4 / (1 - 0.9999**2)
    assert 1e-4 < abs(norm.mean.item() / exact - 1) < 4e-4


def test_rows_of_weight_zero_stay_out_of_the_moments() -> None:
    torch.manual_seed(0)
    x = torch.randn(6, 2)
    weighted, plain = InputNorm(2), InputNorm(2)
    weighted.update(torch.cat((x, torch.full((3, 2), 1e3))), torch.cat((torch.ones(6), torch.zeros(3))))
    plain.update(x)
    assert_rounded(weighted.mean, plain.mean, roundings=12, magnitude=float(x.abs().max()))
    assert_rounded(weighted.mean_square, plain.mean_square, roundings=12, magnitude=float(x.square().max()))


def test_evaluation_leaves_the_moments_alone() -> None:
    norm = InputNorm(2).eval()
    norm(torch.randn(4, 2))
    assert norm.num_updates.item() == 1
    assert norm.mean.tolist() == [0, 0]


def test_outliers_are_clamped_and_constant_features_only_centred() -> None:
    norm = InputNorm(3).eval()
    norm.mean.copy_(torch.tensor([0.0, 5.0, 0.0]))
    norm.mean_square.copy_(torch.tensor([1.0, 25.0, 1.0]))
    output = norm(torch.tensor([[1e6, 5.5, -1e6], [0.0, 1e6, 0.0]]))
    assert output[0, 0].item() == 1e4
    assert output[0, 2].item() == -1e4
    assert output[:, 1].tolist() == [0.5, 1e6 - 5.0]


def test_no_gradient_reaches_the_moments() -> None:
    norm = InputNorm(2)
    x = torch.randn(4, 2, requires_grad=True)
    norm(x).sum().backward()
    std = (norm.mean_square - norm.mean**2 + 1e-5).sqrt()
    assert_rounded(x.grad, (1 / std).expand(4, 2), roundings=2)


def test_moments_stay_float32_under_autocast() -> None:
    torch.manual_seed(0)
    x, weight = torch.randn(40, 3) + 7, torch.ones(40)
    exact, autocast = InputNorm(3), InputNorm(3)
    exact.update(x, weight)
    with torch.autocast("cpu", torch.bfloat16):
        autocast.update(x, weight)
    assert torch.equal(autocast.mean, exact.mean)
