"""Attention straight from its definition."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from amago_ray.nets.layout import SequenceLayout


def naive_attention(q: Tensor, k: Tensor, v: Tensor, layout: SequenceLayout, window: int | None) -> Tensor:
    """Row by row, straight from the definition."""
    outputs = []
    start = 0
    for length in layout.lengths:
        for i in range(length):
            first = 0 if window is None else max(0, i - window + 1)
            rows = slice(start + first, start + i + 1)
            scores = torch.einsum("hd,lhd->hl", q[start + i], k[rows]) / q.shape[-1] ** 0.5
            outputs.append(torch.einsum("hl,lhd->hd", scores.softmax(-1), v[rows]))
        start += length
    return torch.stack(outputs)


def with_gradient(attend: Any, qkv: Tensor, cotangent: Tensor, layout: SequenceLayout, window: int | None) -> Any:
    output = attend(*qkv.unbind(1), layout, window)
    (gradient,) = torch.autograd.grad(output, qkv, cotangent.to(qkv.dtype))
    return {"output": output, "gradient": gradient}
