"""Environments with one peculiarity each: what they return, declare or do is told as a keyword."""

from __future__ import annotations

import io
import os
import signal
import sqlite3
import sys
import threading
import time
from typing import Any

import gymnasium
import numpy as np
from gymnasium import spaces
from gymnasium.vector import AutoresetMode, VectorEnv
from gymnasium.vector.utils import batch_space

NOTHING = object()


class Peculiar(gymnasium.Env[Any, Any]):
    """Episodes of four steps; each keyword replaces one entry of what is returned from step `since` of each on."""

    def __init__(self, *, since: int = 1, **entries: Any) -> None:
        self.observation_space = entries.pop("observation_space", spaces.Box(-1, 1, (2,), np.float32))
        self.action_space = spaces.Discrete(2)
        self._since, self._entries = since, entries
        self.steps = 0

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None):
        super().reset(seed=seed)
        self.steps = 0
        if "reset" in self._entries:
            return self._entries["reset"]
        return self._shown(), self._entries.get("reset_info", {})

    def step(self, action: Any):
        self.steps += 1
        if "step" in self._entries:
            return self._entries["step"]
        entries = self._entries if self.steps >= self._since else {}
        observation = entries.get("observation", NOTHING)
        return (
            self._shown() if observation is NOTHING else observation,
            entries.get("reward", 1.0),
            entries.get("terminated", self.steps >= 4),
            entries.get("truncated", False),
            entries.get("info", {}),
        )

    def _shown(self) -> Any:
        return self._entries.get("shown", np.full(2, 0.1, np.float32))


class SetsTorch(Peculiar):
    """Calculates in float64, without gradients, and says so to the whole process."""

    metadata = {"render_modes": ["rgb_array"]}  # noqa: RUF012

    def __init__(self, render_mode: str | None = None) -> None:
        super().__init__()
        self.render_mode = render_mode
        self._set()

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None):
        self._set()
        return super().reset(seed=seed)

    def step(self, action: Any):
        self._set()
        return super().step(action)

    def render(self):
        self._set()
        return np.zeros((8, 8, 3), np.uint8)

    def _set(self) -> None:
        import torch

        torch.set_default_dtype(torch.float64)
        torch.set_grad_enabled(False)


class Silences(Peculiar):
    """Leads what this process prints to nowhere."""

    def __init__(self) -> None:
        super().__init__()
        sys.stdout = sys.stderr = io.StringIO()


class Closes(Peculiar):
    """Closes what this process prints to."""

    def __init__(self) -> None:
        super().__init__()
        sys.stdout.close()
        sys.stderr.close()


class Grows(Peculiar):
    """Each that is made in this process shows one number more than the one before."""

    num_made = 0

    def __init__(self) -> None:
        super().__init__()
        Grows.num_made += 1
        self.observation_space = spaces.Box(-1, 1, (Grows.num_made,), np.float32)

    def reset(self, **settings: Any) -> tuple[Any, dict[str, Any]]:
        super().reset(**settings)
        return np.zeros(self.observation_space.shape, np.float32), {}

    def step(self, action: Any) -> tuple[Any, ...]:
        return np.zeros(self.observation_space.shape, np.float32), *super().step(action)[1:]


class Counts(Peculiar):
    """Shows one number of so many, or several."""

    def __init__(self, sizes: list[int]) -> None:
        super().__init__()
        self.observation_space = spaces.Discrete(sizes[0]) if len(sizes) == 1 else spaces.MultiDiscrete(sizes)

    def reset(self, **settings: Any) -> tuple[Any, dict[str, Any]]:
        super().reset(**settings)
        return self.observation_space.sample(), {}

    def step(self, action: Any) -> tuple[Any, ...]:
        return self.observation_space.sample(), *super().step(action)[1:]


