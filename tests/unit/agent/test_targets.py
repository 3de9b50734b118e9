import pytest
import torch
from helpers.numeric import as_float64, assert_as_exact_as

from amago_ray.agent.targets import n_step_returns, reduce_ensemble

pytestmark = pytest.mark.numeric

DISCOUNTS = torch.tensor([0.5, 0.9])


def test_truncation_bootstraps_and_termination_does_not():
    """Two sequences alike but for their end: one terminated, one cut off."""
    reward = torch.tensor([1.0, 2.0, 1.0, 2.0])
    terminated = torch.tensor([False, True, False, False])
    bootstrap = torch.full((4, 2), 10.0)
    for n_step, steps_left in ((1, None), (3, torch.tensor([2, 1, 2, 1]))):
        returns = n_step_returns(reward, terminated, bootstrap, DISCOUNTS, n_step=n_step, steps_left=steps_left)
        assert torch.equal(returns[1], torch.tensor([2.0, 2.0]))
        assert torch.equal(returns[3], 2.0 + DISCOUNTS * 10.0)


def definition(reward, terminated, bootstrap, discounts, n_step, left):
    """Row by row."""
    rows = []
    for t in range(len(reward)):
        total, i = torch.zeros(2, dtype=reward.dtype), 0
        while True:
            total = total + discounts**i * reward[t + i]
            i += 1
            if terminated[t + i - 1]:
                break
            if i == n_step or i == left[t]:
                total = total + discounts**i * bootstrap[t + i - 1]
                break
        rows.append(total)
    return torch.stack(rows)


@pytest.mark.parametrize("n_step", [1, 2, 3, 7])
def test_n_step_returns_follow_the_definition(n_step):
    generator = torch.Generator().manual_seed(n_step)
    lengths = [5, 1, 3, 4]
    num_transitions = sum(lengths)
    reward = torch.randn(num_transitions, generator=generator)
    bootstrap = torch.randn(num_transitions, 2, generator=generator)
    # Row 2 lies inside a sequence: there, too, the sum ends.
    terminated = torch.zeros(num_transitions, dtype=torch.bool)
    terminated[[2, 4, 12]] = True
    ends = torch.tensor(lengths).cumsum(0)
    left = torch.cat([end - torch.arange(end - length, end) for end, length in zip(ends, lengths, strict=True)])
    given = reward, terminated, bootstrap, DISCOUNTS
    found = n_step_returns(*given, n_step=n_step, steps_left=left)
    assert_as_exact_as(found, definition(*given, n_step, left), reference=definition(*as_float64(given), n_step, left))


def test_ensemble_is_reduced_over_the_critics_drawn():
    values = torch.tensor([[[1.0]], [[5.0]], [[3.0]]])
    subset = torch.tensor([[[2], [1]]])
    assert reduce_ensemble(values, subset, pessimistic=True).item() == 3.0
    assert reduce_ensemble(values, subset, pessimistic=False).item() == 4.0
    twice = torch.tensor([[[1], [1]]])
    assert reduce_ensemble(values, twice, pessimistic=True).item() == 5.0
