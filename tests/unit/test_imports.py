import pkgutil
import subprocess
import sys

import pytest

import amago_ray

TORCH_FREE = ("errors", "config", "telemetry", "data", "envs", "relabel", "replay")
RAY_FREE = (*TORCH_FREE, "nets", "agent", "acting", "learning", "training", "testing", "launch", "api", "cli")


# What a machine with a GPU need not have to train there from packed batches.
ABSENT = ("ray", "gymnasium", "pydantic", "flash_attn")
HIDE = """
import importlib.abc, sys

class Hidden(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {absent!r}:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)

sys.meta_path.insert(0, Hidden())
"""


def modules_of(packages: tuple[str, ...]) -> list[str]:
    """Every module of the packages."""
    roots = tuple(f"amago_ray.{package}" for package in packages)
    modules = [
        name
        for _, name, _ in pkgutil.walk_packages(amago_ray.__path__, "amago_ray.")
        # The compiled kernels are plain libraries, no modules of Python's.
        if name.startswith(roots) and not name.endswith("__main__") and ".native._" not in name
    ]
    assert len(modules) >= len(packages)
    return modules


def run(code: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)


def loaded_by(packages: tuple[str, ...], suspects: tuple[str, ...]) -> list[str]:
    """Which of `suspects` a fresh process has loaded after importing every module of the packages."""
    done = run(
        "import importlib, sys\n"
        f"for name in {modules_of(packages)!r}: importlib.import_module(name)\n"
        f"print(sorted(set({suspects!r}) & set(sys.modules)))"
    )
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


def test_training_from_batches_needs_neither_ray_nor_gymnasium_nor_pydantic() -> None:
    # The one module that is about Gymnasium's spaces stays out.
    modules = [name for name in modules_of(("data", "nets", "agent", "learning")) if not name.endswith(".space_specs")]
    names = [*modules, "amago_ray.acting.policy", "amago_ray.acting.network"]
    done = run(
        HIDE.format(absent=set(ABSENT)) + f"import importlib\nfor name in {names!r}: importlib.import_module(name)"
    )
    assert done.returncode == 0, done.stderr


def test_what_is_hidden_cannot_be_imported() -> None:
    done = run(HIDE.format(absent=set(ABSENT)) + "import amago_ray.data.space_specs")
    assert "No module named 'gymnasium'" in done.stderr
