"""Where the time of acting goes: a flame graph, and the shares of mathematics, environment, replay and glue.

    python benchmarks/profile_acting.py --out benchmarks/results/acting_profile

writes `acting_profile.svg` and `acting_profile.json`. One env runner on one thread plays whole episodes over full
caches while py-spy (`pip install py-spy`), which is not a dependency of the package, looks at it from outside.
"""

from __future__ import annotations

import argparse
import ctypes
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

from bench_acting import OVERRIDES, Acting
from measuring import machine

PR_SET_PTRACER, PR_SET_PTRACER_ANY = 0x59616D61, -1

PLACES = (
    ("environment", ("amago_ray/envs/",)),
    ("policy mathematics", ("amago_ray/acting/network.py", "amago_ray/nets/")),
    ("replay", ("amago_ray/data/arrow", "amago_ray/replay/")),
)
"""What a stack counts as: the first whose code is anywhere in it; what is nowhere else is glue."""


def shares(stacks: Iterable[str]) -> dict[str, float]:
    """Shares of the samples of collapsed stacks: lines "frame;frame;... count"."""
    counts: Counter[str] = Counter({name: 0 for name, _ in PLACES} | {"glue": 0})
    for line in stacks:
        stack, _, count = line.rpartition(" ")
        if "play_episodes" in stack:
            counts[_place(stack)] += int(count)
    total = counts.total()
    return {name: count / total for name, count in counts.items()} if total else {}


def _place(stack: str) -> str:
    return next((name for name, paths in PLACES if any(path in stack for path in paths)), "glue")


def record(acting: Acting, kind: str, path: Path, seconds: float, rate: int) -> None:
    """Act until py-spy has looked for so long."""
    program = Path(sys.executable).with_name("py-spy")
    spy = str(program) if program.exists() else shutil.which("py-spy")
    if spy is None:
        raise SystemExit("py-spy: expected it beside this Python or on the path: pip install py-spy")
    # Without this only a parent may look, and py-spy is a child.
    ctypes.CDLL(None).prctl(PR_SET_PTRACER, ctypes.c_ulong(PR_SET_PTRACER_ANY), 0, 0, 0)
    command = [spy, "record", "--pid", str(os.getpid()), "--format", kind, "--output", str(path)]
    with tempfile.TemporaryFile("w+") as log:
        process = subprocess.Popen(
            [*command, "--duration", f"{max(1, round(seconds))}", "--rate", str(rate)], stdout=log, stderr=log
        )
        while process.poll() is None:
            acting.play_episodes()
        if process.returncode != 0:
            log.seek(0)
            raise SystemExit(f"py-spy: {log.read().strip()}")


def main() -> None:
    """Profile and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--config", default="maze_runner")
    parser.add_argument("--num-envs", type=int, default=24)
    parser.add_argument("--seconds", type=float, default=15.0, help="of each of the two recordings")
    parser.add_argument("--rate", type=int, default=200, help="samples per second")
    parser.add_argument("--out", type=Path, required=True, help="path of the results, without ending")
    parser.add_argument("overrides", nargs="*", metavar="section.key=value")
    arguments = parser.parse_args()

    from amago_ray.config.load import load_config

    settings = [*OVERRIDES, f"rollout.num_envs_per_env_runner={arguments.num_envs}", *arguments.overrides]
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        acting = Acting(load_config(arguments.config, settings), Path(folder))
        raw = Path(folder) / "stacks"
        record(acting, "raw", raw, arguments.seconds, arguments.rate)
        picture = Path(folder) / "picture"
        record(acting, "flamegraph", picture, arguments.seconds, arguments.rate)
        # py-spy writes its own command line, with paths of this machine, above the picture.
        title = f"\\g<1>Acting: {arguments.config}, {arguments.num_envs} envs, one thread"
        svg = re.sub(r"(<text id=\"title\"[^>]*>)[^<]*", title, picture.read_text(), count=1)
        arguments.out.with_suffix(".svg").write_text(svg)
        found = shares(raw.read_text().splitlines())
        rate = acting.measure(arguments.seconds / 5)
    result = {
        "date": machine.now(),
        "commit": machine.commit(Path(__file__).parent),
        "hardware": machine.hardware(),
        "config": arguments.config,
        "settings": settings,
        "env_steps_per_s": rate.env_steps_per_s,
        "shares": found,
    }
    arguments.out.with_suffix(".json").write_text(json.dumps(result, indent=1) + "\n")
    for name, share in found.items():
        print(f"{name:20} {share:6.1%}")
    print(f"{'env steps/s':20} {rate.env_steps_per_s:,.0f}")


if __name__ == "__main__":
    main()
