import sys
import types
from itertools import pairwise
from typing import Any

import pytest
import torch
from helpers.numeric import assert_as_exact_as
from torch import Tensor

from amago_ray.errors import ConfigError
from amago_ray.nets.attention import sdpa
from amago_ray.nets.attention.backend import BackendName
from amago_ray.nets.attention.cuda import FlashAttention
from amago_ray.nets.attention.make import AutoAttention, build_attention
from amago_ray.nets.attention.sdpa import SdpaAttention
from amago_ray.nets.layout import SequenceLayout
from amago_ray.nets.native import attention as native_attention

pytestmark = pytest.mark.numeric

LAYOUTS = {"one": [5], "equal": [6, 6, 6], "ragged": [3, 9, 1, 9, 4], "spread": [2, 40, 3, 38]}


def naive_attention(q: Tensor, k: Tensor, v: Tensor, layout: SequenceLayout, window: int | None) -> Tensor:
    """Row by row, straight from the definition."""
    outputs = []
    start = 0
    for length in layout.lengths:
        for i in range(length):
            first = 0 if window is None else max(0, i - window + 1)
            rows = slice(start + first, start + i + 1)
            scores = torch.einsum("hd,lhd->hl", q[start + i], k[rows]) / q.shape[-1] ** 0.5
            outputs.append(torch.einsum("hl,lhd->hd", scores.softmax(-1), v[rows]))
        start += length
    return torch.stack(outputs)


def with_gradient(attend: Any, qkv: Tensor, cotangent: Tensor, layout: SequenceLayout, window: int | None) -> Any:
    output = attend(*qkv.unbind(1), layout, window)
    (gradient,) = torch.autograd.grad(output, qkv, cotangent.to(qkv.dtype))
    return {"output": output, "gradient": gradient}


def available_backends() -> list[str]:
    names = ["auto", "sdpa"]
    for name in ("native", "varlen", "flash_attn"):
        try:
            build_attention(name)  # type: ignore[arg-type]
        except ConfigError:
            continue
        names.append(name)
    return names


needs_native = pytest.mark.skipif("native" not in available_backends(), reason="installed without a C compiler")


@pytest.mark.parametrize("name", available_backends())
@pytest.mark.parametrize("lengths", LAYOUTS.values(), ids=LAYOUTS.keys())
@pytest.mark.parametrize("window", [None, 1, 4, 100])
@pytest.mark.parametrize("head_dim", [8, 16, 32, 64])
def test_backends_equal_the_naive_reference(name: str, lengths: list[int], window: int | None, head_dim: int) -> None:
    torch.manual_seed(0)
    device, dtype = ("cuda", torch.bfloat16) if name in ("varlen", "flash_attn") else ("cpu", torch.float32)
    layout = SequenceLayout.from_lengths(lengths, device)
    qkv = torch.randn(layout.num_tokens, 3, 2, head_dim, device=device, dtype=dtype)
    cotangent = torch.randn(layout.num_tokens, 2, head_dim, device=device, dtype=dtype)
    attend = build_attention(name)  # type: ignore[arg-type]
    results = [
        with_gradient(attend, given.requires_grad_(), cotangent, layout, window)
        for attend, given in ((attend, qkv), (naive_attention, qkv), (naive_attention, qkv.double()))
    ]
    assert_as_exact_as(*results[:2], reference=results[2])


@pytest.mark.parametrize("name", ["sdpa", "auto"])
def test_no_value_of_a_neighbouring_sequence_leaks_in(name: BackendName) -> None:
    torch.manual_seed(0)
    layout = SequenceLayout.from_lengths([3, 5, 2])
    attend = build_attention(name)
    q, k, v = torch.randn(3, 10, 2, 8)
    before = attend(q, k, v, layout)
    k[3:8], v[3:8] = 1e4, torch.nan
    after = attend(q, k, v, layout)
    assert torch.equal(after[:3], before[:3])
    assert torch.equal(after[8:], before[8:])


@pytest.mark.skipif(torch.cuda.is_available(), reason="tells what a machine without a GPU says")
@pytest.mark.parametrize("name", ["varlen", "flash_attn"])
def test_backend_that_this_machine_lacks_is_one_readable_line(name: str) -> None:
    with pytest.raises(ConfigError, match=f'attention_backend: "{name}" expects a CUDA device') as error:
        build_attention(name)  # type: ignore[arg-type]
    assert "\n" not in str(error.value)


