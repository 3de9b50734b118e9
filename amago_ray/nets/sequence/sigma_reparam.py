"""`SigmaReparamLinear`: a linear map reparametrised by its spectral norm."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.nn import functional

if TYPE_CHECKING:
    from jaxtyping import Float

_TINY = 1e-12


class SigmaReparamLinear(nn.Module):
    """y = (gamma / sigma) W x + bias with sigma = u^T W v, the running estimate of W's largest singular value.

    A forward in training mode first does one power iteration, u <- Wv/|Wv|, v <- W^T u/|W^T u|; in eval mode u and v
    are used as they are. u and v are constants for the gradient, W inside sigma is not.

    Source: docs/algorithm.md §3.3; Zhai et al., "Stabilizing Transformer Training by Preventing Attention Entropy
    Collapse" (arXiv 2303.06296).
    """

    u: Float[Tensor, " outputs"]
    v: Float[Tensor, " inputs"]

    def __init__(self, input_dim: int, output_dim: int, bias: bool = True) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(output_dim, input_dim).normal_(std=0.02))
        self.gamma = nn.Parameter(torch.ones(1))
        bound = 1 / math.sqrt(input_dim)
        self.bias = nn.Parameter(torch.empty(output_dim).uniform_(-bound, bound)) if bias else None
        left, _, right = torch.linalg.svd(self.weight.detach(), full_matrices=False)
        self.register_buffer("u", left[:, 0].clone())
        self.register_buffer("v", right[0].clone())

    def forward(self, x: Float[Tensor, "*R inputs"]) -> Float[Tensor, "*R outputs"]:
        """`[..., input_dim]` to `[..., output_dim]`."""
        (weight,) = reparametrised_weights([self])
        return functional.linear(x, weight, self.bias)


def reparametrised_weights(layers: Sequence[SigmaReparamLinear]) -> tuple[Float[Tensor, "outputs inputs"], ...]:
    """(gamma / sigma) W of each layer; in training mode, which all share, after one power iteration.

    The scale goes onto W, not onto the product: W is smaller than a batch's activations. All layers go together, since
    the operations are many and small.
    """
    weights, us, vs = [layer.weight for layer in layers], [layer.u for layer in layers], [layer.v for layer in layers]
    with torch.no_grad(), torch.autocast(weights[0].device.type, enabled=False):
        if layers[0].training:
            us = _normalized([torch.mv(weight, v) for weight, v in zip(weights, vs, strict=True)])[0]
            # u^T W v = (W^T u)^T (W^T u) / |W^T u|: the norm that v is divided by is sigma itself.
            vs, sigmas = _normalized([torch.mv(weight.t(), u) for weight, u in zip(weights, us, strict=True)])
            torch._foreach_copy_(
                [buffer for layer in layers for buffer in (layer.u, layer.v)],
                [vector for pair in zip(us, vs, strict=True) for vector in pair],
            )
        else:
            sigmas = [torch.dot(u, torch.mv(w, v)) for u, w, v in zip(us, weights, vs, strict=True)]
    gammas = [layer.gamma for layer in layers]
    scaled: tuple[Tensor, ...] = _ScaleBySigma.apply(us, vs, sigmas, *weights, *gammas)  # type: ignore[no-untyped-call]
    return scaled


def _normalized(vectors: list[Tensor]) -> tuple[list[Tensor], list[Tensor]]:
    """Vectors of length 1, and the lengths that they had."""
    lengths = list(torch._foreach_norm(vectors))
    torch._foreach_clamp_min_(lengths, _TINY)
    return list(torch._foreach_div(vectors, lengths)), lengths


class _ScaleBySigma(torch.autograd.Function):
    """(gamma / sigma) W of several layers, where the backward pass knows that sigma = u^T W v."""

    @staticmethod
    def forward(
        ctx: Any, us: list[Tensor], vs: list[Tensor], sigmas: list[Tensor], *weights_and_gammas: Tensor
    ) -> tuple[Tensor, ...]:
        weights, gammas = _halves(weights_and_gammas)
        scales = torch._foreach_div(gammas, sigmas)
        ctx.save_for_backward(*weights, *us, *vs, *sigmas, *scales)
        return tuple(torch._foreach_mul(weights, scales))

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        n = len(grads)
        weights, us, vs, sigmas, scales = (list(ctx.saved_tensors[i * n : (i + 1) * n]) for i in range(5))
        inner = [torch.sum(product) for product in torch._foreach_mul(grads, weights)]
        grad_gammas = [grad.reshape(1) for grad in torch._foreach_div(inner, sigmas)]
        factors = torch._foreach_neg(torch._foreach_mul(grad_gammas, scales))
        columns = torch._foreach_mul(us, factors)
        scaled = torch._foreach_mul(grads, scales)
        grad_weights = [torch.addr(part, u, v) for part, u, v in zip(scaled, columns, vs, strict=True)]
        return None, None, None, *grad_weights, *grad_gammas


def _halves(tensors: Sequence[Tensor]) -> tuple[list[Tensor], list[Tensor]]:
    half = len(tensors) // 2
    return list(tensors[:half]), list(tensors[half:])
