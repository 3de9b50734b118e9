"""`AgentOptimizer`: AdamW over the agent's trained parameters, clipping, and the update of the target networks."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from amago_ray.agent.actor_critic import ActorCritic
from amago_ray.config.learner import LearnerConfig
from amago_ray.errors import CheckpointError

_MOMENTS = ("step", "exp_avg", "exp_avg_sq")


class AgentOptimizer:
    """One AdamW group over every trained parameter (weight decay on all of them, as in the original)."""

    def __init__(self, agent: ActorCritic, config: LearnerConfig) -> None:
        self._agent = agent
        self._parameters = agent.trained_parameters()
        self._targets, self._online = agent.target_pairs()
        self._max_grad_norm = config.max_grad_norm
        self._adamw = torch.optim.AdamW(
            self._parameters.values(), lr=config.learning_rate, weight_decay=config.weight_decay, fused=True
        )

    def zero_grad(self) -> None:
        """Forget all gradients."""
        self._adamw.zero_grad(set_to_none=True)

    def grad_norm(self) -> Tensor:
        """Global norm of the gradients of the trained parameters.

        Differs: the original's norm also holds stale gradients of a copy of the critics that nothing trains.
        """
        return torch.nn.utils.get_total_norm([p.grad for p in self._parameters.values() if p.grad is not None])

    def step(self, grad_norm: Tensor, learning_rate: float, skip: Tensor) -> None:
        """Clip, update the targets from the weights as they are, then step; `skip` (1.0 or 0.0) leaves all as it was.

        The order is the original's: targets lag one update more than they would after the step.
        """
        torch.nn.utils.clip_grads_with_norm_(self._parameters.values(), self._max_grad_norm, grad_norm, foreach=True)
        change = torch._foreach_sub(self._online, self._targets)
        torch._foreach_mul_(change, self._agent.config.tau * (1.0 - skip))
        torch._foreach_add_(self._targets, change)
        self._adamw.param_groups[0]["lr"] = learning_rate
        # The fused kernel reads these on the device, so that a skipped update needs no wait for the host.
        self._adamw.grad_scale, self._adamw.found_inf = None, skip  # type: ignore[attr-defined]
        self._adamw.step()

    def state_dict(self) -> dict[str, dict[str, Tensor]]:
        """Moments and step counts, by moment and parameter name."""
        state: dict[str, dict[str, Tensor]] = {moment: {} for moment in _MOMENTS}
        for name, parameter in self._parameters.items():
            held = self._adamw.state.get(parameter) or _fresh(parameter)
            for moment in _MOMENTS:
                state[moment][name] = held[moment].detach().clone()
        return state

    def load_state_dict(self, state: Mapping[str, Mapping[str, Tensor]]) -> None:
        """Take over what `state_dict` returned.

        Raises:
            CheckpointError: names or shapes differ from this agent's.
        """
        for moment in _MOMENTS:
            found = state.get(moment, {})
            wrong = sorted(found.keys() ^ self._parameters.keys())
            if wrong:
                raise CheckpointError(f"optimizer {moment}: expected the agent's parameters, found differing {wrong}")
            for name, parameter in self._parameters.items():
                value = found[name]
                if moment != "step" and value.shape != parameter.shape:
                    raise CheckpointError(
                        f"optimizer {moment} {name}: expected shape {list(parameter.shape)}, found {list(value.shape)}"
                    )
                held = self._adamw.state[parameter] = self._adamw.state.get(parameter) or _fresh(parameter)
                held[moment] = value.detach().to(held[moment].device, held[moment].dtype, copy=True)


def _fresh(parameter: Tensor) -> dict[str, Tensor]:
    return {
        "step": torch.zeros((), dtype=torch.float32, device=parameter.device),
        "exp_avg": torch.zeros_like(parameter, requires_grad=False),
        "exp_avg_sq": torch.zeros_like(parameter, requires_grad=False),
    }
