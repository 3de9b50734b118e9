"""Causal attention over packed sequences, behind one small protocol; all backends give the same values."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal, Protocol

import torch
from torch import Tensor
from torch.nn import functional

from amago_ray.errors import ConfigError
from amago_ray.nets.layout import SequenceLayout
from amago_ray.nets.native_attention import NativeAttention

BackendName = Literal["auto", "sdpa", "native", "varlen", "flash_attn"]
_WHERE = "model.sequence_model.attention_backend"
_HALF = (torch.float16, torch.bfloat16)
_WIDEST_HALF_HEAD = 256
"""Flash attention takes heads up to this, in multiples of 8."""
_SHORTEST_BLOCK = 64
"""Queries of one block of windowed attention, at least: shorter ones leave the processor waiting for memory."""


class AttentionBackend(Protocol):
    """Causal attention within each sequence of a packed batch."""

    name: str

    def __call__(self, q: Tensor, k: Tensor, v: Tensor, layout: SequenceLayout, window: int | None = None) -> Tensor:
        """`[N, H, head_dim]` from q, k, v of that shape, with scores divided by sqrt(head_dim).

        A token attends to itself and to earlier tokens of its sequence; with a `window` to at most window - 1 of them.
        """
        ...


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


class VarlenAttention:
    """`torch.nn.attention.varlen` on CUDA, for half precision."""

    name = "varlen"

    def __init__(self) -> None:
        from torch.nn.attention.varlen import varlen_attn

        self._attend = varlen_attn

    def __call__(self, q: Tensor, k: Tensor, v: Tensor, layout: SequenceLayout, window: int | None = None) -> Tensor:
        """See `AttentionBackend`."""
        _require_half(self.name, q)
        bounds = layout.cu_seqlens
        span = (-1 if window is None else window - 1, 0)
        longest = layout.max_seqlen
        output = self._attend(q, k, v, bounds, bounds, longest, longest, window_size=span)
        assert isinstance(output, Tensor)
        return output


class FlashAttention:
    """The flash_attn package on CUDA, for half precision."""

    name = "flash_attn"

    def __init__(self) -> None:
        from flash_attn import flash_attn_varlen_func

        self._attend: Any = flash_attn_varlen_func

    def __call__(self, q: Tensor, k: Tensor, v: Tensor, layout: SequenceLayout, window: int | None = None) -> Tensor:
        """See `AttentionBackend`."""
        _require_half(self.name, q)
        output: Tensor = self._attend(
            q,
            k,
            v,
            cu_seqlens_q=layout.cu_seqlens,
            cu_seqlens_k=layout.cu_seqlens,
            max_seqlen_q=layout.max_seqlen,
            max_seqlen_k=layout.max_seqlen,
            causal=True,
            window_size=(-1 if window is None else window - 1, 0 if window is not None else -1),
        )
        return output


class AutoAttention:
    """The fastest backend for each call: flash_attn, else varlen, for half precision on CUDA; the compiled kernel on
    the host; SDPA for all else.
    """

    name = "auto"

    def __init__(self) -> None:
        self._anywhere = SdpaAttention()
        self._half_on_cuda = self._first_of(FlashAttention, VarlenAttention) if torch.cuda.is_available() else None
        self._on_host = self._first_of(NativeAttention)

    def __call__(self, q: Tensor, k: Tensor, v: Tensor, layout: SequenceLayout, window: int | None = None) -> Tensor:
        """See `AttentionBackend`."""
        backend: AttentionBackend | None = None
        if q.is_cuda and q.dtype in _HALF and q.shape[2] % 8 == 0 and q.shape[2] <= _WIDEST_HALF_HEAD:
            backend = self._half_on_cuda
        elif NativeAttention.supports(q):
            backend = self._on_host
        return (backend or self._anywhere)(q, k, v, layout, window)

    @staticmethod
    def _first_of(*kinds: type[AttentionBackend]) -> AttentionBackend | None:
        """The first that can be imported here."""
        for make in kinds:
            try:
                return make()
            except ImportError:
                continue
        return None


def build_attention(name: BackendName) -> AttentionBackend:
    """The backend of that name.

    Raises:
        ConfigError: this machine does not have it.
    """
    makers: dict[str, Callable[[], AttentionBackend]] = {
        "auto": AutoAttention,
        "sdpa": SdpaAttention,
        "native": NativeAttention,
        "varlen": VarlenAttention,
        "flash_attn": FlashAttention,
    }
    if name not in makers:
        raise ConfigError(f'{_WHERE}: expected one of {", ".join(makers)}, found "{name}"')
    if name in ("varlen", "flash_attn") and not torch.cuda.is_available():
        raise ConfigError(f'{_WHERE}: "{name}" expects a CUDA device, found none (use "auto" or "sdpa")')
    try:
        return makers[name]()
    except ImportError as error:
        raise ConfigError(f'{_WHERE}: "{name}" cannot be imported: {error} (use "auto" or "sdpa")') from error


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


def _require_half(name: str, q: Tensor) -> None:
    if q.dtype not in _HALF:
        raise ConfigError(
            f'{_WHERE}: "{name}" expects learner.precision "bfloat16", found '
            f'{str(q.dtype).removeprefix("torch.")} (use "auto" or "sdpa")'
        )
