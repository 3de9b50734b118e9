"""What a decoder is: a sequence model taken one row at a time, with the state that acting carries along."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol, TypeVar

import numpy as np
import numpy.typing as npt
from torch import Tensor

from amago_ray.nets.layout import SequenceLayout

if TYPE_CHECKING:
    from jaxtyping import Float, Int

Indices = npt.NDArray[np.int64]


class DecoderState(Protocol):
    """What E running episodes carry between steps."""

    def reset(self, indices: Indices) -> None:
        """Begin new episodes in these environments."""
        ...


StateT = TypeVar("StateT")


class Decoder(Protocol[StateT]):
    """A sequence model with fixed weights; states outlive it and go on under the decoder of newer weights.

    A step equals the row of a full forward over the episode, in which attention looks back at most
    context_length - 1 tokens in every layer.
    """

    def initial_state(self, batch_size: int) -> StateT:
        """The state of E episodes that have not begun."""
        ...

    def step(self, x: Float[Tensor, "E D_enc"], time_index: Int[Tensor, " E"], state: StateT) -> Float[Tensor, "E D"]:
        """`[E, D]` of the next row's vectors `x [E, D_enc]` of all episodes; advances `state` in place."""
        ...

    def rebuild(
        self,
        x: Float[Tensor, "N D_enc"],
        time_index: Int[Tensor, " N"],
        layout: SequenceLayout,
        indices: Indices,
        state: StateT,
    ) -> None:
        """Recompute the state of `indices` from packed row vectors, sequence j for `indices[j]`."""
        ...
