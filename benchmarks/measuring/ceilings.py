"""The machine's ceilings, measured with as many threads as torch has here."""

from __future__ import annotations

import time
from collections.abc import Callable

import torch

from measuring.floors import Ceilings


def measure_ceilings(working_set_bytes: float, seconds: float = 0.5, precision: str = "float32") -> Ceilings:
    """Rates of a large product in that precision and of reading memory of that size over and over."""
    dtype = getattr(torch, precision)
    left, right = torch.randn(6000, 256, dtype=dtype), torch.randn(256, 512, dtype=dtype)
    product = torch.empty(6000, 512, dtype=dtype)
    half = torch.ones(max(1, int(working_set_bytes) // 8))
    other = torch.ones_like(half)
    with torch.inference_mode():
        product_s = _best(lambda: torch.mm(left, right, out=product), seconds / 2)
        read_s = _best(lambda: torch.dot(half, other), seconds / 2)
    return Ceilings(2 * 6000 * 256 * 512 / product_s, 2 * half.nbytes / read_s)


def _best(work: Callable[[], object], seconds: float) -> float:
    work()
    times, until = [], time.perf_counter() + seconds
    while len(times) < 5 or time.perf_counter() < until:
        began = time.perf_counter()
        work()
        times.append(time.perf_counter() - began)
    return min(times)
