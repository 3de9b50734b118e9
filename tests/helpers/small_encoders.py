"""Small timestep encoders: settings, specs and tokens to read."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from amago_ray.data.specs import ActionSpec, EnvSpec, ObservationSpec
from amago_ray.nets.tokens import TokenColumns

BOX = ObservationSpec("box", (3,), "float32")
IMAGE = ObservationSpec("box", (3, 12, 12), "uint8")
SMALL: dict[str, Any] = {
    "hidden_dim": 16,
    "output_dim": 8,
    "cnn_channels": (4, 5),
    "cnn_kernel_sizes": (3, 3),
    "cnn_strides": (2, 1),
    "image_dim": 6,
    "rl2_dim": 4,
}


def spec(**observations: ObservationSpec) -> EnvSpec:
    return EnvSpec("test", observations, ActionSpec("discrete", (), (4,)))


def tokens(num_tokens: int = 5, **observations: Tensor) -> TokenColumns:
    action, reward = torch.arange(num_tokens) % 4, torch.linspace(0, 1, num_tokens)
    return TokenColumns(observations, action, reward, torch.arange(num_tokens))


def pixels(num_tokens: int = 5) -> Tensor:
    return torch.randint(0, 256, (num_tokens, 3, 12, 12), dtype=torch.uint8)
