"""`RunningStatistics`: the buffers that training moves, held so that they step once per update, or not at all."""

from __future__ import annotations

import torch
from torch import Tensor

from amago_ray.agent.actor_critic import ActorCritic
from amago_ray.learning.batch import DeviceBatch


class RunningStatistics:
    """Moments of inputs and of targets, singular vectors: everything that a training forward writes.

    An update over several batches evaluates each of them from the same statistics (`save`, `rewind`). Moments are
    linear in those of the batch, so the weighted mean of what the batches lead to (`gather`, `step`) is what all of
    them together would have led to.
    """

    def __init__(self, agent: ActorCritic) -> None:
        self._popart = agent.popart
        names = set(agent.state_dict()) - set(dict(agent.named_parameters()))
        self._of_tokens = [b for name, b in agent.named_buffers() if name in names and not name.startswith("popart.")]
        self._of_popart = list(agent.popart.buffers())
        self._buffers = [*self._of_tokens, *self._of_popart]
        self._saved = [buffer.clone() for buffer in self._buffers]
        self._gathered: list[tuple[float, float, list[Tensor]]] = []

    def save(self) -> None:
        """Remember the statistics before an update."""
        torch._foreach_copy_(self._saved, self._buffers)
        self._gathered = []

    def rewind(self) -> None:
        """Back to the statistics before the update."""
        torch._foreach_copy_(self._buffers, self._saved)

    def gather(self, batch: DeviceBatch) -> None:
        """Note what one of several batches led to."""
        num_tokens = float(batch.num_tokens) if batch.token_weight is None else float(batch.token_weight.sum())
        self._gathered.append((num_tokens, batch.num_transitions, [buffer.clone() for buffer in self._buffers]))

    def step(self) -> None:
        """Move the statistics once, by the moments of all batches gathered."""
        self.rewind()
        num_of_tokens = len(self._of_tokens)
        token_weights = [tokens for tokens, _, _ in self._gathered]
        for i, buffer in enumerate(self._of_tokens):
            buffer.copy_(_weighted_mean([values[i] for _, _, values in self._gathered], token_weights))
        weights = [transitions for _, transitions, _ in self._gathered]
        moved = {
            name: _weighted_mean([values[num_of_tokens + i] for _, _, values in self._gathered], weights)
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
