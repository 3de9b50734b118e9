"""Code that settings name as `module:attr`."""

from __future__ import annotations

import importlib
from operator import attrgetter
from types import ModuleType
from typing import Any

from amago_ray.errors import AmagoRayError, ConfigError, error_line


def is_module_attr(text: str) -> bool:
    """Whether a text has the form `module:attr`; both may be dotted."""
    module, separator, attribute = text.partition(":")
    return bool(separator) and all(part.isidentifier() for part in [*module.split("."), *attribute.split(".")])


def load_module_attr(where: str, name: str, error: type[AmagoRayError] = ConfigError) -> Any:
    """The class or function that `where` (a setting, for messages) names as `module:attr`.

    Raises:
        AmagoRayError: of the class `error`: it has another form, cannot be imported, or is not there.
    """
    if not is_module_attr(name):
        raise error(f'{where}: expected "module:attr", got "{name}"')
    module_name, _, attribute = name.partition(":")
    try:
        return attrgetter(attribute)(load_module(where, module_name, error))
    except AttributeError as missing:
        raise error(f'{where}: expected "module:attr", got "{name}": {missing}') from missing


def load_module(where: str, name: str, error: type[AmagoRayError] = ConfigError) -> ModuleType:
    """The module of that name.

    Raises:
        AmagoRayError: of the class `error`: it cannot be imported.
    """
    try:
        return importlib.import_module(name)
    except (Exception, SystemExit) as reason:
        # Importing runs foreign code, which may raise anything.
        raise error(f'{where}: cannot import "{name}": {error_line(reason)}') from reason
