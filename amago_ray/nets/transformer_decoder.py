"""`TransformerDecoder`: a Transformer of fixed weights, folded, one timestep at a time over a k/v cache."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn import functional

from amago_ray.nets.attention import AttentionBackend, SdpaAttention
from amago_ray.nets.folding import FoldedLayer, fold_norm, norm_weights, plain_norm
from amago_ray.nets.kv_cache import KvCache
from amago_ray.nets.layout import SequenceLayout
from amago_ray.nets.mlp import activate
from amago_ray.nets.native_decoder import MAX_HEAD_DIM, NativeTransformer, load_decode_kernel
from amago_ray.nets.positions import rotary_tables, rotate
from amago_ray.nets.transformer import LayerWeights, Transformer, TransformerLayer, layer_weights

Attend = Callable[[int, Tensor, Tensor], Tensor]
"""(layer, q `[N, D]`, kv `[N, H, 2, head_dim]`) -> heads `[N, D]`."""


class TransformerDecoder:
    """See `Decoder`. The state is a `KvCache`; keys and values that roll out of it are not recomputed.

    cache_dtype: of the state, float16 or float32, where the compiled kernel reads it; else it is float32.
    """

    def __init__(self, model: Transformer, context_length: int, cache_dtype: torch.dtype = torch.float32) -> None:
        model.eval()
        self._model = model
        # A ring of as many slots as a token may see is all that stepping needs.
        self._num_slots = min(context_length, model.attention_window or context_length)
        self._head_dim = model.head_dim
        self._num_heads = model.output_dim // model.head_dim
        self._attention: AttentionBackend = SdpaAttention()
        self._layers = [
            _fold(layer, weights)
            for layer, weights in zip(model.layers, layer_weights(model.layers), strict=True)
            if isinstance(layer, TransformerLayer)
        ]
        self._native = self._compiled()
        self._cache_dtype = torch.float32 if self._native is None else cache_dtype

    def initial_state(self, batch_size: int) -> KvCache:
        """See `Decoder`."""
        return KvCache(
            batch_size,
            num_layers=len(self._layers),
            num_heads=self._num_heads,
            head_dim=self._head_dim,
            context_length=self._num_slots,
            device=self._model.embed.weight.device,
            dtype=self._cache_dtype,
        )

    def step(self, x: Tensor, time_index: Tensor, state: KvCache) -> Tensor:
        """See `Decoder`."""
        if self._native is not None:
            return self._native(x, self._positions(time_index), self._turn(time_index), state)
        step = state.advance()

        def attend(layer: int, q: Tensor, kv: Tensor) -> Tensor:
            return state.attend(layer, step, q, kv)

        return self._run(x, time_index, attend)

    def rebuild(
        self,
        x: Tensor,
        time_index: Tensor,
        layout: SequenceLayout,
        indices: npt.NDArray[np.int64],
        state: KvCache,
    ) -> None:
        """See `Decoder`; a step then equals a full forward over these tokens and its own."""

        def attend(layer: int, q: Tensor, kv: Tensor) -> Tensor:
            state.fill(layer, indices, layout, kv)
            k, v = kv.unbind(2)
            # The backend divides by sqrt(head_dim), which the folded q holds already.
            heads = self._attention(q.reshape(k.shape) * math.sqrt(self._head_dim), k, v, layout, self._num_slots)
            return heads.flatten(1)

        self._run(x, time_index, attend)

    def _compiled(self) -> NativeTransformer | None:
        """The same by the compiled kernel, where there is one that fits."""
        kernel, embed = load_decode_kernel(), self._model.embed
        if kernel is None or embed.weight.device.type != "cpu" or self._head_dim > MAX_HEAD_DIM:
            return None
        output_norm = norm_weights(self._model.output_norm)
        return NativeTransformer((embed.weight, embed.bias), self._layers, output_norm, self._num_heads, kernel)

    def _positions(self, time_index: Tensor) -> Tensor | None:
        return None if self._model.positions is None else self._model.positions(time_index)

    def _turn(self, time_index: Tensor) -> tuple[Tensor, Tensor] | None:
        return rotary_tables(time_index, self._head_dim) if self._model.rotary else None

    def _run(self, x: Tensor, time_index: Tensor, attend: Attend) -> Tensor:
        model, dim = self._model, self._model.output_dim
        x = model.embed(x)
        positions, turn = self._positions(time_index), self._turn(time_index)
        if positions is not None:
            x += positions
        for i, layer in enumerate(self._layers):
            qkv = functional.linear(plain_norm(x), *layer.qkv)
            q, kv = qkv[:, :dim], qkv[:, dim:].view(len(x), self._num_heads, 2, self._head_dim)
            if turn is not None:
                q = rotate(q.view(len(x), self._num_heads, self._head_dim), *turn).flatten(1)
                kv[:, :, 0] = rotate(kv[:, :, 0], *turn)
            heads = functional.linear(attend(i, q, kv), *layer.output)
            x += functional.layer_norm(heads, (dim,), *layer.output_norm)
            hidden = activate(functional.linear(plain_norm(x), *layer.expand))
            x += functional.linear(plain_norm(hidden), *layer.contract)
        output: Tensor = model.output_norm(x)
        return output


@torch.no_grad()
def _fold(layer: TransformerLayer, weights: LayerWeights) -> FoldedLayer:
    attention, output_bias = layer.attention, layer.attention.output.bias
    assert output_bias is not None
    num_heads = attention.num_heads
    weight, bias = fold_norm(layer.attention_norm, weights.qkv, None)
    head_dim = len(weight) // (3 * num_heads)
    q, k, v = weight.view(3, num_heads, head_dim, -1)
    q_bias, k_bias, v_bias = bias.view(3, num_heads, head_dim)
    scale = 1 / math.sqrt(head_dim)
    qkv_weight = torch.cat(((q * scale).flatten(0, 1), torch.stack((k, v), 1).flatten(0, 2)))
    qkv_bias = torch.cat(((q_bias * scale).flatten(), torch.stack((k_bias, v_bias), 1).flatten()))
    return FoldedLayer(
        qkv=(qkv_weight, qkv_bias),
        output=(attention.scale_heads(weights.output), output_bias.detach().clone()),
        output_norm=norm_weights(layer.attention_output_norm),
        expand=fold_norm(layer.feed_forward_norm, weights.expand, layer.expand.bias),
        contract=fold_norm(layer.hidden_norm, weights.contract, layer.contract.bias),
    )
