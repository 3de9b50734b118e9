"""What `amago-ray status` shows of the processes of a run, from its status file."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

_Plain = Mapping[str, Any]


def process_lines(processes: Sequence[_Plain], written_ago_s: float) -> list[str]:
    """How many processes each node has, and a line for each: name, host, age of its last pulse, what it was doing."""
    hosts = Counter(str(process["host"]) or "no node yet" for process in processes)
    nodes = ", ".join(f"{host} ({number})" for host, number in sorted(hosts.items()))
    rows = [("process", "node", "last pulse", "doing")]
    for process in sorted(processes, key=lambda process: str(process["name"])):
        age_s, busy_s = float(process["age_s"]) + written_ago_s, float(process["busy_s"])
        doing = f"{process['doing']} for {busy_s:.0f} s" if busy_s >= 1 else str(process["doing"])
        seen = f"{age_s:.0f} s ago" if process["host"] else "none yet"
        rows.append((str(process["name"]), str(process["host"]), seen, doing))
    widths = [max(len(row[column]) for row in rows) for column in range(3)]
    table = [
        "  ".join([*(cell.ljust(width) for cell, width in zip(row, widths, strict=False)), row[3]]) for row in rows
    ]
    return [f"nodes: {nodes}", *table]


def warning_lines(warnings: Sequence[_Plain]) -> list[str]:
    """The newest warnings with their times, oldest first."""
    return [f"{datetime.fromtimestamp(float(each['unix_time_s'])):%H:%M:%S}  {each['text']}" for each in warnings]
