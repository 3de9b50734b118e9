"""A learner's first update, and what float64 makes of it."""

from __future__ import annotations

import torch
from helpers.numeric import as_float64, float64
from torch import Tensor

from amago_ray.agent.draws import Draws
from amago_ray.config import Config
from amago_ray.data.sequence_batch import SequenceBatch
from amago_ray.learning.batch import to_device_batch
from amago_ray.learning.gradients import accumulate_gradients
from amago_ray.learning.learner import Learner


def first_moments(learner: Learner, batches: list[SequenceBatch]) -> dict[str, Tensor]:
    """AdamW's after an update: its first step is close to the gradient's sign, the moments show its size."""
    for batch in batches:
        learner.step(batch)
    moments: dict[str, Tensor] = learner.state_dict()["optimizer"]["exp_avg"]
    return moments


def exact_first_moments(learner: Learner, config: Config, batch: SequenceBatch) -> dict[str, Tensor]:
    """The same of a fresh learner with one critic and without running statistics, straight from the definitions."""
    assert config.agent.num_critics == 1
    with float64():
        exact, device_batch = as_float64(learner.agent), to_device_batch(as_float64(batch), torch.device("cpu"))
        shape = (len(device_batch.transitions), config.agent.num_critics_in_target, len(config.agent.discounts))
        given = as_float64(learner.objective), config.agent, device_batch, Draws(torch.zeros(shape, dtype=torch.int64))
        accumulate_gradients(exact, *given, num_transitions=device_batch.num_transitions)
        gradients = {name: parameter.grad for name, parameter in exact.trained_parameters().items()}
        norm = torch.stack([gradient.square().sum() for gradient in gradients.values()]).sum().sqrt()
        clip = torch.clamp(config.learner.max_grad_norm / (norm + 1e-6), max=1.0)
    return {name: (1 - 0.9) * clip * gradient for name, gradient in gradients.items()}
