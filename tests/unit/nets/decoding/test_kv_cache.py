import numpy as np
import pytest
import torch
from helpers.numeric import as_float64, assert_as_exact_as

from amago_ray.nets.decoding.kv_cache import KvCache, decode_attention
from amago_ray.nets.layout import SequenceLayout

pytestmark = pytest.mark.numeric


def make(batch_size: int = 3) -> KvCache:
    return KvCache(batch_size, num_layers=1, num_heads=2, head_dim=4, context_length=5, device=torch.device("cpu"))


def attention(q: torch.Tensor, kv: list[torch.Tensor]) -> torch.Tensor:
    """Of one query `[H * head_dim]` over a list of `[H, 2, head_dim]`."""
    k, v = torch.stack(kv, 1).unbind(2)
    return torch.einsum("hl,hld->hd", torch.einsum("hd,hld->hl", q.view(2, 4), k).softmax(-1), v).flatten()


def check(outputs: list[torch.Tensor], asked: list[tuple[torch.Tensor, list[torch.Tensor]]]) -> None:
    """Each output against the attention of a query over the list of keys and values that it should see."""
    plain = [attention(q, kv) for q, kv in asked]
    reference = [attention(q.double(), [each.double() for each in kv]) for q, kv in asked]
    assert_as_exact_as(outputs, plain, reference=reference)


def test_ring_holds_the_last_context_of_each_environment() -> None:
    torch.manual_seed(0)
    cache = make()
    outputs, asked = [], []
    seen: list[list[torch.Tensor]] = [[], [], []]
    for t in range(14):
        for e in range(3):
            if t == 4 * e + 2:
                cache.reset(np.array([e]))
                seen[e].clear()
        step = cache.advance()
        q, kv = torch.randn(3, 8), torch.randn(3, 2, 2, 4)
        output = cache.attend(0, step, q, kv)
        assert step.num_slots == min(5, max(len(s) for s in seen) + 1)
        for e in range(3):
            seen[e].append(kv[e])
            outputs.append(output[e])
            asked.append((q[e], seen[e][-5:]))
    check(outputs, asked)


def test_a_bias_is_made_only_where_dead_slots_are_read() -> None:
    cache = make()
    assert cache.advance().bias is None
    cache.reset(np.array([1]))
    assert cache.advance().bias is not None


def test_fill_replaces_what_an_environment_held() -> None:
    torch.manual_seed(0)
    cache = make()
    for _ in range(7):
        cache.attend(0, cache.advance(), torch.randn(3, 8), torch.randn(3, 2, 2, 4))
    kv = torch.randn(6, 2, 2, 4)
    cache.fill(0, np.array([2, 0]), SequenceLayout.from_lengths([2, 4]), kv)
    assert cache.lengths.tolist() == [4, 7, 2]
    q, new = torch.randn(3, 8), torch.randn(3, 2, 2, 4)
    output = cache.attend(0, cache.advance(), q, new)
    check([output[2], output[0]], [(q[2], [kv[0], kv[1], new[2]]), (q[0], [*kv[2:], new[0]])])


def test_decode_attention_ignores_slots_at_minus_infinity() -> None:
    torch.manual_seed(0)
    q, keys, values = torch.randn(2, 1, 4), torch.randn(2, 4, 3), torch.randn(2, 3, 4)
    bias = torch.tensor([0.0, 0.0, -torch.inf]).expand(2, 1, 3)
    two = keys[..., :2], values[:, :2]
    plain, reference = decode_attention(q, *two, None), decode_attention(*as_float64((q, *two)), None)
    assert_as_exact_as(decode_attention(q, keys, values, bias), plain, reference=reference)


def test_nan_of_a_broken_observation_does_not_outlive_its_episode() -> None:
    torch.manual_seed(0)
    cache = make(2)
    for t in range(4):
        kv = torch.randn(2, 2, 2, 4)
        if t == 3:
            kv[0] = torch.nan
        output = cache.attend(0, cache.advance(), torch.randn(2, 8), kv)
    assert output[0].isnan().all()
    assert not output[1].isnan().any()
    cache.reset(np.array([0]))
    output = cache.attend(0, cache.advance(), torch.randn(2, 8), torch.randn(2, 2, 2, 4))
    assert not output.isnan().any()


def test_of_a_sequence_longer_than_the_ring_the_last_tokens_are_filled_in_and_go_on() -> None:
    torch.manual_seed(0)
    cache = make(2)
    lengths = [13, 3]
    layout = SequenceLayout.from_lengths(lengths)
    kv = torch.randn(16, 2, 2, 4)
    cache.fill(0, np.array([0, 1]), layout, kv)
    seen = [list(kv[:13]), list(kv[13:])]
    outputs, asked = [], []
    for _ in range(7):
        step = cache.advance()
        q, new = torch.randn(2, 8), torch.randn(2, 2, 2, 4)
        output = cache.attend(0, step, q, new)
        for e in range(2):
            seen[e].append(new[e])
            outputs.append(output[e])
            asked.append((q[e], seen[e][-5:]))
    check(outputs, asked)


def test_a_float16_cache_is_filled_with_rounded_finite_numbers() -> None:
    cache = KvCache(
        1, num_layers=1, num_heads=1, head_dim=1, context_length=4, device=torch.device("cpu"), dtype=torch.float16
    )
    kv = torch.tensor([[1.0001, 1e6], [-1e6, 3.0]]).view(2, 1, 2, 1)
    cache.fill(0, np.array([0]), SequenceLayout.from_lengths([2]), kv)
    assert cache.keys.flatten()[:2].tolist() == [1.0, -65504.0]
    assert cache.values.flatten()[:2].tolist() == [65504.0, 3.0]
