import pytest

from amago_ray.telemetry.bottleneck import PARTS, Side, Verdict, verdict

RUNNERS_AHEAD = {"acting": 0.1, "environment": 0.05, "governor": 0.85}
LEARNER_AHEAD = {"learner": 0.15, "replay": 0.05, "governor": 0.8}


@pytest.mark.parametrize(
    ("part", "sides"),
    [
        ("acting", [{"acting": 0.9, "environment": 0.05}, LEARNER_AHEAD]),
        ("environment", [{"acting": 0.05, "environment": 0.9}, LEARNER_AHEAD]),
        ("broadcast", [{"acting": 0.05, "broadcast": 0.9}, LEARNER_AHEAD]),
        ("replay", [{"acting": 0.05, "replay": 0.9}, LEARNER_AHEAD]),
        ("replay", [RUNNERS_AHEAD, {"learner": 0.05, "replay": 0.9}]),
        ("broadcast", [RUNNERS_AHEAD, {"learner": 0.05, "broadcast": 0.9}]),
        ("learner", [RUNNERS_AHEAD, {"learner": 0.9, "replay": 0.05}]),
    ],
)
def test_what_the_busy_side_does_is_named_while_the_other_waits_for_it(part: str, sides: list[Side]) -> None:
    found = verdict(sides)

    assert found.part == part
    assert found.share == 0.9
    assert 4 < found.speedup < 10
    assert str(found).startswith(f"{part} limits: 90% of the time, up to ")


def test_without_the_named_part_the_next_one_sets_the_pace() -> None:
    found = verdict([{"acting": 0.35, "environment": 0.6}, {"learner": 0.4, "governor": 0.5}])

    assert (found.part, found.share) == ("environment", 0.6)
    # Without the environment, the learner would need its half of the time all the same.
    assert found.speedup == pytest.approx(2.0)
    assert found.speedups["acting"] == pytest.approx(1 / 0.65)
    assert found.speedups["learner"] == 1.0


def test_the_governor_is_named_for_what_even_the_busiest_side_waited() -> None:
    found = verdict([{"acting": 0.5, "governor": 0.5}, {"learner": 0.6, "governor": 0.4}])

    assert (found.part, found.share) == ("governor", 0.4)
    assert found.speedup == pytest.approx(1 / 0.6)
    # Without the learner's work, runners would still take half of the time, and the governor what it takes.
    assert found.speedups["learner"] == pytest.approx(1 / 0.9)


def test_two_sides_that_take_as_long_gain_nothing_from_one() -> None:
    found = verdict([{"acting": 0.6, "environment": 0.4}, {"learner": 0.95}])

    assert str(found) == "learner limits: 95% of the time, as much as the other side"


def test_parts_of_one_process_add_up() -> None:
    found = verdict([{"acting": 0.5, "environment": 0.1, "learner": 0.3}])

    assert (found.part, found.share, found.speedup) == ("acting", 0.5, 2.0)


def test_nothing_is_named_when_nothing_is_busy() -> None:
    found = verdict([{"acting": 0.1}, {"learner": 0.1}])

    assert found.part is None
    assert str(found) == "nothing clearly limits the run"
    assert verdict([]).part is None


def test_shares_beyond_their_range_are_cut_and_gains_stay_finite() -> None:
    found = verdict([{"governor": 1.4}, {"learner": 1.3, "replay": -0.2}])

    assert (found.share, found.speedup) == (1.0, 100.0)
    assert str(found).startswith("learner limits: 100% of the time, over 10x to gain by")


def test_metrics_tell_share_and_gain_of_every_part() -> None:
    metrics = verdict([RUNNERS_AHEAD, {"learner": 0.9}]).metrics()

    assert set(metrics) == {f"bottleneck/{part}_{what}" for part in PARTS for what in ("share", "speedup")}
    assert metrics["bottleneck/learner_share"] == 0.9
    assert metrics["bottleneck/learner_speedup"] == pytest.approx(1 / 0.15)
    assert Verdict(None).metrics() == {}
