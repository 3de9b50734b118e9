"""`Policy`: a trained agent that acts, batched and stateful, with neither Ray nor an environment."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import torch

from amago_ray.acting.network import ActingNetwork
from amago_ray.config import Config
from amago_ray.data.episode import PolicyVersion
from amago_ray.data.specs import EnvSpec
from amago_ray.errors import DataError
from amago_ray.nets.distributions import make_distribution
from amago_ray.nets.layout import SequenceLayout
from amago_ray.nets.tokens import TokenColumns

if TYPE_CHECKING:
    from amago_ray.acting.network import ActingState
    from amago_ray.data.snapshot import Snapshot


@dataclass
class PolicyState:
    """What B running episodes carry from step to step; made by `Policy.initial_state`."""

    network: ActingState
    time_index: npt.NDArray[np.int64]
    prev_action: npt.NDArray[np.generic]


class Policy:
    """Acts for a batch of episodes with the weights of one snapshot at a time.

    cache_dtype: of a Transformer's keys and values, see `TransformerDecoder`.
    """

    def __init__(
        self, config: Config, spec: EnvSpec, *, device: str = "cpu", cache_dtype: torch.dtype = torch.float32
    ) -> None:
        self.spec = spec
        self.context_length = config.model.sequence_model.context_length
        self.version = PolicyVersion(-1, -1)
        self.network = ActingNetwork(config, spec, device=device, cache_dtype=cache_dtype)
        self._device = torch.device(device)
        self._distribution = make_distribution(spec.action, config.agent)
        self.generator = torch.Generator(device=device)
        """Draws sampled actions; seed it with `manual_seed` for reproducible ones."""

    def load(self, snapshot: Snapshot) -> None:
        """Take over the weights of a snapshot; states made under older weights must be rebuilt or reset."""
        self.network.load(snapshot.arrays)
        self.version = snapshot.version

    def initial_state(self, batch_size: int = 1) -> PolicyState:
        """The state of B episodes that have not begun."""
        return PolicyState(
            network=self.network.initial_state(batch_size),
            time_index=np.zeros(batch_size, np.int64),
            prev_action=np.zeros((batch_size, *self.spec.action.shape), self.spec.action.dtype),
        )

    def act(
        self,
        observations: Mapping[str, npt.ArrayLike] | npt.ArrayLike,
        state: PolicyState,
        *,
        reward: npt.ArrayLike | None = None,
        reset: npt.ArrayLike | None = None,
        action_mask: npt.ArrayLike | None = None,
        greedy: bool = False,
    ) -> tuple[npt.NDArray[np.generic], PolicyState]:
        """The actions `[B, ...]` for B observations, and the state to pass to the next call.

        observations: each leaf `[B, ...]`, or the bare array where there is a single leaf.
        reward `[B]`: what the last actions earned; None is zero.
        reset `[B]` bool: episodes that begin with these observations; the first call needs none.
        greedy: take the most likely action instead of sampling.

        Raises: DataError if a leaf that the policy reads is missing, or its shape does not fit.
        """
        batch_size = len(state.time_index)
        leaves = self._leaves(observations, batch_size)
        rewards = np.zeros(batch_size, np.float32)
        if reward is not None:
            rewards[:] = reward
        if reset is not None:
            begins = np.flatnonzero(np.broadcast_to(np.asarray(reset, np.bool_), batch_size))
            self.network.reset(state.network, begins)
            state.time_index[begins] = 0
            state.prev_action[begins] = 0
            rewards[begins] = 0
        mask = None if action_mask is None else np.array(action_mask, np.bool_).reshape(batch_size, -1)
        actions = self.act_stored(leaves, state, rewards, mask, greedy=greedy)
        return self.spec.action.to_environment(actions), state

    def act_stored(
        self,
        leaves: Mapping[str, npt.NDArray[np.generic]],
        state: PolicyState,
        rewards: npt.NDArray[np.float32],
        action_mask: npt.NDArray[np.bool_] | None,
        *,
        greedy: bool,
    ) -> npt.NDArray[np.generic]:
        """As `act`, for columns and actions in storage form."""
        actions = self.step(
            leaves, state.prev_action, rewards, state.time_index, action_mask, state.network, greedy=greedy
        )
        # A copy: callers may reuse what they are given.
        state.prev_action = actions.copy()
        state.time_index = state.time_index + 1
        return actions

    def step(
        self,
        leaves: Mapping[str, npt.NDArray[np.generic]],
        prev_action: npt.NDArray[np.generic],
        prev_reward: npt.NDArray[np.float32],
        time_index: npt.NDArray[np.int64],
        action_mask: npt.NDArray[np.bool_] | None,
        state: ActingState,
        *,
        greedy: bool,
    ) -> npt.NDArray[np.generic]:
        """One forward for E environments: actions `[E, ...]` in storage form; `state` advances in place."""
        tokens = self._tokens(leaves, prev_action, prev_reward, time_index, action_mask)
        with torch.inference_mode():
            params = self.network.step(tokens, state)
            actions = self._distribution.act(params, tokens.action_mask, None if greedy else self.generator)
        return actions.cpu().numpy()

    def rebuild(
        self,
        leaves: Mapping[str, npt.NDArray[np.generic]],
        prev_action: npt.NDArray[np.generic],
        prev_reward: npt.NDArray[np.float32],
        time_index: npt.NDArray[np.int64],
        lengths: npt.NDArray[np.int64],
        indices: npt.NDArray[np.int64],
        state: ActingState,
    ) -> None:
        """Recompute the state of `indices` under the current weights from packed tokens, `lengths[j]` for each."""
        tokens = self._tokens(leaves, prev_action, prev_reward, time_index, None)
        layout = SequenceLayout.from_lengths(lengths.tolist(), device=self._device)
        with torch.inference_mode():
            self.network.rebuild(state, indices, tokens, layout)

    def _leaves(
        self, observations: Mapping[str, npt.ArrayLike] | npt.ArrayLike, batch_size: int
    ) -> dict[str, npt.NDArray[np.generic]]:
        """Observations as a caller has them, copied into the columns that the policy reads."""
        specs = self.spec.observations
        if not isinstance(observations, Mapping):
            if len(specs) > 1:
                raise DataError(f"observations: expected a mapping with {', '.join(specs)}, got a bare array")
            observations = dict.fromkeys(specs, observations)
        leaves = {}
        for name, leaf in specs.items():
            if name not in observations:
                raise DataError(f"observations: expected {', '.join(specs)}, got no {name}")
            column = np.array(observations[name], dtype=leaf.dtype)
            if column.size != batch_size * int(np.prod(leaf.shape, dtype=np.int64)):
                expected = [batch_size, *leaf.shape]
                raise DataError(f"observations: {name}: expected shape {expected}, got {list(column.shape)}")
            leaves[name] = column.reshape(batch_size, *leaf.shape)
        return leaves

    def _tokens(
        self,
        leaves: Mapping[str, npt.NDArray[np.generic]],
        prev_action: npt.NDArray[np.generic],
        prev_reward: npt.NDArray[np.float32],
        time_index: npt.NDArray[np.int64],
        action_mask: npt.NDArray[np.bool_] | None,
    ) -> TokenColumns:
        self.network.check_time_index(time_index)
        return TokenColumns(
            observations={name: self._tensor(leaf) for name, leaf in leaves.items()},
            prev_action=self._tensor(prev_action),
            prev_reward=self._tensor(prev_reward),
            time_index=self._tensor(time_index),
            action_mask=None if action_mask is None else self._tensor(action_mask),
        )

    def _tensor(self, column: npt.NDArray[np.generic]) -> torch.Tensor:
        return torch.from_numpy(column).to(self._device)
