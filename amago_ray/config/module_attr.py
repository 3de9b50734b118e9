"""Parts of the user's own, named `module:attr` in the settings."""

from __future__ import annotations

import importlib
from operator import attrgetter
from typing import Any

from amago_ray.errors import ConfigError


def load_module_attr(where: str, name: str) -> Any:
    """The class or function that the setting `where` names as `module:attr`; the attribute may be dotted.

    Raises:
        ConfigError: it has another form, or cannot be imported.
    """
    module_name, _, attribute = name.partition(":")
    if not module_name or not attribute:
        raise ConfigError(f'{where}: expected a built-in kind or "module:attr", found "{name}"')
    try:
        return attrgetter(attribute)(importlib.import_module(module_name))
    except Exception as error:
        # Importing runs foreign code, which may raise anything.
        raise ConfigError(f'{where}: cannot import "{name}": {" ".join(str(error).split())}') from error
