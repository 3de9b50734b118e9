"""Suite `acting`: steps of a policy whose networks and cache are on the device, its inputs and actions on the host."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt
import torch
from bench_learner import NUM_ACTIONS
from measuring.device import Device
from measuring.rows import Case, Row

from amago_ray.acting.policy import Policy
from gpu_suites.setting import LearnerSize, Setting

ABOUT = (
    "One step of all environments: observations to the device, networks, cache, sampled actions back to the host, as "
    "an env runner with `rollout.num_gpus_per_env_runner` does it; environments themselves are not stepped. Float32. "
    "Full: every episode has filled the context; staggered: episodes at different steps, about half a context on "
    "average. The limit is what products or one reading of keys and values need at the ceilings. Rebuild: all caches "
    "recomputed, as after new weights."
)
SIZES = (LearnerSize(1, 1000, 256, 3), LearnerSize(1, 1000, 768, 12))
TINY = (LearnerSize(1, 16, 32, 1),)
ENVS = {256: (64, 256, 1024), 768: (256,)}
CALLS_AT_MOST = 200
"""More would fill the staggered caches."""


def cases(setting: Setting) -> Iterator[Case]:
    """Numbers of environments, and for the smaller network the host's own time on one thread."""
    for size in TINY if setting.is_tiny else SIZES:
        for num_envs in (4,) if setting.is_tiny else ENVS[size.width]:
            for is_full in (True, False):
                yield _case(setting, setting.device, size, num_envs, is_full)
    if setting.device.is_cuda:
        yield _case(setting, Device("cpu"), SIZES[0], 64, True)


def _case(setting: Setting, device: Device, size: LearnerSize, num_envs: int, is_full: bool) -> Case:
    case: Row = {
        "device": device.kind,
        "num_envs": num_envs,
        "context": size.context,
        "width": size.width,
        "layers": size.layers,
        "cache": "full" if is_full else "staggered",
    }
    return case, lambda: measure(setting, device, size, num_envs, is_full)


def measure(setting: Setting, device: Device, size: LearnerSize, num_envs: int, is_full: bool) -> Row:
    """Rates of one number of environments."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        acting = Acting(size, device, num_envs, is_full)
        # The host would take minutes.
        rebuild_s = device.time_s(acting.rebuild, 0.0, warm_up=1).median if device == setting.device else None
        calls = CALLS_AT_MOST if not setting.is_tiny else size.context // 4
        step_s = device.time_s(acting.step, setting.seconds, at_most=calls)
    finally:
        torch.set_num_threads(threads)
    row: Row = {
        "ms_per_step": step_s.median * 1e3,
        "env_steps_per_s": num_envs / step_s.median,
        "rebuild_ms": rebuild_s and rebuild_s * 1e3,
        "peak_memory_gib": device.peak_memory_gib,
    }
    if device == setting.device:
        live = acting.live_tokens
        products_s = num_envs * size.network.step_flops(live) / setting.ceilings.float32_flops_per_s
        # The measured rate counts bytes read and bytes written; a cache is only read.
        reading_s = num_envs * size.network.cache_bytes(live, item_bytes=4) / setting.ceilings.copy_bytes_per_s
        row |= {
            "limit_env_steps_per_s": num_envs / max(products_s, reading_s),
            "of_limit": max(products_s, reading_s) / step_s.median,
        }
    return row


class Acting:
    """A policy in the middle of episodes of random observations."""

    def __init__(self, size: LearnerSize, device: Device, num_envs: int, is_full: bool) -> None:
        spec = size.spec
        self._rng = np.random.default_rng(0)
        self._spec = spec
        self._policy = Policy(size.config, spec, device=device.kind)
        self._state = self._policy.initial_state(num_envs)
        last = size.context - 1
        self.lengths: npt.NDArray[np.int64] = (
            np.full(num_envs, last) if is_full else np.linspace(1, last, num_envs).astype(np.int64)
        )
        self._context = size.context
        self._one_each = self._columns(num_envs)
        self._episodes = self._columns(int(self.lengths.sum()))
        self._times = np.concatenate([np.arange(length) for length in self.lengths])
        self.rebuild()

    @property
    def live_tokens(self) -> float:
        """What a step's attention read on average, from the last rebuild until now."""
        now: npt.NDArray[np.int64] = self._state.network.lengths  # type: ignore[attr-defined]
        return float(np.minimum((self.lengths + now) / 2, self._context).mean())

    def rebuild(self) -> None:
        """Fill all caches from the episodes so far."""
        leaves, action, reward = self._episodes
        indices = np.arange(len(self.lengths))
        self._policy.rebuild(leaves, action, reward, self._times, self.lengths, indices, self._state)

    def step(self) -> None:
        """One action of every episode."""
        leaves, action, reward = self._one_each
        state = self._state
        state.time_index, state.prev_action, state.prev_reward = self.lengths, action, reward
        self._policy.step(leaves, state, None, greedy=False)

    def _columns(
        self, rows: int
    ) -> tuple[dict[str, npt.NDArray[np.generic]], npt.NDArray[np.int64], npt.NDArray[np.float32]]:
        leaves: dict[str, npt.NDArray[np.generic]] = {
            name: self._rng.standard_normal((rows, *leaf.shape), dtype=np.float32)
            for name, leaf in self._spec.observations.items()
        }
        return leaves, self._rng.integers(NUM_ACTIONS, size=rows), np.zeros(rows, np.float32)
