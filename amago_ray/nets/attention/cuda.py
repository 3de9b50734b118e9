"""Attention without padding on CUDA, in half precision: PyTorch's own kernel and that of the flash_attn package."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from amago_ray.errors import ConfigError
from amago_ray.nets.attention.backend import SETTING
from amago_ray.nets.layout import SequenceLayout

HALF = (torch.float16, torch.bfloat16)
WIDEST_HEAD = 256
"""Flash attention takes heads up to this, in multiples of 8."""


class VarlenAttention:
    """`torch.nn.attention.varlen` on CUDA, for half precision."""

    name = "varlen"

    def __init__(self) -> None:
        """Find the kernel.

        Raises:
            ImportError: it is not installed.
        """
        from torch.nn.attention.varlen import varlen_attn

        self._attend = varlen_attn

    def __call__(self, q: Tensor, k: Tensor, v: Tensor, layout: SequenceLayout, window: int | None = None) -> Tensor:
        """See `AttentionBackend`.

        Raises:
            ConfigError: queries of full precision.
        """
        _require_half(self.name, q)
        bounds = layout.cu_seqlens
        span = (-1 if window is None else window - 1, 0)
        longest = layout.max_seqlen
        output = self._attend(q, k, v, bounds, bounds, longest, longest, window_size=span)
        assert isinstance(output, Tensor)
        return output


class FlashAttention:
    """The flash_attn package on CUDA, for half precision."""

    name = "flash_attn"

    def __init__(self) -> None:
        """Find the kernel.

        Raises:
            ImportError: it is not installed.
        """
        from flash_attn import flash_attn_varlen_func

        self._attend: Any = flash_attn_varlen_func

    def __call__(self, q: Tensor, k: Tensor, v: Tensor, layout: SequenceLayout, window: int | None = None) -> Tensor:
        """See `AttentionBackend`.

        Raises:
            ConfigError: queries of full precision.
        """
        _require_half(self.name, q)
        output: Tensor = self._attend(
            q,
            k,
            v,
            cu_seqlens_q=layout.cu_seqlens,
            cu_seqlens_k=layout.cu_seqlens,
            max_seqlen_q=layout.max_seqlen,
            max_seqlen_k=layout.max_seqlen,
            causal=True,
            window_size=(-1 if window is None else window - 1, 0 if window is not None else -1),
        )
        return output


def _require_half(name: str, q: Tensor) -> None:
    if q.dtype not in HALF:
        raise ConfigError(
            f'{SETTING}: "{name}" expects learner.precision "bfloat16", got '
            f'{str(q.dtype).removeprefix("torch.")} (use "auto" or "sdpa")'
        )
