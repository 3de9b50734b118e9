"""`SigmaReparamLinear`: a linear map reparametrised by its spectral norm."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

_TINY = 1e-12


class SigmaReparamLinear(nn.Module):
    """y = (gamma / sigma) W x + bias with sigma = u^T W v, the running estimate of W's largest singular value.

    A forward in training mode first does one power iteration, u <- Wv/|Wv|, v <- W^T u/|W^T u|; in eval mode u and v
    are used as they are. u and v are constants for the gradient, W inside sigma is not.

    Source: Zhai et al., "Stabilizing Transformer Training by Preventing Attention Entropy Collapse" (arXiv 2303.06296).
    """

    u: Tensor
    v: Tensor

    def __init__(self, input_dim: int, output_dim: int, bias: bool = True) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(output_dim, input_dim).normal_(std=0.02))
        self.gamma = nn.Parameter(torch.ones(1))
        bound = 1 / math.sqrt(input_dim)
        self.bias = nn.Parameter(torch.empty(output_dim).uniform_(-bound, bound)) if bias else None
        left, _, right = torch.linalg.svd(self.weight.detach(), full_matrices=False)
        self.register_buffer("u", left[:, 0].clone())
        self.register_buffer("v", right[0].clone())

    def forward(self, x: Tensor) -> Tensor:
        """`[..., input_dim]` to `[..., output_dim]`."""
        return functional.linear(x, self.effective_weight(), self.bias)

    def effective_weight(self) -> Tensor:
        """(gamma / sigma) W; in training mode after one power iteration.

        The scale goes onto W, not onto the product: W is smaller than a batch's activations.
        """
        with torch.no_grad(), torch.autocast(self.weight.device.type, enabled=False):
            u, v, weight = self.u, self.v, self.weight
            if self.training:
                left = torch.mv(weight, v)
                u = left / left.norm().clamp_min(_TINY)
                right = torch.mv(weight.t(), u)
                # u^T W v = (W^T u)^T (W^T u) / |W^T u|: the norm that v is divided by is sigma itself.
                sigma = right.norm().clamp_min(_TINY)
                v = right / sigma
                self.u.copy_(u)
                self.v.copy_(v)
            else:
                sigma = torch.dot(u, torch.mv(weight, v))
        scaled: Tensor = _ScaleBySigma.apply(self.weight, self.gamma, u, v, sigma)  # type: ignore[no-untyped-call]
        return scaled


class _ScaleBySigma(torch.autograd.Function):
    """(gamma / sigma) W, where the backward pass knows that sigma = u^T W v."""

    @staticmethod
    def forward(ctx: Any, weight: Tensor, gamma: Tensor, u: Tensor, v: Tensor, sigma: Tensor) -> Tensor:
        scale = gamma / sigma
        ctx.save_for_backward(weight, u, v, sigma, scale)
        return weight * scale

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, Tensor, None, None, None]:
        weight, u, v, sigma, scale = ctx.saved_tensors
        (grad,) = grads
        grad_gamma = torch.sum(grad * weight) / sigma
        grad_weight = torch.addr(grad * scale, u * (-grad_gamma * scale), v)
        return grad_weight, grad_gamma.reshape(1), None, None, None
