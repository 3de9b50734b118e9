import pytest
import torch
from helpers.attention import naive_attention, with_gradient
from helpers.numeric import assert_as_exact_as

from amago_ray.config.model import BackendName
from amago_ray.errors import ConfigError
from amago_ray.nets.attention.make import AutoAttention, build_attention
from amago_ray.nets.attention.sdpa import SdpaAttention
from amago_ray.nets.layout import SequenceLayout
from amago_ray.nets.native import attention as native_attention

pytestmark = pytest.mark.numeric
LAYOUTS = {"one": [5], "equal": [6, 6, 6], "ragged": [3, 9, 1, 9, 4], "spread": [2, 40, 3, 38]}


def available_backends() -> list[str]:
    names = ["auto", "sdpa"]
    for name in ("native", "varlen", "flash_attn"):
        try:
            build_attention(name)  # type: ignore[arg-type]
        except ConfigError:
            continue
        names.append(name)
    return names


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
    with pytest.raises(ConfigError, match='got "fast"'):
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
    native_attention.load_attention_kernel.cache_clear()
    monkeypatch.setattr(native_attention, "load_kernel", lambda *names: None)
    assert torch.equal(build_attention("auto")(q, k, v, layout), expected)
    with pytest.raises(ConfigError, match='"native" cannot be imported: amago_ray was installed without a C compiler'):
        build_attention("native")
