"""One part of each kind that does something terrible once, on command, while a run goes on.

Commands are files in a folder, named after the part, with the deed in them; a deed is done once, by whoever comes
first: its file is gone then.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import torch
import yaml
from helpers.custom_parts import Linear
from helpers.hosts import Network
from helpers.ledger import Books, close_books
from helpers.node_cluster import NodeCluster
from helpers.watched_run import STARTED_WITHIN_S, WatchedRun
from torch import Tensor

from amago_ray.data.episode import Episode
from amago_ray.nets import TokenColumns

WON = 100.0
"""Mean return of an evaluation at which a run of these parts ends."""

_LEAKED: list[bytes] = []


def command(commands: Path, part: str, deed: str) -> None:
    """A part shall do a deed as soon as it can."""
    temporary = commands / f".{part}"
    temporary.write_text(deed)
    temporary.replace(commands / part)


def is_done(commands: Path, part: str) -> bool:
    """Whether the part has begun what it was told."""
    return not (commands / part).exists()


def _take(commands: str, part: str) -> str | None:
    """What this part was told, if nobody else has taken it."""
    path = f"{commands}/{part}"
    if not os.path.exists(path):
        return None
    mine = f"{commands}/.taken_{part}_{os.getpid()}"
    with suppress(OSError):
        os.rename(path, mine)
        return Path(mine).read_text()
    return None


def _die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


class Env(gym.Env):
    """Forty steps of nothing; `env` is told to "fail", "hang", "segfault", "exit", "exit_now", "leak", "deadlock"
    or "win".

    role: which commands it heeds. ballast: bytes of every observation that nobody looks at.
    """

    action_space = gym.spaces.Discrete(2)

    def __init__(self, commands: str, role: str = "env", ballast: int = 0, pause_s: float = 0.0) -> None:
        self._commands, self._role, self._pause_s = commands, role, pause_s
        self._seen: dict[str, np.ndarray] = {"observation": np.zeros(1, np.float32)}
        leaves: dict[str, gym.Space] = {"observation": gym.spaces.Box(-1.0, 1.0, (1,), np.float32)}
        if ballast:
            leaves["ballast"] = gym.spaces.Box(0, 255, (ballast,), np.uint8)
            self._seen["ballast"] = np.zeros(ballast, np.uint8)
        self.observation_space = gym.spaces.Dict(leaves)
        self._t = 0

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed)
        self._t = 0
        return self._seen, {}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        self._t += 1
        reward = 0.0
        if self._t == 20 and (deed := _take(self._commands, self._role)) is not None:
            reward = getattr(self, deed)() or 0.0
        if self._pause_s:
            time.sleep(self._pause_s)
        return self._seen, reward, self._t == 40, False, {}

    def win(self) -> float:
        return 4 * WON

    def fail(self) -> None:
        raise RuntimeError("the step broke")

    def hang(self) -> None:
        time.sleep(10_000)

    def deadlock(self) -> None:
        """Wait for a lock in native code, which no signal interrupts."""
        lock, mutex = ctypes.CDLL(None).pthread_mutex_lock, ctypes.create_string_buffer(256)
        lock(mutex)
        lock(mutex)

    def segfault(self) -> None:
        ctypes.string_at(0)

    def exit(self) -> None:
        sys.exit("enough")

    def exit_now(self) -> None:
        os._exit(3)

    def leak(self) -> None:
        """More and more memory that nothing frees but the end of the process."""
        while True:
            _LEAKED.append(os.urandom(1_000_000))


class Encoder(Linear):
    """`learner` is told to die in an "update", or in a "checkpoint": while its files are made."""

    def __init__(self, config: Any, spec: Any, *, commands: str) -> None:
        super().__init__(config, spec)
        self._commands = commands

    def forward(self, tokens: TokenColumns, weight: Tensor | None = None) -> Tensor:
        if torch.is_grad_enabled() and _take(self._commands, "update") is not None:
            _die()
        return super().forward(tokens, weight)

    def state_dict(self, *args: Any, **kwargs: Any) -> Any:
        if _is_called_by("save_files") and _take(self._commands, "checkpoint") is not None:
            _die()
        return super().state_dict(*args, **kwargs)


class Relabeler:
    """Changes nothing; `reply` kills a shard that has stored a group and not said so, `sample` one that draws."""

    watches_storage = True

    def __init__(self, config: Any, spec: Any, *, commands: str) -> None:
        self._commands = commands

    def observe(self, episode: Episode) -> None:
        if _take(self._commands, "reply") is not None:
            _die()

    def forget(self, episode: Episode) -> None:
        """Nothing is kept of it."""

    def relabel(self, episode: Episode, rng: np.random.Generator) -> Episode:
        if _take(self._commands, "sample") is not None:
            _die()
        return episode


class DeadlyRun(WatchedRun):
    """A run of these parts on a cluster."""

    def __init__(
        self,
        directory: Path,
        cluster: NodeCluster | Network,
        *settings: str,
        replay: Path | None = None,
        runs_dir: Path | None = None,
        **parts: Any,
    ) -> None:
        """settings: what differs from `write_config`, whose other arguments are `parts`.

        replay: where the shards' directories are; None is in the run directory.
        """
        self.commands = directory / "commands"
        config = write_config(directory / "config.yaml", self.commands, **parts)
        super().__init__(
            directory,
            [str(config), *settings, "--address", cluster.address],
            name="run",
            root=os.getpid(),
            runs_dir=runs_dir,
            launcher=cluster.launcher,
            environment=cluster.environment,
        )
        self.num_silent_runners = 0
        self.replay = replay or self.path / "replay"

    def dies_of(self, part: str, kind: str, count: int, deed: str = "die") -> None:
        """Let a part kill its process, and wait for another one in its place that works."""
        before = {actor.pid for actor in self.actors(kind)}
        command(self.commands, part, deed)
        self.wait_until(lambda: is_done(self.commands, part))
        self.wait_until(lambda: (now := self.actors(kind)) and len(now) == count and {a.pid for a in now} - before)
        self.goes_on()

    def is_killed(self, kind: str, count: int = 1) -> None:
        """Kill a process, and wait for another one in its place that works."""
        self.wait_until_replaced(self.kill(kind), count)
        self.goes_on()

    def goes_on(self, timeout_s: float = STARTED_WITHIN_S) -> None:
        """Wait until it acts, stores and learns."""
        self.grows("env_steps", "learner_steps", "replay/inserted_timesteps", timeout_s=timeout_s)

    def win(self, timeout_s: float = 120, *, disks: Sequence[Path] = ()) -> Books:
        """The run ends as it should, with a good evaluation; returns its books, which must be right.

        disks: where `replay` is, on other hosts.
        """
        command(self.commands, "evaluation", "win")
        code = self.process.wait(timeout=timeout_s)
        assert code == 0, self.output[-3000:]
        assert "Traceback" not in self.output, self.output[-3000:]
        books = close_books(disks or self.replay, self.reports)
        books.check(num_silent_runners=self.num_silent_runners)
        return books


def _is_called_by(name: str) -> bool:
    frame = sys._getframe(1)
    while frame is not None:
        if frame.f_code.co_name == name:
            return True
        frame = frame.f_back
    return False


def write_config(path: Path, commands: Path, *, ballast: int = 0, pause_s: float = 0.0) -> Path:
    """A config of these parts, and otherwise as small as can be."""
    commands.mkdir(exist_ok=True)
    kwargs = {"commands": str(commands)}
    config = {
        "env": {
            "id": "helpers.deadly_parts:Env",
            "kwargs": {**kwargs, "ballast": ballast, "pause_s": pause_s},
            "max_episode_steps": 50,
        },
        "stop": {"env_steps": 100_000_000, "eval_return": WON},
        "rollout": {"num_env_runners": 2, "num_envs_per_env_runner": 4},
        "exploration": {"kind": "none"},
        "replay": {"num_shards": 2, "samples_per_insert": 1},
        "relabel": {"kind": "helpers.deadly_parts:Relabeler", "kwargs": kwargs},
        "model": {
            "timestep_encoder": {"kind": "helpers.deadly_parts:Encoder", "output_dim": 8, "kwargs": kwargs},
            "sequence_model": {"context_length": 40, "d_model": 8, "num_layers": 1, "num_heads": 2},
            "policy_head": {"num_layers": 1, "hidden_dim": 8},
            "critic": {"num_layers": 1, "hidden_dim": 8},
        },
        "learner": {"batch_size": 8, "broadcast_interval": 10, "metrics_interval": 10},
        "evaluation": {
            "num_episodes": 4,
            "num_envs": 4,
            "interval_env_steps": 2000,
            "env": {
                "id": "helpers.deadly_parts:Env",
                "kwargs": {**kwargs, "role": "evaluation", "ballast": ballast},
                "max_episode_steps": 50,
            },
        },
        "checkpoint": {"interval_s": 2},
        "report": {"interval_s": 0.5, "loggers": ["console", "jsonl"]},
        "cluster": {"dashboard": False},
    }
    path.write_text(yaml.safe_dump(config))
    return path
