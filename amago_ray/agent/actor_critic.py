"""`ActorCritic`: all networks of the agent, assembled."""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn

from amago_ray.agent.popart import PopArt
from amago_ray.agent.value_bins import ValueBins
from amago_ray.config import Config
from amago_ray.config.agent import AgentConfig
from amago_ray.data.specs import EnvSpec
from amago_ray.errors import SpaceError
from amago_ray.nets.contracts import SequenceModel, TimestepEncoder
from amago_ray.nets.distributions import PolicyDistribution, make_distribution
from amago_ray.nets.encoders.make import build_timestep_encoder
from amago_ray.nets.heads import PolicyHead, StateActionCritics, StateCritics
from amago_ray.nets.layout import SequenceLayout
from amago_ray.nets.sequence.make import build_sequence_model
from amago_ray.nets.tokens import TokenColumns

ACTING_PREFIXES = ("timestep_encoder.", "sequence_model.", "policy_head.")
"""Names of the weights that acting needs."""

TARGET_NETWORKS = {"policy_head": "target_policy_head", "critics": "target_critics"}
"""Trained networks that have a slow copy, and its name."""


class ActorCritic(nn.Module):
    """Encoder, sequence model, heads, their targets, PopArt.

    Target networks exist for the heads only; they read the online states without gradient.
    """

    discounts: Tensor

    def __init__(
        self,
        config: AgentConfig,
        distribution: PolicyDistribution,
        *,
        timestep_encoder: TimestepEncoder,
        sequence_model: SequenceModel,
        policy_head: PolicyHead,
        critics: StateCritics | StateActionCritics,
    ) -> None:
        super().__init__()
        self.config = config
        self.distribution = distribution
        self.timestep_encoder = timestep_encoder
        self.sequence_model = sequence_model
        self.policy_head = policy_head
        self.critics = critics
        self.target_policy_head = copy.deepcopy(policy_head).requires_grad_(False)
        self.target_critics = copy.deepcopy(critics).requires_grad_(False)
        self.popart = PopArt(len(config.discounts), enabled=config.popart)
        self.value_bins = ValueBins(config.num_bins, config.min_return, config.max_return, config.labels)
        self.register_buffer("discounts", torch.tensor(config.discounts, dtype=torch.float32), persistent=False)

    def states(self, tokens: TokenColumns, layout: SequenceLayout, weight: Tensor | None = None) -> Tensor:
        """The sequence model's outputs `[N, D]`; `weight [N]` says which tokens count in running statistics."""
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

    @property
    def critic_inputs_per_row(self) -> int:
        """Inputs of each critic per transition: one, or one per discount and action sample."""
        if isinstance(self.critics, StateCritics):
            return 1
        return len(self.config.discounts) * max(1, self.config.num_action_samples_in_policy_loss)

    def acting_state(self) -> dict[str, Tensor]:
        """The weights and statistics that acting needs, by name."""
        return {name: value for name, value in self.state_dict().items() if name.startswith(ACTING_PREFIXES)}


def build_actor_critic(config: Config, spec: EnvSpec) -> ActorCritic:
    """A fresh agent for environments of `spec`.

    Raises:
        SpaceError: an action space that has no choices.
    """
    agent, model = config.agent, config.model
    distribution = make_distribution(spec.action, agent)
    if distribution.num_params == 0:
        raise SpaceError(f"{spec.name}: expected an action space with at least one choice, found {spec.action.kind} []")
    timestep_encoder = build_timestep_encoder(model.timestep_encoder, spec)
    sequence_model = build_sequence_model(model.sequence_model, timestep_encoder.output_dim, spec.horizon)
    state_dim, num_discounts = sequence_model.output_dim, len(agent.discounts)
    policy_head = PolicyHead(state_dim, model.policy_head, num_discounts, distribution.num_params)
    critics: StateCritics | StateActionCritics
    if agent.kind == "actor_critic" and distribution.is_exact:
        critics = StateCritics(
            state_dim,
            model.critic,
            num_critics=agent.num_critics,
            num_discounts=num_discounts,
            num_actions=distribution.num_features,
        )
    else:
        critics = StateActionCritics(
            state_dim,
            model.critic,
            num_critics=agent.num_critics,
            discounts=agent.discounts,
            action_dim=distribution.num_features,
            num_outputs=agent.num_bins if agent.kind == "multi_task" else 1,
        )
    return ActorCritic(
        agent,
        distribution,
        timestep_encoder=timestep_encoder,
        sequence_model=sequence_model,
        policy_head=policy_head,
        critics=critics,
    )
