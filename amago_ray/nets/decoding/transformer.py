"""`TransformerDecoder`: a Transformer of fixed weights, folded, one row at a time over a k/v cache."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional

from amago_ray.nets.attention.backend import AttentionBackend
from amago_ray.nets.attention.sdpa import SdpaAttention
from amago_ray.nets.decoding.decoder import Indices
from amago_ray.nets.decoding.kv_cache import KvCache
from amago_ray.nets.folded import FoldedTransformer
from amago_ray.nets.folding import plain_norm
from amago_ray.nets.layout import SequenceLayout
from amago_ray.nets.mlp import activate
from amago_ray.nets.native.decode import MAX_HEAD_DIM, NativeTransformer, load_decode_kernel
from amago_ray.nets.positions import rotary_tables, rotate

Attend = Callable[[int, Tensor, Tensor], Tensor]
"""(layer, q `[N, D]`, kv `[N, H, 2, head_dim]`) -> heads `[N, D]`."""


class TransformerDecoder:
    """See `Decoder`. The state is a `KvCache`; keys and values that roll out of it are not recomputed.

    cache_dtype: of the state, float16 or float32, where the compiled kernel reads it; else it is float32.
    """

    def __init__(self, model: FoldedTransformer, context_length: int, cache_dtype: torch.dtype = torch.float32) -> None:
        self._model = model
        # A ring of as many slots as a token may see is all that stepping needs.
        self._num_slots = min(context_length, model.attention_window or context_length)
        self._attention: AttentionBackend = SdpaAttention()
        self._native = self._compiled()
        self._cache_dtype = torch.float32 if self._native is None else cache_dtype

    @property
    def is_compiled(self) -> bool:
        """Whether the compiled kernel makes the steps."""
        return self._native is not None

    def initial_state(self, batch_size: int) -> KvCache:
        """See `Decoder`."""
        return KvCache(
            batch_size,
            num_layers=len(self._model.layers),
            num_heads=self._model.num_heads,
            head_dim=self._model.head_dim,
            context_length=self._num_slots,
            device=self._model.embed[0].device,
            dtype=self._cache_dtype,
        )

    def step(self, x: Tensor, time_index: Tensor, state: KvCache) -> Tensor:
        """See `Decoder`."""
        step = state.advance()
        if self._native is not None:
            positions, turn = self._positions(time_index), self._turn(time_index)
            return self._native(x, positions, turn, state.keys, state.values, step.slot, step.live)

        def attend(layer: int, q: Tensor, kv: Tensor) -> Tensor:
            return state.attend(layer, step, q, kv)

        return self._run(x, time_index, attend)

    def rebuild(self, x: Tensor, time_index: Tensor, layout: SequenceLayout, indices: Indices, state: KvCache) -> None:
        """See `Decoder`; a step then equals a full forward over these tokens and its own."""
        head_dim = self._model.head_dim

        def attend(layer: int, q: Tensor, kv: Tensor) -> Tensor:
            state.fill(layer, indices, layout, kv)
            k, v = kv.unbind(2)
            # The backend divides by sqrt(head_dim), which the folded q holds already.
            heads = self._attention(q.reshape(k.shape) * math.sqrt(head_dim), k, v, layout, self._num_slots)
            return heads.flatten(1)

        self._run(x, time_index, attend)

    def _compiled(self) -> NativeTransformer | None:
        """The same by the compiled kernel, where there is one that fits."""
        kernel = load_decode_kernel()
        if kernel is None or self._model.embed[0].device.type != "cpu" or self._model.head_dim > MAX_HEAD_DIM:
            return None
        return NativeTransformer(self._model, kernel)

    def _positions(self, time_index: Tensor) -> Tensor | None:
        return None if self._model.positions is None else self._model.positions(time_index)

    def _turn(self, time_index: Tensor) -> tuple[Tensor, Tensor] | None:
        return rotary_tables(time_index, self._model.head_dim) if self._model.rotary else None

    def _run(self, x: Tensor, time_index: Tensor, attend: Attend) -> Tensor:
        model = self._model
        dim, num_heads, head_dim = model.width, model.num_heads, model.head_dim
        x = functional.linear(x, *model.embed)
        positions, turn = self._positions(time_index), self._turn(time_index)
        if positions is not None:
            x += positions
        for i, layer in enumerate(model.layers):
            qkv = functional.linear(plain_norm(x), *layer.qkv)
            q, kv = qkv[:, :dim], qkv[:, dim:].view(len(x), num_heads, 2, head_dim)
            if turn is not None:
                q = rotate(q.view(len(x), num_heads, head_dim), *turn).flatten(1)
                kv[:, :, 0] = rotate(kv[:, :, 0], *turn)
            heads = functional.linear(attend(i, q, kv), *layer.output)
            x += functional.layer_norm(heads, (dim,), *layer.output_norm)
            hidden = activate(functional.linear(plain_norm(x), *layer.expand))
            x += functional.linear(plain_norm(hidden), *layer.contract)
        return functional.layer_norm(x, (dim,), *model.output_norm)
