import math

import pytest
import torch

from amago_ray.agent.value_bins import ValueBins


@pytest.mark.parametrize("labels", ["two_hot", "hl_gauss"])
def test_labels_are_distributions_that_stand_for_their_value(labels):
    bins = ValueBins(101, -1000.0, 1000.0, labels)
    returns = torch.tensor([-300.0, -1.0, 0.0, 0.3, 7.0, 500.0])
    label = bins.label(returns)
    assert label.shape == (6, 101)
    assert label.min() >= 0
    assert torch.allclose(label.sum(-1), torch.ones(6))
    value = bins.value(label.clamp_min(1e-30).log())
    assert torch.allclose(value, returns, rtol=2e-2, atol=2e-2)


def test_two_hot_uses_the_two_neighbours():
    bins = ValueBins(3, -math.expm1(1.0), math.expm1(1.0), "two_hot")
    label = bins.label(torch.tensor([math.expm1(0.25)]))
    assert torch.allclose(label, torch.tensor([[0.0, 0.75, 0.25]]), atol=1e-6)


@pytest.mark.parametrize("labels", ["two_hot", "hl_gauss"])
def test_values_out_of_range_go_to_the_end(labels):
    bins = ValueBins(11, -10.0, 10.0, labels)
    label = bins.label(torch.tensor([-1e9, -10.0, 10.0, 1e9]))
    assert label.argmax(-1).tolist() == [0, 0, 10, 10]
    assert torch.allclose(label[0], label[1])
    if labels == "two_hot":
        assert torch.equal(label[0], torch.eye(11)[0])
