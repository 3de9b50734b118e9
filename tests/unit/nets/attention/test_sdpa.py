from typing import Any

import pytest
import torch
from helpers.attention import naive_attention, with_gradient
from helpers.numeric import assert_as_exact_as
from torch import Tensor

from amago_ray.nets.attention import sdpa
from amago_ray.nets.attention.sdpa import SdpaAttention
from amago_ray.nets.layout import SequenceLayout

pytestmark = pytest.mark.numeric


@pytest.mark.parametrize("lengths", [[400], [56, 400, 264, 264, 8], [320, 320]])
@pytest.mark.parametrize("window", [1, 40, 64, 128, 136, 256, 392])
def test_windows_in_blocks_equal_the_naive_reference(lengths: list[int], window: int) -> None:
    """Blocks have 64 rows, or as many as the window."""
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
