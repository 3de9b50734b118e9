"""`AgentOptimizer`: AdamW over the agent's trained parameters, clipping, and the update of the target networks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from amago_ray.agent.actor_critic import ActorCritic
from amago_ray.config.learner import LearnerConfig
from amago_ray.errors import CheckpointError

BETAS = (0.9, 0.999)
EPSILON = 1e-8
_CLIP_EPSILON = 1e-6
"""Added to the norm that gradients are divided by, as in `torch.nn.utils.clip_grad_norm_`."""


class AgentOptimizer:
    """AdamW over every trained parameter; weight decay hits all of them, as in the original.

    It calls PyTorch's fused kernel itself: `torch.optim.AdamW` imports the compiler (seconds, a hundred megabytes),
    and here clipping and skipping happen inside the kernel, on the device.
    Source: docs/algorithm.md §9; Loshchilov & Hutter 2019 (arXiv 1711.05101), algorithm 2.
    """

    def __init__(self, agent: ActorCritic, config: LearnerConfig, tau: float) -> None:
        """`tau`: step size of the target networks."""
        self._tau = tau
        self._names = list(agent.trained_parameters())
        self._parameters: list[Tensor] = list(agent.trained_parameters().values())
        self._targets, self._online = agent.target_pairs()
        self._max_grad_norm = config.max_grad_norm
        self._weight_decay = config.weight_decay
        self._num_steps = torch.zeros((), dtype=torch.float32, device=self._parameters[0].device)
        self._exp_avg = [torch.zeros_like(p, requires_grad=False) for p in self._parameters]
        self._exp_avg_sq = [torch.zeros_like(p, requires_grad=False) for p in self._parameters]

    @property
    def parameters(self) -> Sequence[Tensor]:
        """All trained parameters."""
        return self._parameters

    def zero_grad(self) -> None:
        """Forget all gradients."""
        for parameter in self._parameters:
            parameter.grad = None

    def grad_norm(self) -> Tensor:
        """Global norm of the gradients of the trained parameters.

        Differs: the original's norm also holds stale gradients of a copy of the critics that nothing trains.
        """
        norm: Tensor = torch.linalg.vector_norm(torch.stack(torch._foreach_norm(self._reached()[1])))
        return norm

    @torch.no_grad()
    def step(self, grad_norm: Tensor, learning_rate: float, skip: Tensor) -> None:
        """Update the targets from the weights as they are, then step on gradients clipped as of `grad_norm`.

        The order is the original's: targets lag one update more than they would after the step. `skip` is a float32
        scalar on the device; where it is 1.0 rather than 0.0, weights, targets and moments stay as they are.
        """
        tau = self._tau * (1.0 - skip)
        torch._foreach_lerp_(self._targets, self._online, [tau] * len(self._targets))
        self._num_steps += 1.0 - skip
        parameters, grads, exp_avgs, exp_avg_sqs = self._reached()
        torch._fused_adamw_(
            parameters,
            grads,
            exp_avgs,
            exp_avg_sqs,
            [],
            [self._num_steps] * len(parameters),
            lr=learning_rate,
            beta1=BETAS[0],
            beta2=BETAS[1],
            weight_decay=self._weight_decay,
            eps=EPSILON,
            amsgrad=False,
            maximize=False,
            grad_scale=((grad_norm + _CLIP_EPSILON) / self._max_grad_norm).clamp_min(1.0),
            found_inf=skip,
        )

    def state_dict(self) -> dict[str, dict[str, Tensor]]:
        """Moments by parameter name, and the number of steps."""
        return {
            "exp_avg": {name: value.clone() for name, value in zip(self._names, self._exp_avg, strict=True)},
            "exp_avg_sq": {name: value.clone() for name, value in zip(self._names, self._exp_avg_sq, strict=True)},
            "step": {"num_steps": self._num_steps.clone()},
        }

    @torch.no_grad()
    def load_state_dict(self, state: Mapping[str, Mapping[str, Tensor]]) -> None:
        """Take over what `state_dict` returned.

        Raises:
            CheckpointError: names or shapes differ from this agent's.
        """
        held = {"exp_avg": self._exp_avg, "exp_avg_sq": self._exp_avg_sq}
        for moment, values in held.items():
            found = state.get(moment, {})
            wrong = sorted(found.keys() ^ set(self._names))
            if wrong:
                raise CheckpointError(f"optimizer {moment}: expected the agent's parameters, differing are {wrong}")
            for name, value in zip(self._names, values, strict=True):
                if found[name].shape != value.shape:
                    expected, shape = list(value.shape), list(found[name].shape)
                    raise CheckpointError(f"optimizer {moment} {name}: expected shape {expected}, got {shape}")
                value.copy_(found[name])
        self._num_steps.copy_(state["step"]["num_steps"])

    def _reached(self) -> tuple[list[Tensor], list[Tensor], list[Tensor], list[Tensor]]:
        """Parameters that the loss reached, their gradients and moments; the others stay as they are."""
        columns = zip(self._parameters, self._exp_avg, self._exp_avg_sq, strict=True)
        rows = [(p, p.grad, first, second) for p, first, second in columns if p.grad is not None]
        parameters, grads, exp_avgs, exp_avg_sqs = zip(*rows, strict=True)
        return list(parameters), list(grads), list(exp_avgs), list(exp_avg_sqs)
