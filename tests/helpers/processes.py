"""The processes of a run, as the operating system knows them."""

from __future__ import annotations

import os
import signal
from contextlib import suppress
from pathlib import Path


def descendants(pid: int) -> dict[int, str]:
    """Every process below `pid` that lives, with its title."""
    parents, titles = {}, {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with suppress(OSError):
                status = (entry / "stat").read_text().rpartition(")")[2].split()
                if status[0] != "Z":
                    parents[int(entry.name)] = int(status[1])
                    titles[int(entry.name)] = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode().strip()
    below, found = [pid], {}
    while below:
        parent = below.pop()
        children = [child for child, its_parent in parents.items() if its_parent == parent]
        below.extend(children)
        found |= {child: titles[child] for child in children}
    return found


def kill_actor(driver: int, kind: str) -> None:
    """Send SIGKILL to one process of the driver's run that runs actors of the class `kind`."""
    pid = min(pid for pid, title in descendants(driver).items() if title.startswith("ray::") and kind in title)
    os.kill(pid, signal.SIGKILL)
