"""From settings to an agent and its objective."""

from __future__ import annotations

from amago_ray.agent.actor_critic import ActorCritic
from amago_ray.agent.objective import Objective
from amago_ray.agent.value_bins import ValueBins
from amago_ray.agent.value_classification import ValueClassification
from amago_ray.agent.value_regression import ValueRegression
from amago_ray.config import Config
from amago_ray.config.agent import ActorCriticConfig, AgentConfig, MultiTaskConfig
from amago_ray.config.kinds import Registry
from amago_ray.data.specs import ActionSpec, EnvSpec
from amago_ray.errors import ConfigError, SpaceError
from amago_ray.nets.distributions import PolicyDistribution, make_distribution
from amago_ray.nets.encoders.make import build_timestep_encoder
from amago_ray.nets.heads import PolicyHead
from amago_ray.nets.sequence.make import build_sequence_model

_WHERE = "agent.kind"


def _classification(config: MultiTaskConfig, distribution: PolicyDistribution) -> ValueClassification:
    bins = ValueBins(config.num_bins, config.min_return, config.max_return, config.labels)
    return ValueClassification(config, distribution, bins)


OBJECTIVES: Registry[Objective] = Registry(
    _WHERE, {ActorCriticConfig: ValueRegression, MultiTaskConfig: _classification}
)


def make_objective(config: AgentConfig, action: ActionSpec) -> Objective:
    """The objective that `config` asks for, over actions of a spec.

    Raises:
        ConfigError: a part of the user's own that cannot be made, or is none.
    """
    made: object = OBJECTIVES.make(config, make_distribution(action, config))
    if not isinstance(made, Objective):
        raise ConfigError(
            f'{_WHERE}: expected "{config.kind}" to make an Objective (of amago_ray.agent), got {type(made).__name__}'
        )
    return made


def build_actor_critic(config: Config, spec: EnvSpec) -> ActorCritic:
    """A fresh agent for environments of `spec`.

    Raises:
        SpaceError: an action space that has no choices.
    """
    agent, model = config.agent, config.model
    objective = make_objective(agent, spec.action)
    num_params = objective.distribution.num_params
    if num_params == 0:
        raise SpaceError(f"{spec.name}: expected an action space with at least one choice, got {spec.action.kind} []")
    timestep_encoder = build_timestep_encoder(model.timestep_encoder, spec)
    sequence_model = build_sequence_model(model.sequence_model, timestep_encoder.output_dim, spec.horizon)
    state_dim = sequence_model.output_dim
    policy_head = PolicyHead(state_dim, model.policy_head, len(agent.discounts), num_params)
    return ActorCritic(
        agent,
        timestep_encoder=timestep_encoder,
        sequence_model=sequence_model,
        policy_head=policy_head,
        critics=objective.make_critics(agent, state_dim, model.critic),
    )
