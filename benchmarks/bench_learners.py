"""Two learners that train together, beside one with a batch of twice the size; and what more of them would gain.

    python benchmarks/bench_learners.py --out two_learners.json

All sides stay set up and take turns. "apart" is the two learners' processes at the same time without any sum between
them: what they lose by sharing the machine. What "together" loses more is the sums, waiting for each other included.
The prediction for GPUs puts the sums that an update really makes on links of assumed speed.
"""

from __future__ import annotations

import argparse
import itertools
import json
import multiprocessing
import statistics
import time
from collections.abc import Sequence
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np
import torch
from bench_learner import make_batch, make_config, make_spec
from measuring.floors import NetworkSize
from measuring.links import Link, UpdateSums
from measuring.load import LoadWindow
from measuring.machine import commit, hardware, now, versions
from measuring.works import relabeled_batches
from torch import Tensor

from amago_ray.learning.batch import Counts
from amago_ray.learning.learner import Learner
from amago_ray.learning.process_group import ProcessGroup, Rendezvous

ADDRESS = "127.0.0.1"
SIZES = {"128 x 3": NetworkSize(19, 128, 256, 128, 3), "768 x 12": NetworkSize(19, 512, 768, 768, 12)}
LINKS = (
    # What NCCL's own tests show for large and for small sums on such hardware, rounded down.
    Link("NVLink, H100", 300e9, 30e-6),
    Link("PCIe 4", 18e9, 40e-6),
    Link("100 Gbit Ethernet", 9e9, 80e-6),
)
GPU_FLOPS_PER_S = 990e12
"""Peak of an H100 in bfloat16."""
GPU_SHARES = {"128 x 3": 0.05, "768 x 12": 0.4}
"""Of the peak, what an update is assumed to reach: small kernels are far from it."""
LEAST_UPDATE_S = 0.01
"""What launching an update's kernels is assumed to take at least."""
NUM_LEARNERS = (1, 2, 4, 8)


class MeasuredGroup:
    """A collective that notes its sums."""

    def __init__(self, group: ProcessGroup) -> None:
        self._group = group
        self.rank, self.size = group.rank, group.size
        self.sums: list[tuple[int, float]] = []
        """Bytes and seconds of each."""

    def sum_(self, tensor: Tensor) -> None:
        """See `Collective`."""
        began = time.perf_counter()
        self._group.sum_(tensor)
        self.sums.append((tensor.numel() * tensor.element_size(), time.perf_counter() - began))


def serve(pipe: Connection, args: argparse.Namespace, rank: int, size: int, threads: int, repeats: int) -> None:
    """A process with a learner; for each number that comes, so many updates, and what they took.

    repeats: how often the batch's sequences come, in one batch.
    """
    torch.set_num_threads(threads)
    group = None
    if size > 1:
        rendezvous = Rendezvous(ADDRESS, size, port=pipe.recv() if rank else None)
        if rank == 0:
            pipe.send(rendezvous.port)
        cpu = torch.device("cpu")
        group = MeasuredGroup(
            ProcessGroup(rendezvous, rank=rank, size=size, address=ADDRESS, device=cpu, shares_device=False)
        )
    spec = make_spec(args.length, False)
    learner = Learner(make_config(args), spec, device="cpu", collective=group)
    lengths: Sequence[Sequence[int]] = [[args.length] * args.batch_size]
    if args.mean_share < 1:
        lengths = relabeled_batches(args.batch_size, args.length, args.mean_share)
    rng = np.random.default_rng(rank)
    # Each learner begins with another batch.
    shift = rank * len(lengths) // max(size, 1)
    order = [*lengths[shift:], *lengths[:shift]]
    batches = [make_batch(spec, [*order[i], *(order[i - 1] if repeats == 2 else [])], rng) for i in range(len(order))]
    pipe.send("ready")
    done = 0
    while number := pipe.recv():
        noted = len(group.sums) if group else 0
        began = time.perf_counter()
        for _ in range(number):
            batch = batches[done % len(batches)]
            counts = learner.agree(batch, is_over=False).counts
            assert isinstance(counts, Counts)
            learner.step(batch, counts)
            done += 1
        seconds = time.perf_counter() - began
        pipe.send((seconds / number, group.sums[noted:] if group else [], learner.fingerprint()))
    parameters = sum(p.numel() for p in learner.agent.trained_parameters().values())
    pipe.send(parameters)


class Side:
    """Processes that update at the same time."""

    def __init__(self, args: argparse.Namespace, *, number: int, is_group: bool, threads: int, repeats: int) -> None:
        context = multiprocessing.get_context("spawn")
        self.pipes, self.processes = [], []
        port = None
        for rank in range(number):
            ours, theirs = context.Pipe()
            given = (rank, number) if is_group else (0, 1)
            process = context.Process(target=serve, args=(theirs, args, *given, threads, repeats), daemon=True)
            process.start()
            if is_group and rank == 0:
                port = ours.recv()
            elif is_group:
                ours.send(port)
            self.pipes.append(ours)
            self.processes.append(process)
        for pipe in self.pipes:
            assert pipe.recv() == "ready"

    def update_s(self, number: int) -> list[Any]:
        """Of each process: seconds per update, its sums, and the fingerprint of its state."""
        for pipe in self.pipes:
            pipe.send(number)
        return [pipe.recv() for pipe in self.pipes]

    def close(self) -> int:
        """End the processes; the number of trained parameters."""
        for pipe in self.pipes:
            pipe.send(0)
        numbers = [pipe.recv() for pipe in self.pipes]
        return int(numbers[0])


