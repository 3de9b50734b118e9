"""A run by the command line that goes on while its parts are killed, and what can be seen of it."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from helpers.processes import Actor, actors, is_alive

Condition = Callable[[], Any]

STARTED_WITHIN_S = 120.0
"""Starting again after a kill takes seconds, on a busy machine many."""


class WatchedRun:
    """`amago-ray train` with some settings, in a process of its own.

    What it prints goes to a file in `directory`, and so does the run, unless `runs_dir` says otherwise.

    root: its actors are processes below this one; None where the driver starts Ray itself. launcher: what starts the
    command where it is to run, such as on another host.
    """

    def __init__(
        self,
        directory: Path,
        settings: Sequence[str],
        *,
        name: str,
        root: int | None = None,
        runs_dir: Path | None = None,
        launcher: Sequence[str] = (),
        environment: Mapping[str, str] | None = None,
    ) -> None:
        self.path = (runs_dir or directory) / name
        self._settings = [*settings, f"runs_dir={runs_dir or directory}", f"name={name}"]
        self._root = root
        self._launcher = launcher
        self._environment = {"OMP_NUM_THREADS": "1", **(environment or {})}
        self._output = directory / f"{name}.output"
        self._process: subprocess.Popen[bytes] | None = None

    def start(self, *arguments: str) -> None:
        """Start the command in a process group of its own, as a shell does; what it prints is added to the output."""
        with self._output.open("ab") as output:
            self._process = subprocess.Popen(
                [*self._launcher, sys.executable, "-m", "amago_ray.cli", "train", *self._settings, *arguments],
                stdout=output,
                stderr=subprocess.STDOUT,
                cwd=Path(__file__).parents[2],
                env={**os.environ, **self._environment},
                start_new_session=True,
            )

    @property
    def process(self) -> subprocess.Popen[bytes]:
        """The driver."""
        assert self._process is not None, "the run was started"
        return self._process

    @property
    def is_running(self) -> bool:
        """Whether the driver lives."""
        return self._process is not None and self._process.poll() is None

    @property
    def output(self) -> str:
        """What was printed, in one line: the console wraps."""
        return " ".join(self._output.read_text(errors="replace").split()) if self._output.exists() else ""

    @property
    def reports(self) -> list[dict[str, float]]:
        """All reports, the newest last; one that is being written does not count."""
        path = self.path / "metrics.jsonl"
        lines = path.read_text().split("\n")[:-1] if path.exists() else []
        return [json.loads(line) for line in lines]

    @property
    def last(self) -> dict[str, float]:
        """The newest value of every metric."""
        newest: dict[str, float] = {}
        for report in self.reports:
            newest |= report
        return newest

    @property
    def saved(self) -> dict[str, Any]:
        """The metadata of the newest checkpoint."""
        checkpoints = self.path / "checkpoints"
        name = (checkpoints / "latest").read_text()
        return json.loads((checkpoints / name / "metadata.json").read_text())

    def actors(self, kind: str) -> list[Actor]:
        """The processes of the run's actors of a class, the one that started first before others."""
        return [actor for actor in actors(self._root or self.process.pid) if actor.kind == kind]

    def wait_until(self, condition: Condition, timeout_s: float = STARTED_WITHIN_S) -> Any:
        """Wait for something true of the run, which has to go on meanwhile; returns it."""
        deadline_s = time.monotonic() + timeout_s
        while not (found := condition()):
            assert self.is_running, f"the run ended:\n{self.output[-3000:]}"
            assert time.monotonic() < deadline_s, f"not within {timeout_s:g} s: {self.last}\n{self.output[-3000:]}"
            time.sleep(0.05)
        return found

    def wait_for_warning(self, pattern: str, timeout_s: float = STARTED_WITHIN_S) -> None:
        """Wait until a warning has been printed."""
        self.wait_until(lambda: re.search(f"warning: {pattern}", self.output), timeout_s)

    def num_warnings(self, pattern: str) -> int:
        """How often a warning has been printed."""
        return len(re.findall(f"warning: {pattern}", self.output))

    def grows(self, *names: str, timeout_s: float = STARTED_WITHIN_S) -> None:
        """Wait until each count is above what it is now."""
        before = {name: self.last.get(name, 0) for name in names}
        self.wait_until(lambda: all(self.last.get(name, 0) > value for name, value in before.items()), timeout_s)

    def wait_until_trained(self, learner_steps: int = 20) -> None:
        """Wait until there is something to lose: updates, and a checkpoint of some."""
        self.wait_until(lambda: self.last.get("learner_steps", 0) >= learner_steps)
        self.wait_until(lambda: (self.path / "checkpoints" / "latest").exists() and self.saved["learner_steps"] > 0)

    def kill(self, kind: str, number: signal.Signals = signal.SIGKILL) -> Actor:
        """Send a signal to the first actor of a class."""
        actor = self.wait_until(lambda: self.actors(kind))[0]
        os.kill(actor.pid, number)
        return actor

    def wait_until_replaced(self, actor: Actor, count: int = 1) -> None:
        """Wait until a process is gone and `count` of its class run, another one in its place."""
        self.wait_until(lambda: not is_alive(actor.pid) and len(self.actors(actor.kind)) >= count)

    def kill_driver(self) -> None:
        """SIGKILL to the driver alone."""
        self.process.kill()
        self.process.wait(timeout=60)

    def stop(self, timeout_s: float = 60) -> None:
        """Ctrl-C, and a good end."""
        self.process.send_signal(signal.SIGINT)
        code = self.process.wait(timeout=timeout_s)
        assert code == 0, self.output[-3000:]
        assert "Traceback" not in self.output, self.output[-3000:]

    def end(self) -> None:
        """End the driver, whatever it does."""
        if self.is_running:
            self.process.send_signal(signal.SIGINT)
            try:
                self.process.wait(timeout=60)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait(timeout=60)
