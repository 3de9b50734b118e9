"""Reading and writing settings: YAML files, dotted overrides, plain dicts. The only module that uses pydantic."""

from __future__ import annotations

import copy
import difflib
import os
from collections.abc import Mapping, Sequence
from dataclasses import MISSING, fields, is_dataclass
from functools import cache
from pathlib import Path
from typing import Any, get_args

from pydantic import TypeAdapter, ValidationError

from amago_ray.config.config import Config
from amago_ray.config.env import EnvConfig
from amago_ray.config.hints import alternatives, expected, hints_of, is_env, range_of
from amago_ray.config.kinds import class_of, family_of, in_words, names_of
from amago_ray.config.plain import join, one_line, plain, show
from amago_ray.config.tree import expand_aliases, override, parse_overrides, read_tree
from amago_ray.config.validate import validate
from amago_ray.config.yaml_text import write_yaml
from amago_ray.errors import ConfigError


def load_config(path_or_name: str | Path, overrides: Sequence[str] = ()) -> Config:
    """Read a YAML file, or a shipped config by its name ("quickstart"), and apply `section.key=value` overrides.

    Raises:
        ConfigError: no such file, or a wrong setting; one line that says where, what was expected, what was found.
    """
    path = find_config(path_or_name)
    tree = read_tree(path)
    changed = copy.deepcopy(tree)
    parsed = parse_overrides(overrides)
    for key, value in parsed:
        if key.endswith(".kind"):
            _leave_kind(changed, key, value)
    for key, value in parsed:
        override(changed, key, value)
    error = _error_in(changed)
    if error is not None:
        in_file = str(_error_in(tree)) == str(error)
        raise ConfigError(f"{path if in_file else 'command line'}: {error}") from error
    return config_from_dict(changed)


def _error_in(tree: Mapping[str, Any]) -> ConfigError | None:
    try:
        config_from_dict(tree)
    except ConfigError as error:
        return error
    return None


def find_config(path_or_name: str | Path) -> Path:
    """The file of a config given by path, or by the name of a shipped one.

    Raises:
        ConfigError: there is no such file; the message names the shipped configs.
    """
    path = Path(path_or_name)
    if os.path.isfile(path):
        return path
    shipped = shipped_configs()
    if str(path_or_name) in shipped:
        return shipped[str(path_or_name)]
    names = ", ".join(shipped)
    found = one_line(str(path_or_name), 200)
    raise ConfigError(f"{found}: expected a config file or one of {names}, got no such file")


def shipped_configs() -> dict[str, Path]:
    """Files of the configs that come with the package, by name: in the source tree, or beside the installed modules."""
    package = Path(__file__).resolve().parent.parent
    for folder in (package.parent / "configs", package / "configs"):
        files = sorted(folder.glob("*.yaml"))
        if files:
            here = Path.cwd()
            return {file.stem: file.relative_to(here) if file.is_relative_to(here) else file for file in files}
    return {}


def config_from_dict(tree: Mapping[str, Any]) -> Config:
    """A validated `Config` from nested plain values, as YAML gives them. `tree` is not changed.

    Raises:
        ConfigError: the first wrong setting, by its dotted path.
    """
    own = plain(tree)
    if not isinstance(own, dict):
        raise ConfigError(f"expected a mapping of settings, got {show(own)}")
    expand_aliases(own)
    config = _build(Config, own, "")
    assert isinstance(config, Config)
    validate(config)
    return config


def config_to_dict(config: Config) -> dict[str, Any]:
    """Every setting as nested plain values (dicts, lists, numbers, texts); `config_from_dict` reads them back.

    Raises:
        ConfigError: a setting that was made in Python holds something else.
    """
    return _section_to_dict(config, "")


def checked(config: Config) -> Config:
    """A `Config` that was made in Python, as it would be read back from its YAML.

    Raises:
        ConfigError: the first wrong setting, by its dotted path.
    """
    if not isinstance(config, Config):
        raise ConfigError(f"expected a Config (see load_config), got {show(config)}")
    return config_from_dict(config_to_dict(config))


def dump_yaml(config: Config) -> str:
    """Every setting as YAML text, in the order of definition."""
    return write_yaml(config_to_dict(config))


def _section_to_dict(section: Any, path: str) -> dict[str, Any]:
    kind: type = type(section)
    hints = hints_of(kind)
    return {
        entry.name: _to_plain(getattr(section, entry.name), hints[entry.name], join(path, entry.name))
        for entry in fields(section)
    }


def _to_plain(value: Any, hint: Any, path: str) -> Any:
    sections = tuple(each for each in alternatives(hint) if isinstance(each, type) and is_dataclass(each))
    if isinstance(value, sections):
        return _section_to_dict(value, path)
    if is_env(hint) and isinstance(value, (list, tuple)):
        return [_to_plain(item, EnvConfig, join(path, index)) for index, item in enumerate(value)]
    return plain(value, path)


def _leave_kind(tree: dict[str, Any], path: str, kind: Any) -> None:
    """Take from the section whose kind the command line changes, `path`, what belongs to other kinds alone."""
    hint: Any = Config
    node: Any = tree
    for key in path.split(".")[:-1]:
        hint = hints_of(hint).get(key) if is_dataclass(hint) and isinstance(hint, type) else None
        node = node.get(key) if isinstance(node, dict) else None
    family = family_of(hint)
    chosen = class_of(family, kind)
    if chosen is None or not isinstance(node, dict):
        return
    expand_aliases(tree)
    for key in [each for each in node if each not in hints_of(chosen)]:
        if any(key in hints_of(other) for other in family):
            del node[key]


