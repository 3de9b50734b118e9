"""`Policy`: a trained agent that acts, batched and stateful, with neither Ray nor an environment."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import torch

from amago_ray.acting.network import ActingNetwork
from amago_ray.config import Config
from amago_ray.data.episode import PolicyVersion
from amago_ray.data.spaces import ActionAdapter, ObservationAdapter
from amago_ray.data.specs import ACHIEVED_GOAL, ACTION_MASK, DESIRED_GOAL, EnvSpec
from amago_ray.errors import DataError, SpaceError
from amago_ray.nets.distributions import make_distribution
from amago_ray.nets.layout import SequenceLayout
from amago_ray.nets.tokens import TokenColumns

if TYPE_CHECKING:
    from amago_ray.acting.network import ActingState
    from amago_ray.data.snapshot import Snapshot


@dataclass
class PolicyState:
    """What B running episodes carry from step to step; made by `Policy.initial_state`.

    Of each its time index, the action and reward that led to it (zeros at an episode's first row), and what its
    network remembers.
    """

    network: ActingState
    time_index: npt.NDArray[np.int64]
    prev_action: npt.NDArray[np.generic]
    prev_reward: npt.NDArray[np.float32]

    def advance(self, actions: npt.NDArray[np.generic], rewards: npt.NDArray[np.float32]) -> None:
        """The episodes went on by one step, with these actions `[B, ...]` in storage form and rewards `[B]`."""
        self.prev_action[:] = actions
        self.prev_reward[:] = rewards
        self.time_index = self.time_index + 1


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
        self.distribution = make_distribution(spec.action, config.agent)
        """Of actions, given the parameters that the network returns."""
        self._observation = ObservationAdapter(spec.observations)
        self._action = ActionAdapter(spec.action)
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
            prev_reward=np.zeros(batch_size, np.float32),
        )

    def begin(self, state: PolicyState, indices: npt.NDArray[np.int64]) -> None:
        """New episodes begin in these rows of the batch."""
        self.network.reset(state.network, indices)
        state.time_index[indices] = 0
        state.prev_action[indices] = 0
        state.prev_reward[indices] = 0

    def act(
        self,
        observations: Any,
        state: PolicyState,
        *,
        reward: npt.ArrayLike | None = None,
        reset: npt.ArrayLike | None = None,
        action_mask: npt.ArrayLike | None = None,
        greedy: bool = False,
    ) -> tuple[npt.NDArray[np.generic], PolicyState]:
        """The actions `[B, ...]` for B observations, and the state to pass to the next call.

        Both are in the environment's own spaces: shapes, dtypes, the order of an image's axes, categories from their
        start. Where B is 1, everything given may come without its leading axis, as an environment returns it:

            policy, env = amago_ray.load_policy("runs/mine"), gymnasium.make("CartPole-v1")
            state, (observation, _), reward, ended = policy.initial_state(), env.reset(), 0.0, False
            while not ended:
                actions, state = policy.act(observation, state, reward=reward)
                observation, reward, terminated, truncated, _ = env.step(actions[0])
                ended = terminated or truncated

        observations: nested in dicts and tuples as the observation space is, each leaf `[B, ...]`; or a mapping from
        the names in `spec.observations`; or the bare leaf where there is a single one. Achieved goals are not read.
        reward `[B]`: what the last actions earned; None is zero.
        reset `[B]` bool: episodes that begin with these observations; the first call needs none.
        action_mask `[B, mask_size]`: the allowed actions; None takes the observation's own mask, else allows all.
        greedy: take the most likely action instead of sampling.

        Raises:
            DataError: something given is missing, unknown, of another shape, or holds what its space cannot; the
                message says what was expected and what was found.
        """
        batch_size = len(state.time_index)
        try:
            leaves, mask = self._read(observations, action_mask, batch_size)
        except SpaceError as error:
            raise DataError(str(error)) from None
        earned = None if reward is None else _column("reward", reward, batch_size, np.isfinite, "finite numbers")
        begins = (
            None if reset is None else _column("reset", reset, batch_size, lambda x: (x == 0) | (x == 1), "booleans")
        )
        if earned is not None:
            state.prev_reward[:] = earned
        if begins is not None:
            self.begin(state, np.flatnonzero(begins))
        actions = self.step(leaves, state, mask, greedy=greedy)
        # What they earn comes with the next call.
        state.advance(actions, np.zeros(batch_size, np.float32))
        return self._action.to_space(actions), state

    def step(
        self,
        leaves: Mapping[str, npt.NDArray[np.generic]],
        state: PolicyState,
        action_mask: npt.NDArray[np.bool_] | None,
        *,
        greedy: bool,
    ) -> npt.NDArray[np.generic]:
        """One forward for E environments: actions `[E, ...]` for the rows that they show, all in storage form.

        The network's memory goes on; `state.advance` says what was done and earned.
        """
        tokens = self._tokens(leaves, state.prev_action, state.prev_reward, state.time_index, action_mask)
        with torch.inference_mode():
            params = self.network.step(tokens, state.network)
            actions = self.distribution.act(params, tokens.action_mask, None if greedy else self.generator)
        return actions.cpu().numpy()

    def rebuild(
        self,
        leaves: Mapping[str, npt.NDArray[np.generic]],
        prev_action: npt.NDArray[np.generic],
        prev_reward: npt.NDArray[np.float32],
        time_index: npt.NDArray[np.int64],
        lengths: npt.NDArray[np.int64],
        indices: npt.NDArray[np.int64],
        state: PolicyState,
    ) -> None:
        """Recompute what the network remembers of `indices` under the current weights.

        The packed tokens are the last of each episode before the present one, `lengths[j]` of `indices[j]`.
        """
        tokens = self._tokens(leaves, prev_action, prev_reward, time_index, None)
        layout = SequenceLayout.from_lengths(lengths.tolist(), device=self._device)
        with torch.inference_mode():
            self.network.rebuild(state.network, indices, tokens, layout)

    def _read(
        self, observations: Any, action_mask: npt.ArrayLike | None, batch_size: int
    ) -> tuple[dict[str, npt.NDArray[np.generic]], npt.NDArray[np.bool_] | None]:
        """Observations and mask as a caller has them, copied into the columns that the policy reads."""
        spec = self.spec
        unread = [ACTION_MASK] * spec.has_action_mask + [ACHIEVED_GOAL] * (DESIRED_GOAL in spec.observations)
        self._observation.check_keys(observations, unread)
        rows = self._observation.rows(observations, batch_size)
        mask: Any = action_mask
        if mask is None and spec.has_action_mask and isinstance(observations, Mapping):
            mask = observations.get(ACTION_MASK)
        leaves = {name: np.array(column, order="C") for name, column in rows.items()}
        return leaves, None if mask is None else self._action.mask_rows(mask, batch_size).copy()

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


def _column(
    name: str,
    values: npt.ArrayLike,
    batch_size: int,
    is_valid: Callable[[npt.NDArray[Any]], npt.NDArray[np.bool_]],
    expected: str,
) -> npt.NDArray[Any]:
    """One number for each of B episodes; of a single one also without its axis."""
    try:
        column = np.asarray(values)
    except ValueError as error:
        raise DataError(f"{name}: expected shape [{batch_size}], got rows of several lengths") from error
    if column.shape != (batch_size,) and not (batch_size == 1 and column.shape == ()):
        raise DataError(f"{name}: expected shape [{batch_size}], got {list(column.shape)}")
    if column.dtype.kind not in "biuf" or not is_valid(column).all():
        raise DataError(f"{name}: expected {expected}, got {values!r:.80}")
    return column.reshape(batch_size)
