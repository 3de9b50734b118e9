"""Nothing that the driver calls may wait for ever: an actor may be stopped, a node out of reach."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

import amago_ray.runtime as runtime

ROOMS = Path(runtime.__path__[0])

# Whose code runs in the driver, and `actors`, which it asks through.
FILES = [
    *sorted((ROOMS / "driver").glob("*.py")),
    *sorted((ROOMS / "cluster").glob("*.py")),
    ROOMS / "protocol" / "actors.py",
]
WAITING = {"get": 1, "wait": None, "wait_any": 1}
"""Calls that wait, with the place of their time limit among positional arguments; None: it has to be named."""
LIMITS = {"timeout_s", "timeout"}


def unlimited_waits(source: str) -> list[int]:
    """Lines with calls that wait without a limit."""
    found = []
    for node in ast.walk(ast.parse(source)):
        if not isinstance(node, ast.Call):
            continue
        function = node.func
        if isinstance(function, ast.Attribute) and isinstance(function.value, ast.Name) and function.value.id == "ray":
            name, place = function.attr, None
        elif isinstance(function, ast.Name):
            name, place = function.id, WAITING.get(function.id)
        else:
            continue
        limits = [keyword.value for keyword in node.keywords if keyword.arg in LIMITS]
        if place is not None and len(node.args) > place:
            limits.append(node.args[place])
        none = [limit for limit in limits if isinstance(limit, ast.Constant) and limit.value is None]
        if name in WAITING and (not limits or none):
            found.append(node.lineno)
    return found


@pytest.mark.parametrize("path", FILES, ids=[path.stem for path in FILES])
def test_every_wait_of_the_driver_has_a_limit(path: Path) -> None:
    assert unlimited_waits(path.read_text()) == []


def test_what_has_no_limit_is_found() -> None:
    bad = [
        "get(reference)",
        "ray.get(reference)",
        "ray.wait([reference])",
        "ray.get(reference, timeout=None)",
        "wait_any(x)",
    ]
    good = [
        "get(reference, 3.0)",
        "get(x, timeout_s=s)",
        "ray.wait([x], timeout=0)",
        "wait_any(x, 0.0)",
        "table.get(x)",
    ]
    assert [unlimited_waits(call) for call in bad] == [[1]] * len(bad)
    assert [unlimited_waits(call) for call in good] == [[]] * len(good)