class PeculiarVector(VectorEnv[Any, Any, Any]):
    """Three environments, episodes of three steps; each keyword `(index, value)` or `value` replaces an entry.

    `at`: only in that step of the whole environment's life.
    """

    def __init__(self, num_envs: int = 3, mode: str = "next_step", at: int | None = None, **entries: Any) -> None:
        self.num_envs = num_envs
        self._mode = AutoresetMode[mode.upper()]
        self.metadata = {"autoreset_mode": self._mode}
        self.single_observation_space = spaces.Box(-np.inf, np.inf, (2,), np.float32)
        self.observation_space = batch_space(self.single_observation_space, num_envs)
        self.single_action_space = spaces.Discrete(2)
        self.action_space = batch_space(self.single_action_space, num_envs)
        self._at, self._entries = at, entries
        self.time = np.zeros(num_envs, np.int64)
        self._over = np.zeros(num_envs, np.bool_)
        self.num_steps = 0

    def reset(self, *, seed: Any = None, options: dict[str, Any] | None = None):
        mask = np.ones(self.num_envs, np.bool_) if options is None else options["reset_mask"]
        self.time[mask] = 0
        self._over[mask] = False
        return self._shown(), {}

    def step(self, actions: Any):
        self.num_steps += 1
        resets = self._over if self._mode is AutoresetMode.NEXT_STEP else np.zeros(self.num_envs, np.bool_)
        self.time = np.where(resets, 0, self.time + 1)
        over = ~resets & (self.time >= 3)
        infos: dict[str, Any] = {}
        entries: dict[str, Any] = {
            "observations": self._shown(),
            "rewards": np.where(resets, 0.0, 1.0),
            "terminated": over,
            "truncated": np.zeros_like(over),
            "infos": infos,
        }
        if self._at is None or self._at == self.num_steps:
            for name, value in self._entries.items():
                if isinstance(value, BaseException):
                    raise value
                if isinstance(value, tuple):
                    column = np.asarray(entries[name])
                    column = column.astype(object) if not isinstance(value[1], float | int) else column.astype(float)
                    column[value[0]] = value[1]
                    entries[name] = column
                else:
                    entries[name] = value(self) if callable(value) else value
        self._over = over.copy()
        if self._mode is AutoresetMode.SAME_STEP and over.any():
            entries["infos"] = {"final_obs": self._shown(), "_final_obs": over, **(entries["infos"] or {})}
            self.time[over] = 0
            entries["observations"] = self._shown()
        return tuple(entries.values())

    def _shown(self) -> np.ndarray:
        return np.stack([np.arange(self.num_envs), self.time], 1).astype(np.float32)


class NoSpaces(gymnasium.Env[Any, Any]):
    """Declares its spaces in the first reset only."""

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None):
        self.observation_space = spaces.Discrete(2)
        self.action_space = spaces.Discrete(2)
        return 0, {}


class Declares(Peculiar):
    """Has the attributes that are given."""

    def __init__(self, **attributes: Any) -> None:
        super().__init__()
        for name, value in attributes.items():
            setattr(self, name, value)


class SpaceMethod(Peculiar):
    """Gives its action space as a method."""

    def __init__(self) -> None:
        super().__init__()
        self.action_space = self.sample_space  # type: ignore[assignment]

    def sample_space(self) -> spaces.Discrete:
        return spaces.Discrete(2)


class Raises(Peculiar):
    """Raises `error`, a class, with a text that is another one each time, in the second step of episodes."""

    count = 0

    def __init__(self, error: type[BaseException] = RuntimeError) -> None:
        super().__init__()
        self._error = error

    def step(self, action: Any):
        result = super().step(action)
        if self.steps == 2:
            Raises.count += 1
            raise self._error(f"lost [/dev/tty{Raises.count}] of [bold] arm")
        return result


