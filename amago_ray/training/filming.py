"""Films of a policy: frames of whole episodes, written as GIF or MP4."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from amago_ray.acting.policy import Policy
from amago_ray.acting.torch_settings import kept_torch_settings
from amago_ray.data.specs import require_spaces
from amago_ray.envs.env_batch import EnvBatch
from amago_ray.errors import ConfigError, EnvError, RunDirectoryError

_log = logging.getLogger(__name__)

_FRAMES_PER_S = 8
_OPTIONS: dict[str, dict[str, Any]] = {
    ".gif": {"duration": 1000 / _FRAMES_PER_S, "loop": 0},
    ".mp4": {"fps": _FRAMES_PER_S, "codec": "libx264"},
}
MOST_FRAMES, MOST_BYTES = 5_000, 512 * 1024**2
"""Where a film is cut: ten minutes, or what its pictures may take in memory."""
# The last frame of an episode stays this many frames, so that a viewer sees how it ended.
_HOLD_FRAMES = 6


def film(env_batch: EnvBatch, policy: Policy, seeds: Sequence[int], *, greedy: bool) -> list[npt.NDArray[np.uint8]]:
    """The frames `[height, width, 3]` of one episode per seed in a batch of one environment, last states included.

    A film that grows too long, as of an episode without end, is cut with a warning.

    Raises:
        EnvError: the environment cannot render, or fails.
        SpaceError: its spaces are not those that the policy was trained in.
    """
    require_spaces(policy.spec, env_batch.spec)
    frames: list[npt.NDArray[np.uint8]] = []
    num_bytes = 0
    for seed in seeds:
        for frame in _episode(env_batch, policy, seed, greedy=greedy):
            frames.append(frame)
            num_bytes += frame.nbytes
            if len(frames) >= MOST_FRAMES or num_bytes >= MOST_BYTES:
                _log.warning(
                    "the film is cut after %d pictures: shorten episodes by env.max_episode_steps", len(frames)
                )
                return frames
        frames.extend([frames[-1]] * _HOLD_FRAMES)
    return frames


def _episode(env_batch: EnvBatch, policy: Policy, seed: int, *, greedy: bool) -> Iterator[npt.NDArray[np.uint8]]:
    """The frames of one episode."""
    state = policy.initial_state(1)
    with kept_torch_settings():
        observations = env_batch.reset(np.zeros(1, np.int64), np.array([seed], np.int64))
        picture = env_batch.render(0)
    yield picture
    ended = False
    while not ended:
        actions = policy.step(observations.leaves, state, observations.action_mask, greedy=greedy)
        with kept_torch_settings():
            step = env_batch.step(actions)
            if step.failures:
                raise EnvError(f"the environment failed while it was filmed: {step.failures[0].message}")
            picture = env_batch.render(0)
        state.advance(actions, step.rewards)
        observations = step.observations
        yield picture
        ended = bool(step.terminated[0] or step.truncated[0])


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
        # Videos are coded in blocks of 16 pixels; other sizes would be stretched to them.
        pictures = _of_one_size(frames, multiple=16 if out.suffix == ".mp4" else 1)
        imageio.imwrite(temporary, pictures, **_OPTIONS[out.suffix])
        temporary.replace(out)
    except Exception as error:  # the libraries behind imageio raise what they like
        with suppress(OSError):
            temporary.unlink(missing_ok=True)
        if isinstance(error, OSError) and error.errno is None and out.suffix == ".mp4":
            # What imageio raises where no plugin for videos is installed.
            raise ConfigError(f"{out}: writing .mp4 needs the package imageio[ffmpeg]; .gif does not") from error
        why = " ".join((getattr(error, "strerror", None) or str(error)).split()) or type(error).__name__
        raise RunDirectoryError(f"{out}: cannot be written: {why}") from error
    return out


def _of_one_size(frames: Sequence[npt.NDArray[np.uint8]], *, multiple: int) -> npt.NDArray[np.uint8]:
    """The frames `[F, height, width, 3]`, smaller ones in the middle of a black frame of the largest's size."""
    height, width = (-(-max(frame.shape[axis] for frame in frames) // multiple) * multiple for axis in (0, 1))
    pictures = np.zeros((len(frames), height, width, 3), np.uint8)
    for picture, frame in zip(pictures, frames, strict=True):
        top, left = (height - frame.shape[0]) // 2, (width - frame.shape[1]) // 2
        picture[top : top + frame.shape[0], left : left + frame.shape[1]] = frame
    return pictures


def check_film_name(out: Path) -> None:
    """Refuse a file that `write_film` could not write, before anything is filmed.

    Raises:
        ConfigError: its name ends in neither .gif nor .mp4, or it is something else than a film already.
    """
    if out.suffix not in _OPTIONS:
        raise ConfigError(f'{out}: expected a name that ends in .gif or .mp4, got "{out.suffix}"')
    if out.is_dir():
        raise ConfigError(f"{out}: expected a file to write, got a folder")
    if out.is_file():
        with out.open("rb") as file:
            start = file.read(8)
        if start[:6] not in (b"GIF87a", b"GIF89a") and start[4:] != b"ftyp":
            raise ConfigError(f"{out}: expected a film to replace, got another kind of file")
