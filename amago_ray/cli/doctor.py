"""What a run needs of this machine, looked at one by one."""

from __future__ import annotations

import os
import platform
import shutil
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import get_args

from amago_ray.errors import error_line

_MIN_FREE_BYTES = 2 * 1024**3


@dataclass(frozen=True)
class Finding:
    """One thing looked at."""

    name: str
    ok: bool
    text: str


def examine(runs_dir: Path) -> list[Finding]:
    """Look at everything; a check that fails never keeps the others from running."""
    checks: dict[str, Callable[[], tuple[bool, str]]] = {
        "python": _python,
        "packages": _packages,
        "cpu": _cpu,
        "gpu": _gpu,
        "attention": _attention,
        "kernels": _kernels,
        "ray": _ray,
        "write": lambda: _write(runs_dir),
        "disk": lambda: _disk(runs_dir),
    }
    findings = []
    for name, check in checks.items():
        try:
            ok, text = check()
        except Exception as error:  # whatever is broken is what the user came to learn
            ok, text = False, error_line(error)
        findings.append(Finding(name, ok, " ".join(text.split())))
    return findings


def _python() -> tuple[bool, str]:
    return sys.version_info >= (3, 11), f"{platform.python_version()} on {platform.platform()}"


def _packages() -> tuple[bool, str]:
    names = ("amago_ray", "ray", "torch", "gymnasium", "numpy", "pyarrow")
    return True, ", ".join(f"{name} {metadata.version(name)}" for name in names)


def _cpu() -> tuple[bool, str]:
    import torch

    from amago_ray.learning.precision import multiplies_bfloat16

    does = "multiply" if multiplies_bfloat16(torch.device("cpu")) else "do not multiply"
    return True, f"{len(os.sched_getaffinity(0))} cores, which {does} bfloat16"


def _gpu() -> tuple[bool, str]:
    import torch

    if not torch.cuda.is_available():
        return True, "none: networks run on the CPU"
    names = [torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count())]
    return True, ", ".join(names)


def _kernels() -> tuple[bool, str]:
    from amago_ray.nets.native.decode import load_decode_kernel

    if load_decode_kernel() is None:
        return True, "not built (no C compiler at install): acting runs on torch alone, slower"
    return True, "compiled"


def _attention() -> tuple[bool, str]:
    from amago_ray.config.model import BackendName
    from amago_ray.errors import ConfigError
    from amago_ray.nets.attention.make import build_attention

    found = []
    for name in get_args(BackendName):
        try:
            build_attention(name)
        except ConfigError:
            continue
        found.append(name)
    return True, f"backends: {', '.join(found)}"


def _ray() -> tuple[bool, str]:
    import ray

    return True, f"{ray.__version__} imports; a run starts it on this machine unless --address is given"


def _write(runs_dir: Path) -> tuple[bool, str]:
    existing = _existing(runs_dir)
    with tempfile.NamedTemporaryFile(dir=existing):
        return True, f"{existing.resolve()} can be written"


def _disk(runs_dir: Path) -> tuple[bool, str]:
    free = shutil.disk_usage(_existing(runs_dir)).free
    return free >= _MIN_FREE_BYTES, f"{free / 1024**3:.1f} GiB free for runs (at least 2 advised)"


def _existing(path: Path) -> Path:
    """The path, or the nearest folder above it that exists."""
    return next(folder for folder in (path.absolute(), *path.absolute().parents) if folder.exists())
