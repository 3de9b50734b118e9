"""The env steps before the run's last one, shared out to runners that beat now and then."""

from __future__ import annotations

import numpy as np
import pytest

from amago_ray.runtime.step_quota import StepQuota


def test_without_a_limit_there_is_none() -> None:
    assert StepQuota(None, step_size=4).allow(0, 1, made=10, total=10) is None


def test_one_runner_is_granted_all_in_ever_smaller_parts() -> None:
    quota, made, grants = StepQuota(1000, step_size=10), 0, []
    while (allowed := quota.allow(0, 1, made, made)) > made:
        grants.append(allowed - made)
        made = allowed
    assert made == 1000
    assert grants == sorted(grants, reverse=True)
    assert len(grants) < 15


@pytest.mark.parametrize("seed", range(20))
def test_runs_end_less_than_a_vector_step_of_each_runner_beyond_the_limit(seed: int) -> None:
    """Runners of any speed that beat now and then, one of which dies and comes again."""
    rng = np.random.default_rng(seed)
    limit, step_size, num_runners = int(rng.integers(1, 5000)), int(rng.integers(1, 40)), int(rng.integers(1, 5))
    quota = StepQuota(limit, step_size=step_size)
    made, reported, allowed = [0] * num_runners, [0] * num_runners, [0] * num_runners
    incarnation, base = [1] * num_runners, 0
    for round_number in range(5000):
        runner = int(rng.integers(num_runners))
        if round_number == 20:
            # What it had not reported is not in the run's total.
            base += reported[runner]
            made[runner] = reported[runner] = 0
            incarnation[runner] += 1
        reported[runner] = made[runner]
        total = base + sum(reported)
        allowed[runner] = quota.allow(runner, incarnation[runner], made[runner], total)
        for _ in range(int(rng.integers(4))):
            if made[runner] < allowed[runner]:
                made[runner] += step_size
        if total >= limit:
            break
    assert limit <= base + sum(reported)
    assert base + sum(made) < limit + num_runners * step_size


def test_a_late_message_of_a_dead_runner_takes_nothing() -> None:
    quota = StepQuota(100, step_size=10)
    assert quota.allow(0, 2, made=0, total=0) == 50
    assert quota.allow(0, 1, made=30, total=30) == 30, "nothing more than it has made"
    assert quota.allow(0, 2, made=0, total=30) == 50
    assert quota.allow(1, 1, made=0, total=30) == 10
