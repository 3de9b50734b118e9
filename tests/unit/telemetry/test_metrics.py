import math
from dataclasses import dataclass, field

from hypothesis import given
from hypothesis import strategies as st

from amago_ray.telemetry.metrics import EpisodeWindow, RateMeter, episode_metrics, finite, flatten


@dataclass(frozen=True)
class Outcome:
    env_name: str
    episode_return: float
    length: int = 10
    success: float | None = None
    events: dict[str, float] = field(default_factory=dict)


def test_episode_statistics_cover_all_environments_and_each() -> None:
    metrics = episode_metrics([Outcome("a/b", 1.0, 4), Outcome("a/b", 3.0, 6), Outcome("c", 8.0, 8)], "rollout")

    assert metrics["rollout/return_mean"] == 4.0
    assert metrics["rollout/length_mean"] == 6.0
    assert metrics["rollout/a.b/return_mean"] == 2.0
    assert metrics["rollout/c/return_mean"] == 8.0


def test_the_bottom_quintile_is_the_mean_of_the_worst_fifth() -> None:
    episodes = [Outcome("a", float(value)) for value in (9, 1, 8, 2, 7, 3, 6, 4, 5, 0)]

    assert episode_metrics(episodes, "eval")["eval/return_bottom_quintile_mean"] == 0.5
    assert episode_metrics(episodes[:3], "eval")["eval/return_bottom_quintile_mean"] == 1.0


def test_success_is_averaged_over_episodes_that_know_it() -> None:
    metrics = episode_metrics([Outcome("a", 0, success=1.0), Outcome("a", 0, success=0.0), Outcome("b", 0)], "eval")

    assert metrics["eval/success_rate"] == 0.5
    assert "eval/b/success_rate" not in metrics


def test_events_are_averaged_over_the_episodes_that_reported_them() -> None:
    episodes = [Outcome("a", 0, events={"attempt_return": 2.0, "success": 1.0}), Outcome("a", 0)]

    metrics = episode_metrics(episodes, "rollout")

    assert metrics["rollout/attempt_return_mean"] == 2.0
    assert "rollout/success_mean" not in metrics


def test_no_episodes_give_no_metrics() -> None:
    assert episode_metrics([], "rollout") == {}
    assert EpisodeWindow().metrics() == {}


def test_a_window_keeps_the_newest_episodes_of_each_environment() -> None:
    window = EpisodeWindow(size=2)
    window.add([Outcome("rare", 100.0)])
    window.add([Outcome("often", float(value)) for value in range(10)])

    metrics = window.metrics()

    assert metrics["rollout/often/return_mean"] == 8.5
    assert metrics["rollout/rare/return_mean"] == 100.0


def test_finite_names_what_it_leaves_out() -> None:
    assert finite({"a": 1, "b": None, "c": math.nan, "d": -math.inf}) == ({"a": 1.0}, ["b", "c", "d"])


def test_rates_span_the_window() -> None:
    meter = RateMeter(window_s=10.0)
    for second in range(31):
        meter.update(float(second), {"env_steps": 100.0 * second if second < 20 else 2000.0 + 10 * (second - 20)})

    assert meter.per_s() == {"env_steps": 10.0}


def test_rates_are_absent_before_time_has_passed() -> None:
    meter = RateMeter()

    assert meter.per_s() == {}
    meter.update(1.0, {"env_steps": 5.0})
    assert meter.per_s() == {}
    meter.update(1.0, {"env_steps": 7.0})
    assert meter.per_s() == {}


def test_a_total_seen_only_now_has_no_rate_yet() -> None:
    meter = RateMeter()
    meter.update(0.0, {"env_steps": 0.0})
    meter.update(2.0, {"env_steps": 10.0, "learner_steps": 3.0})

    assert meter.per_s() == {"env_steps": 5.0}


def test_reports_far_apart_still_give_a_rate() -> None:
    meter = RateMeter(window_s=1.0)
    for now, total in ((0.0, 0.0), (60.0, 60.0), (120.0, 180.0)):
        meter.update(now, {"env_steps": total})

    assert meter.per_s() == {"env_steps": 2.0}


NAMES = st.text("abc", min_size=1, max_size=3)


@given(st.recursive(st.floats(allow_nan=False), lambda inner: st.dictionaries(NAMES, inner, min_size=1), max_leaves=8))
def test_a_flat_name_is_the_path_to_its_value(tree: object) -> None:
    flat = flatten({"root": tree})

    for path, value in flat.items():
        found: object = {"root": tree}
        for name in path.split("/"):
            assert isinstance(found, dict)
            found = found[name]
        assert found == value
    assert len(flat) == count_leaves(tree)


def count_leaves(tree: object) -> int:
    return sum(map(count_leaves, tree.values())) if isinstance(tree, dict) else 1
