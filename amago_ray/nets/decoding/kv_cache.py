"""`KvCache`: keys and values of earlier tokens, for acting one token at a time."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from amago_ray.nets.layout import SequenceLayout, to_device
from amago_ray.nets.native.decode import round_up

if TYPE_CHECKING:
    from jaxtyping import Float, Int


@dataclass(frozen=True, eq=False)
class CacheStep:
    """Where one step of all E environments writes and reads, the same in every layer.

    slot `[E]`: where the new token goes. live `[E]`: slots that count, the first ones.
    """

    slot: npt.NDArray[np.int64]
    live: npt.NDArray[np.int64]
    device: torch.device

    @cached_property
    def rows(self) -> tuple[Int[Tensor, " E"], Int[Tensor, " E"]]:
        """Environment and slot of the new tokens, on the device."""
        return torch.arange(len(self.slot), device=self.device), to_device(self.slot, self.device)

    @cached_property
    def num_slots(self) -> int:
        """Slots that torch reads, the same in all environments, up to the longest live one."""
        return int(self.live.max())

    @cached_property
    def bias(self) -> Float[Tensor, "E 1 num_slots"] | None:
        """`[E, 1, num_slots]`: 0 on live slots, -inf on others; None where all are live."""
        if int(self.live.min()) == self.num_slots:
            return None
        # Made where it is read: only E numbers travel to the device.
        live = to_device(self.live, self.device)
        dead = torch.arange(self.num_slots, device=self.device) >= live[:, None]
        return torch.zeros(dead.shape, device=self.device).masked_fill_(dead, -math.inf)[:, None]


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
        # A row of keys for each channel, so that scores of neighbouring slots are computed side by side.
        heads, slots = (num_layers, batch_size, num_heads), round_up(context_length)
        self.keys = torch.zeros(*heads, head_dim, slots, device=device, dtype=dtype)
        self.values = torch.zeros(*heads, slots, head_dim, device=device, dtype=dtype)

    def reset(self, indices: npt.NDArray[np.int64]) -> None:
        """Forget the tokens of these environments."""
        for index in indices:
            # Torch reads dead slots too, with probability 0, which a NaN left by a broken observation would survive.
            used = min(int(self.lengths[index]), self.context_length)
            self.keys[:, index, :, :, :used] = 0
            self.values[:, index, :, :used] = 0
        self.lengths[indices] = 0

    def advance(self) -> CacheStep:
        """Make room for one more token of every environment."""
        slot = self.lengths % self.context_length
        self.lengths += 1
        return CacheStep(slot, np.minimum(self.lengths, self.context_length), self.keys.device)

    def attend(
        self, layer: int, step: CacheStep, q: Float[Tensor, "E D"], kv: Float[Tensor, "E H 2 head_dim"]
    ) -> Float[Tensor, "E D"]:
        """Store the new tokens' keys and values, then attend: `[E, D]` of q `[E, D]` and kv `[E, H, 2, head_dim]`.

        q must hold the factor 1 / sqrt(head_dim) already.
        """
        environments, slots = step.rows
        self._store(layer, environments, slots, kv)
        num_envs, num_heads, _, head_dim = kv.shape
        keys, values = self.keys[layer, ..., : step.num_slots], self.values[layer, :, :, : step.num_slots]
        bias = None if step.bias is None else step.bias.repeat_interleave(num_heads, 0)
        return decode_attention(
            q.reshape(num_envs * num_heads, 1, head_dim), keys.flatten(0, 1), values.flatten(0, 1), bias
        ).view(num_envs, -1)

    def fill(
        self, layer: int, indices: npt.NDArray[np.int64], layout: SequenceLayout, kv: Float[Tensor, "N H 2 head_dim"]
    ) -> None:
        """Replace what `indices` hold by packed tokens: kv `[N, H, 2, head_dim]`, sequence j for `indices[j]`.

        Of a sequence longer than the ring, the last tokens stay.
        """
        environments = np.repeat(indices, layout.lengths)
        place = np.arange(layout.num_tokens) - np.repeat(layout.starts, layout.lengths)
        if layout.max_seqlen > self.context_length:
            kept = np.flatnonzero(place >= np.repeat(layout.lengths, layout.lengths) - self.context_length)
            environments, place = environments[kept], place[kept]
            kv = kv.index_select(0, to_device(kept, kv.device))
        slots = to_device(place % self.context_length, kv.device)
        self._store(layer, to_device(environments, kv.device), slots, kv)
        self.lengths[indices] = layout.lengths

    def _store(self, layer: int, environments: Tensor, slots: Tensor, kv: Tensor) -> None:
        """Keys and values `[N, H, 2, head_dim]` into these slots of these environments, both `[N]`."""
        # Out of range is the largest number there is, not infinite.
        largest = torch.finfo(self.keys.dtype).max
        kv = kv.clamp(-largest, largest).to(self.keys.dtype)
        self.keys[layer, environments, :, :, slots] = kv[:, :, 0]
        self.values[layer, environments, :, slots] = kv[:, :, 1]


def decode_attention(
    q: Float[Tensor, "R 1 head_dim"],
    keys: Float[Tensor, "R head_dim L"],
    values: Float[Tensor, "R L head_dim"],
    bias: Float[Tensor, "R 1 L"] | None,
) -> Float[Tensor, "R 1 head_dim"]:
    """One query per row over its own keys: `[R, 1, head_dim]` of q like it.

    keys `[R, head_dim, L]`, values `[R, L, head_dim]`; bias `[R, 1, L]` is added to the scores. Batched products beat
    the fused kernels here: with a single query there is nothing to keep in registers, and the cache is read once
    either way.
    """
    scores = torch.bmm(q, keys) if bias is None else torch.baddbmm(bias, q, keys)
    return torch.bmm(torch.softmax(scores, dim=-1), values)
