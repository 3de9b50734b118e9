"""Showing a run: a live table on a terminal, plain lines elsewhere, and a summary at the end."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from amago_ray.config.paths import shown
from amago_ray.telemetry.bottleneck import Verdict
from amago_ray.telemetry.screen import Screen, printable


@dataclass(frozen=True)
class Progress:
    """How far the run is: `fraction` 0..1 of its nearest stop criterion, and the time left; None where unknown."""

    fraction: float | None = None
    time_left_s: float | None = None


_ROWS = (
    (("return", "rollout/return_mean", ".2f"), ("eval return", "eval/return_mean", ".2f")),
    (("success", "rollout/success_rate", ".1%"), ("eval success", "eval/success_rate", ".1%")),
    (("env steps", "env_steps", ",.0f"), ("env steps/s", "time/env_steps_per_s", ",.0f")),
    (("learner steps", "learner_steps", ",.0f"), ("learner steps/s", "time/learner_steps_per_s", ",.1f")),
    (("replay timesteps", "replay/timesteps", ",.0f"), ("replay fill", "replay/fill", ".1%")),
    (("episodes", "episodes", ",.0f"), ("policy lag", "time/policy_lag", ",.0f")),
)


_MIN_TABLE_WIDTH = 60
"""On a narrower terminal, reports are lines."""


class ConsoleReporter:
    """Shows the newest report: in place on a terminal, else as one plain line for each.

    A console that cannot be written is switched off.
    """

    def __init__(self, name: str, console: Console | None = None) -> None:
        self._name = name
        self._screen = Screen(console)
        self._live: Live | None = None
        console = self._screen.console
        if console.is_terminal and not console.is_dumb_terminal and console.width >= _MIN_TABLE_WIDTH:
            # Redrawn on reports only: a refresh thread would take time from the run. What others print is not brought
            # to the terminal either: it belongs elsewhere (see `OutputLog`).
            self._live = Live(console=console, auto_refresh=False, redirect_stdout=False, redirect_stderr=False)
            self._redraw(self._live.start)

    @property
    def failure(self) -> OSError | ValueError | None:
        """What switched the console off; None while it is on."""
        return self._screen.failure

    def report(self, metrics: Mapping[str, float], progress: Progress, limit: Verdict | None = None) -> None:
        """Show flat metrics; those without a value are left out."""
        if self._live is not None:
            table = live_table(self._name, metrics, progress, limit)
            self._redraw(partial(self._live.update, table, refresh=True))
        else:
            self._screen.line(plain_line(metrics, progress, limit))

    def message(self, text: str) -> None:
        """Print a line that stays, such as a warning."""
        self._screen.line(text)

    def close(self) -> None:
        """Leave the last table on the screen; calling it twice is fine."""
        if self._live is not None:
            self._redraw(self._live.stop)
            self._live = None

    def _redraw(self, draw: Callable[[], object]) -> None:
        try:
            draw()
        except (OSError, ValueError) as error:
            self._screen.failure = error
            live, self._live = self._live, None
            if live is not None:
                # It gives the console back, whatever it can still draw.
                with suppress(OSError, ValueError):
                    live.stop()


def live_table(
    name: str, metrics: Mapping[str, float], progress: Progress, limit: Verdict | None = None
) -> RenderableType:
    """The table of a live run."""
    title = Text(f"amago-ray · {printable(name)}")
    table = Table(title=title, title_justify="left", show_header=False, box=None, padding=(0, 2, 0, 0))
    for style, justify in (("dim", "left"), ("bold", "right")) * 2:
        table.add_column(style=style, justify=justify, min_width=12)  # type: ignore[arg-type]
    for row in _ROWS:
        cells = []
        for label, key, form in row:
            cells += [label, format(metrics[key], form) if key in metrics else "-"]
        table.add_row(*cells)
    parts: list[RenderableType] = [table]
    if progress.fraction is not None:
        bar = Table.grid(padding=(0, 2, 0, 0))
        left = "" if progress.time_left_s is None else f"{duration(progress.time_left_s)} left"
        bar.add_row(ProgressBar(total=1.0, completed=progress.fraction, width=40), f"{progress.fraction:.0%}", left)
        parts.append(bar)
    if limit is not None:
        parts.append(Text(str(limit), style="dim"))
    return Group(*parts)


def plain_line(metrics: Mapping[str, float], progress: Progress, limit: Verdict | None = None) -> str:
    """One report as one line of `name value` pairs."""
    pairs = [f"{label} {format(metrics[key], form)}" for row in _ROWS for label, key, form in row if key in metrics]
    if progress.fraction is not None:
        pairs.append(f"done {progress.fraction:.0%}")
    if progress.time_left_s is not None:
        pairs.append(f"left {duration(progress.time_left_s)}")
    if limit is not None:
        pairs.append(str(limit))
    return " | ".join(pairs)


def duration(seconds: float) -> str:
    """`75` as "1m15s", `4000` as "1h06m"."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole}s"
    if whole < 3600:
        return f"{whole // 60}m{whole % 60:02d}s"
    return f"{whole // 3600}h{whole % 3600 // 60:02d}m"


@dataclass(frozen=True)
class RunOutcome:
    """What the summary at a run's end tells: why it ended, evaluations before and after, and where things are."""

    reason: str
    time_s: float
    run_directory: Path
    before: Mapping[str, float]
    after: Mapping[str, float]
    checkpoint: Path | None = None
    video: Path | None = None


def print_outcome(outcome: RunOutcome, console: Console | None = None) -> None:
    """Print success and return before and after, where the files are, and the commands to go on with."""
    screen = Screen(console)
    for line in outcome_lines(outcome):
        screen.line(line)


def outcome_lines(outcome: RunOutcome) -> Sequence[str]:
    """The lines of the summary."""
    run = outcome.run_directory
    lines = [f"Ended after {duration(outcome.time_s)}: {outcome.reason}"]
    for label, name, form in (("success", "eval/success_rate", ".1%"), ("return", "eval/return_mean", ".2f")):
        if name in outcome.after:
            before = f"{format(outcome.before[name], form)} → " if name in outcome.before else ""
            lines.append(f"  {label:<12} {before}{format(outcome.after[name], form)}")
    places = [("metrics", run / "metrics.jsonl"), ("TensorBoard", run)]
    places += [(label, path) for label, path in (("checkpoint", outcome.checkpoint), ("video", outcome.video)) if path]
    lines += [f"  {label:<12} {path}" for label, path in places]
    lines += ["Go on with:", f"  amago-ray eval {run}", f"  amago-ray record {run} --out episode.gif"]
    return [shown(line) for line in (*lines, f"  tensorboard --logdir {run}")]
