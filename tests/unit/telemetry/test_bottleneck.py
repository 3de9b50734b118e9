import math

import pytest

from amago_ray.telemetry.bottleneck import PARTS, verdict


@pytest.mark.parametrize("part", PARTS)
def test_a_part_that_takes_nearly_all_time_is_named(part: str) -> None:
    waits = dict.fromkeys(PARTS, 0.02) | {part: 0.95}

    found = verdict(waits)

    assert found.part == part
    assert found.speedup > 2
    assert part in str(found)


def test_acting_and_environment_share_the_runners_time() -> None:
    found = verdict({"acting": 0.35, "environment": 0.6, "learner": 0.5})

    assert found.part == "environment"
    assert found.share == 0.6
    # Without the environment, the learner's half of the time would be the longest.
    assert found.speedup == pytest.approx(0.95 / 0.5)


def test_pausing_for_the_governor_is_not_its_fault_while_the_other_side_is_busy() -> None:
    assert verdict({"governor": 0.95, "learner": 0.9, "acting": 0.05}).part == "learner"
    assert verdict({"governor": 0.9, "acting": 0.5, "environment": 0.4}).part == "acting"


def test_both_sides_idle_is_the_governors_fault() -> None:
    assert verdict({"governor": 0.9, "learner": 0.1, "acting": 0.1}).part == "governor"


def test_nothing_is_named_when_nothing_is_busy() -> None:
    found = verdict({"learner": 0.3})

    assert found.part is None
    assert str(found) == "nothing clearly limits the run"
    assert verdict({}).part is None


def test_one_line_says_how_much() -> None:
    found = verdict({"learner": 0.9, "acting": 0.6})

    assert str(found).startswith("learner limits: 90% of the time, up to 1.5x to gain by")
    assert verdict({"learner": 0.9}).speedup == math.inf
    assert str(verdict({"learner": 0.9})).startswith("learner limits: 90% of the time, over 10x to gain by")


def test_shares_beyond_their_range_are_cut() -> None:
    assert verdict({"learner": 1.3, "replay": -0.2}).share == 1.0
