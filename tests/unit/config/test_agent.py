import pytest

from amago_ray.config.agent import ActorCriticConfig


def test_weights_go_linearly_to_their_final_values_and_stay() -> None:
    config = ActorCriticConfig(
        online_coefficient=0.0,
        online_coefficient_final=1.0,
        offline_coefficient=1.0,
        offline_coefficient_final=0.2,
        coefficient_anneal_steps=200,
    )
    weights = [(c.online_coefficient, c.offline_coefficient) for c in map(config.after, (0, 50, 200, 10_000))]
    assert weights == [(0.0, 1.0), (0.25, pytest.approx(0.8)), (1.0, 0.2), (1.0, 0.2)]


def test_without_final_values_nothing_changes() -> None:
    config = ActorCriticConfig()
    assert config.after(10**9) is config
    one = ActorCriticConfig(offline_coefficient_final=0.0, coefficient_anneal_steps=10)
    assert [one.after(steps).online_coefficient for steps in (0, 5, 10)] == [1.0] * 3
    assert one.after(10).offline_coefficient == 0.0
