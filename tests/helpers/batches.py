"""Small settings, specs and random packed batches for tests of the agent and the learner."""

from __future__ import annotations

from typing import Any, get_args

import numpy as np

from amago_ray.config import Config
from amago_ray.config.advantage_filter import AdvantageFilterConfig
from amago_ray.config.agent import ActorCriticConfig, AgentConfig, MultiTaskConfig
from amago_ray.config.env import EnvConfig
from amago_ray.config.kinds import class_of
from amago_ray.config.learner import LearnerConfig
from amago_ray.config.model import AutoEncoderConfig, HeadConfig, ModelConfig, TransformerConfig
from amago_ray.data.sequence_batch import SequenceBatch
from amago_ray.data.specs import ActionSpec, EnvSpec, ObservationSpec

ACTIONS = {
    "discrete": ActionSpec("discrete", (), (4,)),
    "multi_discrete": ActionSpec("multi_discrete", (2,), (3, 2)),
    "multi_binary": ActionSpec("multi_binary", (3,)),
    "box": ActionSpec("box", (2,), (), (-1.0, -1.0), (1.0, 1.0)),
}


def make_spec(kind: str = "discrete", *, has_action_mask: bool = False) -> EnvSpec:
    leaves = {"observation": ObservationSpec("box", (3,), "float32")}
    return EnvSpec("tiny", leaves, ACTIONS[kind], horizon=20, has_action_mask=has_action_mask)


def make_config(*, normalize_inputs: bool = True, learner: dict | None = None, **agent: object) -> Config:
    head = HeadConfig(num_layers=1, hidden_dim=8)
    return Config(
        env=EnvConfig(id="tiny"),
        model=ModelConfig(
            timestep_encoder=AutoEncoderConfig(
                num_layers=1, hidden_dim=8, output_dim=8, normalize_inputs=normalize_inputs
            ),
            sequence_model=TransformerConfig(
                context_length=16, d_model=8, num_layers=1, num_heads=2, dropout=0.0, max_time_index=64
            ),
            policy_head=head,
            critic=head,
        ),
        agent=make_agent_config(**{"auxiliary_discounts": (0.5, 0.9), **agent}),
        learner=LearnerConfig(**{"warmup_steps": 0, "learning_rate": 1e-2, "precision": "float32", **(learner or {})}),
    )


def make_agent_config(*, kind: str = "actor_critic", **agent: Any) -> AgentConfig:
    """Settings of a kind; few bins where critics classify; `advantage_filter` may be a kind's name."""
    name = agent.pop("advantage_filter", None)
    if name is not None:
        agent["advantage_filter"] = class_of(get_args(AdvantageFilterConfig), name)()
    if kind == "multi_task":
        return MultiTaskConfig(**{"num_bins": 8, "max_return": 50.0, "min_return": -50.0, **agent})
    return ActorCriticConfig(**agent)


def make_batch(
    spec: EnvSpec,
    lengths: list[int],
    seed: int = 0,
    *,
    weight: list[float] | None = None,
    action_mask: bool = False,
) -> SequenceBatch:
    """Sequences of `lengths` transitions; those of even number end in a termination."""
    rng = np.random.default_rng(seed)
    steps = np.array(lengths)
    ends = np.cumsum(steps) - 1
    num_transitions, num_tokens = int(steps.sum()), int(steps.sum()) + len(lengths)
    cu_seqlens = np.concatenate([[0], np.cumsum(steps + 1)]).astype(np.int32)
    terminated = np.zeros(num_transitions, bool)
    terminated[ends[::2]] = True
    mask = None
    action = _actions(spec, num_transitions, rng)
    if action_mask:
        mask = rng.random((num_tokens, spec.action.mask_size)) < 0.5
        rows = np.delete(np.arange(num_tokens), cu_seqlens[1:] - 1)
        mask[:, 0] = True
        mask[rows, action] = True
    return SequenceBatch(
        observations={
            name: rng.standard_normal((num_tokens, *leaf.shape)).astype(leaf.dtype)
            for name, leaf in spec.observations.items()
        },
        prev_action=_actions(spec, num_tokens, rng),
        prev_reward=rng.standard_normal(num_tokens).astype(np.float32),
        time_index=np.concatenate([np.arange(length + 1) for length in lengths]),
        action=action,
        reward=rng.standard_normal(num_transitions).astype(np.float32),
        terminated=terminated,
        cu_seqlens=cu_seqlens,
        max_seqlen=int(steps.max()) + 1,
        weight=np.ones(len(lengths), np.float32) if weight is None else np.array(weight, np.float32),
        episode_ids=np.zeros((len(lengths), 4), np.int64),
        policy_versions=np.zeros((len(lengths), 2), np.int64),
        action_mask=mask,
    )


def select(batch: SequenceBatch, index: int) -> SequenceBatch:
    """One sequence of a batch, alone."""
    return sequences(batch, index, index + 1)


def sequences(batch: SequenceBatch, first: int, end: int) -> SequenceBatch:
    """Sequences `first:end` of a batch."""
    cu_seqlens = batch.cu_seqlens[first : end + 1]
    start, stop = cu_seqlens[0], cu_seqlens[-1]
    tokens, moves = slice(start, stop), slice(start - first, stop - end)
    return SequenceBatch(
        observations={name: column[tokens] for name, column in batch.observations.items()},
        prev_action=batch.prev_action[tokens],
        prev_reward=batch.prev_reward[tokens],
        time_index=batch.time_index[tokens],
        action=batch.action[moves],
        reward=batch.reward[moves],
        terminated=batch.terminated[moves],
        cu_seqlens=cu_seqlens - start,
        max_seqlen=int(np.diff(cu_seqlens).max()),
        weight=batch.weight[first:end],
        episode_ids=batch.episode_ids[first:end],
        policy_versions=batch.policy_versions[first:end],
        action_mask=None if batch.action_mask is None else batch.action_mask[tokens],
    )


def _actions(spec: EnvSpec, rows: int, rng: np.random.Generator) -> np.ndarray:
    match spec.action.kind:
        case "discrete":
            return rng.integers(spec.action.num_categories[0], size=rows)
        case "multi_discrete":
            return rng.integers(spec.action.num_categories, size=(rows, len(spec.action.num_categories)))
        case "multi_binary":
            return rng.integers(2, size=(rows, *spec.action.shape)).astype(np.int8)
        case _:
            return rng.uniform(-1, 1, (rows, *spec.action.shape)).astype(np.float32)
