"""A limit of memory for some processes, as a container has it: the kernel kills one that grows beyond."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest

_VERSIONS = (("/sys/fs/cgroup/memory", "memory.limit_in_bytes"), ("/sys/fs/cgroup", "memory.max"))


@contextmanager
def limited_memory(pids: Sequence[int], num_bytes: int) -> Iterator[None]:
    """Processes that may together take so much more than they have; skips the test where the machine forbids that."""
    refusals = []
    for root, limit in _VERSIONS:
        group = Path(root) / f"amago_ray_test_{os.getpid()}"
        try:
            group.mkdir()
        except OSError as error:
            refusals.append(f"{group}: {error.strerror}")
            continue
        try:
            try:
                (group / limit).write_text(str(num_bytes))
                for pid in pids:
                    (group / "cgroup.procs").write_text(str(pid))
            except OSError as error:
                refusals.append(f"{group}: {error.strerror}")
                continue
            yield
            return
        finally:
            _remove(group)
    pytest.skip(f"memory cannot be limited here: {'; '.join(refusals)}")


def _remove(group: Path) -> None:
    """Give its processes back to the group above."""
    for pid in (group / "cgroup.procs").read_text().split():
        (group.parent / "cgroup.procs").write_text(pid)
    group.rmdir()
