"""Time for weights to travel: learner to control actor, and control actor to M readers on one node.

Real actors of an embedded Ray. The readers check that what they get are views of shared memory, not copies.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from pathlib import Path
from typing import Any

import numpy as np
import ray

from amago_ray.config.load import load_config
from amago_ray.data.episode import PolicyVersion
from amago_ray.data.snapshot import Snapshot
from amago_ray.runtime.cluster.ray_connection import NAMESPACE
from amago_ray.runtime.control.control_actor import ControlActor
from amago_ray.runtime.protocol.actors import get, start_actor
from amago_ray.runtime.protocol.ledger import LedgerState
from amago_ray.runtime.protocol.messages import ControlState


class Reader:
    """An actor that takes snapshots as env runners do."""

    def read(self, references: list[Any]) -> tuple[float, bool]:
        """Seconds until the snapshot is here, and whether its arrays are read-only views of shared memory."""
        began = time.perf_counter()
        snapshot = get(references[0])
        elapsed = time.perf_counter() - began
        return elapsed, not any(array.flags.writeable for array in snapshot.arrays.values())


def main() -> None:
    """Measure and print a table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--parameters", type=int, default=5_000_000)
    parser.add_argument("--readers", type=int, nargs="+", default=[1, 4, 16])
    parser.add_argument("--repeats", type=int, default=10)
    parser.add_argument("--out", type=Path, help="write the result as JSON")
    arguments = parser.parse_args()

    ray.init(
        address="local",
        num_cpus=1,
        include_dashboard=False,
        namespace=NAMESPACE,
        log_to_driver=False,
        logging_level="ERROR",
    )
    config = load_config("quickstart")
    control = start_actor(ControlActor, config, num_cpus=0)
    get(control.fill.remote(ControlState(LedgerState())))
    layers = 20
    arrays = {
        f"layer_{i}": np.random.default_rng(i).random(arguments.parameters // layers, np.float32) for i in range(layers)
    }
    rows = []
    version = 0
    for num_readers in arguments.readers:
        readers = [start_actor(Reader, num_cpus=0) for _ in range(num_readers)]
        pushes, slowest, alone, views = [], [], [], True
        for _ in range(arguments.repeats):
            version += 1
            began = time.perf_counter()
            get(control.push_weights.remote(Snapshot(PolicyVersion(0, version), arrays)))
            pushes.append(time.perf_counter() - began)
            reference = get(control.weights.remote())
            began = time.perf_counter()
            answers = get([reader.read.remote(reference) for reader in readers])
            slowest.append(time.perf_counter() - began)
            alone.extend(answer[0] for answer in answers)
            views = views and all(answer[1] for answer in answers)
        for reader in readers:
            ray.kill(reader)
        rows.append(
            {
                "readers": num_readers,
                "megabytes": 4 * arguments.parameters / 1e6,
                "push_ms": 1e3 * statistics.median(pushes),
                "all_read_ms": 1e3 * statistics.median(slowest),
                "one_read_ms": 1e3 * statistics.median(alone),
                "views": views,
            }
        )
        print(
            "  ".join(
                f"{name} {value:.2f}" if isinstance(value, float) else f"{name} {value}"
                for name, value in rows[-1].items()
            )
        )
    ray.shutdown()
    if arguments.out:
        arguments.out.write_text(json.dumps({"arguments": {**vars(arguments), "out": None}, "rows": rows}, indent=1))


if __name__ == "__main__":
    main()
