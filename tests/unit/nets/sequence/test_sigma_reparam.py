import copy

import pytest
import torch

from amago_ray.nets.sequence.sigma_reparam import SigmaReparamLinear, reparametrised_weights


def test_initial_vectors_are_the_leading_singular_ones() -> None:
    torch.manual_seed(0)
    layer = SigmaReparamLinear(5, 7).eval()
    (weight,) = reparametrised_weights([layer])
    assert torch.linalg.matrix_norm(weight, ord=2).item() == pytest.approx(1, abs=1e-5)


def test_training_forward_does_one_power_iteration_and_evaluation_none() -> None:
    torch.manual_seed(0)
    layer = SigmaReparamLinear(4, 6)
    layer.v.copy_(torch.nn.functional.normalize(torch.randn(4), dim=0))
    weight, v = layer.weight.detach().clone(), layer.v.clone()
    x = torch.randn(3, 4)
    output = layer(x)
    u = torch.nn.functional.normalize(weight @ v, dim=0)
    v = torch.nn.functional.normalize(weight.T @ u, dim=0)
    torch.testing.assert_close(layer.u, u)
    torch.testing.assert_close(layer.v, v)
    torch.testing.assert_close(output, x @ (weight / (u @ weight @ v)).T + layer.bias)
    layer.eval()
    torch.testing.assert_close(layer(x), output)
    torch.testing.assert_close(layer.u, u, rtol=0, atol=0)


def test_gradient_goes_through_the_weight_inside_sigma_but_not_through_u_and_v() -> None:
    torch.manual_seed(0)
    layer = SigmaReparamLinear(4, 6)
    with torch.no_grad():
        layer.gamma.fill_(1.7)
    x, cotangent = torch.randn(3, 4), torch.randn(3, 6)
    layer(x).backward(cotangent)
    weight = layer.weight.detach().clone().requires_grad_()
    gamma = layer.gamma.detach().clone().requires_grad_()
    sigma = layer.u @ weight @ layer.v
    (x @ (gamma / sigma * weight).T + layer.bias.detach()).backward(cotangent)
    torch.testing.assert_close(layer.weight.grad, weight.grad)
    torch.testing.assert_close(layer.gamma.grad, gamma.grad)


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
    alone = copy.deepcopy(together)
    weights = [reparametrised_weights(together), [reparametrised_weights([layer])[0] for layer in alone]]
    for each in weights:
        sum((weight * (i + 1)).square().sum() for i, weight in enumerate(each)).backward()
    for one, other in zip(together, alone, strict=True):
        torch.testing.assert_close(one.weight.grad, other.weight.grad)
        torch.testing.assert_close(one.gamma.grad, other.gamma.grad)
        assert torch.equal(one.u, other.u)
        assert torch.equal(one.v, other.v)
    assert not torch.equal(together[0].u, together[2].u)
