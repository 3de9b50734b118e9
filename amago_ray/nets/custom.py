"""Custom networks named by `module:attr` in the settings."""

from __future__ import annotations

from typing import Any, TypeVar

from torch import nn

from amago_ray.config.module_attr import load_module_attr
from amago_ray.errors import ConfigError

ModuleT = TypeVar("ModuleT", bound=nn.Module)


def load_custom_module(where: str, name: str, contract: type[ModuleT], *args: Any) -> ModuleT:
    """Import `module:attr` and call it with `args`; the result is a `contract` with an `output_dim`.

    Raises:
        ConfigError: `name` is no `module:attr`, cannot be imported, or makes something else.
    """
    module = load_module_attr(where, name)(*args)
    output_dim = getattr(module, "output_dim", None)
    if not isinstance(module, contract) or not isinstance(output_dim, int):
        found = type(module).__name__ if not isinstance(module, contract) else f"{output_dim!r} for it"
        raise ConfigError(
            f'{where}: expected "{name}" to make a {contract.__name__} (a class of amago_ray.nets) with an integer '
            f"output_dim, found {found}"
        )
    return module
