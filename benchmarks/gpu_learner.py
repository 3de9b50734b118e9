"""What a GPU makes of the learner and of acting: throughput, memory, attention, compiling, loading, the original.

    python benchmarks/gpu_learner.py --suite throughput attention
    python benchmarks/gpu_learner.py --device cpu --tiny       # whether it runs: figures of it mean nothing

Needs PyTorch and NumPy, neither Ray nor Gymnasium. Each suite is a list of cases; one that runs out of memory, fails or
cannot be run here is a row that says so, and what the time does not suffice for is left out and said. The files,
<date>_gpu_<device>.json and .md, are written anew after every suite.
"""

from __future__ import annotations

import argparse
import os
import re
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

# Beside the scripts lies the package, which need not be installed; the suite `original` starts processes.
HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parent))
os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, [str(HERE.parent), os.environ.get("PYTHONPATH")]))

import torch  # noqa: E402
from gpu_suites import acting, attention, loading, original, updates  # noqa: E402
from gpu_suites.setting import Peer, Setting  # noqa: E402
from measuring import machine  # noqa: E402
from measuring.device import Device, measure_device  # noqa: E402
from measuring.rows import Case, measure_all, table, write  # noqa: E402

SUITES: dict[str, tuple[str, Callable[[Setting], Iterator[Case]]]] = {
    "throughput": (updates.ABOUT, updates.throughput_cases),
    "attention": (attention.ABOUT, attention.cases),
    "loading": (loading.ABOUT, loading.cases),
    "acting": (acting.ABOUT, acting.cases),
    "compile": (updates.ABOUT_COMPILE, updates.compile_cases),
    "original": (original.ABOUT, original.cases),
}


def main() -> None:
    """Measure, print and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--suite", nargs="+", choices=list(SUITES), default=list(SUITES))
    parser.add_argument("--device", choices=["cuda", "cpu"], default="cuda")
    parser.add_argument("--tiny", action="store_true", help="sizes for trying out; nothing is written without --out")
    parser.add_argument("--seconds", type=float, default=2.0, help="of a case's timing, about")
    parser.add_argument("--budget-s", type=float, default=240.0, help="of a suite; no case is begun after it")
    parser.add_argument("--peer", type=Path, help="a checkout of the original, for --suite original")
    parser.add_argument("--peer-python", type=Path, help="the Python that can import it")
    parser.add_argument("--commit", help="what to name as the commit where the folder is no git checkout")
    parser.add_argument("--out", type=Path, help="folder of the results (benchmarks/results)")
    options = parser.parse_args()
    if options.device == "cuda" and not torch.cuda.is_available():
        parser.error("--device: expected a CUDA GPU, got none (--device cpu --tiny tries the script out)")
    if (options.peer is None) != (options.peer_python is None):
        parser.error("--peer and --peer-python: expected both or neither")
    out = options.out or (None if options.tiny else HERE / "results")

    device = Device(options.device)
    peer = None if options.peer is None else Peer(options.peer, options.peer_python)
    seconds = 0.01 if options.tiny else options.seconds
    ceilings = measure_device(device, size=128 if options.tiny else 8192, seconds=min(seconds, 0.5))
    setting = Setting(device, ceilings, seconds, options.tiny, peer)
    result: dict[str, Any] = {
        "device": device.name,
        "device_memory_gib": device.memory_gib,
        "hardware": machine.hardware(),
        "versions": {**machine.versions(["numpy", "triton", "flash_attn"]), "torch": torch.__version__},
        "cuda": torch.version.cuda,
        "commit": options.commit or machine.commit(HERE),
        "began": machine.now(),
        "ceilings": asdict(ceilings),
        "suites": {},
    }
    slug = re.sub(r"[^a-z0-9]+", "_", device.name.lower()).strip("_")
    for name in options.suite:
        about, cases = SUITES[name]
        print(f"## {name}", file=sys.stderr, flush=True)
        began, rows = time.monotonic(), []
        for row in measure_all(cases(setting), device, began + options.budget_s):
            print(row, file=sys.stderr, flush=True)
            rows.append(row)
        result["suites"][name] = {"about": about, "elapsed_s": time.monotonic() - began, "rows": rows}
        print("\n".join([f"## {name}", *table(rows), ""]), flush=True)
        if out is not None:
            write(out / f"{result['began'][:10]}_gpu_{slug}", result)


if __name__ == "__main__":
    main()
