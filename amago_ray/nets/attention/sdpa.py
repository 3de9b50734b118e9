"""Attention by PyTorch's `scaled_dot_product_attention`, on any device."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from amago_ray.nets.layout import SequenceLayout

_SHORTEST_BLOCK = 64
"""Queries of one block of windowed attention, at least: shorter ones leave the processor waiting for memory."""


class SdpaAttention:
    """`scaled_dot_product_attention` on any device: equal lengths as one batch, others in groups of similar length."""

    name = "sdpa"

    def __call__(self, q: Tensor, k: Tensor, v: Tensor, layout: SequenceLayout, window: int | None = None) -> Tensor:
        """See `AttentionBackend`."""
        if layout.is_uniform:
            shape = (layout.num_sequences, layout.max_seqlen)
            return _batched(_view(q, shape), _view(k, shape), _view(v, shape), window).flatten(0, 1)
        groups, padded_rows = layout.length_groups
        sizes = [count * length for count, length in groups.shapes]
        # Padding is on the right, where causality hides it from every real token.
        padded = [
            torch.split(x.new_zeros(groups.num_padded_rows, *x.shape[1:]).index_copy(0, padded_rows, x), sizes)
            for x in (q, k, v)
        ]
        outputs = [
            _batched(_view(q, shape), _view(k, shape), _view(v, shape), window).flatten(0, 1)
            for shape, q, k, v in zip(groups.shapes, *padded, strict=True)
        ]
        return torch.cat(outputs).index_select(0, padded_rows)


def _view(x: Tensor, shape: tuple[int, int]) -> Tensor:
    """`[B * L, H, head_dim]` as `[B, L, H, head_dim]`."""
    return x.view(*shape, *x.shape[1:])


def _batched(q: Tensor, k: Tensor, v: Tensor, window: int | None) -> Tensor:
    """Causal attention of `[B, L, H, head_dim]` without padding to hide."""
    q, k, v = (x.transpose(1, 2) for x in (q, k, v))
    if window is None or window >= q.shape[2]:
        return functional.scaled_dot_product_attention(q, k, v, is_causal=True).transpose(1, 2)
    return _in_blocks(q, k, v, window).transpose(1, 2)


def _in_blocks(q: Tensor, k: Tensor, v: Tensor, window: int) -> Tensor:
    """Attention of `[B, H, L, head_dim]` within a window, in blocks of queries no shorter than it.

    A block sees its own keys and those of the block before, so work and memory grow with L, not with its square.
    """
    length, size = q.shape[2], max(window, _SHORTEST_BLOCK)
    place = torch.arange(2 * size, device=q.device)
    behind = place[size:, None] - place
    # [size, 2 * size]: the queries of a block against the keys of the block before and its own.
    band = (behind >= 0) & (behind < window)
    if length <= size:
        return functional.scaled_dot_product_attention(q, k, v, attn_mask=band[:length, size : size + length])
    first = functional.scaled_dot_product_attention(
        q[:, :, :size], k[:, :, :size], v[:, :, :size], attn_mask=band[:, size:]
    )
    # Padding is on the right, where causality hides it.
    padding = (0, 0, 0, -length % size)
    shape = (len(q), q.shape[1], -1, size, q.shape[3])
    q, k, v = (functional.pad(x, padding).reshape(shape).transpose(1, 2) for x in (q, k, v))
    keys, values = (torch.cat((x[:, :-1], x[:, 1:]), 3).flatten(0, 1) for x in (k, v))
    others = functional.scaled_dot_product_attention(q[:, 1:].flatten(0, 1), keys, values, attn_mask=band)
    others = others.view(len(q), -1, *others.shape[1:]).transpose(1, 2).flatten(2, 3)
    return torch.cat((first, others[:, :, : length - size]), 2)
