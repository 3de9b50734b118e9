import math

import pytest
import torch
from helpers.numeric import assert_rounded

from amago_ray.agent.value_bins import ValueBins

pytestmark = pytest.mark.numeric


@pytest.mark.parametrize("labels", ["two_hot", "hl_gauss"])
def test_labels_are_distributions_that_stand_for_their_value(labels):
    bins = ValueBins(101, -1000.0, 1000.0, labels)
    returns = torch.tensor([-300.0, -1.0, 0.0, 0.3, 7.0, 500.0])
    label = bins.label(returns)
    assert label.shape == (6, 101)
    assert label.min() >= 0
    assert_rounded(label.sum(-1), 1.0, roundings=101)
    value = bins.value(label.clamp_min(1e-30).log())
    if labels == "two_hot":
        # The mean position rounds as often as there are bins, and what comes of it grows with the return itself.
        position = returns.abs().log1p() * returns.sign()
        assert_rounded(value.abs().log1p() * value.sign(), position, roundings=101, magnitude=math.log1p(1000))
    else:
        # A Gaussian cut into bins has its mean within half a bin.
        width = 2 * math.log1p(1000) / 100
        assert ((value.abs().log1p() * value.sign() - returns.abs().log1p() * returns.sign()).abs() < width / 2).all()


def test_two_hot_uses_the_two_neighbours():
    bins = ValueBins(3, -math.expm1(1.0), math.expm1(1.0), "two_hot")
    label = bins.label(torch.tensor([math.expm1(0.25)]))
    assert_rounded(label, torch.tensor([[0.0, 0.75, 0.25]]), roundings=16)


@pytest.mark.parametrize("labels", ["two_hot", "hl_gauss"])
def test_values_out_of_range_go_to_the_end(labels):
    bins = ValueBins(11, -10.0, 10.0, labels)
    label = bins.label(torch.tensor([-1e9, -10.0, 10.0, 1e9]))
    assert label.argmax(-1).tolist() == [0, 0, 10, 10]
    assert torch.equal(label[0], label[1])
    if labels == "two_hot":
        assert torch.equal(label[0], torch.eye(11)[0])
