"""Films of a policy: frames of whole episodes, written as GIF or MP4."""

from __future__ import annotations

import os
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from amago_ray.acting.policy import Policy
from amago_ray.data.specs import require_spaces
from amago_ray.envs.env_batch import EnvBatch
from amago_ray.errors import ConfigError, EnvError, RunDirectoryError

_FRAMES_PER_S = 8
_OPTIONS: dict[str, dict[str, Any]] = {
    ".gif": {"duration": 1000 / _FRAMES_PER_S, "loop": 0},
    ".mp4": {"fps": _FRAMES_PER_S, "codec": "libx264"},
}
# The last frame of an episode stays this many frames, so that a viewer sees how it ended.
_HOLD_FRAMES = 6


def film(env_batch: EnvBatch, policy: Policy, seeds: Sequence[int], *, greedy: bool) -> list[npt.NDArray[np.uint8]]:
    """The frames `[height, width, 3]` of one episode per seed in a batch of one environment, last states included.

    Raises:
        EnvError: the environment cannot render, or fails.
        SpaceError: its spaces are not those that the policy was trained in.
    """
    require_spaces(policy.spec, env_batch.spec)
    first = np.zeros(1, np.int64)
    frames: list[npt.NDArray[np.uint8]] = []
    for seed in seeds:
        state = policy.initial_state(1)
        observations = env_batch.reset(first, np.array([seed], np.int64))
        frames.append(env_batch.render(0))
        ended = False
        while not ended:
            actions = policy.step(observations.leaves, state, observations.action_mask, greedy=greedy)
            step = env_batch.step(actions)
            if step.failures:
                raise EnvError(f"the environment failed while it was filmed: {step.failures[0].message}")
            state.advance(actions, step.rewards)
            observations = step.observations
            frames.append(env_batch.render(0))
            ended = bool(step.terminated[0] or step.truncated[0])
        frames.extend([frames[-1]] * _HOLD_FRAMES)
    return frames


def write_film(frames: list[npt.NDArray[np.uint8]], out: Path) -> Path:
    """Write frames to `out`, which ends in .gif or .mp4.

    Raises:
        ConfigError: it has another ending, or is something else than a film already.
        RunDirectoryError: it cannot be written; an earlier film there is as it was.
    """
    import imageio.v3 as imageio

    check_film_name(out)
    temporary = out.with_name(f".{out.stem}.{os.getpid()}{out.suffix}")
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        imageio.imwrite(temporary, np.stack(frames), **_OPTIONS[out.suffix])
        temporary.replace(out)
    except OSError as error:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)
        if error.errno is None and out.suffix == ".mp4":
            # What imageio raises where no plugin for videos is installed.
            raise ConfigError(f"{out}: writing .mp4 needs the package imageio[ffmpeg]; .gif does not") from error
        raise RunDirectoryError(f"{out}: cannot be written: {error.strerror or error}") from error
    return out


def check_film_name(out: Path) -> None:
    """Refuse a file that `write_film` could not write, before anything is filmed.

    Raises:
        ConfigError: its name ends in neither .gif nor .mp4, or it is something else than a film already.
    """
    if out.suffix not in _OPTIONS:
        raise ConfigError(f'{out}: expected a name that ends in .gif or .mp4, got "{out.suffix}"')
    if out.is_dir():
        raise ConfigError(f"{out}: expected a file to write, found a folder")
    if out.is_file():
        with out.open("rb") as file:
            start = file.read(8)
        if start[:6] not in (b"GIF87a", b"GIF89a") and start[4:] != b"ftyp":
            raise ConfigError(f"{out}: expected a film to replace, found another kind of file")


def _last_line(text: str) -> str:
    return text.strip().rpartition("\n")[2]