def _build(kind: type, tree: Any, path: str) -> Any:
    """An instance of the dataclass `kind` from a mapping; errors speak of `path`."""
    if not isinstance(tree, dict):
        raise ConfigError(f"{path}: expected a mapping of settings, got {show(tree)}")
    hints = hints_of(kind)
    values = {}
    for key, value in tree.items():
        where = join(path, key)
        if key not in hints:
            raise ConfigError(f"{where}: unknown key{_suggestion(str(key), path, list(hints))}")
        if value is None and (is_dataclass(hints[key]) or family_of(hints[key])):
            # A section without settings, as YAML gives `stop:`, has its defaults.
            continue
        values[key] = _convert(value, hints[key], where)
    for entry in fields(kind):
        if entry.name not in values and entry.default is MISSING and entry.default_factory is MISSING:
            where = join(path, entry.name)
            raise ConfigError(f"{where}: expected {expected(hints[entry.name])}, got nothing")
    return kind(**values)


def _convert(value: Any, hint: Any, path: str) -> Any:
    """`value` as the type `hint` of the field at `path`."""
    if is_env(hint):
        if value is None and type(None) in get_args(hint):
            return None
        if isinstance(value, list):
            return [_build_env(item, f"{path}.{index}") for index, item in enumerate(value)]
        return _build_env(value, path)
    if is_dataclass(hint):
        assert isinstance(hint, type)
        return _build(hint, value, path)
    family = family_of(hint)
    if family:
        return _build_kind(family, value, path)
    # pydantic would take true for 1.
    if not (isinstance(value, bool) and bool not in alternatives(hint) and Any not in alternatives(hint)):
        try:
            typed = _adapter(hint).validate_python(value)
        except ValidationError:
            pass
        else:
            return _in_range(typed, hint, path)
    raise ConfigError(f"{path}: expected {expected(hint)}, got {show(value)}")


def _in_range(value: Any, hint: Any, path: str) -> Any:
    """A value of its field's type, in the form in which it is kept; a null where the type allows it is in range."""
    if isinstance(value, int) and value.bit_length() > 63:
        raise ConfigError(f"{path}: expected {expected(hint)} below 2**63, got {show(value)}")
    in_range = range_of(hint)
    if value is None or in_range is None:
        return value
    kept = in_range.read(value)
    if not in_range.holds(kept):
        raise ConfigError(f"{path}: expected {in_range.expected}, got {show(value)}")
    return kept


def _build_kind(family: tuple[type, ...], tree: Any, path: str) -> Any:
    """An instance of the class of `family` whose kind the mapping names."""
    if not isinstance(tree, dict):
        raise ConfigError(f"{path}: expected a mapping of settings, got {show(tree)}")
    kind = tree.get("kind", names_of(family[0])[0])
    chosen = class_of(family, kind)
    if chosen is None:
        raise ConfigError(f"{path}.kind: expected one of {in_words(family)}, got {show(kind)}")
    own = {}
    for key, value in tree.items():
        siblings = tuple(each for each in family if key in hints_of(each))
        if not siblings or chosen in siblings:
            own[key] = value
        elif not any(_is_default(value, each, key) for each in siblings):
            raise ConfigError(
                f"{path}.{key}: expected only with kind {in_words(siblings)}, got {show(value)} with kind {show(kind)}"
            )
    return _build(chosen, own, path)


def _is_default(value: Any, kind: type, name: str) -> bool:
    """Whether the field is as good as not given: so it stands in settings that were written with the fields of all."""
    (entry,) = (each for each in fields(kind) if each.name == name)
    default = entry.default if entry.default_factory is MISSING else entry.default_factory()
    try:
        return _convert(value, hints_of(kind)[name], name) in (default, entry.metadata.get("earlier_default", default))
    except ConfigError:
        return False


def _build_env(value: Any, path: str) -> EnvConfig:
    if not isinstance(value, (str, dict)):
        raise ConfigError(f"{path}: expected an environment's id, or a mapping with one, got {show(value)}")
    env = _build(EnvConfig, {"id": value} if isinstance(value, str) else value, path)
    assert isinstance(env, EnvConfig)
    return env


@cache
def _adapter(hint: Any) -> TypeAdapter[Any]:
    return TypeAdapter(hint)


def _suggestion(key: str, path: str, siblings: list[str]) -> str:
    """`; did you mean "…"?` for the nearest known key: a sibling first, else a field of that name elsewhere."""
    near = difflib.get_close_matches(key, siblings, n=1, cutoff=0.6)
    if near:
        return f'; did you mean "{near[0]}"?'
    everywhere = {name: full for full in _all_paths(Config, "") for name in (full.rpartition(".")[2],)}
    elsewhere = difflib.get_close_matches(key, everywhere, n=1, cutoff=0.8)
    if elsewhere:
        return f'; did you mean "{everywhere[elsewhere[0]]}"?'
    return f"; known here are {', '.join(siblings)}"


def _all_paths(kind: type, prefix: str) -> list[str]:
    paths = []
    for name, hint in hints_of(kind).items():
        for section in family_of(hint) or (hint,):
            if is_dataclass(section):
                assert isinstance(section, type)
                paths += _all_paths(section, f"{prefix}{name}.")
        paths.append(f"{prefix}{name}")
    return paths
