"""Rows of figures, one per case: measured or not, each says so; and their files."""

from __future__ import annotations

import json
import time
import traceback
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import torch

from measuring.device import Device

Row = dict[str, Any]
Case = tuple[Row, Callable[[], Row]]
"""What a case is, and how it is measured."""

MEASURED = "measured"


class NotRunError(Exception):
    """A case that this machine cannot run, and why."""


def measure_all(cases: Iterable[Case], device: Device, deadline: float) -> Iterator[Row]:
    """A row for every case: what it is, a status, and the figures where it was measured.

    Running out of memory, or any other failure, is the status of its row and nothing more; so is the end of the time.
    """
    for case, measure in cases:
        if time.monotonic() > deadline:
            yield {**case, "status": "left out: the time of the suite was up"}
            continue
        device.watch_memory()
        try:
            row = {**case, "status": MEASURED, **measure()}
        except torch.OutOfMemoryError:
            row = {**case, "status": "out of memory"}
        except NotRunError as reason:
            row = {**case, "status": f"not run: {reason}"}
        except Exception as error:
            traceback.print_exc()
            row = {**case, "status": f"failed: {type(error).__name__}: {error}".splitlines()[0]}
        # Only here has the error let go of the tensors of the frames that it came through.
        device.free()
        yield row


def write(path: Path, result: Mapping[str, Any]) -> None:
    """Put the result into `path` (.json) and `path` (.md)."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.with_suffix(".json").write_text(json.dumps(result, indent=1) + "\n")
    path.with_suffix(".md").write_text(render(result))


def render(result: Mapping[str, Any]) -> str:
    """All suites as Markdown."""
    lines = [
        f"# Measured on {result['device']}",
        "",
        f"Made by `benchmarks/gpu_learner.py`, {result['began']}, commit {result['commit']}, "
        + ", ".join(f"{name} {version}" for name, version in result["versions"].items())
        + ".",
        "",
        "Ceilings: " + ", ".join(f"{name} {_text(value)}" for name, value in result["ceilings"].items()) + ".",
        "",
    ]
    for name, suite in result["suites"].items():
        lines += [f"## {name.capitalize()}", "", suite["about"], "", *table(suite["rows"]), ""]
    return "\n".join(lines)


def table(rows: Iterable[Row]) -> list[str]:
    """Rows as a Markdown table; a column for each name that occurs, in the order of first sight."""
    rows = list(rows)
    names = list(dict.fromkeys(name for row in rows for name in row))
    lines = [f"| {' | '.join(name.replace('_', ' ') for name in names)} |", "|" + "---|" * len(names)]
    return lines + [f"| {' | '.join(_text(row.get(name)) for name in names)} |" for row in rows]


def _text(value: object) -> str:
    if value is None:
        return ""
    if isinstance(value, float):
        return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"
    return str(value).replace("|", "/")
