import numpy as np

from amago_ray.runtime.liveness import Liveness


def test_ages_begin_anew_with_each_beat() -> None:
    liveness = Liveness()
    assert liveness.ages_s(0) == {}
    assert liveness.oldest_s(0) == 0
    liveness.heard_runners(np.array([0, 2]), 1)
    liveness.heard("learner", 2)
    liveness.heard_runners(np.array([0]), 4)
    assert liveness.ages_s(5) == {"env_runner_0": 1, "env_runner_2": 4, "learner": 3}
    assert liveness.ages_s(5, above_s=1) == {"env_runner_2": 4, "learner": 3}
    assert liveness.oldest_s(5) == 4


def test_who_has_left_has_no_age() -> None:
    liveness = Liveness()
    liveness.heard_runners(np.array([0, 2]), 1)
    liveness.gone(2)
    liveness.gone(7)
    assert liveness.ages_s(5) == {"env_runner_0": 4}
    assert liveness.oldest_s(5) == 4
