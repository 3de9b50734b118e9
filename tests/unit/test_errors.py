import inspect

import pytest

from amago_ray import errors


def test_every_error_derives_from_one_root_and_is_drawn_in_the_tree() -> None:
    classes = [item for _, item in inspect.getmembers(errors, inspect.isclass)]

    assert len(classes) >= 8
    for error in classes:
        assert issubclass(error, errors.AmagoRayError)
        assert error.__name__ in (errors.__doc__ or "")


def test_an_unusable_space_is_an_environments_error() -> None:
    assert issubclass(errors.SpaceError, errors.EnvError)


class MuteError(Exception):
    """An error of foreign code whose text cannot be had."""

    def __str__(self) -> str:
        raise RuntimeError


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (errors.ConfigError("seed: expected\n 1,  got 2"), "seed: expected 1, got 2"),
        (ValueError("no\nsuch  thing"), "ValueError: no such thing"),
        (ValueError(), "ValueError"),
        (MuteError(), "MuteError"),
    ],
)
def test_what_an_error_says_is_one_line(error: BaseException, line: str) -> None:
    assert errors.error_line(error) == line
