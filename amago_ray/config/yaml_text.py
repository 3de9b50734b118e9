"""Settings as YAML text: read into plain values, and written so that every reader finds the same values in it."""

from __future__ import annotations

import re
from typing import Any

import yaml

from amago_ray.config.plain import one_line, plain
from amago_ray.errors import ConfigError

# `1e6` is a number, as YAML 1.2 has it.
_FLOAT = (
    "tag:yaml.org,2002:float",
    re.compile(r"^[-+]?[0-9][0-9_]*(\.[0-9_]*)?[eE][-+]?[0-9]+$"),
    list("-+0123456789"),
)
_TEXTS = ("tag:yaml.org,2002:timestamp", "tag:yaml.org,2002:value")


class _Loader(yaml.SafeLoader):
    """Safe YAML in which `2026-11-22` and `=` are texts, and a key that is given twice, or is no scalar, an error."""

    yaml_implicit_resolvers = {  # noqa: RUF012
        first: [(tag, pattern) for tag, pattern in resolvers if tag not in _TEXTS]
        for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }

    def compose_mapping_node(self, anchor: Any) -> yaml.MappingNode:
        # Here and not where values are made: by then merges (`<<`) have put keys of other mappings in front.
        node = super().compose_mapping_node(anchor)
        seen = set()
        for key, _ in node.value:
            if not isinstance(key, yaml.ScalarNode):
                raise yaml.MarkedYAMLError(problem="a key must be a text or a number", problem_mark=key.start_mark)
            if (key.tag, key.value) in seen:
                raise yaml.MarkedYAMLError(problem=f'"{key.value}" is given twice', problem_mark=key.start_mark)
            seen.add((key.tag, key.value))
        return node


_Loader.add_implicit_resolver(*_FLOAT)


class _Dumper(yaml.SafeDumper):
    """Safe YAML with lists of plain values on one line, and floats that every reader reads as floats (`1.0e-05`)."""


def _represent_list(dumper: yaml.SafeDumper, values: list[Any]) -> yaml.SequenceNode:
    is_flat = not any(isinstance(value, (dict, list)) for value in values)
    return dumper.represent_sequence("tag:yaml.org,2002:seq", values, flow_style=is_flat)


def _represent_float(dumper: yaml.SafeDumper, value: float) -> yaml.ScalarNode:
    node = yaml.SafeDumper.represent_float(dumper, value)
    if "e" in node.value and "." not in node.value:
        node.value = node.value.replace("e", ".0e", 1)
    return node


_Dumper.add_representer(list, _represent_list)
_Dumper.add_representer(float, _represent_float)
# So that the text "1e6" is written in quotes.
_Dumper.add_implicit_resolver(*_FLOAT)


def read_yaml(text: str, source: str) -> Any:
    """The plain values in a YAML text.

    Raises:
        ConfigError: it is not YAML, holds more than plain values, or has no end; the line begins with `source`.
    """
    try:
        values = yaml.load(text, _Loader)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        line = f"line {mark.line + 1}: " if mark is not None else ""
        problem = getattr(error, "problem", None) or getattr(error, "reason", None) or "malformed"
        raise ConfigError(f"{source}: {line}not readable as YAML: {one_line(str(problem), 200)}") from error
    except RecursionError as error:
        raise ConfigError(f"{source}: not readable as YAML: nested too deeply") from error
    except Exception as error:
        # What YAML's own types raise: `!!int x`, `!!bool maybe`, `0b_`, a number of ten thousand digits.
        raise ConfigError(f"{source}: not readable as YAML: {one_line(str(error), 200)}") from error
    try:
        return plain(values)
    except ConfigError as error:
        raise ConfigError(f"{source}: {error}") from error


def write_yaml(values: Any) -> str:
    """Plain values as YAML text, in their order."""
    return yaml.dump(values, Dumper=_Dumper, sort_keys=False, width=120)
