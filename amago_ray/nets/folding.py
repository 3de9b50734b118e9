"""Folding: networks of fixed weights as fewer, plain operations, equal within float32 rounding."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from amago_ray.nets.contracts import TimestepEncoder
from amago_ray.nets.mlp import Mlp, activate
from amago_ray.nets.timestep_encoders import MlpTimestepEncoder
from amago_ray.nets.tokens import TokenColumns

Linear = tuple[Tensor, Tensor | None]
"""weight `[out, in]` and bias."""


def apply_mlp(x: Tensor, layers: Sequence[Linear]) -> Tensor:
    """Linear layers with leaky ReLU between them."""
    for weight, bias in layers[:-1]:
        x = activate(functional.linear(x, weight, bias))
    return functional.linear(x, *layers[-1])


def mlp_layers(mlp: Mlp) -> list[Linear]:
    """The linear layers of an MLP."""
    return [(layer.weight.detach(), layer.bias.detach()) for layer in mlp.layers if isinstance(layer, nn.Linear)]


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
    features, output_norm = encoder.features, encoder.output_norm
    mean, divisor, limit = (x.clone() for x in encoder.input_norm.affine())
    (weight, bias), *rest = mlp_layers(encoder.mlp)
    layers = [(weight / divisor, bias), *rest]

    def encode(tokens: TokenColumns) -> Tensor:
        centred = torch.clamp(features(tokens).sub_(mean), -limit, limit)
        encoded: Tensor = output_norm(apply_mlp(centred, layers))
        return encoded

    return encode
