"""Checking parts of the user's own."""

from __future__ import annotations

from typing import TypeVar

from amago_ray.errors import ConfigError

PartT = TypeVar("PartT")


def checked(where: str, kind: str, part: object, contract: type[PartT], width: str) -> PartT:
    """`part`, made by `kind`, as what it must be: a `contract` that says its `width`.

    Raises:
        ConfigError: it is something else.
    """
    found: object = type(part).__name__
    if isinstance(part, contract):
        found = getattr(part, width, None)
        if isinstance(found, int):
            return part
        found = f"{found!r} for it"
    raise ConfigError(
        f'{where}: expected "{kind}" to make a {contract.__name__} (of amago_ray.nets) with an integer {width}, got '
        f"{found}"
    )