def test_unknown_backend_is_named() -> None:
    with pytest.raises(ConfigError, match='found "fast"'):
        build_attention("fast")  # type: ignore[arg-type]


def test_auto_runs_anywhere() -> None:
    assert isinstance(build_attention("auto"), AutoAttention)
    layout = SequenceLayout.from_lengths([3, 2])
    q, k, v = torch.randn(3, 5, 2, 6)
    assert torch.equal(build_attention("auto")(q, k, v, layout), SdpaAttention()(q, k, v, layout))


def test_auto_runs_without_the_compiled_kernel(monkeypatch: pytest.MonkeyPatch) -> None:
    q, k, v = torch.randn(3, 5, 2, 8)
    layout = SequenceLayout.from_lengths([3, 2])
    expected = SdpaAttention()(q, k, v, layout)
    native_attention._kernel.cache_clear()
    monkeypatch.setattr(native_attention, "load_kernel", lambda *names: None)
    assert torch.equal(build_attention("auto")(q, k, v, layout), expected)
    with pytest.raises(ConfigError, match='"native" cannot be imported: amago_ray was installed without a C compiler'):
        build_attention("native")


@needs_native
def test_native_attention_does_not_depend_on_the_number_of_threads() -> None:
    torch.manual_seed(0)
    layout = SequenceLayout.from_lengths([300, 7, 250, 120])
    qkv = torch.randn(layout.num_tokens, 3, 4, 8, requires_grad=True)
    results = []
    threads = torch.get_num_threads()
    for count in (1, 3):
        torch.set_num_threads(count)
        output = build_attention("native")(*qkv.unbind(1), layout)
        results.append((output, *torch.autograd.grad(output.square().sum(), qkv)))
    torch.set_num_threads(threads)
    for one, three in zip(*results, strict=True):
        assert torch.equal(one, three)


@needs_native
def test_native_attention_hides_no_value_that_is_not_a_number() -> None:
    q, k, v = torch.randn(3, 20, 1, 8)
    k[5, 0, 3] = torch.nan
    output = build_attention("native")(q, k, v, SequenceLayout.from_lengths([20]))
    assert torch.isfinite(output[:5]).all()
    assert torch.isnan(output[5:]).all()


@needs_native
def test_native_attention_names_what_it_does_not_take() -> None:
    q, k, v = torch.randn(3, 5, 2, 6)
    with pytest.raises(ConfigError, match=r'"native" expects heads of .* channels on the host, found 6 on cpu'):
        build_attention("native")(q, k, v, SequenceLayout.from_lengths([5]))


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
    with pytest.raises(ConfigError, match='"bfloat16", found float32'):
        FlashAttention()(*torch.randn(3, 2, 1, 4), layout)


@pytest.mark.parametrize("lengths", [[50], [7, 50, 33, 33, 1], [40, 40]])
@pytest.mark.parametrize("window", [1, 5, 16, 17, 32, 49])
def test_windows_in_blocks_equal_the_naive_reference(
    monkeypatch: pytest.MonkeyPatch, lengths: list[int], window: int
) -> None:
    monkeypatch.setattr(sdpa, "_SHORTEST_BLOCK", 8)
    torch.manual_seed(0)
    layout = SequenceLayout.from_lengths(lengths)
    qkv, cotangent = torch.randn(layout.num_tokens, 3, 2, 4), torch.randn(layout.num_tokens, 2, 4)
    results = [
        with_gradient(attend, given.requires_grad_(), cotangent, layout, window)
        for attend, given in ((SdpaAttention(), qkv), (naive_attention, qkv), (naive_attention, qkv.double()))
    ]
    assert_as_exact_as(*results[:2], reference=results[2])


def test_work_of_a_window_grows_with_the_length_not_with_its_square(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[int] = []
    attend = sdpa.functional.scaled_dot_product_attention

    def counted(q: Tensor, k: Tensor, v: Tensor, **options: Any) -> Tensor:
        seen.append(q.shape[:-1].numel() * k.shape[2])
        return attend(q, k, v, **options)

    monkeypatch.setattr(sdpa.functional, "scaled_dot_product_attention", counted)
    pairs = []
    for length in (1024, 4096):
        seen.clear()
        q = torch.zeros(length, 1, 2)
        SdpaAttention()(q, q, q, SequenceLayout.from_lengths([length]), 64)
        pairs.append(sum(seen))
    assert pairs[0] < 1024 * 128
    assert pairs[1] < 4.1 * pairs[0]
