"""`EnvRunner`: steps a batch of environments with one forward per step and turns out whole episodes."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Mapping
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import torch

from amago_ray.acting.columns import EpisodeColumns, EvaluationColumns
from amago_ray.acting.exploration import Exploration, make_exploration
from amago_ray.acting.policy import Policy
from amago_ray.acting.torch_settings import kept_torch_settings
from amago_ray.config import Config
from amago_ray.data.episode import Episode, EpisodeId, PolicyVersion
from amago_ray.data.episode_stats import EpisodeStats
from amago_ray.data.specs import EnvSpec, require_alike
from amago_ray.envs.env_batch import EnvBatch, EnvFailure
from amago_ray.envs.make import make_env_batch
from amago_ray.errors import EnvError

if TYPE_CHECKING:
    from amago_ray.data.snapshot import Snapshot


# Spawn key of a runner's random streams.
_STREAMS = 1


class EnvRunner:
    """Steps environments under a policy and collects their episodes; without `keeps_episodes` their statistics alone.

    Seeds derive from (seed, runner, incarnation, counter), so a restarted runner, which gets a new incarnation, never
    replays its worlds. Episode ids have `run_id` in place of the seed: runs of equal seed play equal worlds, but never
    take each other's episodes for their own.
    """

    def __init__(
        self,
        env_batch: EnvBatch,
        policy: Policy,
        *,
        seed: int,
        run_id: int,
        runner: int,
        incarnation: int,
        exploration: Exploration,
        greedy: bool = False,
        keeps_episodes: bool = True,
    ) -> None:
        self.num_envs = env_batch.num_envs
        self.horizon = env_batch.spec.horizon
        """Longest episode, None where it is not known."""
        self.policy = policy
        self.global_env_steps = 0
        """Env steps of the whole run, told by the owner; drives the exploration schedule."""
        self.env_steps = 0
        """Transitions made by this runner, those of dropped episodes too."""
        self.num_dropped_episodes = 0
        """Partial episodes lost to environment failures."""
        self.num_abandoned_episodes = 0
        """Partial episodes given up on purpose, by `abandon`."""
        self.failures: Counter[str] = Counter()
        """How often each kind of environment failure happened."""
        self.failure_messages: dict[str, str] = {}
        """Of each kind of environment failure, what the first one said."""
        self.num_isolated_envs = 0
        """Environments that are not used any more, as they failed too often."""
        self.policy_time_s = 0.0
        self.env_time_s = 0.0
        self._envs = env_batch
        self._seed = seed
        self._name = (run_id, runner, incarnation)
        self._exploration = exploration
        self._greedy = greedy
        self._counter = 0
        self._rng = np.random.default_rng()
        self._columns = (EpisodeColumns if keeps_episodes else EvaluationColumns)(env_batch.spec, self.num_envs)
        self._state = policy.initial_state(self.num_envs)
        self._episodes: list[Episode] = []
        self._ids: list[EpisodeId] = [EpisodeId(*self._name, -1)] * self.num_envs
        self._seeds = np.zeros(self.num_envs, np.int64)
        self._first_versions: list[PolicyVersion] = [policy.version] * self.num_envs
        self._events: list[dict[str, list[float]]] = [{} for _ in range(self.num_envs)]
        self._all = np.arange(self.num_envs)
        self.begin_incarnation(incarnation)

    def begin_incarnation(self, incarnation: int) -> None:
        """Drop running episodes and go on with seeds and ids that belong to `incarnation` alone."""
        run_id, runner, _ = self._name
        self._name = (run_id, runner, incarnation)
        self._counter = 0
        # The key keeps these streams apart from others that derive from short tuples which begin with the run's seed.
        noise, sampling = np.random.SeedSequence((self._seed, runner, incarnation), spawn_key=(_STREAMS,)).spawn(2)
        self._rng = np.random.default_rng(noise)
        self.policy.generator.manual_seed(int(sampling.generate_state(1, np.uint64)[0] >> np.uint64(1)))
        self._reset(self._all)

    def load(self, snapshot: Snapshot) -> None:
        """Swap weights between steps and rebuild the running episodes' caches under them.

        Acting then equals the full forward over each episode's last context of tokens. Needs the episodes kept, where
        some are running.
        """
        self.policy.load(snapshot)
        time_index = self._state.time_index
        for index in np.flatnonzero(time_index == 0):
            self._first_versions[index] = snapshot.version
        counts = np.minimum(time_index, self.policy.context_length - 1)
        running = np.flatnonzero(counts)
        if len(running) == 0:
            return
        if not isinstance(self._columns, EpisodeColumns):
            raise ValueError("load: expected no running episodes, as they are not kept")
        counts = counts[running]
        contexts = [self._columns.context(*pair) for pair in zip(running.tolist(), counts.tolist(), strict=True)]
        leaves, prev_actions, prev_rewards = zip(*contexts, strict=True)
        ends = time_index[running].tolist()
        self.policy.rebuild(
            {name: np.concatenate([each[name] for each in leaves]) for name in leaves[0]},
            np.concatenate(prev_actions),
            np.concatenate(prev_rewards),
            np.concatenate([np.arange(end - count, end) for end, count in zip(ends, counts, strict=True)]),
            counts,
            running,
            self._state,
        )

    def step(self) -> list[EpisodeStats]:
        """One step of all environments; returns the statistics of the episodes that ended with it.

        Raises:
            EnvError: every environment has failed for good.
        """
        began = time.perf_counter()
        columns, state = self._columns, self._state
        mask = columns.action_mask
        actions = self.policy.step(columns.observations, state, mask, greedy=self._greedy)
        # Copies: what explores may be the user's.
        actions = self._exploration.apply(
            actions,
            state.time_index.copy(),
            self.global_env_steps,
            None if mask is None else mask.copy(),
            self._rng,
        )
        acted = time.perf_counter()
        with kept_torch_settings():
            result = self._envs.step(actions)
        self.env_time_s += time.perf_counter() - acted
        self.policy_time_s += acted - began

        columns.append(actions, result.rewards, result.observations)
        state.advance(actions, result.rewards)
        for event in result.events:
            self._events[event.index].setdefault(event.name, []).append(event.value)
        # Episodes of environments that failed, or made no transition, are dropped.
        kept = np.ones(self.num_envs, np.bool_) if result.valid is None else result.valid.copy()
        for failure in result.failures:
            self._note(failure)
            kept[failure.index] = False
        self.env_steps += int(kept.sum())
        ended = result.terminated | result.truncated
        finished = [
            self._finish(int(index), bool(result.terminated[index]), bool(result.truncated[index]))
            for index in np.flatnonzero(ended & kept)
        ]
        over = ended | ~kept
        if over.any():
            self._reset(np.flatnonzero(over))
        return finished

    def take_episodes(self) -> list[Episode]:
        """The episodes that have ended since they were taken last, in the order of their statistics."""
        taken, self._episodes = self._episodes, []
        return taken

    @property
    def running_lengths(self) -> npt.NDArray[np.int64]:
        """Transitions `[E]` that each running episode has had."""
        return self._state.time_index.copy()

    @property
    def oldest_running(self) -> int:
        """The counter of the running episode that started first."""
        return min(episode_id.counter for episode_id in self._ids)

    def state(self) -> dict[str, Any]:
        """What a deterministic resume needs, as plain data, without the running episodes.

        A runner that `abandon`s them right after this, and one that loads this, go on alike.
        """
        return {
            "counter": self._counter,
            "env_steps": self.env_steps,
            "num_dropped_episodes": self.num_dropped_episodes,
            "num_abandoned_episodes": self.num_abandoned_episodes + self.num_partial_episodes,
            "rng": self._rng.bit_generator.state,
            "generator": self.policy.generator.get_state().numpy().tobytes().hex(),
        }

    def load_state(self, state: Mapping[str, Any]) -> None:
        """Go on from `state()`, with new episodes in every environment."""
        self._counter = state["counter"]
        self.env_steps = state["env_steps"]
        self.num_dropped_episodes = state["num_dropped_episodes"]
        self.num_abandoned_episodes = state["num_abandoned_episodes"]
        self._rng.bit_generator.state = state["rng"]
        generator = np.frombuffer(bytearray.fromhex(state["generator"]), np.uint8)
        self.policy.generator.set_state(torch.from_numpy(generator))
        self._reset(self._all)

    def abandon(self) -> None:
        """Drop all running episodes and begin new ones."""
        self.num_abandoned_episodes += self.num_partial_episodes
        self._reset(self._all)

    def close(self) -> None:
        """Release the environments."""
        self._envs.close()

    @property
    def num_partial_episodes(self) -> int:
        """Running episodes that have made a step."""
        return int(np.count_nonzero(self._state.time_index))

    def _note(self, failure: EnvFailure) -> None:
        self.failures[failure.kind] += 1
        self.failure_messages.setdefault(failure.kind, failure.message)
        self.num_dropped_episodes += 1
        self.num_isolated_envs += failure.is_isolated
        if self.num_isolated_envs == self.num_envs:
            raise EnvError(f"every environment has failed again and again, last: {failure.message}")

    def _finish(self, index: int, terminated: bool, truncated: bool) -> EpisodeStats:
        name = self._envs.env_names[index]
        if isinstance(self._columns, EpisodeColumns):
            episode = self._columns.episode(
                index,
                terminated=terminated,
                truncated=truncated,
                episode_id=self._ids[index],
                env_name=name,
                seed=int(self._seeds[index]),
                first_policy_version=self._first_versions[index],
                last_policy_version=self.policy.version,
            )
            self._episodes.append(episode)
            rewards = episode.rewards
        else:
            rewards = self._columns.rewards(index)
        events = self._events[index]
        success = events.pop("success", None)
        return EpisodeStats(
            env_name=name,
            episode_return=float(rewards.sum(dtype=np.float64)),
            length=len(rewards),
            counter=self._ids[index].counter,
            policy_version=self.policy.version,
            success=None if success is None else float(success[-1]),
            events={key: float(np.mean(values)) for key, values in events.items()},
        )

    def _reset(self, indices: npt.NDArray[np.int64]) -> None:
        for index in indices:
            self._ids[index] = EpisodeId(*self._name, self._counter)
            self._seeds[index] = _episode_seed(self._seed, self._ids[index])
            self._first_versions[index] = self.policy.version
            self._events[index] = {}
            self._counter += 1
        began = time.perf_counter()
        with kept_torch_settings():
            observations = self._envs.reset(indices, self._seeds[indices])
        self.env_time_s += time.perf_counter() - began
        self._columns.start(indices, observations)
        self.policy.begin(self._state, indices)
        self._exploration.begin(indices, self._rng)


def _episode_seed(seed: int, episode_id: EpisodeId) -> int:
    """The environment's seed for an episode, below 2**31 as Gymnasium environments expect."""
    return int(np.random.SeedSequence((seed, *episode_id[1:])).generate_state(1)[0] >> 1)


def make_env_runner(
    config: Config, *, run_id: int, runner: int, incarnation: int, device: str = "cpu", spec: EnvSpec | None = None
) -> EnvRunner:
    """The runner number `runner` of a run, with its environments and an untrained policy.

    spec: of the environments as the run knows them, from which these must not differ.

    Raises:
        EnvError: the environments cannot be made.
        SpaceError: their spaces are not those of `spec`.
        ConfigError: settings do not fit them.
    """
    with kept_torch_settings():
        env_batch = make_env_batch(config.envs, config.rollout.num_envs_per_env_runner)
    cache_dtype = {"float16": torch.float16, "float32": torch.float32}[config.rollout.kv_cache_dtype]
    with ExitStack() as failing:
        failing.callback(env_batch.close)
        if spec is not None:
            require_alike(spec, env_batch.spec, f"that of env runner {runner}")
        made = EnvRunner(
            env_batch,
            Policy(config, env_batch.spec, device=device, cache_dtype=cache_dtype),
            seed=config.seed,
            run_id=run_id,
            runner=runner,
            incarnation=incarnation,
            exploration=make_exploration(config.exploration, env_batch.spec, env_batch.num_envs),
        )
        failing.pop_all()
    return made
