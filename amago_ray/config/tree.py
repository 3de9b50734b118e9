"""Trees of settings as YAML gives them: reading with line numbers in errors, dotted overrides, short spellings."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml

from amago_ray.errors import ConfigError

Tree = dict[str, Any]

ALIASES = {"model.sequence_model.max_seq_len": "context_length"}
"""Other spellings of a field: the full dotted path of the alias, and the field's own name."""

_ENV_SECTIONS = ("env", "evaluation.env")


class _Loader(yaml.SafeLoader):
    """Safe YAML in which `1e6` is a number, as YAML 1.2 has it, and a key given twice is an error."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen = set()
        for key_node, _ in node.value:
            if key_node.value in seen:
                raise yaml.MarkedYAMLError(
                    problem=f'"{key_node.value}" is given twice', problem_mark=key_node.start_mark
                )
            seen.add(key_node.value)
        return super().construct_mapping(node, deep)


_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"^[-+]?[0-9][0-9_]*(\.[0-9_]*)?[eE][-+]?[0-9]+$"), list("-+0123456789")
)


def read_tree(path: Path) -> Tree:
    """The mapping in a YAML file.

    Raises:
        ConfigError: the file cannot be read, is not YAML, or holds no mapping.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "not UTF-8 text"
        raise ConfigError(f"{path}: cannot be read: {reason}") from error
    tree = _parse(text, str(path))
    if not isinstance(tree, dict):
        raise ConfigError(f"{path}: expected a mapping of settings, got {'nothing' if tree is None else show(tree)}")
    return tree


def parse_overrides(overrides: Sequence[str]) -> list[tuple[str, Any]]:
    """`section.key=value` texts as dotted paths and YAML-typed values.

    Raises:
        ConfigError: one has no "=", no key, or a value that is not YAML.
    """
    parsed = []
    for text in overrides:
        path, separator, value = text.partition("=")
        if not separator or not all(path.strip().split(".")):
            raise ConfigError(f'command line: expected section.key=value, got "{text}"')
        parsed.append((path.strip(), _parse(value, f"command line: {path.strip()}")))
    return parsed


def override(tree: Tree, path: str, value: Any) -> None:
    """Set `path` ("replay.num_shards", "env.0.kwargs.size") in `tree`, making sections on the way.

    Raises:
        ConfigError: the path leads through a value that has no keys, or past the end of a list.
    """
    node: Any = tree
    expand_aliases(tree)
    keys = [*path.split(".")[:-1], ALIASES.get(path, path.split(".")[-1])]
    for depth, key in enumerate(keys):
        here = ".".join(keys[:depth])
        if isinstance(node, list):
            if not key.isdecimal() or int(key) >= len(node):
                raise ConfigError(
                    f'command line: {path}: expected an index of the {len(node)} entries of {here}, got "{key}"'
                )
            key_in_node: Any = int(key)
        elif isinstance(node, dict):
            key_in_node = key
        else:
            raise ConfigError(f"command line: {path}: {here} is {show(node)}, which has no keys")
        if depth == len(keys) - 1:
            node[key_in_node] = value
            return
        child = node[key_in_node] if isinstance(node, list) else node.get(key)
        if isinstance(child, str) and ".".join(k for k in keys[: depth + 1] if not k.isdecimal()) in _ENV_SECTIONS:
            child = {"id": child}
        node[key_in_node] = {} if child is None else child
        node = node[key_in_node]


def expand_aliases(tree: Tree) -> None:
    """Replace aliases by the names of their fields, in place.

    Raises:
        ConfigError: a field is given under both names.
    """
    for path, name in ALIASES.items():
        *sections, alias = path.split(".")
        node: Any = tree
        for section in sections:
            node = node.get(section) if isinstance(node, dict) else None
        if isinstance(node, dict) and alias in node:
            if name in node:
                raise ConfigError(f"{'.'.join(sections)}: {alias} and {name} are the same setting; give one")
            node[name] = node.pop(alias)


def show(value: Any) -> str:
    """A value as it would be written in YAML, on one short line."""
    if isinstance(value, str):
        text = f'"{value}"'
    elif isinstance(value, dict):
        text = "a mapping" if len(value) > 3 else "{" + ", ".join(f"{k}: {show(v)}" for k, v in value.items()) + "}"
    elif isinstance(value, (list, tuple)):
        text = "[" + ", ".join(show(v) for v in value) + "]"
    elif value is None or isinstance(value, bool):
        text = {None: "null", True: "true", False: "false"}[value]
    else:
        text = str(value)
    text = " ".join(text.split())
    return text if len(text) <= 60 else text[:57] + "..."


def _parse(text: str, source: str) -> Any:
    try:
        return yaml.load(text, _Loader)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        line = f"line {mark.line + 1}: " if mark is not None else ""
        problem = getattr(error, "problem", None) or "malformed"
        raise ConfigError(f"{source}: {line}not readable as YAML: {' '.join(str(problem).split())}") from error
