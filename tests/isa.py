"""The numeric tests on every instruction set that this CPU can imitate: `make test-isa`.

A leg caps what PyTorch's own kernels, oneDNN and MKL may use, takes the compiled kernels built for one processor, and
gives torch one or two threads. Legs are chosen so that every two settings meet in one of them. The kernels are built in
copies of the tree; the installed ones are left alone. What a CPU lacks, it cannot imitate: a cap of AMX changes nothing
without AMX, and legs beyond the CPU's own vectors are left out.
"""

from __future__ import annotations

import argparse
import itertools
import os
import random
import re
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).parents[1]
CAPABILITIES = ("default", "avx2", "avx512")
PROCESSORS = {"baseline": "x86-64", "avx2": "x86-64-v3", "native": "native"}
"""What the kernels are built for, and the compiler's name of it."""
COPIED = ("amago_ray", "tests", "configs", "benchmarks", "pyproject.toml", "setup.py", "README.md", "LICENSE")
Leg = dict[str, str]


def settings(capability: str) -> dict[str, tuple[str, ...]]:
    """Every setting and its values, up to the CPU's own vectors."""
    level = CAPABILITIES.index(capability) + 1
    return {
        "ATEN_CPU_CAPABILITY": CAPABILITIES[:level],
        "ONEDNN_MAX_CPU_ISA": ("AVX2", "AVX512_CORE", "AVX512_CORE_BF16", "AVX512_CORE_AMX")[: 4 if level > 2 else 1],
        "MKL_CBWR": ("COMPATIBLE", "AVX2", "AUTO")[: max(level, 2)],
        "kernels": tuple(PROCESSORS) if level > 1 else ("baseline", "native"),
        "threads": ("1", "2"),
    }


def pairwise_legs(values: dict[str, tuple[str, ...]]) -> list[Leg]:
    """Few legs in which every two values of different settings meet: always the one with most new pairs."""
    product = [dict(zip(values, choices, strict=True)) for choices in itertools.product(*values.values())]
    found: list[list[Leg]] = []
    for seed in range(20):
        random.Random(seed).shuffle(product)
        left = {number: set(itertools.combinations(leg.items(), 2)) for number, leg in enumerate(product)}
        legs = []
        while any(left.values()):
            best = max(left, key=lambda number: len(left[number]))
            met = left[best]
            left = {number: pairs - met for number, pairs in left.items()}
            legs.append(product[best])
        found.append(legs)
    return sorted(min(found, key=len), key=str)


def build(folder: Path, processor: str) -> Path:
    """A copy of the tree whose kernels are built for one processor."""
    tree = folder / processor
    tree.mkdir()
    for name in COPIED:
        source = ROOT / name
        if source.is_dir():
            shutil.copytree(source, tree / name, ignore=shutil.ignore_patterns("*.so", "__pycache__", "results"))
        else:
            shutil.copy(source, tree / name)
    flags = f"{os.environ.get('CFLAGS', '')} -DONE_PROCESSOR -march={PROCESSORS[processor]}"
    command = [sys.executable, "setup.py", "-q", "build_ext", "--inplace"]
    subprocess.run(command, cwd=tree, env={**os.environ, "CFLAGS": flags}, check=True, capture_output=True)
    if not list((tree / "amago_ray").rglob("*.so")):
        raise SystemExit("test-isa: expected a C compiler to build the kernels with, got none that works")
    return tree


def run(tree: Path, leg: Leg, arguments: list[str]) -> tuple[bool, str, str]:
    """Whether a leg's tests pass, pytest's last line, and all that it said."""
    environment = {name: value for name, value in leg.items() if name.isupper()}
    # Threads that wait give way: spinning ones stand still where the machine has other work.
    environment |= {"AMAGO_RAY_TEST_THREADS": leg["threads"], "OMP_WAIT_POLICY": "PASSIVE", "PYTHONPATH": str(tree)}
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-q",
        "-m",
        "numeric and not gpu and not cluster",
        "-p",
        "no:cacheprovider",
    ]
    done = subprocess.run(
        [*command, *arguments], cwd=tree, env={**os.environ, **environment}, capture_output=True, text=True, check=False
    )
    output = done.stdout + done.stderr
    counts = re.findall(r"\d+ (?:passed|failed|errors?)", output.strip().rpartition("\n")[2])
    return done.returncode == 0, ", ".join(counts) or "died", output


def own_capability() -> str:
    """The CPU's, as torch names it."""
    code = "import torch; print(torch.backends.cpu.get_cpu_capability().lower())"
    environment = {name: value for name, value in os.environ.items() if name != "ATEN_CPU_CAPABILITY"}
    found = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    return found.stdout.strip()


def main() -> None:
    """Run all legs, print a table, and fail if one failed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("arguments", nargs="*", help="for pytest, after --")
    arguments = parser.parse_args().arguments
    capability = own_capability()
    if capability not in CAPABILITIES:
        raise SystemExit(f"test-isa: expected a CPU of x86-64, got {capability}")
    values = settings(capability)
    legs, failed = pairwise_legs(values), 0
    widths = [max(len(name), *map(len, choices)) for name, choices in values.items()]
    print("  ".join(name.ljust(width) for name, width in zip(values, widths, strict=True)), " seconds  tests")
    with tempfile.TemporaryDirectory(prefix="amago_ray_isa_") as folder:
        trees = {processor: build(Path(folder), processor) for processor in values["kernels"]}
        for leg in legs:
            began = time.monotonic()
            passed, counts, output = run(trees[leg["kernels"]], leg, arguments)
            row = "  ".join(value.ljust(width) for value, width in zip(leg.values(), widths, strict=True))
            print(f"{row}  {time.monotonic() - began:7.0f}  {counts}", flush=True)
            if not passed:
                failed += 1
                print(output, flush=True)
    print(f"{len(legs) - failed} of {len(legs)} legs passed on {capability}")
    sys.exit(bool(failed))


if __name__ == "__main__":
    main()
