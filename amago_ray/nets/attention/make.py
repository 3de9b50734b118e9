"""Making the attention backend that the settings ask for."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from amago_ray.config.model import BackendName
from amago_ray.errors import ConfigError
from amago_ray.nets.attention.backend import SETTING, AttentionBackend
from amago_ray.nets.attention.cuda import HALF, WIDEST_HEAD, FlashAttention, VarlenAttention
from amago_ray.nets.attention.sdpa import SdpaAttention
from amago_ray.nets.layout import SequenceLayout
from amago_ray.nets.native.attention import NativeAttention


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
        if q.is_cuda and q.dtype in HALF and q.shape[2] % 8 == 0 and q.shape[2] <= WIDEST_HEAD:
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
        raise ConfigError(f'{SETTING}: expected one of {", ".join(makers)}, got "{name}"')
    if name in ("varlen", "flash_attn") and not torch.cuda.is_available():
        raise ConfigError(f'{SETTING}: "{name}" expects a CUDA device, got none (use "auto" or "sdpa")')
    try:
        return makers[name]()
    except ImportError as error:
        raise ConfigError(f'{SETTING}: "{name}" cannot be imported: {error} (use "auto" or "sdpa")') from error
