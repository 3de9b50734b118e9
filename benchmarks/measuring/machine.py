"""Where and with what something was measured."""

from __future__ import annotations

import os
import platform
import re
import subprocess
from collections.abc import Iterable
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any


def hardware() -> dict[str, Any]:
    """Processor, how many of them, and memory."""
    return {
        "processor": _field("/proc/cpuinfo", "model name") or platform.machine(),
        "num_cpus": os.cpu_count(),
        "memory_gib": round(int((_field("/proc/meminfo", "MemTotal") or "0").split()[0]) / 2**20),
        "platform": platform.platform(),
    }


def hardware_slug(described: dict[str, Any]) -> str:
    """The hardware as part of a file's name: "2x_amd_epyc_24gib"."""
    name = f"{described['num_cpus']}x {described['processor']} {described['memory_gib']}gib".lower()
    return re.sub(r"[^a-z0-9]+", "_", re.sub(r"\((r|tm)\)|@.*?ghz", " ", name)).strip("_")


def commit(folder: Path) -> str | None:
    """The commit checked out in a folder, marked where tracked files differ from it; None where there is none."""
    head = _git(folder, "rev-parse", "--short=12", "HEAD")
    if head is None:
        return None
    return f"{head} with changes" if _git(folder, "status", "--porcelain", "--untracked-files=no") else head


def versions(names: Iterable[str]) -> dict[str, str]:
    """Of those packages that are installed."""
    found = {"python": platform.python_version()}
    for name in names:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found


def now() -> str:
    """The time, to the second."""
    return datetime.now(UTC).isoformat(timespec="seconds")


def _git(folder: Path, *command: str) -> str | None:
    result = subprocess.run(["git", "-C", str(folder), *command], capture_output=True, text=True, check=False)
    return result.stdout.strip() if result.returncode == 0 else None


def _field(path: str, name: str) -> str | None:
    try:
        lines = Path(path).read_text().splitlines()
    except OSError:
        return None
    return next((line.partition(":")[2].strip() for line in lines if line.startswith(name)), None)
