"""Tests see what a user sees: none reads, patches or imports a private name of amago_ray or its benchmarks."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[2]
PATCHES = {"setattr", "getattr", "delattr", "hasattr", "patch", "object"}


def is_private(name: str) -> bool:
    return name.startswith("_") and not name.startswith("__") and name != "_"


def private_names() -> set[str]:
    """What our code defines as private: attributes that it sets, functions, classes, constants."""
    names = set()
    for path in [*(ROOT / "amago_ray").rglob("*.py"), *(ROOT / "benchmarks").rglob("*.py")]:
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.FunctionDef | ast.ClassDef):
                names.add(node.name)
            elif isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store):
                names.add(node.attr)
            elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
                names.add(node.id)
    return {name for name in names if is_private(name)}


def uses(tree: ast.AST) -> Iterator[tuple[int, str]]:
    """Line and name of all that a test reads, patches by name or imports."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute):
            if not (isinstance(node.value, ast.Name) and node.value.id in ("self", "cls")):
                yield node.lineno, node.attr
        elif isinstance(node, ast.ImportFrom):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.Call):
            called = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
            if called in PATCHES:
                texts = [each.value for each in node.args if isinstance(each, ast.Constant)]
                yield from ((node.lineno, str(text).rpartition(".")[2]) for text in texts)


def found_in(source: str, ours: set[str]) -> list[str]:
    """The private names of ours that a test's source uses."""
    return [f"{line}: {name}" for line, name in sorted(uses(ast.parse(source))) if name in ours]


def test_no_test_uses_a_private_name_of_ours() -> None:
    ours, tests = private_names(), (ROOT / "tests").rglob("*.py")
    found = {str(path.relative_to(ROOT)): found_in(path.read_text(), ours) for path in tests}
    assert {path: names for path, names in found.items() if names} == {}


def test_every_way_of_using_one_is_found_and_others_privates_are_not() -> None:
    given = """
runner._state.time_index = 0
from amago_ray.acting.env_runner import _episode_seed
monkeypatch.setattr(runner, "_state", None)
monkeypatch.setattr("amago_ray.acting.env_runner._STREAMS", 2)
pair._replace(a=1), torch.cpu._is_avx512_bf16_supported(), self._state, text["_state"], module.__name__
"""
    assert found_in(given, private_names()) == ["2: _state", "3: _episode_seed", "4: _state", "5: _STREAMS"]
