"""A device that is measured: its clock, its memory, its ceilings, and how the vendor rates it."""

from __future__ import annotations

import gc
import math
import time
from collections.abc import Callable
from dataclasses import dataclass

import torch

from measuring.summary import Summary, summarize

REPETITIONS = 3
FLOPS_OF_DATASHEET = (
    ("B200", 2250e12),
    ("H200", 989e12),
    ("H100 NVL", 835e12),
    ("H100 PCIe", 756e12),
    ("H100", 989e12),
    ("A100", 312e12),
    ("L40S", 362e12),
    ("L4", 121e12),
    ("RTX 4090", 165e12),
)
"""Dense bfloat16 operations per second by the vendor's datasheets; the first that the device's name contains counts."""


def datasheet_flops_per_s(device_name: str) -> float | None:
    """The vendor's dense bfloat16 rate of a device of that name, None where it is not listed here."""
    return next((rate for name, rate in FLOPS_OF_DATASHEET if name in device_name), None)


@dataclass(frozen=True)
class Device:
    """kind: "cuda" or "cpu"; on the latter the host's clock is read, and memory is not counted."""

    kind: str

    @property
    def is_cuda(self) -> bool:
        """Whether work on it goes on while the host does something else."""
        return self.kind == "cuda"

    @property
    def name(self) -> str:
        """What the driver calls it."""
        return torch.cuda.get_device_name() if self.is_cuda else "cpu"

    @property
    def memory_gib(self) -> float | None:
        """All memory that it has."""
        return torch.cuda.get_device_properties(0).total_memory / 2**30 if self.is_cuda else None

    def wait(self) -> None:
        """Until everything that it was given is done."""
        if self.is_cuda:
            torch.cuda.synchronize()

    def watch_memory(self) -> None:
        """Forget the highest use so far."""
        if self.is_cuda:
            torch.cuda.reset_peak_memory_stats()

    @property
    def peak_memory_gib(self) -> float | None:
        """The most that tensors took since `watch_memory`."""
        return torch.cuda.max_memory_allocated() / 2**30 if self.is_cuda else None

    def free(self) -> None:
        """Give back what no tensor uses any more."""
        gc.collect()
        if self.is_cuda:
            torch.cuda.empty_cache()

    def time_s(self, work: Callable[[], object], seconds: float, *, warm_up: int = 3, at_most: int = 10_000) -> Summary:
        """Seconds of one call: a few repetitions of many calls, together about so long, timed by the device's events.

        The host may run ahead within a repetition, as it does in a run.
        """
        for _ in range(warm_up):
            work()
        self.wait()
        began = time.perf_counter()
        work()
        self.wait()
        estimate = max(time.perf_counter() - began, 1e-6)
        calls = max(2, math.ceil(min(seconds / estimate, at_most) / REPETITIONS))
        summary = summarize([self._repetition_s(work, calls) for _ in range(REPETITIONS)])
        assert summary is not None
        return summary

    def _repetition_s(self, work: Callable[[], object], calls: int) -> float:
        if not self.is_cuda:
            began = time.perf_counter()
            for _ in range(calls):
                work()
            return (time.perf_counter() - began) / calls
        start, stop = (torch.cuda.Event(enable_timing=True) for _ in range(2))  # type: ignore[no-untyped-call]
        start.record()
        for _ in range(calls):
            work()
        stop.record()
        stop.synchronize()
        return float(start.elapsed_time(stop)) / 1e3 / calls


@dataclass(frozen=True)
class DeviceCeilings:
    """What the device was measured to do: products of large matrices of random numbers, and copies within memory."""

    bfloat16_flops_per_s: float
    float32_flops_per_s: float
    copy_bytes_per_s: float
    """Bytes read plus bytes written."""
    datasheet_flops_per_s: float | None

    def flops_per_s(self, precision: str) -> float:
        """Of "bfloat16" or "float32"."""
        return self.bfloat16_flops_per_s if precision == "bfloat16" else self.float32_flops_per_s


def measure_device(device: Device, *, size: int, seconds: float = 0.5) -> DeviceCeilings:
    """Products of `size` x `size` matrices, and copies of 64 such float32 matrices' bytes (at most 4 GiB)."""
    rates = []
    for dtype in (torch.bfloat16, torch.float32):
        left = torch.randn(size, size, device=device.kind, dtype=dtype)
        right = torch.randn_like(left)
        product = torch.empty_like(left)

        def multiply(left: torch.Tensor = left, right: torch.Tensor = right, out: torch.Tensor = product) -> None:
            torch.mm(left, right, out=out)

        rates.append(2 * size**3 / device.time_s(multiply, seconds).median)
    source = torch.randn(min(64 * size * size, 2**30), device=device.kind)
    target = torch.empty_like(source)
    copy_s = device.time_s(lambda: target.copy_(source), seconds).median
    return DeviceCeilings(rates[0], rates[1], 2 * source.nbytes / copy_s, datasheet_flops_per_s(device.name))
