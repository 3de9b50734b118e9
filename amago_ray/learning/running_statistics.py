"""`RunningStatistics`: the buffers that training moves, held so that they step once per update, or not at all."""

from __future__ import annotations

import torch
from torch import Tensor

from amago_ray.agent.actor_critic import ActorCritic
from amago_ray.agent.popart import PopArt
from amago_ray.learning.batch import Counts
from amago_ray.learning.collective import Collective
from amago_ray.nets.encoders.input_norm import InputNorm
from amago_ray.nets.sequence.sigma_reparam import SigmaReparamLinear

_EQUAL_FOR_ALL = (InputNorm, PopArt, SigmaReparamLinear)
"""Their buffers are equal for all learners: two sum moments over them before use, one iterates on the weights alone."""


class RunningStatistics:
    """Moments of inputs and of targets, singular vectors: everything that a training forward writes.

    An update over several batches evaluates each of them from the same statistics (`save`, `rewind`). Moments are
    linear in those of the batch, so the weighted mean of what the batches lead to (`gather`, `step`) is what all of
    them together would have led to. So is that of several learners: built-in parts sum moments over all before use,
    and what parts of the user's own keep is averaged afterwards (`average`).
    """

    def __init__(self, agent: ActorCritic, collective: Collective) -> None:
        """collective: the learners that train this agent together."""
        self._collective = collective
        self._popart = agent.popart
        names = set(agent.state_dict()) - set(dict(agent.named_parameters()))
        self._of_tokens = [b for name, b in agent.named_buffers() if name in names and not name.startswith("popart.")]
        self._of_popart = list(agent.popart.buffers())
        self._buffers = [*self._of_tokens, *self._of_popart]
        equal = {id(b) for module in agent.modules() if isinstance(module, _EQUAL_FOR_ALL) for b in module.buffers()}
        self._unequal = [b for b in self._of_tokens if id(b) not in equal and b.is_floating_point()]
        for module in agent.modules() if collective.size > 1 else ():
            if isinstance(module, InputNorm | PopArt):
                module.sum_over_learners = collective.sum_
        self._saved = [buffer.clone() for buffer in self._buffers]
        self._gathered: list[tuple[Counts, list[Tensor]]] = []

    def save(self) -> None:
        """Remember the statistics before an update."""
        torch._foreach_copy_(self._saved, self._buffers)
        self._gathered = []

    def rewind(self) -> None:
        """Back to the statistics before the update."""
        torch._foreach_copy_(self._buffers, self._saved)

    def average(self, own: Counts, all_learners: Counts) -> None:
        """What differs between learners after their batches of these counts becomes its mean over their tokens."""
        if self._collective.size == 1 or not self._unequal:
            return
        flat = torch.cat([buffer.flatten() for buffer in self._unequal]) * (own.num_tokens / all_learners.num_tokens)
        self._collective.sum_(flat)
        parts = torch.split(flat, [buffer.numel() for buffer in self._unequal])
        torch._foreach_copy_(self._unequal, [part.view_as(b) for part, b in zip(parts, self._unequal, strict=True)])

    def gather(self, counts: Counts) -> None:
        """Note what one of several batches, with these counts over all learners, led to."""
        self._gathered.append((counts, [buffer.clone() for buffer in self._buffers]))

    def step(self) -> None:
        """Move the statistics once, by the moments of all batches gathered."""
        self.rewind()
        num_of_tokens = len(self._of_tokens)
        token_weights = [counts.num_tokens for counts, _ in self._gathered]
        for i, buffer in enumerate(self._of_tokens):
            buffer.copy_(_weighted_mean([values[i] for _, values in self._gathered], token_weights))
        weights = [counts.num_transitions for counts, _ in self._gathered]
        moved = {
            name: _weighted_mean([values[num_of_tokens + i] for _, values in self._gathered], weights)
            for i, name in enumerate(dict(self._popart.named_buffers()))
        }
        self._popart.num_updates.copy_(moved["num_updates"])
        self._popart.set_moments(moved["mean"], moved["mean_square"])

    def restore_where(self, bad: Tensor) -> None:
        """Back to the statistics before the update where `bad` is 1.0 rather than 0.0, decided on the device."""
        if bad.device.type == "cpu" and not bad:
            return
        is_bad = bad > 0
        for buffer, saved in zip(self._buffers, self._saved, strict=True):
            torch.where(is_bad, saved, buffer, out=buffer)


def _weighted_mean(values: list[Tensor], weights: list[float]) -> Tensor:
    total = torch.stack([value * weight for value, weight in zip(values, weights, strict=True)]).sum(0)
    return total / sum(weights)
