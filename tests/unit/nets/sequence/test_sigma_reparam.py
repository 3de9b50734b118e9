import copy

import pytest
import torch
from helpers.numeric import as_float64, assert_as_exact_as, assert_rounded

from amago_ray.nets.sequence.sigma_reparam import SigmaReparamLinear, reparametrised_weights

pytestmark = pytest.mark.numeric


def test_initial_vectors_are_the_leading_singular_ones() -> None:
    torch.manual_seed(0)
    layer = SigmaReparamLinear(5, 7).eval()
    (weight,) = reparametrised_weights([layer])
    # A decomposition rounds about as often as a matrix has entries.
    assert_rounded(torch.linalg.matrix_norm(weight, ord=2), 1.0, roundings=35)


def power_iteration(
    weight: torch.Tensor, v: torch.Tensor, bias: torch.Tensor, x: torch.Tensor
) -> dict[str, torch.Tensor]:
    u = torch.nn.functional.normalize(weight @ v, dim=0)
    v = torch.nn.functional.normalize(weight.T @ u, dim=0)
    return {"output": x @ (weight / (u @ weight @ v)).T + bias, "u": u, "v": v}


def test_training_forward_does_one_power_iteration_and_evaluation_none() -> None:
    torch.manual_seed(0)
    layer = SigmaReparamLinear(4, 6)
    layer.v.copy_(torch.nn.functional.normalize(torch.randn(4), dim=0))
    weight, v = layer.weight.detach().clone(), layer.v.clone()
    x = torch.randn(3, 4)
    given = weight, v, layer.bias.detach(), x
    ours = {"output": layer(x), "u": layer.u.clone(), "v": layer.v.clone()}
    plain, reference = power_iteration(*given), power_iteration(*as_float64(given))
    assert_as_exact_as(ours, plain, reference=reference)
    layer.eval()
    evaluated = {"output": layer(x), "u": layer.u, "v": layer.v}
    assert_as_exact_as(evaluated, plain, reference=reference)
    assert torch.equal(layer.u, ours["u"])
    assert torch.equal(layer.v, ours["v"])


def gradients(
    weight: torch.Tensor,
    gamma: torch.Tensor,
    u: torch.Tensor,
    v: torch.Tensor,
    x: torch.Tensor,
    cotangent: torch.Tensor,
) -> dict[str, torch.Tensor]:
    weight, gamma = weight.clone().requires_grad_(), gamma.clone().requires_grad_()
    output = x @ (gamma / (u @ weight @ v) * weight).T
    return dict(zip(("weight", "gamma"), torch.autograd.grad(output, (weight, gamma), cotangent), strict=True))


def test_gradient_goes_through_the_weight_inside_sigma_but_not_through_u_and_v() -> None:
    torch.manual_seed(0)
    layer = SigmaReparamLinear(4, 6)
    with torch.no_grad():
        layer.gamma.fill_(1.7)
    x, cotangent = torch.randn(3, 4), torch.randn(3, 6)
    layer(x).backward(cotangent)
    given = layer.weight.detach(), layer.gamma.detach(), layer.u, layer.v, x, cotangent
    ours = {"weight": layer.weight.grad, "gamma": layer.gamma.grad}
    assert_as_exact_as(ours, gradients(*given), reference=gradients(*as_float64(given)))


def test_two_training_forwards_may_precede_the_backward_of_both() -> None:
    torch.manual_seed(0)
    layer = SigmaReparamLinear(4, 6)
    x = torch.randn(3, 4)
    (layer(x).sum() + layer(x).sum()).backward()
    assert layer.weight.grad is not None
    assert torch.isfinite(layer.weight.grad).all()


def test_initial_scale() -> None:
    torch.manual_seed(0)
    layer = SigmaReparamLinear(100, 200)
    assert 0.018 < layer.weight.std().item() < 0.022
    assert layer.gamma.tolist() == [1]
    assert layer.bias is not None
    assert 0.09 < layer.bias.abs().max().item() <= 0.1


def test_layers_together_are_the_layers_one_by_one() -> None:
    torch.manual_seed(0)
    together = [SigmaReparamLinear(4, 6), SigmaReparamLinear(6, 3), SigmaReparamLinear(4, 6, bias=False)]
    alone, exact = copy.deepcopy(together), as_float64(together)
    weights = [reparametrised_weights(together)]
    weights += [[reparametrised_weights([layer])[0] for layer in layers] for layers in (alone, exact)]
    for each in weights:
        sum((weight * (i + 1)).square().sum() for i, weight in enumerate(each)).backward()
    ours, plain, reference = (
        {
            f"{name} {i}": value
            for i, layer in enumerate(layers)
            for name, value in (
                ("weight", layer.weight.grad),
                ("gamma", layer.gamma.grad),
                ("u", layer.u),
                ("v", layer.v),
            )
        }
        for layers in (together, alone, exact)
    )
    assert_as_exact_as(ours, plain, reference=reference)
    assert not torch.equal(together[0].u, together[2].u)
