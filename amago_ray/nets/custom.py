"""Custom networks named by `module:attr` in the settings."""

from __future__ import annotations

from typing import Any, TypeVar

from torch import nn

from amago_ray.config.module_attr import load_module_attr
from amago_ray.errors import ConfigError

ModuleT = TypeVar("ModuleT", bound=nn.Module)


def load_custom_module(where: str, name: str, contract: type[ModuleT], *args: Any) -> ModuleT:
    """Import `module:attr` and call it with `args`; the result is a module with an `output_dim`.

    Raises:
        ConfigError: `name` is no `module:attr`, cannot be imported, or makes something else.
    """
    module = load_module_attr(where, name)(*args)
    if not isinstance(module, nn.Module) or not isinstance(getattr(module, "output_dim", None), int):
        raise ConfigError(
            f'{where}: expected "{name}" to make a torch module with an integer output_dim (see {contract.__name__}), '
            f"found {type(module).__name__}"
        )
    return module  # type: ignore[return-value]  # any module of the contract's shape will do, subclass or not
