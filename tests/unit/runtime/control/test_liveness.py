import numpy as np

from amago_ray.runtime.control.liveness import Liveness


def test_the_age_is_that_of_whoever_spoke_first() -> None:
    liveness = Liveness()
    assert liveness.oldest_s(0) == 0
    liveness.heard_runners(np.array([0, 2]), 1)
    liveness.heard("learner", 2)
    liveness.heard_runners(np.array([0]), 4)
    assert liveness.oldest_s(5) == 4
    liveness.heard_runners(np.array([2]), 5)
    assert liveness.oldest_s(5) == 3


def test_who_has_left_has_no_age() -> None:
    liveness = Liveness()
    liveness.heard_runners(np.array([0, 2]), 1)
    liveness.heard_runners(np.array([0]), 4)
    liveness.gone(2)
    liveness.gone(7)
    assert liveness.oldest_s(5) == 1
