"""Results as JSON and as tables.

A result file holds one entry per suite, so that suites can be measured one at a time:

    {"hardware": ..., "suites": {"acting": {"unit": ..., "more_is_better": ..., "works": [
        {"name": ..., "target": ..., "sides": [
            {"whose": "original" or "ours", "name": ..., "error": null or why, "floor": null or {"limit": ...},
             "repetitions": [{"value": ..., "reached": false where it gave up,
                              "elapsed_s": ..., "tree_cpu_s": ..., "other_cpu_s": ...}]}]}]}}}
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from measuring.summary import Summary, advantage, summarize

Side = Mapping[str, Any]


def write(path: Path, hardware: Mapping[str, Any], suites: Mapping[str, Any]) -> None:
    """Put the suites into `path` (.json) and `path` (.md), beside those that are there already."""
    file = path.with_suffix(".json")
    everything = json.loads(file.read_text()) if file.exists() else {"suites": {}}
    everything = {"hardware": hardware, "suites": {**everything["suites"], **suites}}
    path.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(everything, indent=1) + "\n")
    path.with_suffix(".md").write_text(render(everything))


def render(everything: Mapping[str, Any]) -> str:
    """All suites as Markdown."""
    hardware = everything["hardware"]
    lines = [
        f"# Measured on {hardware['num_cpus']} x {hardware['processor']}, {hardware['memory_gib']} GiB",
        "",
        "Made by `benchmarks/versus_amago.py`. Medians of repetitions that alternate between the sides, with the",
        "lowest and the highest in brackets; ratios are taken repetition by repetition. The limit is what operations",
        "and bytes need at the ceilings measured in the same run. Others: processor time that processes other than the",
        "measured side's took, as a share of the machine, in the worst repetition of both sides.",
        "",
    ]
    for name, suite in everything["suites"].items():
        lines += render_suite(name, suite, hardware["num_cpus"])
    return "\n".join(lines)


def render_suite(name: str, suite: Mapping[str, Any], num_cpus: int) -> list[str]:
    """One suite: a table of ratios, and every repetition."""
    peer = f", original {suite['peer_commit']}" if suite.get("peer_commit") else ""
    lines = [f"## {name.capitalize()} ({suite['unit']})", "", f"{suite['began']}, commit {suite['commit']}{peer}", ""]
    lines += [
        "| work | original | ours | ours is better by | target | limit | of the limit | others |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for work in suite["works"]:
        lines += [f"| {' | '.join(row)} |" for row in table_rows(work, suite["more_is_better"], num_cpus)]
    lines += [
        "",
        f"### Repetitions of {name}",
        "",
        f"| side | {suite['unit']} | own CPU s | others' CPU s |",
        "|---|---|---|---|",
    ]
    for work in suite["works"]:
        for side in work["sides"]:
            lines.append(f"| {work['name']}: {side['whose']}, {side['name']} | {' | '.join(_every(side))} |")
    return [*lines, ""]


def table_rows(work: Mapping[str, Any], more_is_better: bool, num_cpus: int) -> Iterator[list[str]]:
    """One row for each of our sides, against the original's best."""
    original = best([side for side in work["sides"] if side["whose"] == "original"], more_is_better)
    for side in work["sides"]:
        if side["whose"] == "ours":
            summary, limit = summarize(values(side)), (side.get("floor") or {}).get("limit")
            share = "" if not (limit and summary) else f"{_share(summary.median, limit, more_is_better):.0%}"
            yield [
                work["name"],
                "" if original is None else f"{original['name']}: {_side_text(original)}",
                f"{side['name']}: {_side_text(side)}",
                _ratio_text(side, original, more_is_better),
                f"{work['target']:g} x",
                "" if limit is None else _number(limit),
                share,
                f"{max(_others(each, num_cpus) for each in (side, original or side)):.0%}",
            ]


def values(side: Side) -> list[float]:
    """What its repetitions measured."""
    return [repetition["value"] for repetition in side["repetitions"]]


def best(sides: Sequence[Side], more_is_better: bool) -> Side | None:
    """The side with the best median; one that failed only where all did."""
    measured = [side for side in sides if side["repetitions"]]
    if not measured:
        return sides[0] if sides else None
    medians = [summarize(values(side)) for side in measured]
    order = sorted(
        zip([summary.median for summary in medians if summary], range(len(measured)), strict=True),
        reverse=more_is_better,
    )
    return measured[order[0][1]]


def gave_up(side: Side) -> bool:
    """Whether a repetition ended before its goal was reached."""
    return any(repetition.get("reached") is False for repetition in side["repetitions"])


def _ratio_text(ours: Side, original: Side | None, more_is_better: bool) -> str:
    if original is None or gave_up(ours):
        return ""
    ratio = advantage(values(ours), values(original), more_is_better=more_is_better)
    if ratio is None:
        return ""
    return f"**{'> ' if gave_up(original) else ''}{ratio.median:.2f} x**{_range(ratio)}"


def _side_text(side: Side) -> str:
    summary = summarize(values(side))
    if summary is None:
        return side["error"] or "not measured"
    text = f"{_number(summary.median)}{_range(summary)}"
    return f"not reached within {text}" if gave_up(side) else text


def _every(side: Side) -> list[str]:
    repetitions = side["repetitions"]
    columns = [
        ", ".join(_number(repetition["value"]) for repetition in repetitions),
        ", ".join(f"{repetition['tree_cpu_s']:.1f}" for repetition in repetitions),
        ", ".join(f"{repetition['other_cpu_s']:.1f}" for repetition in repetitions),
    ]
    if side["error"]:
        columns[0] = "; ".join(filter(None, [columns[0], side["error"]]))
    return columns


def _others(side: Side, num_cpus: int) -> float:
    return max((each["other_cpu_s"] / (each["elapsed_s"] * num_cpus) for each in side["repetitions"]), default=0.0)


def _share(value: float, limit: float, more_is_better: bool) -> float:
    return value / limit if more_is_better else limit / value


def _range(summary: Summary) -> str:
    return f" ({_number(summary.low)} to {_number(summary.high)})" if summary.count > 1 else ""


def _number(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"
