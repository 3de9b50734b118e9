import pytest
import torch

from amago_ray.errors import ConfigError
from amago_ray.nets.attention.make import build_attention
from amago_ray.nets.layout import SequenceLayout
from amago_ray.nets.native import load_kernel

pytestmark = [
    pytest.mark.numeric,
    pytest.mark.skipif(
        load_kernel("_attention", "amago_ray_attention") is None, reason="installed without a C compiler"
    ),
]


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


def test_native_attention_hides_no_value_that_is_not_a_number() -> None:
    q, k, v = torch.randn(3, 20, 1, 8)
    k[5, 0, 3] = torch.nan
    output = build_attention("native")(q, k, v, SequenceLayout.from_lengths([20]))
    assert torch.isfinite(output[:5]).all()
    assert torch.isnan(output[5:]).all()


def test_native_attention_names_what_it_does_not_take() -> None:
    q, k, v = torch.randn(3, 5, 2, 6)
    with pytest.raises(ConfigError, match=r'"native" expects heads of .* channels on the host, got 6 on cpu'):
        build_attention("native")(q, k, v, SequenceLayout.from_lengths([5]))
