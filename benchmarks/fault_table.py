"""The table of faults and recovery times, from what `make test-cluster` has noted: a dated page of results."""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
from pathlib import Path


def main() -> None:
    """Read the notes of one or several runs of the tests, and print the page."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("notes", type=Path, help="the file that AMAGO_RAY_FAULT_TABLE named")
    parser.add_argument("--note", default="", help="a line about the machine and what else it did")
    options = parser.parse_args()
    recoveries: dict[str, list[float]] = {}
    for line in options.notes.read_text().splitlines():
        noted = json.loads(line)
        recoveries.setdefault(noted["fault"], []).append(noted["recovery_s"])
    commit = subprocess.run(["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=True).stdout
    print("# Faults, and how long until all is well again\n")
    print(
        f"`make test-cluster`, commit {commit.strip()}, {os.cpu_count()} cores ({platform.machine()}). {options.note}"
    )
    print(
        "\nSeconds from the fault (or from its end, where it lasts) until the process that was hit works again, or "
        "another one in its place, and reports have shown that env steps, updates and stored episodes grow.\n"
    )
    print("| fault | times seen | recovery s (longest) |\n|---|---|---|")
    for fault, seconds in recoveries.items():
        print(f"| {fault} | {len(seconds)} | {max(seconds):.1f} |")


if __name__ == "__main__":
    main()
