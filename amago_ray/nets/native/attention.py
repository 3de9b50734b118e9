"""Causal attention over packed sequences by the compiled kernel of `native/attention.c`, for training on a CPU."""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from functools import cache
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from amago_ray.errors import ConfigError
from amago_ray.nets.layout import SequenceLayout
from amago_ray.nets.native import load_kernel

HEAD_DIMS = (8, 16, 32, 64)
"""The kernel is compiled for these."""

_SCORES_PER_THREAD = 50_000
"""A thread that computes fewer costs more than it saves."""


class NativeAttention:
    """Attention of sequences of any lengths without padding, in float32 inside."""

    name = "native"

    def __init__(self) -> None:
        """Find the kernel.

        Raises:
            ImportError: it was not built.
        """
        load_attention_kernel()

    @staticmethod
    def supports(q: Tensor) -> bool:
        """Whether the kernel takes such queries: on the host, heads of a width in `HEAD_DIMS`, not float64."""
        return q.device.type == "cpu" and q.shape[2] in HEAD_DIMS and q.dtype != torch.float64

    def __call__(self, q: Tensor, k: Tensor, v: Tensor, layout: SequenceLayout, window: int | None = None) -> Tensor:
        """See `AttentionBackend`.

        Raises:
            ConfigError: `supports` says no.
        """
        if not self.supports(q):
            raise ConfigError(
                f'model.sequence_model.attention_backend: "{self.name}" expects heads of {HEAD_DIMS} channels on the '
                f'host, got {q.shape[2]} on {q.device.type} (use "auto")'
            )
        output = _Attention.apply(q.float(), k.float(), v.float(), layout, window)  # type: ignore[no-untyped-call]
        assert isinstance(output, Tensor)
        return output.to(q.dtype)


class _Call(ctypes.Structure):
    """`Call` of the C file."""

    _fields_ = [
        *[(name, ctypes.c_void_p) for name in ("q", "k", "v")],
        *[(name, ctypes.c_int64) for name in ("q_stride", "k_stride", "v_stride")],
        *[(name, ctypes.c_void_p) for name in ("out", "logsumexp", "out_gradient")],
        *[(name, ctypes.c_void_p) for name in ("q_gradient", "k_gradient", "v_gradient", "sequences")],
        *[(name, ctypes.c_int64) for name in ("num_sequences", "num_heads", "dim", "num_rows", "longest")],
        *[(name, ctypes.c_int64) for name in ("window", "next")],
        ("scale", ctypes.c_float),
    ]


class _Attention(torch.autograd.Function):
    """The kernel's two passes; everything `[N, H, head_dim]` float32."""

    @staticmethod
    def forward(
        ctx: Any,
        q: Tensor,
        k: Tensor,
        v: Tensor,
        layout: SequenceLayout,
        window: int | None,
    ) -> Tensor:
        q, k, v = (_with_dense_heads(x) for x in (q, k, v))
        out = q.new_empty(q.shape)
        logsumexp = q.new_empty(q.shape[1], q.shape[0])
        ctx.save_for_backward(q, k, v, out, logsumexp)
        ctx.layout, ctx.window = layout, window
        _run(layout, window, q=q, k=k, v=v, out=out, logsumexp=logsumexp)
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, out_gradient: Tensor) -> tuple[Tensor | None, ...]:
        q, k, v, out, logsumexp = ctx.saved_tensors
        q_gradient, k_gradient, v_gradient = (q.new_empty(q.shape) for _ in range(3))
        _run(
            ctx.layout,
            ctx.window,
            q=q,
            k=k,
            v=v,
            out=out,
            logsumexp=logsumexp,
            out_gradient=out_gradient.contiguous(),
            q_gradient=q_gradient,
            k_gradient=k_gradient,
            v_gradient=v_gradient,
        )
        return q_gradient, k_gradient, v_gradient, None, None


def _run(layout: SequenceLayout, window: int | None, **tensors: Tensor) -> None:
    q = tensors["q"]
    num_rows, num_heads, dim = q.shape
    sequences = layout.longest_first
    call = _Call(
        **{name: tensor.data_ptr() for name, tensor in tensors.items()},
        **{f"{name}_stride": tensors[name].stride(0) for name in ("q", "k", "v")},
        sequences=sequences.ctypes.data,
        num_sequences=len(sequences),
        num_heads=num_heads,
        dim=dim,
        num_rows=num_rows,
        longest=layout.max_seqlen,
        window=window or 0,
        scale=dim**-0.5,
    )
    num_scores = num_heads * sum(length * length for length in layout.lengths) // 2
    if load_attention_kernel()(ctypes.byref(call), min(torch.get_num_threads(), 1 + num_scores // _SCORES_PER_THREAD)):
        raise MemoryError("attention: no memory for its buffers")


@cache
def load_attention_kernel() -> Callable[..., int]:
    """The kernel's one function.

    Raises:
        ImportError: it was not built.
    """
    kernel = load_kernel("_attention", "amago_ray_attention")
    if kernel is None:
        raise ImportError("amago_ray was installed without a C compiler")
    kernel.restype = ctypes.c_int
    kernel.argtypes = [ctypes.POINTER(_Call), ctypes.c_int64]
    call: Callable[..., int] = kernel
    return call


def _with_dense_heads(x: Tensor) -> Tensor:
    """`x` itself, or a copy of it, with heads and channels side by side in memory."""
    return x if x.stride(2) == 1 and x.stride(1) == x.shape[2] else x.contiguous()
