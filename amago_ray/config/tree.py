"""Trees of settings as YAML gives them: files, dotted overrides, short spellings."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from amago_ray.config.plain import join, show
from amago_ray.config.yaml_text import read_yaml
from amago_ray.errors import ConfigError

Tree = dict[str, Any]

ALIASES = {
    "model.sequence_model.max_seq_len": "model.sequence_model.context_length",
    "agent.binary_filter_threshold": "agent.advantage_filter.threshold",
    "agent.exponential_filter_beta": "agent.advantage_filter.beta",
    "agent.exponential_filter_clip_low": "agent.advantage_filter.advantage_low",
    "agent.exponential_filter_clip_high": "agent.advantage_filter.advantage_high",
    "agent.exponential_filter_weight_low": "agent.advantage_filter.weight_low",
    "agent.exponential_filter_weight_high": "agent.advantage_filter.weight_high",
    "agent.leaky_filter_scale": "agent.advantage_filter.scale",
    "agent.leaky_filter_offset": "agent.advantage_filter.offset",
    "agent.leaky_filter_slope": "agent.advantage_filter.slope",
    "agent.leaky_filter_weight_at_zero": "agent.advantage_filter.ramp_at_zero",
    "agent.leaky_filter_weight_low": "agent.advantage_filter.ramp_low",
    "agent.leaky_filter_weight_high": "agent.advantage_filter.ramp_high",
    "agent.leaky_filter_adds_binary": "agent.advantage_filter.adds_binary",
}
"""Other spellings of a field, some of them earlier ones: the full dotted paths of both."""

_EARLIER_TEXTS = ("agent.advantage_filter",)
"""Sections that come in kinds and were once the name of a kind alone."""

_ENV_SECTIONS = ("env", "evaluation.env")

_MAX_BYTES = 1_000_000


def read_tree(path: Path) -> Tree:
    """The mapping in a YAML file.

    Raises:
        ConfigError: the file cannot be read, is not YAML, or holds no mapping.
    """
    try:
        num_bytes = path.stat().st_size
        if num_bytes > _MAX_BYTES:
            raise ConfigError(f"{path}: expected settings of at most {_MAX_BYTES:,} bytes, got {num_bytes:,}")
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "not UTF-8 text"
        raise ConfigError(f"{path}: cannot be read: {reason}") from error
    tree = read_yaml(text, str(path))
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
            raise ConfigError(f"command line: expected section.key=value, got {show(text)}")
        parsed.append((path.strip(), read_yaml(value, f"command line: {join('', path)}")))
    return parsed


def override(tree: Tree, path: str, value: Any) -> None:
    """Set `path` ("replay.num_shards", "env.0.kwargs.size") in `tree`, making sections on the way.

    Raises:
        ConfigError: the path leads through a value that has no keys, or past the end of a list.
    """
    node: Any = tree
    expand_aliases(tree)
    keys = ALIASES.get(path, path).split(".")
    for depth, key in enumerate(keys):
        here = ".".join(keys[:depth])
        if isinstance(node, list):
            if not key.isdecimal() or int(key) >= len(node):
                raise ConfigError(
                    f"command line: {join('', path)}: expected an index of the {len(node)} entries of "
                    f"{join('', here)}, got {show(key)}"
                )
            key_in_node: Any = int(key)
        elif isinstance(node, dict):
            is_number = key.isdecimal() and key not in node and int(key) in node
            key_in_node = int(key) if is_number else key
        else:
            raise ConfigError(f"command line: {join('', path)}: {join('', here)} is {show(node)}, which has no keys")
        if depth == len(keys) - 1:
            node[key_in_node] = value
            return
        child = node[key_in_node] if isinstance(node, list) else node.get(key_in_node)
        if isinstance(child, str) and ".".join(k for k in keys[: depth + 1] if not k.isdecimal()) in _ENV_SECTIONS:
            child = {"id": child}
        node[key_in_node] = {} if child is None else child
        node = node[key_in_node]


def expand_aliases(tree: Tree) -> None:
    """Replace aliases by the names of their fields, in place.

    Raises:
        ConfigError: a field is given under both names.
    """
    for path in _EARLIER_TEXTS:
        node, name = _parent(tree, path)
        if isinstance(node, dict) and isinstance(node.get(name), str):
            node[name] = {"kind": node[name]}
    for path, own_path in ALIASES.items():
        node, alias = _parent(tree, path)
        if isinstance(node, dict) and alias in node:
            section, name = _parent(tree, own_path, make=True)
            if isinstance(section, dict):
                if name in section:
                    raise ConfigError(f"{path} and {own_path} are the same setting; give one")
                section[name] = node.pop(alias)


def _parent(tree: Tree, path: str, *, make: bool = False) -> tuple[Any, str]:
    """What holds the setting at a path, and its name there; without such a section None, or a new one where asked."""
    *sections, name = path.split(".")
    node: Any = tree
    for section in sections:
        if isinstance(node, dict) and make:
            node.setdefault(section, {})
        node = node.get(section) if isinstance(node, dict) else None
    return node, name
