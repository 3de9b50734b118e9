import numpy as np

from amago_ray.runtime.pace import MOST_BEATS_PER_S, Pace


def test_all_together_beat_a_bounded_number_of_times() -> None:
    pace = Pace()
    pace.heard(np.array([0]))
    assert pace.runner_in_s() == 1 / MOST_BEATS_PER_S
    pace.heard(np.arange(600))
    pace.heard(np.arange(600))
    assert pace.runner_in_s() == 600 / MOST_BEATS_PER_S
    for runner in range(300):
        pace.gone(runner)
    pace.gone(1000)
    assert pace.runner_in_s() == 300 / MOST_BEATS_PER_S
