"""Plain values: what settings hold (texts, numbers, true, false, null, lists, mappings), and how messages show them."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

from amago_ray.errors import ConfigError

_MAX_DEPTH = 32
_MAX_VALUES = 100_000
_MAX_BITS = 1024
_EXPECTED = "texts, numbers, true, false, null, and lists and mappings of them"


def plain(value: Any, path: str = "") -> Any:
    """A copy of `value` in plain Python: NumPy's numbers and arrays, tuples, paths and enumerated texts become plain.

    Raises:
        ConfigError: there is something else in it, or it has no end; `path` says where.
    """
    return _Copy().of(value, path, 0)


class _Copy:
    """One copy; counts its values, since few lines of YAML can stand for any number of them."""

    def __init__(self) -> None:
        self._num_values = 0

    def of(self, value: Any, path: str, depth: int) -> Any:
        self._num_values += 1
        if depth > _MAX_DEPTH or self._num_values > _MAX_VALUES:
            limit = f"{_MAX_DEPTH} levels" if depth > _MAX_DEPTH else f"{_MAX_VALUES} values"
            raise ConfigError(f"{_prefix(path)}expected at most {limit}, got more")
        if value is None or isinstance(value, bool):
            return value
        if isinstance(value, str):
            return str.__str__(value)
        if isinstance(value, os.PathLike):
            return self.of(os.fspath(value), path, depth + 1)
        if hasattr(value, "tolist") and not isinstance(value, type):
            return self.of(value.tolist(), path, depth + 1)
        if isinstance(value, int):
            if value.bit_length() > _MAX_BITS:
                raise ConfigError(f"{_prefix(path)}expected integers of at most {_MAX_BITS} bits, got {show(value)}")
            return int(value)
        if isinstance(value, float):
            return float(value)
        if isinstance(value, (list, tuple)):
            return [self.of(item, join(path, index), depth + 1) for index, item in enumerate(value)]
        if isinstance(value, Mapping):
            return {
                self._key(key, path, depth): self.of(item, join(path, key), depth + 1) for key, item in value.items()
            }
        raise ConfigError(f"{_prefix(path)}expected {_EXPECTED}, got {show(value)}")

    def _key(self, key: Any, path: str, depth: int) -> Any:
        plain_key = self.of(key, path, depth + 1)
        if isinstance(plain_key, (list, dict)):
            raise ConfigError(f"{_prefix(path)}expected texts or numbers as keys, got {show(key)}")
        return plain_key


def join(path: str, key: Any) -> str:
    """The dotted path of an entry, on one short line whatever the key holds."""
    text = one_line(key) if isinstance(key, str) else show(key)
    return one_line(f"{path}.{text}" if path else text, 120)


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
    elif isinstance(value, int) and value.bit_length() > _MAX_BITS:
        text = f"an integer of {value.bit_length()} bits"
    elif isinstance(value, (int, float)):
        text = str(value)
    elif isinstance(value, type):
        text = f"the class {value.__name__}"
    else:
        text = f"an object of class {type(value).__name__}"
    return one_line(text)


def one_line(text: str, max_length: int = 60) -> str:
    """A text on one line of printable characters, cut where it is longer."""
    text = " ".join(text[: 10 * max_length].split())
    if not text.isprintable():
        text = "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)
    return text if len(text) <= max_length else f"{text[: max_length - 3]}..."


def _prefix(path: str) -> str:
    return f"{path}: " if path else ""
