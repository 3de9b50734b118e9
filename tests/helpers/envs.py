"""Small environments, each with one property that wrappers must cope with."""

from __future__ import annotations

import time
from typing import Any, ClassVar

import gymnasium
import numpy as np
from gymnasium import spaces
from gymnasium.vector import AutoresetMode, VectorEnv
from gymnasium.vector.utils import batch_space


class CounterEnv(gymnasium.Env[np.ndarray, int]):
    """Shows (seed, step); an episode has `length` steps. `shares_buffer` returns one array again and again."""

    def __init__(self, length: int = 4, truncates: bool = False, shares_buffer: bool = True) -> None:
        self.observation_space = spaces.Box(-1, np.inf, (2,), np.float32)
        self.action_space = spaces.Discrete(2)
        self._length, self._truncates, self._shares_buffer = length, truncates, shares_buffer
        self._buffer = np.zeros(2, np.float32)

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None):
        super().reset(seed=seed)
        self._buffer[:] = (-1 if seed is None else seed, 0)
        return self._shown(), {}

    def step(self, action: int):
        self._buffer[1] += 1
        ended = bool(self._buffer[1] >= self._length)
        info = {"is_success": float(action)} if ended else {}
        return self._shown(), 1.0, ended and not self._truncates, ended and self._truncates, info

    def _shown(self) -> np.ndarray:
        return self._buffer if self._shares_buffer else self._buffer.copy()


class SeedLogEnv(CounterEnv):
    """Notes the seeds that all of its kind were given."""

    seeds: ClassVar[list[int | None]] = []

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None):
        self.seeds.append(seed)
        return super().reset(seed=seed, options=options)


class FragileEnv(CounterEnv):
    """Raises in the step or reset that `fails` names, as long as its seed is odd; `hangs_s` sleeps instead."""

    def __init__(self, fails: str = "step", hangs_s: float = 0.0) -> None:
        super().__init__()
        self._fails, self._hangs_s = fails, hangs_s

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None):
        result = super().reset(seed=seed)
        self._trip("reset")
        return result

    def step(self, action: int):
        result = super().step(action)
        if self._buffer[1] == 2:
            self._trip("step")
        return result

    def _trip(self, place: str) -> None:
        if place == self._fails and self._buffer[0] % 2 == 1:
            if not self._hangs_s:
                raise RuntimeError(f"the {place} broke")
            time.sleep(self._hangs_s)


class MaskedEnv(gymnasium.Env[Any, int]):
    """Three actions, of which the one shown by the clock is forbidden; the mask is in the observation or in info."""

    def __init__(self, mask_in_info: bool = False) -> None:
        self._mask_in_info = mask_in_info
        leaves: dict[str, gymnasium.Space[Any]] = {"clock": spaces.Discrete(3)}
        if not mask_in_info:
            leaves["action_mask"] = spaces.MultiBinary(3)
        self.observation_space = spaces.Dict(leaves)
        self.action_space = spaces.Discrete(3)

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None):
        super().reset(seed=seed)
        self._clock = int(self.np_random.integers(3))
        return self._result()

    def step(self, action: int):
        reward = -1.0 if action == self._clock else 1.0
        self._clock = (self._clock + 1) % 3
        observation, info = self._result()
        return observation, reward, False, False, info

    def _result(self) -> tuple[dict[str, Any], dict[str, Any]]:
        mask = (np.arange(3) != self._clock).astype(np.int8)
        if self._mask_in_info:
            return {"clock": self._clock}, {"action_mask": mask}
        return {"clock": self._clock, "action_mask": mask}, {}


class NativeCounterVector(VectorEnv[Any, Any, Any]):
    """A vector environment that resets in one of the three ways, or says nothing of it (`mode=None`).

    Shows (environment, episode number, step); environment i has episodes of `lengths[i % 3]` steps, with a reward that
    equals the step. The last step of an episode reports `is_success`.
    """

    lengths = (2, 3, 5)

    def __init__(self, num_envs: int, mode: str | None = "next_step") -> None:
        self.num_envs = num_envs
        self._mode = None if mode is None else AutoresetMode[mode.upper()]
        self.metadata = {} if mode is None else {"autoreset_mode": self._mode}
        self.single_observation_space = spaces.Box(0, np.inf, (3,), np.float32)
        self.observation_space = batch_space(self.single_observation_space, num_envs)
        self.single_action_space = spaces.Discrete(2)
        self.action_space = batch_space(self.single_action_space, num_envs)
        self._rows = np.zeros((num_envs, 3), np.float32)
        self._rows[:, 0] = np.arange(num_envs)
        self._ends = np.asarray([self.lengths[i % 3] for i in range(num_envs)])
        self._over = np.zeros(num_envs, np.bool_)
        self._began = False

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None):
        assert seed is None or isinstance(seed, int)
        mask = np.ones(self.num_envs, np.bool_) if options is None else options["reset_mask"]
        self._begin(mask)
        return self._rows, {}

    def step(self, actions: Any):
        assert self._began
        if self._mode is AutoresetMode.DISABLED:
            assert not self._over.any()
        resets = self._over if self._mode is AutoresetMode.NEXT_STEP else np.zeros(self.num_envs, np.bool_)
        moves = ~resets
        self._begin(resets)
        self._rows[moves, 2] += 1
        rewards = np.where(moves, self._rows[:, 2], 0.0)
        self._over = moves & (self._rows[:, 2] >= self._ends)
        over = self._over.copy()
        infos: dict[str, Any] = {}
        success = {"is_success": np.ones(self.num_envs), "_is_success": over}
        if self._mode is AutoresetMode.SAME_STEP and over.any():
            infos = {"final_obs": self._rows.copy(), "_final_obs": over, "final_info": success}
            self._begin(over)
        elif over.any():
            infos = success
        return self._rows, rewards, over, np.zeros_like(over), infos

    def _begin(self, mask: np.ndarray) -> None:
        self._rows[mask, 1] += 1
        self._rows[mask, 2] = 0
        self._over[mask] = False
        self._began = True
