import pkgutil
import subprocess
import sys

import pytest

import amago_ray

TORCH_FREE = ("errors", "config", "telemetry", "data", "envs", "relabel", "replay")
RAY_FREE = (*TORCH_FREE, "nets", "agent", "acting", "learning", "training", "api", "cli")


def loaded_by(packages: tuple[str, ...], suspects: tuple[str, ...]) -> list[str]:
    """Which of `suspects` a fresh process has loaded after importing every module of the packages."""
    roots = tuple(f"amago_ray.{package}" for package in packages)
    modules = [
        name
        for _, name, _ in pkgutil.walk_packages(amago_ray.__path__, "amago_ray.")
        # The compiled kernel is a plain library, no module of Python's.
        if name.startswith(roots) and not name.endswith(("__main__", ".native._decode"))
    ]
    assert len(modules) >= len(packages)
    code = (
        "import importlib, sys\n"
        f"for name in {modules!r}: importlib.import_module(name)\n"
        f"print(sorted(set({suspects!r}) & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return [name for name in suspects if name in done.stdout]


@pytest.mark.parametrize(
    ("packages", "suspects"),
    [(TORCH_FREE, ("torch", "ray", "pandas")), (RAY_FREE, ("ray", "matplotlib")), (("runtime",), ("ray.rllib",))],
    ids=["numpy floor", "no ray below runtime", "runtime without rllib"],
)
def test_no_room_loads_what_it_must_not(packages: tuple[str, ...], suspects: tuple[str, ...]) -> None:
    assert loaded_by(packages, suspects) == []


def test_the_check_sees_what_is_loaded() -> None:
    assert loaded_by(("runtime",), ("ray",)) == ["ray"]
