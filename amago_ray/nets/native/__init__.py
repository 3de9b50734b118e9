"""Small compiled kernels for the CPU. Optional: where they could not be built at install, torch does the same work."""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

DecodeAttention = Callable[[Tensor, Tensor, npt.NDArray[np.int64], Tensor], Tensor]

MAX_HEAD_DIM = 256


def load_kernel(library: str, function: str) -> Any | None:
    """A function of a compiled library in this folder, still without types; None where it was not built."""
    found = list(Path(__file__).parent.glob(f"{library}*.so"))
    return getattr(ctypes.CDLL(str(found[0])), function) if found else None


def load_decode_attention() -> DecodeAttention | None:
    """The kernel of `decode.c`, or None where it was not built.

    It takes q `[E, D]` (which holds the factor 1 / sqrt(head_dim)), a layer's cache `[E, H, 2, context, head_dim]`, the
    number of live slots of each environment `[E]` and scratch space of `context` floats, all float32 on the host, and
    returns `[E, D]`. It lets other Python threads run meanwhile.
    """
    kernel = load_kernel("_decode", "amago_ray_decode_attention")
    if kernel is None:
        return None
    kernel.restype = None
    pointer, number = ctypes.c_void_p, ctypes.c_int64
    kernel.argtypes = [pointer, number, pointer, pointer, *[number] * 4, pointer, pointer]

    def decode_attention(q: Tensor, cache: Tensor, live: npt.NDArray[np.int64], scratch: Tensor) -> Tensor:
        num_envs, num_heads, _, context, head_dim = cache.shape
        out = torch.empty(num_envs, num_heads * head_dim)
        kernel(
            q.data_ptr(),
            q.stride(0),
            cache.data_ptr(),
            live.ctypes.data,
            num_envs,
            num_heads,
            context,
            head_dim,
            scratch.data_ptr(),
            out.data_ptr(),
        )
        return out

    return decode_attention
