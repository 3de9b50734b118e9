"""`KvCache`: keys and values of earlier tokens, for acting one token at a time."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from amago_ray.nets.layout import SequenceLayout, to_device
from amago_ray.nets.native import MAX_HEAD_DIM, DecodeAttention, load_decode_attention


@dataclass(frozen=True, eq=False)
class CacheStep:
    """Where one step of all E environments writes and reads, the same in every layer.

    rows `[E * H * 2]` int64: cache rows of the new keys and values. live `[E]` int64: slots that count, the first ones.
    num_slots: slots that torch reads, the same in all environments, up to the longest live one. bias
    `[E * H, 1, num_slots]`: 0 on live slots, -inf on others; None where all are live or the compiled kernel reads.
    """

    rows: Tensor
    live: npt.NDArray[np.int64]
    num_slots: int
    bias: Tensor | None


class KvCache:
    """A ring of `context_length` slots per environment, holding keys (rotated where positions are) and values.

    Environment e has seen `lengths[e]` tokens since its reset; token i lies in slot i % context_length, so a new token
    overwrites the one that leaves the context. The order of slots does not matter: positions are in the keys already.
    """

    def __init__(
        self,
        batch_size: int,
        *,
        num_layers: int,
        num_heads: int,
        head_dim: int,
        context_length: int,
        device: torch.device,
        dtype: torch.dtype = torch.float32,
    ) -> None:
        self.lengths = np.zeros(batch_size, dtype=np.int64)
        self.context_length = context_length
        # Keys and values of a head are neighbours, so that one indexed copy writes both; each head's are contiguous.
        shape = (num_layers, batch_size, num_heads, 2, context_length, head_dim)
        self._cache = torch.zeros(shape, device=device, dtype=dtype)
        self._kernel = _compiled_kernel(self._cache)
        self._scratch = torch.empty(context_length) if self._kernel is not None else None
        # Row of slot 0 of every (environment, head, key or value), with (slots, head_dim) as a row's neighbourhood.
        self._first_rows = np.arange(batch_size * num_heads * 2).reshape(batch_size, num_heads * 2) * context_length

    def reset(self, indices: npt.NDArray[np.int64]) -> None:
        """Forget the tokens of these environments."""
        for index in indices:
            # Dead slots are read too, with probability 0, which a NaN left by a broken observation would survive.
            self._cache[:, index, :, :, : min(int(self.lengths[index]), self.context_length)] = 0
        self.lengths[indices] = 0

    def advance(self) -> CacheStep:
        """Make room for one more token of every environment."""
        device = self._cache.device
        rows = self._first_rows + (self.lengths % self.context_length)[:, None]
        self.lengths += 1
        live = np.minimum(self.lengths, self.context_length)
        num_slots = int(live.max())
        bias = None
        if self._kernel is None and int(live.min()) < num_slots:
            # Made where it is read: only E numbers travel to the device.
            dead = torch.arange(num_slots, device=device) >= to_device(live, device)[:, None]
            per_env = torch.zeros(dead.shape, device=device, dtype=self._cache.dtype).masked_fill_(dead, -math.inf)
            num_envs, num_heads = self._cache.shape[1:3]
            bias = per_env[:, None, None].expand(num_envs, num_heads, 1, num_slots).flatten(0, 1)
        return CacheStep(to_device(rows.ravel(), device), live, num_slots, bias)

    def attend(self, layer: int, step: CacheStep, q: Tensor, kv: Tensor) -> Tensor:
        """Store the new tokens' keys and values, then attend: `[E, D]` of q `[E, D]` and kv `[E, H, 2, head_dim]`.

        q must hold the factor 1 / sqrt(head_dim) already.
        """
        cache = self._cache[layer]
        cache.view(-1, cache.shape[-1]).index_copy_(0, step.rows, kv.reshape(-1, cache.shape[-1]).to(cache.dtype))
        if self._kernel is not None and self._scratch is not None:
            return self._kernel(q, cache, step.live, self._scratch)
        keys, values = cache[:, :, :, : step.num_slots].flatten(0, 1).unbind(1)
        return decode_attention(q.reshape(len(keys), 1, -1), keys, values, step.bias).view(len(q), -1)

    def fill(self, layer: int, indices: npt.NDArray[np.int64], layout: SequenceLayout, kv: Tensor) -> None:
        """Replace what `indices` hold by packed tokens: kv `[N, H, 2, head_dim]`, sequence j for `indices[j]`.

        Of a sequence longer than the ring, the last tokens stay.
        """
        environments = np.repeat(indices, layout.lengths)
        place = np.arange(layout.num_tokens) - np.repeat(layout.starts, layout.lengths)
        if layout.max_seqlen > self.context_length:
            kept = np.flatnonzero(place >= np.repeat(layout.lengths, layout.lengths) - self.context_length)
            environments, place = environments[kept], place[kept]
            kv = kv.index_select(0, to_device(kept, kv.device))
        rows = self._first_rows[environments] + (place % self.context_length)[:, None]
        cache = self._cache[layer]
        flat = cache.view(-1, cache.shape[-1])
        flat.index_copy_(0, to_device(rows.ravel(), cache.device), kv.reshape(-1, cache.shape[-1]).to(cache.dtype))
        self.lengths[indices] = layout.lengths


def _compiled_kernel(cache: Tensor) -> DecodeAttention | None:
    """The compiled kernel, if there is one and it can read this cache."""
    fits = cache.device.type == "cpu" and cache.dtype == torch.float32 and cache.shape[-1] <= MAX_HEAD_DIM
    return load_decode_attention() if fits else None


def decode_attention(q: Tensor, keys: Tensor, values: Tensor, bias: Tensor | None) -> Tensor:
    """One query per row over its own keys: `[R, 1, head_dim]` of q like it, keys and values `[R, L, head_dim]`.

    bias `[R, 1, L]` is added to the scores. Batched products beat the fused kernels here: with a single query there
    is nothing to keep in registers, and the cache is read once either way.
    """
    keys = keys.transpose(1, 2)
    scores = torch.bmm(q, keys) if bias is None else torch.baddbmm(bias, q, keys)
    return torch.bmm(torch.softmax(scores, dim=-1), values)
