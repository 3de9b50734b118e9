"""Writing metrics to files: JSONL and TensorBoard. Each report is one flat dict; the x axis is env steps."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, Protocol

from amago_ray.errors import RunDirectoryError
from amago_ray.telemetry.metrics import finite

if TYPE_CHECKING:
    from tensorboard.summary.writer.event_file_writer import EventFileWriter


EVENTS_SUFFIX = ".amago_ray"
"""How the names of our TensorBoard files end: those of other tools may lie beside them."""
_STAMPS = ("unix_time_s", "env_steps")
"""What a line of JSON has beside a report's metrics."""


class MetricLogger(Protocol):
    """Takes reports."""

    def log(self, env_steps: int, metrics: Mapping[str, float]) -> None:
        """Write one report of finite values."""
        ...

    def close(self) -> None:
        """Flush and release everything; calling it twice is fine."""
        ...


class LoggerGroup:
    """Hands reports to several loggers. Values that are missing or not finite are left out of them and counted."""

    def __init__(self, loggers: Sequence[MetricLogger]) -> None:
        self._loggers = list(loggers)
        self._num_dropped = 0

    def log(self, env_steps: int, metrics: Mapping[str, float | None]) -> dict[str, float]:
        """Write one report everywhere; returns what was written, with the total of values ever left out."""
        kept, dropped = finite(metrics)
        self._num_dropped += len(dropped)
        kept["telemetry/num_dropped_values"] = float(self._num_dropped)
        for logger in self._loggers:
            logger.log(env_steps, kept)
        return kept

    def close(self) -> None:
        """Close all loggers."""
        for logger in self._loggers:
            logger.close()


class JsonlLogger:
    """Appends one JSON object per report, with `unix_time_s` and `env_steps`, and flushes it.

    A half-written last line, left by a process that was killed, is cut off when the file is opened again, and so is
    everything from the first report on that does not belong to what is resumed (`keep` says which do; None: all).

    Raises:
        RunDirectoryError: the file cannot be opened for writing, or holds a line that is no report.
    """

    def __init__(self, path: Path, keep: Callable[[Mapping[str, float]], bool] | None = None) -> None:
        try:
            self._file: IO[bytes] = path.open("ab+")
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
        self._file.write(json.dumps(record, allow_nan=False).encode() + b"\n")
        self._file.flush()

    def close(self) -> None:
        """Close the file."""
        self._file.close()


def read_metrics(path: Path) -> list[dict[str, float]]:
    """The reports in a JSONL file, oldest first; a half-written last line is passed over."""
    lines = path.read_bytes().split(b"\n")[:-1]
    return [json.loads(line) for line in lines]


class TensorBoardLogger:
    """Writes scalars to a TensorBoard event file in `directory`.

    Written with TensorBoard's own event writer: the writers of torch and tensorboardX both load torch.
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
        self._writer: EventFileWriter | None = None

    def log(self, env_steps: int, metrics: Mapping[str, float]) -> None:
        """Write each metric as a scalar at `env_steps`."""
        from tensorboard.compat.proto.summary_pb2 import Summary

        values = [Summary.Value(tag=name, simple_value=value) for name, value in metrics.items()]
        self._add(env_steps, summary=Summary(value=values))

    def close(self) -> None:
        """Flush and close the event file."""
        if self._writer is not None:
            self._writer.close()

    def _add(self, step: int, **what: Any) -> None:
        from tensorboard.compat.proto.event_pb2 import Event, SessionLog
        from tensorboard.summary.writer.event_file_writer import EventFileWriter

        if self._writer is None:
            self._writer = EventFileWriter(str(self._directory), flush_secs=5, filename_suffix=EVENTS_SUFFIX)
            if self._first_env_step is not None:
                self._add(self._first_env_step, session_log=SessionLog(status=SessionLog.START))
                for report in self._again:
                    self.log(self._first_env_step, {name: report[name] for name in report if name not in _STAMPS})
        self._writer.add_event(Event(wall_time=time.time(), step=step, **what))


def _cut(file: IO[bytes], keep: Callable[[Mapping[str, float]], bool] | None) -> None:
    """Shorten the file, at once, to the whole lines before the first that is not kept."""
    file.seek(0)
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
        file.truncate(end)
    file.seek(0, 2)
