"""What environments return: plain meanings are read, everything else is refused by the name of its entry."""

from decimal import Decimal
from typing import Any

import numpy as np
import pytest
import torch
from helpers.one_line import one_line

from amago_ray.envs.returned import (
    ReturnedError,
    describe,
    flag,
    flags,
    info_dict,
    number,
    numbers,
    picture,
    reset_result,
    step_result,
)


class Unprintable:
    def __repr__(self) -> str:
        raise RuntimeError("no repr")


@pytest.mark.parametrize(
    "value",
    [
        1.0,
        1,
        True,
        np.float16(1),
        np.int64(1),
        np.bool_(True),
        np.array(1.0),
        np.array([1.0]),
        np.array([[1]]),
        [1.0],
        (1,),
        Decimal(1),
        torch.tensor(1.0),
        torch.tensor([1], requires_grad=False),
        torch.ones(1, requires_grad=True),
    ],
    ids=describe,
)
def test_numbers_of_any_type(value: Any) -> None:
    found = number("step: reward", value)
    assert (type(found), found) == (float, 1.0)


@pytest.mark.parametrize(
    ("value", "found"),
    [
        (None, "a number, got None"),
        ("1.0", "a number, got '1.0'"),
        ("1.0x", "a number, got '1.0x'"),
        ({"agent": 1.0}, "a number, got {'agent': 1.0}"),
        ([], "a number, got []"),
        (np.zeros(2), "a number, got ndarray of shape (2,)"),
        (np.array([None]), "a number, got ndarray of shape (1,)"),
        (torch.zeros(2), "a number, got Tensor of shape (2,)"),
        (1j, "a number, got 1j"),
        (Unprintable(), "a number, got a value of type Unprintable"),
        (number, "a number, got a value of type function"),
        (float("nan"), "a finite number of float32, got nan"),
        (np.float32("inf"), "a finite number of float32, got np.float32(inf)"),
        (-1e39, "a finite number of float32, got -1e+39"),
        (10**400, "a number, got "),
    ],
    ids=describe,
)
def test_what_is_no_number(value: Any, found: str) -> None:
    with pytest.raises(ReturnedError) as error:
        number("step: reward", value)
    assert one_line(error).startswith(f"step: reward: expected {found}")


@pytest.mark.parametrize("truth", [False, True])
@pytest.mark.parametrize("make", [bool, int, float, np.bool_, np.int8, np.array, lambda v: np.array([v]), torch.tensor])
def test_flags_of_any_type(make: Any, truth: bool) -> None:
    assert flag("step: terminated", make(truth)) is truth


@pytest.mark.parametrize("value", [None, "True", 2, 0.5, float("nan"), [], np.zeros(2, np.bool_), {}], ids=describe)
def test_what_is_no_flag(value: Any) -> None:
    with pytest.raises(ReturnedError) as error:
        flag("step: truncated", value)
    assert one_line(error).startswith("step: truncated: expected True or False, got ")


@pytest.mark.parametrize(
    "values",
    [
        np.array([1, 2, 3]),
        np.array([[1.0], [2.0], [3.0]]),
        [1, 2, 3],
        (1.0, np.float32(2), np.array([3])),
        [1, [2], 3],
        torch.tensor([1.0, 2.0, 3.0]),
        np.array([1, 2, np.array(3)], object),
        [torch.tensor(1), torch.tensor([2]), 3.0],
    ],
    ids=describe,
)
def test_columns_of_numbers(values: Any) -> None:
    found, errors = numbers("step: rewards", values, 3)
    assert (found.tolist(), errors) == ([1.0, 2.0, 3.0], {})


def test_one_bad_number_is_that_environments_alone() -> None:
    for bad in (
        np.array([1.0, np.nan, 3.0]),
        np.array([1.0, None, 3.0], object),
        [1, "x", 3],
        np.array([1.0, 1e39, 3]),
    ):
        found, errors = numbers("step: rewards", bad, 3)
        assert found.tolist() == [1.0, 0.0, 3.0]
        assert list(errors) == [1]
        assert str(errors[1]).startswith("step: rewards: expected a ")
    found_flags, errors = flags("step: terminated", np.array([1, 2, 0]), 3)
    assert (found_flags.tolist(), list(errors)) == ([True, False, False], [1])
    found_flags, errors = flags("step: terminated", [True, None, np.array([False])], 3)
    assert (found_flags.tolist(), list(errors)) == ([True, False, False], [1])


@pytest.mark.parametrize("values", [None, 1.0, np.zeros(2), np.array(1.0), [1, 2], {}, "abc", "ab"], ids=describe)
def test_columns_of_another_length(values: Any) -> None:
    for read in (numbers, flags):
        with pytest.raises(ReturnedError) as error:
            read("step: rewards", values, 3)
        assert "step: rewards: expected 3 entries, got " in one_line(error)


@pytest.mark.parametrize("value", [np.zeros(2), (1, 2, 3), None, {"observation": 1}, 5], ids=describe)
def test_the_old_reset(value: Any) -> None:
    with pytest.raises(ReturnedError) as error:
        reset_result(value)
    assert "reset: expected (observation, info) as in Gymnasium" in one_line(error)


def test_results_as_lists_and_infos_of_none() -> None:
    assert reset_result([1, None]) == (1, {})
    assert step_result([1, 2, 3, 4, None]) == [1, 2, 3, 4, None]
    with pytest.raises(ReturnedError) as error:
        step_result((1, 2.0, False, {}))
    assert "step: expected (observation, reward, terminated, truncated, info)" in one_line(error)
    assert "got 4 entries" in one_line(error)
    with pytest.raises(ReturnedError) as error:
        info_dict("step", ["success"])
    assert one_line(error) == "step: info: expected a dict, got ['success']"


def test_kinds_leave_out_what_was_found() -> None:
    kinds = set()
    for value in ("a", "b", None):
        with pytest.raises(ReturnedError) as error:
            number("step: reward", value)
        kinds.add(error.value.kind)
    assert kinds == {"step: reward: expected a number"}


@pytest.mark.parametrize(
    "value",
    [
        np.full((4, 5, 3), 200, np.uint8),
        np.full((4, 5), 200, np.uint8),
        np.full((4, 5, 1), 200, np.int64),
        np.full((4, 5, 4), 200, np.uint8),
        np.full((4, 5, 3), 200 / 255),
        [np.full((4, 5, 3), 200, np.uint8)],
    ],
    ids=["rgb", "grey", "grey-channel", "alpha", "floats", "frames"],
)
def test_pictures(value: Any) -> None:
    found = picture(value)
    assert (found.shape, found.dtype) == ((4, 5, 3), np.uint8)
    assert (found == 200).all()


@pytest.mark.parametrize(
    "value",
    [
        None,
        "picture",
        [],
        np.zeros((0, 5, 3), np.uint8),
        np.zeros(5),
        np.zeros((4, 5, 2)),
        np.full((4, 5, 3), -1.0),
        np.full((4, 5, 3), np.nan),
        np.full((4, 5, 3), 300),
    ],
    ids=range(9),
)
def test_what_is_no_picture(value: Any) -> None:
    with pytest.raises(ReturnedError) as error:
        picture(value)
    assert "render: expected a picture [height, width, 3] of uint8, got " in one_line(error)
