"""What packages offer is there when it is asked for."""

import importlib
import pkgutil
import subprocess
import sys

import pytest

import amago_ray

FACADES = [
    name
    for name in ["amago_ray", *(f"amago_ray.{each.name}" for each in pkgutil.iter_modules(amago_ray.__path__))]
    if hasattr(importlib.import_module(name), "__all__") and hasattr(importlib.import_module(name), "__path__")
]


@pytest.mark.parametrize("package", FACADES)
def test_a_package_offers_what_it_names_and_nothing_else(package: str) -> None:
    module = importlib.import_module(package)
    for name in module.__all__:
        assert getattr(module, name).__name__ == name
    with pytest.raises(AttributeError, match=rf"module '{package}' has no attribute 'nothing_of_this_name'"):
        module.nothing_of_this_name  # noqa: B018


def test_a_package_imports_nothing_before_it_is_asked() -> None:
    code = """if True:
    import sys, amago_ray.nets
    print('torch' in sys.modules)
    amago_ray.nets.TokenColumns
    print('torch' in sys.modules)
    """
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["False", "True"]
