"""Folded weights: what acting computes with, after everything that can be has gone into plain linear maps."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from torch import Tensor

if TYPE_CHECKING:
    from jaxtyping import Float, Int

Linear = tuple[Tensor, Tensor | None]
"""weight `[out, in]` and bias."""
Norm = tuple[Tensor, Tensor]
"""gain and shift of a layer norm."""


@dataclass(frozen=True, eq=False)
class FoldedLayer:
    """A Transformer layer's weights with sigma-reparametrisation, head scales and the gains of pre-norms folded in.

    Rows of `qkv` are ordered q (head, channel), with the factor 1/sqrt(head_dim), then keys and values
    (head, which of the two, channel).
    """

    qkv: Linear
    output: Linear
    output_norm: Norm
    expand: Linear
    contract: Linear


@dataclass(frozen=True, eq=False)
class FoldedTransformer:
    """A Transformer of fixed weights.

    positions: from time indices `[N]` to what is added to the embedding `[N, D]`, if anything is. rotary: whether q and
    k are rotated by them. attention_window: tokens that each token sees in every layer, None for all.
    """

    embed: Linear
    positions: Callable[[Int[Tensor, " N"]], Float[Tensor, "N D"]] | None
    rotary: bool
    layers: Sequence[FoldedLayer]
    output_norm: Norm
    num_heads: int
    attention_window: int | None

    @property
    def width(self) -> int:
        """D."""
        return len(self.embed[0])

    @property
    def head_dim(self) -> int:
        """D / H."""
        return self.width // self.num_heads
