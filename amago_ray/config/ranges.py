"""Ranges of values, named at the fields that have them: `batch_size: Annotated[int, POSITIVE_INTEGER] = 24`."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from math import isfinite
from typing import Any

from amago_ray.config.module_attr import is_module_attr
from amago_ray.config.paths import local_path
from amago_ray.errors import ConfigError


@dataclass(frozen=True)
class Range:
    """A range of values: how an error message calls it, and the test; `read` gives the form in which one is kept."""

    expected: str
    holds: Callable[[Any], bool]
    read: Callable[[Any], Any] = lambda x: x


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
NOT_EMPTY = Range("a text that is not empty", lambda x: bool(x.strip()) and x.isprintable())
MODULE_ATTR = Range("module:attr", is_module_attr)


def _names_folder(name: str) -> bool:
    """Whether a folder of that name can be made, and is removed without surprise by a shell."""
    is_short = name.isprintable() and len(name.encode()) <= 255
    return is_short and bool(name.strip()) and name not in (".", "..") and name[0] != "~" and not set(name) & set("/\\")


FOLDER_NAME = Range("a name that can be a folder's", _names_folder)


def _is_local(path: str) -> bool:
    try:
        local_path("", path)
    except ConfigError:
        return False
    return bool(path.strip()) and path.isprintable()


FOLDER = Range("the path of a folder", _is_local, read=os.path.expanduser)
"""`~` is read as the home of whoever reads; addresses such as `s3://` are none."""
