"""Small sequence models, and packed sequences for them."""

from __future__ import annotations

from typing import Any

import torch
from helpers.model_configs import sequence_config
from torch import Tensor

from amago_ray.nets.contracts import SequenceModel
from amago_ray.nets.layout import SequenceLayout
from amago_ray.nets.sequence.make import build_sequence_model

SMALL: dict[str, Any] = {"d_model": 16, "num_layers": 2, "num_heads": 4, "d_ff": 24, "context_length": 8}


def make(options: dict[str, Any]) -> SequenceModel:
    torch.manual_seed(0)
    model = build_sequence_model(sequence_config(**{**SMALL, **options}), 10, horizon=50)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.1)
    return model.eval()


def packed(lengths: list[int]) -> tuple[Tensor, Tensor, SequenceLayout]:
    layout = SequenceLayout.from_lengths(lengths)
    time_index = torch.cat([torch.arange(n) + 3 * i for i, n in enumerate(lengths)])
    return torch.randn(layout.num_tokens, 10), time_index, layout
