import sys
import types
from itertools import pairwise
from typing import Any

import pytest
import torch
from helpers.attention import naive_attention
from torch import Tensor

from amago_ray.errors import ConfigError
from amago_ray.nets.attention.cuda import FlashAttention
from amago_ray.nets.layout import SequenceLayout

pytestmark = pytest.mark.numeric


def install_fake_flash_attn(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """A module with flash_attn's contract (version 2: bottom-right causal mask, window counts both sides)."""
    calls: list[dict[str, Any]] = []

    def flash_attn_varlen_func(q: Tensor, k: Tensor, v: Tensor, **options: Any) -> Tensor:
        calls.append(options)
        bounds = options["cu_seqlens_q"].tolist()
        assert options["cu_seqlens_q"].dtype == torch.int32
        assert options["causal"]
        lengths = [b - a for a, b in pairwise(bounds)]
        left, right = options["window_size"]
        assert right in (-1, 0)
        layout = SequenceLayout.from_lengths(lengths)
        return naive_attention(q, k, v, layout, None if left < 0 else left + 1)

    module = types.ModuleType("flash_attn")
    module.flash_attn_varlen_func = flash_attn_varlen_func  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "flash_attn", module)
    return calls


@pytest.mark.parametrize("window", [None, 3])
def test_flash_attn_adapter_keeps_that_packages_contract(monkeypatch: pytest.MonkeyPatch, window: int | None) -> None:
    calls = install_fake_flash_attn(monkeypatch)
    torch.manual_seed(0)
    layout = SequenceLayout.from_lengths([4, 6])
    q, k, v = torch.randn(3, 10, 2, 8, dtype=torch.bfloat16)
    output = FlashAttention()(q, k, v, layout, window)
    assert torch.equal(output, naive_attention(q, k, v, layout, window))
    assert calls[0]["max_seqlen_q"] == calls[0]["max_seqlen_k"] == 6


def test_half_precision_backend_refuses_float32(monkeypatch: pytest.MonkeyPatch) -> None:
    install_fake_flash_attn(monkeypatch)
    layout = SequenceLayout.from_lengths([2])
    with pytest.raises(ConfigError, match='"bfloat16", got float32'):
        FlashAttention()(*torch.randn(3, 2, 1, 4), layout)
