"""Writing metrics to files: JSONL and TensorBoard. Each report is one flat dict; the x axis is env steps."""

from __future__ import annotations

import io
import json
import os
import socket
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from itertools import count
from pathlib import Path
from typing import Any, Protocol

from amago_ray.errors import RunDirectoryError
from amago_ray.telemetry.appended_file import AppendedFile
from amago_ray.telemetry.metrics import finite

EVENTS_SUFFIX = ".amago_ray"
"""How the names of our TensorBoard files end: those of other tools may lie beside them."""
_STAMPS = ("unix_time_s", "env_steps")
"""What a line of JSON has beside a report's metrics."""


class MetricLogger(Protocol):
    """Takes reports."""

    def log(self, env_steps: int, metrics: Mapping[str, float]) -> None:
        """Write one report of finite values.

        Raises:
            OSError: it cannot be written now; the next call tries again.
        """
        ...

    def close(self) -> None:
        """Flush and release everything; calling it twice is fine.

        Raises:
            OSError: something cannot be written.
        """
        ...


class LoggerGroup:
    """Hands reports to several loggers. Values that are missing or not finite are left out of them and counted.

    A logger that cannot write ends neither the run nor the other loggers: see `take_warnings`.
    """

    def __init__(self, loggers: Sequence[MetricLogger]) -> None:
        self._loggers = list(loggers)
        self._num_dropped = 0
        self._failing: set[int] = set()
        self._warnings: list[str] = []

    def log(self, env_steps: int, metrics: Mapping[str, float | None]) -> dict[str, float]:
        """Write one report everywhere; returns what was written, with the total of values ever left out."""
        kept, dropped = finite(metrics)
        self._num_dropped += len(dropped)
        kept["telemetry/num_dropped_values"] = float(self._num_dropped)
        for number, logger in enumerate(self._loggers):
            try:
                logger.log(env_steps, kept)
            except OSError as error:
                if number not in self._failing:
                    self._warnings.append(f"{_line(error)}; it is tried again with every report")
                self._failing.add(number)
            else:
                self._failing.discard(number)
        return kept

    def take_warnings(self) -> list[str]:
        """What could not be written since the last call; each trouble is told once, until it is over."""
        warnings, self._warnings = self._warnings, []
        return warnings

    def close(self) -> None:
        """Close all loggers."""
        for logger in self._loggers:
            try:
                logger.close()
            except OSError as error:
                self._warnings.append(f"{_line(error)}: the last reports are lost")


def _line(error: OSError) -> str:
    where = "" if error.filename is None else f"{error.filename}: "
    return f"metrics: {where}cannot be written: {error.strerror or error}"


class JsonlLogger:
    """Appends one JSON object per report, with `unix_time_s` and `env_steps`, and flushes it.

    A half-written last line, left by a process that was killed, is cut off when the file is opened again, and so is
    everything from the first report on that does not belong to what is resumed (`keep` says which do; None: all).

    Raises:
        RunDirectoryError: the file cannot be opened for writing, or holds a line that is no report.
    """

    def __init__(self, path: Path, keep: Callable[[Mapping[str, float]], bool] | None = None) -> None:
        try:
            self._file = AppendedFile(path)
        except OSError as error:
            raise RunDirectoryError(f"{path}: cannot be written: {error.strerror}") from error
        try:
            _cut(self._file, keep)
        except ValueError as error:
            self._file.close()
            raise RunDirectoryError(f"{path}: expected a report of JSON in each line: {error}") from error

    def log(self, env_steps: int, metrics: Mapping[str, float]) -> None:
        """Append one line."""
        record: dict[str, Any] = {"unix_time_s": round(time.time(), 3), **metrics, "env_steps": env_steps}
        self._file.append(json.dumps(record, allow_nan=False).encode() + b"\n")

    def close(self) -> None:
        """Close the file."""
        self._file.close()


def read_metrics(path: Path) -> list[dict[str, float]]:
    """The reports in a JSONL file, oldest first; a half-written last line is passed over."""
    lines = path.read_bytes().split(b"\n")[:-1]
    return [json.loads(line) for line in lines]


class TensorBoardLogger:
    """Writes scalars to a TensorBoard event file in `directory`.

    Written as TensorBoard's own records: the writers of torch and tensorboardX both load torch, and TensorBoard's
    writes in a thread, whose trouble with the disk comes as a traceback.
    `first_env_step`, where a resumed run goes on, hides what an earlier session logged from there on, but for `again`:
    reports of that step, which are written again.
    The file is begun by the first report, when a run's processes have been started: TensorBoard takes time to import.
    """

    def __init__(
        self, directory: Path, first_env_step: int | None = None, again: Sequence[Mapping[str, float]] = ()
    ) -> None:
        self._directory = directory
        self._first_env_step = first_env_step
        self._again = again
        self._file: AppendedFile | None = None

    def log(self, env_steps: int, metrics: Mapping[str, float]) -> None:
        """Write one report."""
        if self._file is None:
            self._file = self._begin()
        self._file.append(_scalars(env_steps, metrics))

    def close(self) -> None:
        """Close the event file."""
        if self._file is not None:
            self._file.close()

    def _begin(self) -> AppendedFile:
        from tensorboard.compat.proto.event_pb2 import SessionLog

        name = f"events.out.tfevents.{int(time.time()):010d}.{socket.gethostname()}.{os.getpid()}"
        names = (f"{name}.{number}{EVENTS_SUFFIX}" for number in count())
        file = AppendedFile(next(path for path in (self._directory / each for each in names) if not path.exists()))
        records = [_event(0, file_version="brain.Event:2")]
        if self._first_env_step is not None:
            records.append(_event(self._first_env_step, session_log=SessionLog(status=SessionLog.START)))
            for report in self._again:
                metrics = {name: report[name] for name in report if name not in _STAMPS}
                records.append(_scalars(self._first_env_step, metrics))
        with suppress(OSError):
            # They wait for the report that follows.
            file.append(b"".join(records))
        return file


def _scalars(env_steps: int, metrics: Mapping[str, float]) -> bytes:
    from tensorboard.compat.proto.summary_pb2 import Summary

    values = [Summary.Value(tag=name, simple_value=value) for name, value in metrics.items()]
    return _event(env_steps, summary=Summary(value=values))


def _event(step: int, **what: Any) -> bytes:
    """One record of an event file."""
    from tensorboard.compat.proto.event_pb2 import Event
    from tensorboard.summary.writer.record_writer import RecordWriter

    record = io.BytesIO()
    RecordWriter(record).write(Event(wall_time=time.time(), step=step, **what).SerializeToString())
    return record.getvalue()


def _cut(file: AppendedFile, keep: Callable[[Mapping[str, float]], bool] | None) -> None:
    """Shorten the file, at once, to the whole lines before the first that is not kept."""
    content = file.read()
    end = content.rfind(b"\n") + 1
    if keep is not None:
        position = 0
        for line in content[:end].splitlines(keepends=True):
            if not keep(json.loads(line)):
                end = position
                break
            position += len(line)
    if end < len(content):
        file.cut(end)
