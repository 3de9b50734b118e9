"""Folding: networks of fixed weights as fewer, plain operations, equal within float32 rounding."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from amago_ray.nets.contracts import TimestepEncoder
from amago_ray.nets.mlp import Mlp, activate
from amago_ray.nets.native_decoder import NativeMlp, load_mlp_kernel
from amago_ray.nets.timestep_encoders import MlpTimestepEncoder
from amago_ray.nets.tokens import TokenColumns

Linear = tuple[Tensor, Tensor | None]
"""weight `[out, in]` and bias."""
Norm = tuple[Tensor, Tensor]
"""gain and shift of a layer norm."""


@dataclass(frozen=True, eq=False)
class FoldedLayer:
    """A Transformer layer's weights with sigma-reparametrisation, head scales and the gains of pre-norms folded in.

    Rows of `qkv` are ordered q (head, channel), with the factor 1/sqrt(head_dim), then keys and values
    (head, which of the two, channel).
    """

    qkv: Linear
    output: Linear
    output_norm: Norm
    expand: Linear
    contract: Linear


def fold_mlp(layers: Sequence[Linear], norm: Norm | None = None) -> Callable[[Tensor], Tensor]:
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


def fold_norm(norm: nn.LayerNorm, weight: Tensor, bias: Tensor | None) -> tuple[Tensor, Tensor]:
    """W (g * x + b) + c as W' x + c': weight and bias of a linear layer that takes in the norm's gain and shift."""
    shift = weight @ norm.bias
    return weight * norm.weight, shift if bias is None else shift + bias


def plain_norm(x: Tensor) -> Tensor:
    """LayerNorm without gain and shift."""
    return functional.layer_norm(x, x.shape[-1:])


@torch.no_grad()
def fold_timestep_encoder(encoder: TimestepEncoder) -> Callable[[TokenColumns], Tensor]:
    """`encoder` in eval mode as a function of tokens, with its present weights.

    Of an `InputNorm` only the division goes into the first layer: folding the mean too would cancel digits where a
    feature's mean is large against its deviation, and the clamp needs the centred value.
    """
    if not isinstance(encoder, MlpTimestepEncoder) or encoder.input_norm is None or encoder.token_embedder is not None:
        return encoder.eval()
    features = encoder.features
    mean, divisor, limit = (x.clone() for x in encoder.input_norm.affine())
    (weight, bias), *rest = mlp_layers(encoder.mlp)
    mlp = fold_mlp([(weight / divisor, bias), *rest], norm_weights(encoder.output_norm))

    def encode(tokens: TokenColumns) -> Tensor:
        return mlp(torch.clamp(features(tokens).sub_(mean), -limit, limit))

    return encode
