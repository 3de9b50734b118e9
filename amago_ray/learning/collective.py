"""`Collective`: learners that train one agent together, and the sums over them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol

import torch
from torch import Tensor

from amago_ray.errors import TrainingError


class CollectiveError(TrainingError):
    """The learners have lost one of them."""


class Collective(Protocol):
    """`size` learners, of which this process is number `rank`. All of them make the same calls in the same order."""

    @property
    def rank(self) -> int:
        """From 0."""
        ...

    @property
    def size(self) -> int:
        """How many learners."""
        ...

    def sum_(self, tensor: Tensor) -> None:
        """Replace `tensor` by its sum over all learners, which is the same for each of them, bit for bit.

        Raises:
            CollectiveError: another learner is gone, or did not come in time.
        """
        ...


class Alone:
    """The collective of one learner: there is nothing to do."""

    rank = 0
    size = 1

    def sum_(self, tensor: Tensor) -> None:
        """See `Collective`."""


def sum_scalars(collective: Collective, values: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Scalars on one device, summed over all learners by name; one sum for all."""
    if collective.size == 1 or not values:
        return dict(values)
    sums = torch.stack([value.detach().float() for value in values.values()])
    collective.sum_(sums)
    return dict(zip(values, sums.unbind(), strict=True))


def sum_gradients(collective: Collective, parameters: Sequence[Tensor], scalars: Sequence[Tensor]) -> list[Tensor]:
    """Replace the parameters' gradients by their sums over all learners; returns the sums of `scalars`.

    One flat sum for all. A parameter that the loss reached for no learner keeps no gradient, one that it reached
    for some has it for all.
    """
    if collective.size == 1:
        return list(scalars)
    with torch.no_grad():
        is_reached = torch.tensor([float(p.grad is not None) for p in parameters])
        reached_everywhere_here = bool(is_reached.all())
        grads = [torch.zeros_like(p) if p.grad is None else p.grad for p in parameters]
        flat = torch.cat([*(grad.flatten() for grad in grads), torch.stack(list(scalars)), is_reached.to(grads[0])])
        collective.sum_(flat)
        sizes = [*(grad.numel() for grad in grads), len(scalars), len(parameters)]
        *summed, scalar_sums, num_reached = torch.split(flat, sizes)
        torch._foreach_copy_(grads, [part.view_as(grad) for part, grad in zip(summed, grads, strict=True)])
        # Only who misses a gradient waits for the device, to see whether others have it.
        found = [1.0] * len(parameters) if reached_everywhere_here else num_reached.tolist()
        for parameter, grad, number in zip(parameters, grads, found, strict=True):
            parameter.grad = grad if number else None
        return list(scalar_sums.unbind())
