"""Operations and bytes that the mathematics needs, and the least time that the machine's ceilings allow for them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import mean

CACHE_ITEM_BYTES = 2


@dataclass(frozen=True)
class NetworkSize:
    """Sizes of a discrete actor-critic; heads have two hidden layers, G discounts and C critics."""

    inputs: int
    encoder_width: int
    encoder_output: int
    width: int
    layers: int
    num_actions: int = 5
    head_width: int = 256
    num_discounts: int = 7
    num_critics: int = 4

    @property
    def trunk_macs(self) -> int:
        """Multiply-adds per token of timestep encoder and Transformer, without attention's products."""
        encoder = (self.inputs + self.encoder_width + self.encoder_output) * self.encoder_width
        return encoder + self.encoder_output * self.width + self.layers * 12 * self.width**2

    def head_macs(self, num_discounts: int) -> int:
        """Multiply-adds per token of one head."""
        return self.head_width * (self.width + self.head_width + num_discounts * self.num_actions)

    def update_flops(self, lengths: Sequence[int]) -> float:
        """Products of one update, forward and backward, on sequences of these numbers of transitions.

        Trained networks go forward and twice as much backward; the target heads only forward. The critics serve the
        temporal-difference error and the policy's value with one forward.
        """
        num_tokens = sum(lengths) + len(lengths)
        heads = (1 + self.num_critics) * self.head_macs(self.num_discounts)
        return 2 * (3 * (self.trunk_macs + heads) + heads) * num_tokens + self.attention_flops(lengths)

    def mean_update_flops(self, batches: Sequence[Sequence[int]]) -> float:
        """The same, on average over batches."""
        return mean(self.update_flops(lengths) for lengths in batches)

    def attention_flops(self, lengths: Sequence[int]) -> float:
        """Those of an update's products that attention makes; half of them lie where causality hides the result."""
        return 2 * 3 * sum(self.layers * 2 * self.width * (length + 1) ** 2 for length in lengths)

    def step_flops(self, live_tokens: float) -> float:
        """Products of acting once over a cache of that many tokens, for the acting discount alone."""
        attention = 2 * self.layers * self.width * live_tokens
        return 2 * (self.trunk_macs + self.head_macs(1) + attention)

    def cache_bytes(self, tokens: float, item_bytes: int = CACHE_ITEM_BYTES) -> float:
        """Keys and values of that many tokens; collecting on a CPU keeps them in float16."""
        return 2 * self.layers * self.width * tokens * item_bytes


@dataclass(frozen=True)
class Ceilings:
    """What the machine was measured to do with the processors that the work may use."""

    flops_per_s: float
    read_bytes_per_s: float


def update_floor(size: NetworkSize, batches: Sequence[Sequence[int]], ceilings: Ceilings) -> dict[str, float]:
    """The least milliseconds of an update, on average over batches of these lengths."""
    flops = size.mean_update_flops(batches)
    return {
        "limit": flops / ceilings.flops_per_s * 1e3,
        "gflop": flops / 1e9,
        "gflop_per_s": ceilings.flops_per_s / 1e9,
    }


def acting_floor(size: NetworkSize, episode_length: int, ceilings: Ceilings) -> dict[str, float]:
    """The most env steps per second: products or reading the cache, whichever takes longer.

    A whole episode reads, on average, half of a full cache.
    """
    live_tokens = (episode_length + 1) / 2
    flops, read = size.step_flops(live_tokens), size.cache_bytes(live_tokens)
    return {
        "limit": 1 / max(flops / ceilings.flops_per_s, read / ceilings.read_bytes_per_s),
        "products_alone": ceilings.flops_per_s / flops,
        "cache_alone": ceilings.read_bytes_per_s / read,
        "mflop": flops / 1e6,
        "read_kb": read / 1e3,
        "gflop_per_s": ceilings.flops_per_s / 1e9,
        "read_gb_per_s": ceilings.read_bytes_per_s / 1e9,
    }
