import pytest
import torch

from amago_ray.nets.sequence.dropout import dropout


def test_nothing_is_dropped_outside_training() -> None:
    x = torch.randn(5, 3)
    assert dropout(x, 0.5, training=False) is x
    assert dropout(x, 0.0, training=True) is x


@pytest.mark.parametrize("probability", [0.05, 0.3, 0.9])
def test_share_and_scale(probability: float) -> None:
    torch.manual_seed(0)
    x = torch.ones(1001, 333)
    y = dropout(x, probability, training=True)
    assert (y == 0).float().mean().item() == pytest.approx(probability, abs=4 * (probability / y.numel()) ** 0.5)
    assert y.unique().tolist() == pytest.approx([0.0, 1 / (1 - probability)], rel=2e-4)
    assert y.mean().item() == pytest.approx(1.0, abs=0.02)


def test_entries_are_dropped_independently() -> None:
    torch.manual_seed(1)
    kept = (dropout(torch.ones(400_000), 0.5, training=True) > 0).float() - 0.5
    for lag in (1, 2, 3, 4, 8):
        assert abs((kept[lag:] * kept[:-lag]).mean().item()) < 0.25 * 4 / 400_000**0.5


def test_gradient_goes_where_entries_were_kept() -> None:
    torch.manual_seed(2)
    x = torch.randn(50, 7, requires_grad=True)
    y = dropout(x, 0.4, training=True)
    y.sum().backward()
    assert x.grad is not None
    torch.testing.assert_close(x.grad * x.detach(), y.detach())


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
