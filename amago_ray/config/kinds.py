"""Sections that come in kinds: one class of settings for each kind, told apart by the field `kind`.

A family is a union of such classes, that of the default first: `RelabelConfig = NoRelabelConfig | HerRelabelConfig`.
A class names its kind as a `Literal`; one whose kind is a `module:attr` is for parts of the user's own.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import is_dataclass
from typing import Any, Generic, Literal, TypeVar, get_args, get_origin

from amago_ray.config.hints import alternatives, hints_of, range_of
from amago_ray.config.module_attr import load_module_attr
from amago_ray.config.plain import show
from amago_ray.errors import AmagoRayError, ConfigError, error_line

PartT = TypeVar("PartT")


def family_of(hint: Any) -> tuple[type, ...]:
    """The classes of a section that comes in kinds; none where `hint` is another field's."""
    classes: tuple[type, ...] = alternatives(hint)
    if len(classes) > 1 and all(is_dataclass(each) and "kind" in hints_of(each) for each in classes):
        return classes
    return ()


def names_of(kind: type) -> tuple[str, ...]:
    """The built-in kinds that a class of settings is for; none for parts of the user's own."""
    hint = hints_of(kind)["kind"]
    return get_args(hint) if get_origin(hint) is Literal else ()


def class_of(family: tuple[type, ...], kind: Any) -> type | None:
    """The class of settings of a kind; None if there is none of that name."""
    for each in family:
        in_range = range_of(hints_of(each)["kind"])
        if kind in names_of(each) or (in_range is not None and isinstance(kind, str) and in_range.holds(kind)):
            return each
    return None


def in_words(classes: tuple[type, ...]) -> str:
    """The kinds of some classes, as in `"none", "her", or module:attr`."""
    names = [f'"{name}"' for each in classes for name in names_of(each)]
    names += [range_.expected for each in classes if (range_ := range_of(hints_of(each)["kind"])) is not None]
    *rest, last = names
    return f"{', '.join(rest)}, or {last}" if len(rest) > 1 else " or ".join(names)


class Registry(Generic[PartT]):
    """The parts of a family: what makes each built-in kind, by the class of its settings, and the user's own.

    All are made alike, by `builder(config, ...)`; those of one's own also get the `kwargs` of their settings by name.
    """

    def __init__(self, where: str, builders: Mapping[type, Callable[..., PartT]], has: tuple[str, ...] = ()) -> None:
        """`where`: the dotted path of the family's `kind`, for messages. `has`: attributes that every part has."""
        self._where = where
        self._builders = builders
        self._has = has

    def make(self, config: Any, *args: Any) -> PartT:
        """The part that `config` asks for.

        Raises:
            ConfigError: one of the user's own cannot be imported or made, or is something else.
            AmagoRayError: what the builder finds wrong.
        """
        builder = self._builders.get(type(config))
        if builder is not None:
            return builder(config, *args)
        custom = load_module_attr(self._where, config.kind)
        try:
            part: PartT = custom(config, *args, **config.kwargs)
        except AmagoRayError:
            raise
        except (Exception, SystemExit) as error:
            raise ConfigError(f'{self._where}: cannot make "{config.kind}": {error_line(error)}') from error
        missing = [name for name in self._has if not hasattr(part, name)]
        if missing:
            raise ConfigError(
                f'{self._where}: expected "{config.kind}" to make an object with {", ".join(self._has)}, '
                f"got {show(part)} without {', '.join(missing)}"
            )
        return part
