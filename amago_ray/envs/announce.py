"""Registers the built-in environments with Gymnasium once that is loaded, without loading it.

Importing a package of environments registers them: that is what users of Gymnasium expect. Gymnasium itself takes a
quarter of a second to load, though, which processes that step nothing but built-in kernels need not pay.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec
from importlib.util import find_spec
from types import ModuleType


def register_with_gymnasium() -> None:
    """Register now if Gymnasium is loaded, else as soon as it will be."""
    if "gymnasium.envs" in sys.modules:
        _register()
    else:
        sys.meta_path.insert(0, _Waiting())


class _Waiting(MetaPathFinder):
    """Finds nothing by itself: lets `gymnasium.envs` load as ever and registers right after it."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if fullname != "gymnasium.envs":
            return None
        sys.meta_path.remove(self)
        spec = find_spec(fullname)
        if spec is not None and spec.loader is not None:
            load = spec.loader.exec_module

            def load_and_register(module: ModuleType) -> None:
                load(module)
                _register()

            spec.loader.exec_module = load_and_register  # type: ignore[method-assign]
        return spec


def _register() -> None:
    from amago_ray.envs.registry import register_envs

    register_envs()
