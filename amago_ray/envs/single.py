"""`SingleEnv`: a built-in environment as one ordinary Gymnasium environment."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import gymnasium
import numpy as np
from gymnasium import spaces

from amago_ray.data.space_specs import make_action_space, make_observation_space
from amago_ray.data.spaces import ActionAdapter
from amago_ray.data.specs import ACHIEVED_GOAL, ACTION_MASK, DESIRED_GOAL, OBSERVATION
from amago_ray.envs.env_batch import EnvEvent, Observations
from amago_ray.envs.registry import BUILT_INS


class SingleEnv(gymnasium.Env[Any, Any]):
    """A kernel with E = 1 behind the Gymnasium interface, so that there is one implementation of each environment.

    `reset(seed=s)` begins the same episode as the kernel does with seed s. Events become entries of `info`: "success"
    as `is_success`, others by their names; an action mask is there as `action_mask`. Goal-conditioned ones show
    `observation / achieved_goal / desired_goal` and declare `goal_rule`.
    """

    metadata = {"render_modes": ["rgb_array"], "render_fps": 15}  # noqa: RUF012  (Gymnasium's own declaration)

    def __init__(self, built_in: str, render_mode: str | None = None, **kwargs: Any) -> None:
        self._kernel = BUILT_INS[built_in].load()(1, **kwargs)  # type: ignore[arg-type]
        spec = self._kernel.spec
        self.render_mode = render_mode
        self.horizon = spec.horizon
        self.goal_rule = spec.goal_rule
        leaves: dict[str, gymnasium.Space[Any]] = {
            name: make_observation_space(leaf) for name, leaf in spec.observations.items()
        }
        if spec.goal_dim:
            desired = spec.observations[DESIRED_GOAL]
            leaves[ACHIEVED_GOAL] = make_observation_space(dataclasses.replace(desired, shape=(spec.goal_dim,)))
        self._is_dict = len(leaves) > 1
        self.observation_space = spaces.Dict(leaves) if self._is_dict else leaves[OBSERVATION]
        self.action_space = make_action_space(spec.action)
        self._action = ActionAdapter(spec.action)

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        """Begin an episode, of the given seed or of one drawn from the environment's own stream."""
        super().reset(seed=seed)
        episode_seed = int(self.np_random.integers(2**31)) if seed is None else seed
        observations = self._kernel.reset(np.zeros(1, np.int64), np.asarray([episode_seed], np.int64))
        return self._observation(observations), _info(observations, [])

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        """Take one step."""
        columns = self._kernel.step(self._action.rows(action)[None])
        return (
            self._observation(columns.observations),
            float(columns.rewards[0]),
            bool(columns.terminated[0]),
            bool(columns.truncated[0]),
            _info(columns.observations, columns.events),
        )

    def render(self) -> Any:
        """An RGB picture, with `render_mode="rgb_array"`."""
        return self._kernel.render(0) if self.render_mode == "rgb_array" else None

    def _observation(self, observations: Observations) -> Any:
        leaves = {name: column[0].copy() for name, column in observations.leaves.items()}
        if observations.achieved_values is not None:
            leaves[ACHIEVED_GOAL] = observations.achieved_values[0].copy()
        return leaves if self._is_dict else leaves[OBSERVATION]


def _info(observations: Observations, events: Sequence[EnvEvent]) -> dict[str, Any]:
    info: dict[str, Any] = {"is_success" if event.name == "success" else event.name: event.value for event in events}
    if observations.action_mask is not None:
        info[ACTION_MASK] = observations.action_mask[0].copy()
    return info