def predicted(args: argparse.Namespace, sums: UpdateSums, parameters: int) -> list[dict[str, Any]]:
    """Gains on GPUs: for each size of network, batch of each learner and link, by number of learners."""
    rows = []
    base = SIZES["128 x 3"]
    for name, size in SIZES.items():
        # Moments stay as they are; gradients grow with the trunk.
        grown = parameters + (size.trunk_macs - base.trunk_macs)
        device_bytes = tuple(4 * grown if each == max(sums.device_bytes) else each for each in sums.device_bytes)
        of_size = UpdateSums(device_bytes, sums.host_s)
        for batch_size, link in itertools.product((args.batch_size, 8 * args.batch_size), LINKS):
            work_s = size.update_flops([args.length] * batch_size) / (GPU_SHARES[name] * GPU_FLOPS_PER_S)
            update_s = max(work_s, LEAST_UPDATE_S)
            rows.append(
                {
                    "network": name,
                    "batch_size": batch_size,
                    "link": link.name,
                    "assumed_update_ms": 1e3 * update_s,
                    "megabytes": sum(device_bytes) / 1e6,
                    "gain_by_learners": {str(n): round(of_size.gain(n, update_s, link), 2) for n in NUM_LEARNERS},
                }
            )
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    parser.add_argument("--batch-size", type=int, default=24, help="sequences per batch of each learner")
    parser.add_argument("--length", type=int, default=250, help="transitions per sequence")
    parser.add_argument("--mean-share", type=float, default=1.0, help="below 1: lengths vary, with this mean share")
    parser.add_argument("--updates", type=int, default=3, help="in each turn")
    parser.add_argument("--turns", type=int, default=5)
    parser.add_argument("--out", type=Path, help="write the result as JSON")
    args = parser.parse_args()
    fixed = {"width": 128, "layers": 3, "encoder_width": 128, "encoder_output": 256, "dropout": 0.05}
    args = argparse.Namespace(
        **vars(args), **fixed, attention="auto", agent="actor_critic", compile=False, precision="float32"
    )

    sides = {
        "one": Side(args, number=1, is_group=False, threads=1, repeats=1),
        "doubled": Side(args, number=1, is_group=False, threads=1, repeats=2),
        "doubled, 2 threads": Side(args, number=1, is_group=False, threads=2, repeats=2),
        "apart": Side(args, number=2, is_group=False, threads=1, repeats=1),
        "together": Side(args, number=2, is_group=True, threads=1, repeats=1),
    }
    pids = [process.pid for side in sides.values() for process in side.processes]
    times: dict[str, list[float]] = {name: [] for name in sides}
    sums: list[list[tuple[int, float]]] = []
    for side in sides.values():
        side.update_s(2)
    with LoadWindow(pids) as window:
        for _ in range(args.turns):
            for name, side in sides.items():
                answers = side.update_s(args.updates)
                # Of processes at the same time, the slower one.
                times[name].append(max(seconds for seconds, _, _ in answers))
                if name == "together":
                    sums.append(answers[0][1])
                    assert answers[0][2] == answers[1][2], "learners that train together hold the same bits"
    (parameters,) = {side.close() for side in sides.values()}

    per_update = len(sums[0]) // args.updates
    sizes = [size for size, _ in sums[0][:per_update]]
    medians = {
        size: statistics.median(s for turn in sums for each, s in turn if each == size) for size in sorted(set(sizes))
    }
    host = UpdateSums(tuple(float(size) for size in sizes if size != min(sizes)), min(medians.values()))
    update_ms = {name: 1e3 * statistics.median(found) for name, found in times.items()}
    result = {
        "time": now(),
        "commit": commit(Path(__file__).parents[1]),
        "hardware": hardware(),
        "versions": versions(["torch", "numpy"]),
        "arguments": {name: value for name, value in vars(args).items() if name != "out"},
        "load": vars(window.load),
        "parameters": parameters,
        "update_ms": update_ms,
        "all_update_ms": {name: [1e3 * each for each in found] for name, found in times.items()},
        "sums_per_update": per_update,
        "sum_bytes": sizes,
        "sum_ms_by_bytes": {str(size): 1e3 * seconds for size, seconds in medians.items()},
        "overhead_of_sums": update_ms["together"] / update_ms["apart"] - 1,
        "overhead_of_sums_in_the_fastest_turns": min(times["together"]) / min(times["apart"]) - 1,
        "gain_over_doubled_on_one_core": update_ms["doubled"] / update_ms["together"],
        "gain_over_doubled_on_two_threads": update_ms["doubled, 2 threads"] / update_ms["together"],
        "predicted_on_gpus": predicted(args, host, parameters),
    }
    print(json.dumps(result, indent=1))
    if args.out:
        args.out.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
