import pytest
import torch
from helpers.numeric import assert_mean, assert_share

from amago_ray.nets.sequence.dropout import dropout

pytestmark = pytest.mark.numeric


def test_nothing_is_dropped_outside_training() -> None:
    x = torch.randn(5, 3)
    assert dropout(x, 0.5, training=False) is x
    assert dropout(x, 0.0, training=True) is x


@pytest.mark.parametrize("probability", [0.05, 0.3, 0.9])
def test_share_and_scale(probability: float) -> None:
    torch.manual_seed(0)
    x = torch.ones(1001, 333)
    y = dropout(x, probability, training=True)
    dropped = round(probability * 65_536) / 65_536
    assert_share((y == 0).double().mean().item(), dropped, y.numel())
    assert torch.equal(y.unique(), torch.tensor([0, 1 / (1 - dropped)]))
    assert_mean(y.double().mean().item(), 1.0, (dropped / (1 - dropped)) ** 0.5, y.numel())


def test_entries_are_dropped_independently() -> None:
    torch.manual_seed(1)
    kept = (dropout(torch.ones(400_000), 0.5, training=True) > 0).float() - 0.5
    for lag in (1, 2, 3, 4, 8):
        assert_mean((kept[lag:] * kept[:-lag]).double().mean().item(), 0.0, 0.25, 400_000 - lag)


def test_gradient_goes_where_entries_were_kept() -> None:
    torch.manual_seed(2)
    x = torch.randn(50, 7, requires_grad=True)
    y = dropout(x, 0.4, training=True)
    y.sum().backward()
    assert x.grad is not None
    assert torch.equal(x.grad * x.detach(), y.detach())


def test_the_seed_decides() -> None:
    x = torch.ones(1000)
    masks = []
    for seed in (3, 3, 4):
        torch.manual_seed(seed)
        masks.append(dropout(x, 0.5, training=True))
    assert torch.equal(masks[0], masks[1])
    assert not torch.equal(masks[0], masks[2])


def test_a_tiny_probability_still_drops() -> None:
    torch.manual_seed(5)
    assert (dropout(torch.ones(2_000_000), 1e-9, training=True) == 0).any()
