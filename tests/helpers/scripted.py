"""A scripted batch of environments whose every number is known beforehand, and a tiny agent that acts in it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import torch
from helpers.model_configs import sequence_config

from amago_ray.agent.actor_critic import ActorCritic
from amago_ray.agent.make import build_actor_critic
from amago_ray.agent.weights import to_arrays
from amago_ray.config import Config
from amago_ray.config.agent import ActorCriticConfig
from amago_ray.config.env import EnvConfig
from amago_ray.config.model import AutoEncoderConfig, HeadConfig, ModelConfig
from amago_ray.data.episode import PolicyVersion
from amago_ray.data.snapshot import Snapshot
from amago_ray.data.specs import ActionSpec, EnvSpec, ObservationSpec
from amago_ray.envs.env_batch import EnvEvent, EnvFailure, Observations, StepColumns

BOX = ActionSpec("box", (2,), (), (-1.0, -1.0), (1.0, 1.0))
DISCRETE = ActionSpec("discrete", (), (5,))


def make_spec(action: ActionSpec = DISCRETE, *, goal_dim: int = 0, has_action_mask: bool = False) -> EnvSpec:
    return EnvSpec(
        "scripted",
        {"observation": ObservationSpec("box", (3,), "float32")},
        action,
        horizon=None,
        goal_dim=goal_dim,
        goal_dtype="int32",
        has_action_mask=has_action_mask,
    )


def goals_of(seed: int, row: int) -> np.ndarray:
    """None to three goals `[J, 2]`, different in every row."""
    number = (seed + row) % 4
    return np.stack([np.full(number, row), np.arange(number)], 1).astype(np.int32)


class ScriptedBatch:
    """Row t of an episode shows (environment, seed % 997, t); transition t earns t + 1 and the seed's parity ends it.

    Odd seeds are truncated, even ones terminated, after `length_of(environment, seed)` steps. The mask of row t allows
    all but category t % 5. Every array that it returns is reused by the next call. `step_hook(batch)` may name
    environments that fail in this step; `never_valid` ones make no transition in the first step after a reset.
    """

    def __init__(
        self,
        num_envs: int,
        *,
        action: ActionSpec = DISCRETE,
        goal_dim: int = 0,
        has_action_mask: bool = False,
        length_of: Callable[[int, int], int] = lambda index, seed: 3 + seed % 5,
        step_hook: Callable[[ScriptedBatch], list[int]] = lambda batch: [],
        resets_late: bool = False,
    ) -> None:
        self.spec = make_spec(action, goal_dim=goal_dim, has_action_mask=has_action_mask)
        self.num_envs = num_envs
        self.env_names = ("scripted",) * num_envs
        self.seeds = np.zeros(num_envs, np.int64)
        self.time = np.zeros(num_envs, np.int64)
        self.history: list[np.ndarray] = []
        self.is_closed = False
        self._length_of, self._step_hook = length_of, step_hook
        self._resets_late = resets_late
        self._is_late = np.zeros(num_envs, np.bool_)
        self._rows = np.zeros((num_envs, 3), np.float32)
        self._rewards = np.zeros(num_envs, np.float32)
        self._mask = np.ones((num_envs, 5), np.bool_)
        self._goals = np.zeros((3 * num_envs, 2), np.int32)
        self._offsets = np.zeros(num_envs + 1, np.int32)

    def reset(self, indices: np.ndarray, seeds: np.ndarray) -> Observations:
        # An environment that is late has just ended its resetting step: this reset hands out its first observation.
        self._is_late[indices] = self._resets_late & ~self._is_late[indices]
        self.seeds[indices] = seeds
        self.time[indices] = 0
        return self._show(indices)

    def step(self, actions: np.ndarray) -> StepColumns:
        self.history.append(actions.copy())
        self.time += ~self._is_late
        failed = self._step_hook(self)
        ended = (self.time >= [self._length_of(i, int(seed)) for i, seed in enumerate(self.seeds)]) & ~self._is_late
        self._rewards[:] = self.time
        is_odd = self.seeds % 2 == 1
        return StepColumns(
            self._show(np.arange(self.num_envs)),
            self._rewards,
            ended & ~is_odd,
            ended & is_odd,
            [EnvEvent(index, "success", float(self.seeds[index] % 3 == 0)) for index in np.flatnonzero(ended).tolist()],
            [EnvFailure(index, "RuntimeError at scripted.py:1", "RuntimeError: it broke") for index in failed],
            ~self._is_late if self._resets_late else None,
        )

    def render(self, index: int) -> np.ndarray:
        return np.full((8, 8, 3), self.time[index], np.uint8)

    def close(self) -> None:
        self.is_closed = True

    def _show(self, indices: np.ndarray) -> Observations:
        count = len(indices)
        self._rows[:count] = np.stack([indices, self.seeds[indices] % 997, self.time[indices]], 1)
        self._mask[:count] = np.arange(5) != self.time[indices, None] % 5
        goals = [goals_of(int(self.seeds[i]), int(self.time[i])) for i in indices]
        self._offsets[1 : count + 1] = np.cumsum([len(each) for each in goals])
        num_goals = int(self._offsets[count])
        self._goals[:num_goals] = np.concatenate(goals)
        has_goals = self.spec.goal_dim > 0
        return Observations(
            {"observation": self._rows[:count]},
            self._mask[:count] if self.spec.has_action_mask else None,
            self._goals[:num_goals] if has_goals else None,
            self._offsets[: count + 1] if has_goals else None,
        )


def make_config(*, context_length: int = 6, sequence_model: dict[str, object] | None = None) -> Config:
    head = HeadConfig(num_layers=1, hidden_dim=8)
    return Config(
        env=EnvConfig(id="scripted"),
        model=ModelConfig(
            timestep_encoder=AutoEncoderConfig(num_layers=1, hidden_dim=8, output_dim=8),
            sequence_model=sequence_config(
                **{
                    "context_length": context_length,
                    "d_model": 8,
                    "num_layers": 2,
                    "num_heads": 2,
                    **(sequence_model or {}),
                }
            ),
            policy_head=head,
            critic=head,
        ),
        agent=ActorCriticConfig(auxiliary_discounts=(0.9,)),
    )


def make_agent(config: Config, spec: EnvSpec, seed: int = 0) -> ActorCritic:
    """A random agent whose policy depends strongly on what it sees."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        agent = build_actor_critic(config, spec).eval()
        with torch.no_grad():
            for parameter in agent.parameters():
                parameter.add_(torch.randn_like(parameter) * 0.2)
    return agent


def snapshot_of(agent: ActorCritic, learner_steps: int = 1, incarnation: int = 0) -> Snapshot:
    return Snapshot(PolicyVersion(incarnation, learner_steps), to_arrays(agent.acting_state()))


def with_horizon(spec: EnvSpec, horizon: int | None) -> EnvSpec:
    return replace(spec, horizon=horizon)
