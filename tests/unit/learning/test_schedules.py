from amago_ray.learning.schedules import warmed_up


def test_the_rate_rises_linearly_and_stays():
    assert [warmed_up(2.0, step, 4) for step in range(6)] == [0.0, 0.5, 1.0, 1.5, 2.0, 2.0]
    assert warmed_up(2.0, 0, 0) == 2.0
