"""The env steps before the run's last one, shared out to runners that beat now and then."""

from __future__ import annotations

import numpy as np
import pytest

from amago_ray.runtime.control.step_quota import StepQuota


def allow(quota: StepQuota, runner: int, made: int, total: int) -> int:
    """What one runner may make in all."""
    allowed = quota.allow(np.array([runner]), np.array([made]), total)
    assert allowed is not None
    return int(allowed[0])


def test_without_a_limit_there_is_none() -> None:
    quota = StepQuota(None, step_size=4)
    assert quota.allow(np.array([0]), np.array([10]), total=10) is None
    quota.free(np.array([0]))


def test_one_runner_is_granted_all_in_ever_smaller_parts() -> None:
    quota, made, grants = StepQuota(1000, step_size=10), 0, []
    while (allowed := allow(quota, 0, made, made)) > made:
        grants.append(allowed - made)
        made = allowed
    assert made == 1000
    assert grants == sorted(grants, reverse=True)
    assert len(grants) < 15


@pytest.mark.parametrize("seed", range(20))
def test_runs_end_less_than_a_vector_step_of_each_runner_beyond_the_limit(seed: int) -> None:
    """Runners of any speed beat now and then, some of them in one message; one dies and comes again."""
    rng = np.random.default_rng(seed)
    limit, step_size, num_runners = int(rng.integers(1, 5000)), int(rng.integers(1, 40)), int(rng.integers(1, 5))
    quota = StepQuota(limit, step_size=step_size)
    made, reported, allowed = (np.zeros(num_runners, np.int64) for _ in range(3))
    base = 0
    for round_number in range(5000):
        runners = rng.permutation(num_runners)[: rng.integers(1, num_runners + 1)]
        if round_number == 20:
            # What it had not reported is not in the run's total.
            base += int(reported[runners[0]])
            made[runners[0]] = reported[runners[0]] = 0
            quota.free(runners[:1])
        reported[runners] = made[runners]
        total = base + int(reported.sum())
        allowed[runners] = quota.allow(runners, made[runners], total)
        for runner in runners:
            for _ in range(int(rng.integers(4))):
                if made[runner] < allowed[runner]:
                    made[runner] += step_size
        if total >= limit:
            break
    assert limit <= base + reported.sum()
    assert base + made.sum() < limit + num_runners * step_size


def test_what_a_dead_runner_was_granted_is_free_again() -> None:
    quota = StepQuota(100, step_size=10)
    assert allow(quota, 0, made=0, total=0) == 50
    assert allow(quota, 1, made=0, total=0) == 12
    quota.free(np.array([0]))
    assert allow(quota, 1, made=0, total=0) == 44, "half of what nobody was granted"


def test_a_message_that_comes_again_or_late_grants_nothing_twice() -> None:
    quota = StepQuota(100, step_size=10)
    assert allow(quota, 0, made=0, total=0) == 50
    assert allow(quota, 0, made=0, total=0) == 50
    assert allow(quota, 0, made=50, total=50) == 75
    assert allow(quota, 0, made=20, total=50) == 75


def test_many_in_one_message_share_what_is_left() -> None:
    quota = StepQuota(100, step_size=10)
    allowed = quota.allow(np.arange(1000), np.zeros(1000, np.int64), 0)
    assert allowed is not None
    assert allowed.sum() == 100
    assert set(allowed.tolist()) == {0, 10}
