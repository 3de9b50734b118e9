"""Ranges of values, named at the fields that have them: `batch_size: Annotated[int, POSITIVE_INTEGER] = 24`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from math import isfinite
from typing import Any

from amago_ray.config.module_attr import is_module_attr


@dataclass(frozen=True)
class Range:
    """A range of values: how an error message calls it, and the test."""

    expected: str
    holds: Callable[[Any], bool]


POSITIVE_INTEGER = Range("a positive integer", lambda x: x > 0)
COUNT = Range("an integer of at least 0", lambda x: x >= 0)
AT_LEAST_TWO = Range("an integer of at least 2", lambda x: x >= 2)
INTEGER = Range("an integer", lambda x: True)
POSITIVE = Range("a positive number", lambda x: x > 0 and isfinite(x))
POSITIVE_OR_INFINITE = Range("a positive number", lambda x: x > 0)
NON_NEGATIVE = Range("a number of at least 0", lambda x: x >= 0 and isfinite(x))
FINITE = Range("a finite number", isfinite)
PROBABILITY = Range("a number from 0 to 1", lambda x: 0 <= x <= 1)
BELOW_ONE = Range("a number from 0 to below 1", lambda x: 0 <= x < 1)
ABOVE_ZERO_TO_ONE = Range("a number above 0 and at most 1", lambda x: 0 < x <= 1)
DISCOUNT = Range("a discount above 0 and below 1", lambda x: 0 < x < 1)
DISCOUNTS = Range("a list of discounts above 0 and below 1", lambda xs: all(0 < x < 1 for x in xs))
POSITIVE_INTEGERS = Range("a list of positive integers", lambda xs: len(xs) > 0 and all(x > 0 for x in xs))
NOT_EMPTY = Range("a text that is not empty", lambda x: bool(x.strip()))
FOLDER_NAME = Range(
    "a name that can be a folder's", lambda x: bool(x) and x not in (".", "..") and not set(x) & set("/\\\0")
)
MODULE_ATTR = Range("module:attr", is_module_attr)
