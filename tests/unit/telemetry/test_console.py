import io
import sys
from pathlib import Path

import pytest
from rich.console import Console

from amago_ray.telemetry.bottleneck import Verdict
from amago_ray.telemetry.console import ConsoleReporter, Progress, RunOutcome, duration, live_table, print_outcome

METRICS = {
    "rollout/return_mean": 0.5,
    "rollout/success_rate": 0.25,
    "env_steps": 12_345.0,
    "time/env_steps_per_s": 2_000.0,
    "learner_steps": 600.0,
    "time/learner_steps_per_s": 20.5,
    "time/policy_lag": 7.0,
    "replay/timesteps": 12_000.0,
    "replay/fill": 0.012,
}


def text_console(*, terminal: bool) -> tuple[Console, io.StringIO]:
    out = io.StringIO()
    return Console(file=out, force_terminal=terminal, width=100, color_system=None), out


def test_without_a_terminal_each_report_is_one_plain_line() -> None:
    console, out = text_console(terminal=False)
    reporter = ConsoleReporter("quickstart", console)

    reporter.report(METRICS, Progress(0.5, 75.0), Verdict("learner", 0.9, 1.5))
    reporter.report({"env_steps": 20_000.0}, Progress())
    reporter.close()

    first, second = out.getvalue().splitlines()
    assert first.startswith("return 0.50 | success 25.0% | env steps 12,345 | env steps/s 2,000 | learner steps 600")
    assert "done 50% | left 1m15s | learner limits: 90% of the time" in first
    assert second == "env steps 20,000"
    assert "\x1b" not in out.getvalue()


def test_on_a_terminal_a_table_shows_everything() -> None:
    console, out = text_console(terminal=True)
    reporter = ConsoleReporter("quickstart", console)

    reporter.report(METRICS, Progress(0.5, 75.0), Verdict("learner", 0.9, 1.5))
    reporter.message("runner 0 is slow [1/2]")
    reporter.close()
    reporter.close()

    shown = out.getvalue()
    for part in ("0.50", "25.0%", "12,345", "2,000", "20.5", "7", "1.2%", "50%", "1m15s left", "learner limits"):
        assert part in shown
    assert "runner 0 is slow [1/2]" in shown


def test_what_others_print_is_not_brought_into_the_table(capsys: pytest.CaptureFixture[str]) -> None:
    console, out = text_console(terminal=True)
    reporter = ConsoleReporter("quickstart", console)
    print("of an environment")
    print("its error", file=sys.stderr)
    reporter.report(METRICS, Progress())
    reporter.close()
    assert capsys.readouterr() == ("of an environment\n", "its error\n")
    assert "its error" not in out.getvalue()
    assert "of an environment" not in out.getvalue()


def test_a_missing_metric_leaves_its_cell_empty() -> None:
    console, out = text_console(terminal=False)

    console.print(live_table("x", {}, Progress()))

    assert "nan" not in out.getvalue().lower()
    assert "policy lag" in out.getvalue()
    assert "left" not in out.getvalue()


@pytest.mark.parametrize(
    ("seconds", "text"), [(0.4, "0s"), (59.4, "59s"), (59.6, "1m00s"), (75, "1m15s"), (3600, "1h00m"), (4000, "1h06m")]
)
def test_durations_read_like_a_clock(seconds: float, text: str) -> None:
    assert duration(seconds) == text


def test_the_outcome_tells_success_places_and_next_commands() -> None:
    console, out = text_console(terminal=False)
    run = Path("runs/quickstart")

    print_outcome(
        RunOutcome(
            reason="evaluation success 0.96 reached 0.95",
            time_s=75,
            run_directory=run,
            before={"eval/success_rate": 0.12, "eval/return_mean": 0.12},
            after={"eval/success_rate": 0.96, "eval/return_mean": 0.96},
            checkpoint=run / "checkpoints" / "step_600",
            video=run / "videos" / "final.gif",
        ),
        console,
    )

    shown = out.getvalue()
    for part in (
        "Ended after 1m15s: evaluation success 0.96 reached 0.95",
        "12.0% → 96.0%",
        "0.12 → 0.96",
        "runs/quickstart/metrics.jsonl",
        "runs/quickstart/checkpoints/step_600",
        "runs/quickstart/videos/final.gif",
        "amago-ray eval runs/quickstart",
        "amago-ray record runs/quickstart --out",
        "tensorboard --logdir runs/quickstart",
    ):
        assert part in shown


def test_an_outcome_without_evaluation_leaves_it_out() -> None:
    console, out = text_console(terminal=False)

    print_outcome(RunOutcome(reason="stopped", time_s=1, run_directory=Path("r"), before={}, after={}), console)

    assert "success" not in out.getvalue()
    assert "checkpoint" not in out.getvalue()


# --- other consoles -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("width", "term", "is_table"),
    [(100, "xterm", True), (60, "xterm", True), (59, "xterm", False), (20, "xterm", False), (100, "dumb", False)],
)
def test_narrow_and_dumb_terminals_show_lines(
    width: int, term: str, is_table: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TERM", term)
    out = io.StringIO()
    reporter = ConsoleReporter("tiny", Console(file=out, force_terminal=True, width=width, color_system=None))
    reporter.report(METRICS, Progress(0.5, 75.0), Verdict("learner", 0.9, 1.5))
    reporter.close()
    assert ("amago-ray · tiny" in out.getvalue()) == is_table
    assert ("env steps 12,345 | env steps/s" in out.getvalue()) == (not is_table)


def test_the_name_of_a_run_and_its_verdict_are_no_markup() -> None:
    console, out = text_console(terminal=True)
    reporter = ConsoleReporter("mine[/bold]", console)
    reporter.report(METRICS, Progress())
    reporter.message("warning: lost [/dev/ttyUSB0] of [bold] arm [0]")
    reporter.close()
    assert "amago-ray · mine[/bold]" in out.getvalue()
    assert "lost [/dev/ttyUSB0] of [bold] arm [0]" in out.getvalue()


@pytest.mark.parametrize("terminal", [True, False])
def test_a_console_that_breaks_is_switched_off(terminal: bool) -> None:
    class Breaking(io.StringIO):
        is_broken = False

        def write(self, text: str) -> int:
            if self.is_broken:
                raise OSError(28, "No space left on device")
            return super().write(text)

    out = Breaking()
    reporter = ConsoleReporter("tiny", Console(file=out, force_terminal=terminal, width=100, color_system=None))
    reporter.report(METRICS, Progress())
    assert reporter.failure is None
    out.is_broken = True
    for _ in range(2):
        reporter.report(METRICS, Progress())
        reporter.message("warning: x")
    reporter.close()
    assert isinstance(reporter.failure, OSError)
    print_outcome(
        RunOutcome(reason="stopped", time_s=1, run_directory=Path("r"), before={}, after={}), Console(file=out)
    )
