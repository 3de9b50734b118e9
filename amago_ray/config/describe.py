"""What each setting means, read from the docstrings under the fields where they are defined."""

from __future__ import annotations

import ast
import inspect
import textwrap
from collections.abc import Iterator
from dataclasses import MISSING, Field, dataclass, fields, is_dataclass, replace
from typing import Any

from amago_ray.config.config import Config
from amago_ray.config.env import EnvConfig
from amago_ray.config.hints import expected, hints_of, is_env
from amago_ray.config.kinds import family_of, in_words, names_of
from amago_ray.config.plain import show


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
        family = family_of(hint)
        if family:
            yield from _describe_family(family, f"{path}.")
        elif is_dataclass(hint):
            assert isinstance(hint, type)
            yield from _describe(hint, f"{path}.")
        else:
            yield FieldDescription(path, expected(hint), _default(entry), meanings[entry.name])
            if is_env(hint) and not prefix:
                yield from _describe(EnvConfig, f"{path}.")


def _describe_family(family: tuple[type, ...], prefix: str) -> Iterator[FieldDescription]:
    """First `kind` with what each is; then every other field once, with the kinds that have it."""
    summaries = [f"{in_words((each,))}: {(inspect.getdoc(each) or '').partition(chr(10))[0]}" for each in family]
    yield FieldDescription(
        f"{prefix}kind", f"one of {in_words(family)}", show(names_of(family[0])[0]), " ".join(summaries)
    )
    seen = {"kind"}
    for each in family:
        for field in _describe(each, prefix):
            name = field.path.removeprefix(prefix)
            if name not in seen:
                seen.add(name)
                owners = tuple(owner for owner in family if name.partition(".")[0] in hints_of(owner))
                only = "" if len(owners) == len(family) else f"; only with kind {in_words(owners)}"
                yield replace(field, type=f"{field.type}{only}")


def _default(entry: Field[Any]) -> str:
    if entry.default is not MISSING:
        return show(entry.default)
    if entry.default_factory is not MISSING:
        return show(entry.default_factory())
    return "required"


def _meanings(kind: type) -> dict[str, str]:
    """The text under each field of a dataclass and of those it derives from; empty where there is none."""
    return {name: text for each in reversed(kind.__mro__[:-1]) for name, text in _own_meanings(each).items()}


def _own_meanings(kind: type) -> dict[str, str]:
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
