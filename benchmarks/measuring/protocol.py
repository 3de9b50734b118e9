"""A side of a comparison: a process that sets one work up and measures it whenever it is asked, by lines of JSON.

The process answers `{"ready": facts}` when it is set up, and one line for each `{"measure_s": seconds}`. One side
waits, without using the processor, while another one measures.
"""

from __future__ import annotations

import json
import os
import queue
import signal
import subprocess
import sys
import threading
import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, suppress
from pathlib import Path
from typing import Any

from measuring.load import LoadWindow, read_processes

Measure = Callable[[float], Mapping[str, Any]]
"""Measures for about so many seconds; the answer holds at least "value"."""


CLOSING_S = 10.0
"""How long a side may take to end by itself."""


class SideError(Exception):
    """A side failed or took too long."""


def serve(set_up: Callable[[], AbstractContextManager[tuple[Mapping[str, Any], Measure]]]) -> None:
    """Be a side: `set_up` gives facts to report and the measuring function. Ends when nothing more is asked."""
    # Whatever libraries print goes to the log: standard output carries answers only.
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)
    try:
        with set_up() as (facts, measure):
            print(json.dumps({"ready": facts}), file=answers)
            for line in sys.stdin:
                print(json.dumps(measure(json.loads(line)["measure_s"])), file=answers)
    except BaseException as error:
        traceback.print_exc()
        print(json.dumps({"error": f"{type(error).__name__}: {error}".strip().splitlines()[0]}), file=answers)
        raise SystemExit(1) from error


class Side:
    """The other end of `serve`.

    Raises:
        SideError: from every method: the process fails or is not done in time.
    """

    def __init__(self, command: Sequence[str], *, log: Path, timeout_s: float) -> None:
        self._log_path = log
        self._log = log.open("wb")
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self._log, start_new_session=True
        )
        self._lines: queue.Queue[str | None] = queue.Queue()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()
        try:
            self.facts: dict[str, Any] = self._answer(timeout_s)["ready"]
        except BaseException:
            self.close()
            raise

    def measure(self, seconds: float, *, timeout_s: float) -> dict[str, Any]:
        """One repetition, with what its processes and all others used of the processors."""
        assert self._process.stdin is not None
        with LoadWindow([self._process.pid]) as window:
            with suppress(BrokenPipeError):
                self._process.stdin.write(json.dumps({"measure_s": seconds}).encode() + b"\n")
                self._process.stdin.flush()
            answer = self._answer(timeout_s)
        return {**answer, **vars(window.load)}

    def close(self) -> None:
        """End the process and whatever it started."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        with suppress(OSError):
            self._process.stdin.close()
        with suppress(subprocess.TimeoutExpired):
            self._process.wait(CLOSING_S)
        # Its group outlives it as long as one of its processes does.
        with suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
        self._reader.join()
        self._process.stdout.close()
        self._log.close()

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            self._lines.put(line.decode())
        self._lines.put(None)

    def _answer(self, timeout_s: float) -> dict[str, Any]:
        try:
            line = self._lines.get(timeout=max(0.0, timeout_s))
        except queue.Empty:
            raise SideError(f"not done after {timeout_s:.0f} s") from None
        if line is None:
            raise SideError(f"ended: {_last_line(self._log_path)}")
        answer: dict[str, Any] = json.loads(line)
        if "error" in answer:
            raise SideError(answer["error"])
        return answer


def run_watched(command: Sequence[str], *, log: Path, timeout_s: float) -> tuple[str, dict[str, float]]:
    """Run a program to its end: what it wrote to standard output, and what it and all others used.

    Past `timeout_s` it is interrupted and, 30 s later, killed with everything it started.

    Raises:
        SideError: it fails or takes too long.
    """
    with log.open("wb") as errors:
        began = time.perf_counter()
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=errors)
        with LoadWindow([process.pid], interval_s=0.5) as window:
            try:
                output, _ = process.communicate(timeout=timeout_s)
            except subprocess.TimeoutExpired:
                process.send_signal(signal.SIGINT)
                try:
                    process.communicate(timeout=30)
                except subprocess.TimeoutExpired:
                    for pid in window.clock.living(read_processes()):
                        with suppress(ProcessLookupError):
                            os.kill(pid, signal.SIGKILL)
                    process.communicate()
                raise SideError(f"not done after {time.perf_counter() - began:.0f} s") from None
    if process.returncode != 0:
        raise SideError(f"ended with {process.returncode}: {_last_line(log)}")
    return output.decode(), vars(window.load)


def _last_line(log: Path) -> str:
    lines = [line for line in log.read_text(errors="replace").splitlines() if line.strip()]
    return lines[-1] if lines else "it said nothing"
