from amago_ray.runtime.liveness import Liveness


def test_ages_begin_anew_with_each_beat() -> None:
    liveness = Liveness()
    assert liveness.ages_s(0) == {}
    liveness.heard("env_runner_0", 1)
    liveness.heard("learner", 2)
    liveness.heard("env_runner_0", 4)
    assert liveness.ages_s(5) == {"env_runner_0": 1, "learner": 3}
