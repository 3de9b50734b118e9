"""`ActorCritic`: all networks of the agent, assembled."""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from amago_ray.agent.popart import PopArt
from amago_ray.config.agent import AgentConfig
from amago_ray.nets.contracts import SequenceModel, TimestepEncoder
from amago_ray.nets.heads import Critics, PolicyHead, StateCritics
from amago_ray.nets.layout import SequenceLayout
from amago_ray.nets.tokens import TokenColumns

if TYPE_CHECKING:
    from jaxtyping import Float

ACTING_PREFIXES = ("timestep_encoder.", "sequence_model.", "policy_head.")
"""Names of the weights that acting needs."""

TARGET_NETWORKS = {"policy_head": "target_policy_head", "critics": "target_critics"}
"""Trained networks that have a slow copy, and its name."""


class ActorCritic(nn.Module):
    """Encoder, sequence model, heads, their targets, PopArt.

    Target networks exist for the heads only; they read the online states without gradient.
    """

    discounts: Float[Tensor, " G"]

    def __init__(
        self,
        config: AgentConfig,
        *,
        timestep_encoder: TimestepEncoder,
        sequence_model: SequenceModel,
        policy_head: PolicyHead,
        critics: Critics,
    ) -> None:
        super().__init__()
        self.timestep_encoder = timestep_encoder
        self.sequence_model = sequence_model
        self.policy_head = policy_head
        self.critics = critics
        self.target_policy_head = copy.deepcopy(policy_head).requires_grad_(False)
        self.target_critics = copy.deepcopy(critics).requires_grad_(False)
        self.popart = PopArt(len(config.discounts), enabled=config.popart)
        self.register_buffer("discounts", torch.tensor(config.discounts, dtype=torch.float32), persistent=False)

    def states(
        self, tokens: TokenColumns, layout: SequenceLayout, weight: Float[Tensor, " N"] | None = None
    ) -> Float[Tensor, "N D"]:
        """The sequence model's outputs; `weight` says which tokens count in running statistics."""
        embedding = self.timestep_encoder(tokens, weight)
        states: Tensor = self.sequence_model(embedding, tokens.time_index, layout)
        return states.float()

    def trained_parameters(self) -> dict[str, nn.Parameter]:
        """Parameters that the optimizer owns, by name."""
        return {name: parameter for name, parameter in self.named_parameters() if parameter.requires_grad}

    def target_pairs(self) -> tuple[list[Tensor], list[Tensor]]:
        """Target parameters and, in the same order, the online parameters that they follow."""
        targets: list[Tensor] = []
        online: list[Tensor] = []
        for name, target_name in TARGET_NETWORKS.items():
            online.extend(parameter.detach() for parameter in self.get_submodule(name).parameters())
            targets.extend(self.get_submodule(target_name).parameters())
        return targets, online

    def critic_inputs_per_row(self, num_samples: int) -> int:
        """Inputs of each critic per transition: one, or one per discount and action sample."""
        return 1 if isinstance(self.critics, StateCritics) else len(self.discounts) * num_samples

    def acting_state(self) -> dict[str, Tensor]:
        """The weights and statistics that acting needs, by name."""
        return {name: value for name, value in self.state_dict().items() if name.startswith(ACTING_PREFIXES)}
