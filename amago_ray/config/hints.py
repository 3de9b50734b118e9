"""What the annotation of a field says: the types it may have, its range, and both in words."""

from __future__ import annotations

import sys
import types
from functools import cache
from typing import Annotated, Any, Literal, Union, get_args, get_origin, get_type_hints

from amago_ray.config.env import EnvConfig
from amago_ray.config.ranges import Range


@cache
def hints_of(kind: type) -> dict[str, Any]:
    """The annotations of a dataclass of settings by field, with their ranges."""
    return get_type_hints(kind, vars(sys.modules[kind.__module__]), include_extras=True)


def alternatives(hint: Any) -> tuple[Any, ...]:
    """The types of a union, or the one that there is, each without its range."""
    parts = get_args(hint) if get_origin(hint) in (Union, types.UnionType) else (hint,)
    return tuple(get_args(part)[0] if get_origin(part) is Annotated else part for part in parts)


def range_of(hint: Any) -> Range | None:
    """The range of a field's values; a null where the type allows it needs none."""
    for part in get_args(hint) if get_origin(hint) in (Union, types.UnionType) else (hint,):
        if get_origin(part) is Annotated:
            return next((each for each in get_args(part) if isinstance(each, Range)), None)
    return None


def is_env(hint: Any) -> bool:
    """Whether a field holds environments: one, or a list of them."""
    return EnvConfig in alternatives(hint)


def expected(hint: Any) -> str:
    """A field's type and range in words."""
    in_range = range_of(hint)
    words = []
    for kind in alternatives(hint):
        if kind is type(None):
            words.append("null")
        elif kind is EnvConfig:
            words.append("an environment's id or mapping")
        elif get_origin(kind) is Literal:
            words.append("one of " + ", ".join(f'"{choice}"' for choice in get_args(kind)))
        elif in_range is not None:
            words.append(in_range.expected)
        elif get_origin(kind) in (tuple, list):
            item = get_args(kind)[0]
            of_these = f" of {expected(item)}" if get_origin(item) is Literal else ""
            words.append("a list of them" if item is EnvConfig else f"a list{of_these}")
        elif get_origin(kind) is dict:
            words.append("a mapping with texts as keys")
        else:
            words.append({bool: "true or false", int: "an integer", float: "a number", str: "a text"}[kind])
    return " or ".join(words)
