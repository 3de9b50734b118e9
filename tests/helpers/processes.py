"""The processes of a run, as the operating system knows them."""

from __future__ import annotations

import re
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

KINDS = ("ControlActor", "ReplayShardActor", "LearnerActor", "EnvRunnerActor", "EvaluatorActor", "RelayActor")
"""Classes of a run's actors."""

_ACTOR = re.compile(r"ray::(\w+)")


class Process(NamedTuple):
    """A process that lives."""

    pid: int
    parent: int
    title: str


class Actor(NamedTuple):
    """A process that runs one of a run's actors. raylet: the process of its node."""

    pid: int
    kind: str
    raylet: int


def processes() -> dict[int, Process]:
    """Every process that lives, by its id."""
    found = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with suppress(OSError):
                status = (entry / "stat").read_text().rpartition(")")[2].split()
                if status[0] != "Z":
                    title = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace").strip()
                    found[int(entry.name)] = Process(int(entry.name), int(status[1]), title)
    return found


def descendants(pid: int) -> dict[int, str]:
    """Every process below `pid` that lives, with its title."""
    alive = processes()
    below, found = [pid], {}
    while below:
        parent = below.pop()
        children = {each.pid: each.title for each in alive.values() if each.parent == parent}
        below.extend(children)
        found |= children
    return found


def actors(root: int) -> list[Actor]:
    """The processes below `root` that run a run's actors, oldest first."""
    titles = descendants(root)
    found = []
    for pid in sorted(titles, key=_started_at):
        match = _ACTOR.match(titles[pid])
        if match and match[1] in KINDS:
            with suppress(OSError):
                found.append(Actor(pid, match[1], parent_of(pid)))
    return found


def parent_of(pid: int) -> int:
    """The process that started another one.

    Raises:
        OSError: it is gone.
    """
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])


def is_alive(pid: int) -> bool:
    """Whether a process lives: neither gone nor a zombie."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def open_files(pid: int) -> list[str]:
    """The paths that a process holds open."""
    found = []
    for entry in Path(f"/proc/{pid}/fd").iterdir():
        with suppress(OSError):
            found.append(str(entry.readlink()))
    return found


def anonymous_bytes(pid: int) -> int:
    """Anonymous resident memory: what a process holds, without the files that it maps."""
    status = Path(f"/proc/{pid}/status").read_text()
    return 1024 * sum(int(number) for number in re.findall(r"RssAnon:\s+(\d+) kB", status))


def _started_at(pid: int) -> int:
    with suppress(OSError):
        return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19])
    return 0
