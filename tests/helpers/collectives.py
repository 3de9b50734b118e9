"""Learners that train together as threads of this process."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import torch
from torch import Tensor

from amago_ray.learning.collective import Collective, CollectiveError

Result = TypeVar("Result")


class _Table:
    def __init__(self, size: int) -> None:
        self.barrier = threading.Barrier(size, timeout=60)
        self.tensors: list[Tensor | None] = [None] * size


class ThreadMember:
    """Sums in the order of ranks, so that all hold the same bits."""

    def __init__(self, rank: int, size: int, table: _Table) -> None:
        self.rank, self.size = rank, size
        self.num_sums = 0
        self._table = table

    def sum_(self, tensor: Tensor) -> None:
        self.num_sums += 1
        self._table.tensors[self.rank] = tensor.detach().clone()
        try:
            self._table.barrier.wait()
            total = torch.stack(self._table.tensors).sum(0)
            self._table.barrier.wait()
        except threading.BrokenBarrierError as error:
            raise CollectiveError("another learner is gone") from error
        with torch.no_grad():
            tensor.copy_(total)


def together(size: int, work: Callable[[Collective], Result]) -> list[Result]:
    """What each of `size` learners makes of `work`, by rank; the first error of one that was not merely left alone."""
    table = _Table(size)

    def run(rank: int) -> Result:
        try:
            return work(ThreadMember(rank, size, table))
        except BaseException:
            table.barrier.abort()
            raise

    with ThreadPoolExecutor(size) as pool:
        futures = [pool.submit(run, rank) for rank in range(size)]
    errors = [error for future in futures if (error := future.exception()) is not None]
    for error in sorted(errors, key=lambda error: isinstance(error, CollectiveError)):
        raise error
    return [future.result() for future in futures]
