"""Checking networks of the user's own."""

from __future__ import annotations

from typing import TypeVar

from torch import nn

from amago_ray.errors import ConfigError

ModuleT = TypeVar("ModuleT", bound=nn.Module)


def checked(where: str, name: str, module: object, contract: type[ModuleT]) -> ModuleT:
    """`module`, which the part `name` made, as what it must be: a `contract` with an `output_dim`.

    Raises:
        ConfigError: it is something else.
    """
    output_dim = getattr(module, "output_dim", None)
    if not isinstance(module, contract) or not isinstance(output_dim, int):
        found = type(module).__name__ if not isinstance(module, contract) else f"{output_dim!r} for it"
        raise ConfigError(
            f'{where}: expected "{name}" to make a {contract.__name__} (a class of amago_ray.nets) with an integer '
            f"output_dim, found {found}"
        )
    return module
