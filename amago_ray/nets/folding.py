"""Folding: networks of fixed weights as fewer, plain operations, equal within float32 rounding."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from torch import Tensor, nn
from torch.nn import functional

from amago_ray.nets.folded import Linear, Norm
from amago_ray.nets.mlp import Mlp, activate
from amago_ray.nets.native.decode import NativeMlp, load_mlp_kernel

if TYPE_CHECKING:
    from jaxtyping import Float


def fold_mlp(
    layers: Sequence[Linear], norm: Norm | None = None
) -> Callable[[Float[Tensor, "N inputs"]], Float[Tensor, "N outputs"]]:
    """Linear layers with leaky ReLU between them, then a layer norm if there is one: `[N, in]` to `[N, out]`."""
    kernel = load_mlp_kernel()
    if kernel is not None and layers[0][0].device.type == "cpu":
        return NativeMlp(layers, norm, kernel)

    def apply(x: Tensor) -> Tensor:
        for weight, bias in layers[:-1]:
            x = activate(functional.linear(x, weight, bias))
        x = functional.linear(x, *layers[-1])
        return x if norm is None else functional.layer_norm(x, x.shape[-1:], *norm)

    return apply


def mlp_layers(mlp: Mlp) -> list[Linear]:
    """The linear layers of an MLP."""
    return [(layer.weight.detach(), layer.bias.detach()) for layer in mlp.layers if isinstance(layer, nn.Linear)]


def norm_weights(norm: nn.LayerNorm) -> Norm:
    """Copies of gain and shift."""
    return norm.weight.detach().clone(), norm.bias.detach().clone()


def fold_norm(
    norm: nn.LayerNorm, weight: Float[Tensor, "outputs inputs"], bias: Float[Tensor, " outputs"] | None
) -> tuple[Float[Tensor, "outputs inputs"], Float[Tensor, " outputs"]]:
    """W (g * x + b) + c as W' x + c': weight and bias of a linear layer that takes in the norm's gain and shift."""
    shift = weight @ norm.bias
    return weight * norm.weight, shift if bias is None else shift + bias


def plain_norm(x: Float[Tensor, "*R D"]) -> Float[Tensor, "*R D"]:
    """LayerNorm without gain and shift."""
    return functional.layer_norm(x, x.shape[-1:])
