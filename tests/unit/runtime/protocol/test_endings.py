from __future__ import annotations

import pytest

from amago_ray.errors import DataError, TrainingError
from amago_ray.runtime.protocol.endings import Ending, short_line


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (OSError("no licence"), "OSError: no licence"),
        (ValueError("two\n  lines"), "ValueError: two lines"),
        (DataError("owner.json: expected a shard's owner file"), "owner.json: expected a shard's owner file"),
        (KeyError(), "KeyError: "),
    ],
)
def test_an_error_is_one_line(error: Exception, line: str) -> None:
    assert short_line(error) == line


def test_a_very_long_error_is_cut() -> None:
    assert len(short_line(ValueError("x" * 10_000))) < 600


def test_a_run_ends_with_the_original_error_where_it_is_ours() -> None:
    ours = DataError("disk full")
    assert Ending("raised", error=ours).failure("the replay shard 0 failed") is ours
    other = Ending("raised", error=ValueError("broken")).failure("the learner failed")
    assert isinstance(other, TrainingError)
    assert str(other) == "the learner failed: ValueError: broken"
