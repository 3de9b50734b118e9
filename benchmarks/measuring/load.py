"""Who used the processors: the measured process trees, or somebody else."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

TICKS_PER_S = os.sysconf("SC_CLK_TCK")
PROC = Path("/proc")


@dataclass(frozen=True)
class ProcessStat:
    """One process as `/proc/<pid>/stat` shows it; (pid, started) is unique for as long as the machine runs."""

    pid: int
    parent: int
    started: int
    cpu_ticks: int


def parse_process_stat(text: str) -> ProcessStat:
    """Reads `/proc/<pid>/stat`; the name in it may hold spaces and brackets."""
    head, _, tail = text.rpartition(")")
    fields = tail.split()
    return ProcessStat(
        pid=int(head.split(None, 1)[0]),
        parent=int(fields[1]),
        started=int(fields[19]),
        cpu_ticks=int(fields[11]) + int(fields[12]),
    )


def parse_busy_ticks(text: str) -> int:
    """Ticks in which all processors of `/proc/stat` worked, for us or (steal) for another virtual machine."""
    user, nice, system, _idle, _iowait, irq, softirq, steal = map(int, text.splitlines()[0].split()[1:9])
    return user + nice + system + irq + softirq + steal


def read_processes() -> list[ProcessStat]:
    """All processes that live now."""
    processes = []
    for entry in PROC.iterdir():
        if entry.name.isdigit():
            try:
                processes.append(parse_process_stat((entry / "stat").read_text()))
            except OSError:
                continue  # It ended while we read.
    return processes


class TreeClock:
    """Processor time of processes and all their descendants, those that were orphaned or have ended included.

    What a process used between the last look and its end is missed, and then counts as somebody else's.
    """

    def __init__(self, roots: Iterable[int]) -> None:
        self._roots = frozenset(roots)
        self._ticks: dict[tuple[int, int], int] = {}

    def look(self, processes: Iterable[ProcessStat]) -> float:
        """Seconds used so far, given the processes that live now."""
        processes = list(processes)
        members = {process.pid for process in processes if (process.pid, process.started) in self._ticks}
        members |= self._roots
        grown = True
        while grown:
            more = {process.pid for process in processes if process.parent in members} - members
            members |= more
            grown = bool(more)
        for process in processes:
            if process.pid in members:
                self._ticks[process.pid, process.started] = process.cpu_ticks
        return sum(self._ticks.values()) / TICKS_PER_S

    def living(self, processes: Iterable[ProcessStat]) -> list[int]:
        """Members that still live."""
        return [process.pid for process in processes if (process.pid, process.started) in self._ticks]


@dataclass(frozen=True)
class Load:
    """Processor seconds of a window of wall time."""

    elapsed_s: float
    tree_cpu_s: float
    other_cpu_s: float


class LoadWindow:
    """Context manager: `load` afterwards says what the trees of `roots` and what all others used meanwhile.

    interval_s: look at the processes this often too, where they come and go.
    """

    load: Load

    def __init__(self, roots: Iterable[int], interval_s: float | None = None) -> None:
        self.clock = TreeClock(roots)
        self._interval_s = interval_s
        self._over = threading.Event()
        self._thread: threading.Thread | None = None

    def __enter__(self) -> LoadWindow:
        self._tree_s = self.clock.look(read_processes())
        self._busy = parse_busy_ticks((PROC / "stat").read_text())
        self._began = time.perf_counter()
        if self._interval_s is not None:
            self._thread = threading.Thread(target=self._watch, daemon=True)
            self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        elapsed_s = time.perf_counter() - self._began
        busy_s = (parse_busy_ticks((PROC / "stat").read_text()) - self._busy) / TICKS_PER_S
        if self._thread is not None:
            self._over.set()
            self._thread.join()
        tree_s = self.clock.look(read_processes()) - self._tree_s
        self.load = Load(elapsed_s, tree_s, max(0.0, busy_s - tree_s))

    def _watch(self) -> None:
        while not self._over.wait(self._interval_s):
            self.clock.look(read_processes())
