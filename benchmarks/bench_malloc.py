"""What keeping freed memory saves: page faults and milliseconds of activations allocated and freed over and over."""

from __future__ import annotations

import argparse
import resource
import subprocess
import sys
import time

import torch


def measure(megabytes: int, rounds: int) -> str:
    """Faults and milliseconds per round of one block of so many MB."""
    size = megabytes * 2**18
    torch.ones(size + 2**18)
    faults, began = resource.getrusage(resource.RUSAGE_SELF).ru_minflt, time.perf_counter()
    for _ in range(rounds):
        torch.ones(size)
    faults = resource.getrusage(resource.RUSAGE_SELF).ru_minflt - faults
    return f"{faults / rounds:8.0f} page faults, {1e3 * (time.perf_counter() - began) / rounds:6.2f} ms"


def main() -> None:
    """Measure with and without, in a process each."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--megabytes", type=int, default=29)
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--mode", choices=["default", "kept"], help="only this one, in this process")
    arguments = parser.parse_args()
    if arguments.mode is None:
        for mode in ("default", "kept"):
            subprocess.run([sys.executable, __file__, *sys.argv[1:], "--mode", mode], check=True)
        return
    torch.set_num_threads(1)
    if arguments.mode == "kept":
        from amago_ray.learning.malloc import keep_freed_memory

        keep_freed_memory()
    print(f"{arguments.mode:<8}{measure(arguments.megabytes, arguments.rounds)}")


if __name__ == "__main__":
    main()