class Database(Peculiar):
    """Holds a connection that only the thread which made it may use; `log` collects which thread does what."""

    log: list[tuple[str, int]] = []  # noqa: RUF012

    def __init__(self, render_mode: str | None = None) -> None:
        super().__init__()
        self.render_mode = render_mode
        self._note("made")
        self._connection = sqlite3.connect(":memory:")

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None):
        self._use("reset")
        return super().reset(seed=seed)

    def step(self, action: Any):
        self._use("step")
        return super().step(action)

    def render(self) -> np.ndarray:
        self._use("render")
        return np.zeros((8, 9, 3), np.uint8)

    def close(self) -> None:
        self._connection.close()
        self._note("closed")

    def _use(self, what: str) -> None:
        self._connection.execute("select 1").fetchone()
        self._note(what)

    def _note(self, what: str) -> None:
        Database.log.append((what, threading.get_ident()))


class NeedsMainThread(Peculiar):
    """Sets a signal handler in each step."""

    def step(self, action: Any):
        signal.signal(signal.SIGALRM, signal.SIG_DFL)
        return super().step(action)


class Hangs(Peculiar):
    """Its second step takes until `free` is set."""

    free = threading.Event()

    def step(self, action: Any):
        result = super().step(action)
        if self.steps == 2:
            Hangs.free.wait(60)
        return result


class Wanders(Peculiar):
    """Changes the working folder when it is made, and looks for a file there in each step; `at` another one there."""

    def __init__(self, to: str, in_step: str | None = None) -> None:
        super().__init__()
        os.makedirs(to, exist_ok=True)
        os.chdir(to)
        with open("asset.txt", "w") as file:
            file.write("here")
        self._in_step = in_step

    def step(self, action: Any):
        assert os.path.exists("asset.txt")
        if self._in_step is not None:
            os.makedirs(self._in_step, exist_ok=True)
            os.chdir(self._in_step)
            os.chdir("..")
        return super().step(action)


class SetsGlobals(Peculiar):
    """Sets what the whole process shares."""

    def __init__(self) -> None:
        super().__init__()
        np.seterr(all="raise")
        np.random.seed(0)  # noqa: NPY002  (what users of NumPy do)
        signal.signal(signal.SIGTERM, signal.SIG_IGN)

    def step(self, action: Any):
        assert np.geterr()["over"] == "raise", "what it has set stays set for itself"
        return super().step(action)


class Slow(Peculiar):
    """Takes `time_s` to be made."""

    def __init__(self, time_s: float) -> None:
        super().__init__()
        time.sleep(time_s)


def leaves() -> gymnasium.Env[Any, Any]:
    """Exits instead of making an environment."""
    sys.exit(3)


def nothing() -> None:
    """Makes nothing."""


instance = Peculiar()
number = 5


class Outer:
    """Holds an environment."""

    class Inner(Peculiar):
        """A nested class."""


def three(num_envs: int) -> PeculiarVector:
    """Three environments, whatever is asked for."""
    return PeculiarVector(3)


class FailsUnderSeed0(Peculiar):
    """Raises in the steps of an episode of seed 0."""

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None):
        self._fails = seed == 0
        return super().reset(seed=seed)

    def step(self, action: Any):
        if self._fails:
            raise RuntimeError("seed 0")
        return super().step(action)


class OnlyTwo(Peculiar):
    """Of its actions only the last is allowed, and others are errors."""

    def __init__(self) -> None:
        super().__init__(info={"action_mask": [0, 1]}, reset_info={"action_mask": [0, 1]})

    def step(self, action: Any):
        assert action == 1
        return super().step(action)


class Prints(Peculiar):
    """Prints what the console could take for markup."""

    def step(self, action: Any):
        print("step [/bold] [red]x[/red] \x1b[31mred", self.steps)
        return super().step(action)


class FailsUnderOddSeeds(Peculiar):
    """Raises in the third step of an episode of an odd seed, with a text that is another one each time."""

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None):
        self._seed = seed or 0
        return super().reset(seed=seed)

    def step(self, action: Any):
        result = super().step(action)
        if self._seed % 2 and self.steps == 3:
            raise RuntimeError(f"seed {self._seed}")
        return result
