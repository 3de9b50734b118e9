"""`CnnTimestepEncoder`: images through convolutions, everything else beside them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from amago_ray.config.model import ImagesConfig
from amago_ray.data.specs import EnvSpec, ObservationSpec
from amago_ray.errors import ConfigError
from amago_ray.nets.contracts import TimestepEncoder
from amago_ray.nets.encoders.token_embedder import split_token_leaves
from amago_ray.nets.mlp import NEGATIVE_SLOPE, activate
from amago_ray.nets.tokens import TokenColumns, TokenFeatures

if TYPE_CHECKING:
    from jaxtyping import Float, UInt8

_ROOM_FOR_A_STRIDE = 12
"""Pixels from which on the convolutions of small images halve them."""


class CnnTimestepEncoder(TimestepEncoder):
    """Each image through its own convolutions to `image_dim`; symlog of vectors and rl2 linearly to `rl2_dim`; merged.

    The merge is: leaky ReLU of all features side by side (images in sorted order first, embedded token leaves last),
    linear, LayerNorm. There is
    no input normalisation: symlog bounds the rest. Parameters: `images.{i}.…` for the i-th image leaf in sorted order.
    """

    def __init__(self, config: ImagesConfig, leaves: dict[str, ObservationSpec], spec: EnvSpec) -> None:
        super().__init__()
        images = {name: leaf for name, leaf in leaves.items() if leaf.is_pixels}
        self.image_names = sorted(images)
        self.images = nn.ModuleList(ImageEncoder(config, images[name], name) for name in self.image_names)
        self.token_embedder, others = split_token_leaves(
            config, {n: leaf for n, leaf in leaves.items() if n not in images}
        )
        self.features = TokenFeatures(others, spec.action)
        self.rl2 = nn.Linear(self.features.num_features, config.rl2_dim)
        width = len(images) * config.image_dim + config.rl2_dim
        width += 0 if self.token_embedder is None else self.token_embedder.output_dim
        self.merge = nn.Linear(width, config.output_dim)
        self.output_norm = nn.LayerNorm(config.output_dim)
        self.output_dim = config.output_dim

    def forward(self, tokens: TokenColumns, weight: Tensor | None = None) -> Tensor:
        """See `TimestepEncoder`; there are no running statistics for `weight` to enter."""
        columns = [image(tokens.observations[name]) for name, image in zip(self.image_names, self.images, strict=True)]
        columns.append(self.rl2(symlog(self.features(tokens))))
        if self.token_embedder is not None:
            columns.append(self.token_embedder(tokens.observations))
        output: Tensor = self.output_norm(self.merge(activate(torch.cat(columns, dim=-1))))
        return output


class ImageEncoder(nn.Module):
    """uint8 pixels `[N, channels, height, width]` to `[N, image_dim]`: convolutions, flatten, linear.

    Raises:
        ConfigError: the image has no room for the convolutions that the settings ask for.
    """

    def __init__(self, config: ImagesConfig, leaf: ObservationSpec, name: str) -> None:
        super().__init__()
        channels, height, width = leaf.shape
        self.random_shift_pixels = config.random_shift_pixels
        self.convolutions = nn.ModuleList()
        kernel_sizes, strides = convolutions_for(config, min(height, width))
        for out_channels, kernel_size, stride in zip(config.cnn_channels, kernel_sizes, strides, strict=True):
            if min(height, width) < max(kernel_size, 1):
                raise ConfigError(
                    "model.timestep_encoder.cnn_kernel_sizes: expected an image large enough for the convolutions, or "
                    f'null here and for cnn_strides to fit them to it, got "{name}" of shape {list(leaf.shape)}'
                )
            height, width = (height - kernel_size) // stride + 1, (width - kernel_size) // stride + 1
            convolution = nn.Conv2d(channels, out_channels, kernel_size, stride)
            delta_orthogonal_(convolution)
            self.convolutions.append(convolution)
            channels = out_channels
        self.output = nn.Linear(channels * height * width, config.image_dim)

    def forward(self, pixels: UInt8[Tensor, "N channels height width"]) -> Float[Tensor, "N image_dim"]:
        """The image's features, before their activation."""
        if self.training and self.random_shift_pixels > 0:
            pixels = random_shift(pixels, self.random_shift_pixels)
        x = pixels.to(torch.float32).mul_(1 / 128).sub_(1)
        for convolution in self.convolutions:
            x = activate(convolution(x))
        output: Tensor = self.output(x.flatten(1))
        return output


def convolutions_for(config: ImagesConfig, side: int) -> tuple[Sequence[int], Sequence[int]]:
    """Kernel sizes and strides for images of so many pixels along their shorter side.

    What the settings leave open is that of the usual stack, 8, 4, 3 by 4, 2, 1 and then 3 by 1; where they leave both
    open and an image has no room for it, kernels of at most 3, by 2 as long as 12 pixels are left.
    """
    num_layers = len(config.cnn_channels)
    usual = [(8, 4), (4, 2), *[(3, 1)] * num_layers][:num_layers]
    kernel_sizes = config.cnn_kernel_sizes or [kernel_size for kernel_size, _ in usual]
    strides = config.cnn_strides or [stride for _, stride in usual]
    if config.cnn_kernel_sizes is not None or config.cnn_strides is not None:
        return kernel_sizes, strides
    left = side
    for kernel_size, stride in usual:
        left = (left - kernel_size) // stride + 1
    if left >= 1:
        return kernel_sizes, strides
    kernel_sizes, strides = [], []
    for _ in range(num_layers):
        kernel_sizes.append(min(3, side))
        strides.append(2 if side >= _ROOM_FOR_A_STRIDE else 1)
        side = (side - kernel_sizes[-1]) // strides[-1] + 1
    return kernel_sizes, strides


def symlog(x: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
    """sign(x) ln(1 + |x|)."""
    return x.sign() * x.abs().log1p()


def random_shift(
    pixels: UInt8[Tensor, "N channels height width"], max_shift: int
) -> UInt8[Tensor, "N channels height width"]:
    """Each image moved by up to `max_shift` pixels along both axes, edge pixels repeated.

    Source: docs/algorithm.md §2.5; DrQ-v2 (arXiv 2107.09645), section 3.1, with whole pixels.
    """
    rows, columns = (
        (torch.arange(size, device=pixels.device) + shift).clamp_(0, size - 1)
        for size, shift in zip(
            pixels.shape[2:],
            torch.randint(-max_shift, max_shift + 1, (2, len(pixels), 1), device=pixels.device),
            strict=True,
        )
    )
    images = torch.arange(len(pixels), device=pixels.device)[:, None, None, None]
    channels = torch.arange(pixels.shape[1], device=pixels.device)[:, None, None]
    return pixels[images, channels, rows[:, None, :, None], columns[:, None, None, :]]


@torch.no_grad()
def delta_orthogonal_(convolution: nn.Conv2d) -> None:
    """Initialise: an orthogonal matrix on the centre tap, zero elsewhere and in the bias.

    Source: Xiao et al. (arXiv 1806.05393), with the gain of leaky ReLU.
    """
    height, width = convolution.kernel_size[0], convolution.kernel_size[1]
    gain = math.sqrt(2 / (1 + NEGATIVE_SLOPE**2))
    convolution.weight.zero_()
    nn.init.orthogonal_(convolution.weight[:, :, height // 2, width // 2], gain)
    if convolution.bias is not None:
        convolution.bias.zero_()
