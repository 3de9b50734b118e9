"""What each setting means, read from the docstrings under the fields where they are defined."""

from __future__ import annotations

import ast
import inspect
import textwrap
from collections.abc import Iterator
from dataclasses import MISSING, Field, dataclass, fields, is_dataclass
from typing import Any

from amago_ray.config.config import Config
from amago_ray.config.env import EnvConfig
from amago_ray.config.hints import expected, hints_of, is_env
from amago_ray.config.tree import show


@dataclass(frozen=True)
class FieldDescription:
    """One setting: its dotted path, type and range in words, default as YAML, and meaning."""

    path: str
    type: str
    default: str
    meaning: str


def describe_fields() -> list[FieldDescription]:
    """Every setting of a `Config`, in the order of definition; the fields of `env` once, under `env`."""
    return list(_describe(Config, ""))


def _describe(kind: type, prefix: str) -> Iterator[FieldDescription]:
    meanings = _meanings(kind)
    hints = hints_of(kind)
    for entry in fields(kind):
        path = f"{prefix}{entry.name}"
        hint = hints[entry.name]
        if is_dataclass(hint):
            assert isinstance(hint, type)
            yield from _describe(hint, f"{path}.")
            continue
        yield FieldDescription(path, expected(hint), _default(entry), meanings[entry.name])
        if is_env(hint) and not prefix:
            yield from _describe(EnvConfig, f"{path}.")


def _default(entry: Field[Any]) -> str:
    if entry.default is not MISSING:
        return show(entry.default)
    if entry.default_factory is not MISSING:
        return show(entry.default_factory())
    return "required"


def _meanings(kind: type) -> dict[str, str]:
    """The text under each field of a dataclass; empty where there is none."""
    (definition,) = ast.parse(textwrap.dedent(inspect.getsource(kind))).body
    assert isinstance(definition, ast.ClassDef)
    meanings: dict[str, str] = {}
    name = None
    for node in definition.body:
        if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
            name = node.target.id
            meanings[name] = ""
        elif name and isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant):
            meanings[name] = " ".join(str(node.value.value).split())
            name = None
        else:
            name = None
    return meanings
