"""What an attention backend is, and how the settings name them; all give the same values."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from torch import Tensor

from amago_ray.nets.layout import SequenceLayout

if TYPE_CHECKING:
    from jaxtyping import Float

SETTING = "model.sequence_model.attention_backend"
"""Where the settings name the backend."""


class AttentionBackend(Protocol):
    """Causal attention within each sequence of a packed batch."""

    name: str

    def __call__(
        self,
        q: Float[Tensor, "N H head_dim"],
        k: Float[Tensor, "N H head_dim"],
        v: Float[Tensor, "N H head_dim"],
        layout: SequenceLayout,
        window: int | None = None,
    ) -> Float[Tensor, "N H head_dim"]:
        """`[N, H, head_dim]` from q, k, v of that shape, with scores divided by sqrt(head_dim).

        A token attends to itself and to earlier tokens of its sequence; with a `window` to at most window - 1 of them.
        """
        ...
