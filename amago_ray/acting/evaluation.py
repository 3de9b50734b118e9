"""Evaluation: a fixed number of whole episodes per environment, first started first counted."""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Callable
from contextlib import ExitStack
from typing import TYPE_CHECKING

from amago_ray.acting.env_runner import EnvRunner
from amago_ray.acting.exploration import NoExploration
from amago_ray.acting.policy import Policy
from amago_ray.acting.torch_settings import kept_torch_settings
from amago_ray.config import Config
from amago_ray.config.env import EnvConfig
from amago_ray.config.model import TransformerConfig
from amago_ray.data.episode_stats import EpisodeStats
from amago_ray.data.specs import EnvSpec, require_spaces
from amago_ray.envs.make import make_env_batch, make_spec
from amago_ray.errors import ConfigError, EnvError

if TYPE_CHECKING:
    from amago_ray.data.snapshot import Snapshot

_log = logging.getLogger(__name__)

EVALUATION_RUNNER = 1_000_000
"""First runner number of evaluation, far from those of training, so that worlds are never shared."""


LONGEST_EPISODE = 25_000
"""Steps after which an episode without a known horizon counts as endless."""
MOST_LOST_EPISODES = 100
"""Episodes lost to failures, none ending in between, after which that counts as how it goes on."""


class EvaluationInterrupted(Exception):  # noqa: N818
    """An evaluation was told to end before its time."""


class Evaluator:
    """Evaluates snapshots in environments of its own; nothing of it goes to replay."""

    def __init__(self, config: Config) -> None:
        evaluation = config.evaluation
        self._num_episodes = evaluation.num_episodes
        num_envs = min(evaluation.num_envs, evaluation.num_episodes)
        self._runners: list[EnvRunner] = []
        with ExitStack() as failing:
            failing.callback(self.close)
            for number, env in enumerate(config.evaluation_envs):
                self._runners.append(make_evaluation_runner(config, env, num_envs, number, greedy=evaluation.greedy))
            failing.pop_all()

    def evaluate(
        self, number: int, snapshot: Snapshot, is_interrupted: Callable[[], bool] = lambda: False
    ) -> list[EpisodeStats]:
        """The episodes of the run's evaluation `number`, whose worlds belong to that number alone.

        Raises:
            EvaluationInterrupted: `is_interrupted`, asked before every step, said so.
            EnvError: the episodes do not end.
        """
        episodes = []
        for runner in self._runners:
            runner.policy.load(snapshot)
            runner.begin_incarnation(number)
            episodes.extend(run_episodes(runner, self._num_episodes, is_interrupted))
        return episodes

    def close(self) -> None:
        """Release the environments."""
        for runner in self._runners:
            runner.close()


def make_evaluation_runner(
    config: Config,
    env: EnvConfig,
    num_envs: int,
    number: int,
    *,
    greedy: bool,
    device: str = "cpu",
    trained: EnvSpec | None = None,
) -> EnvRunner:
    """A runner that acts by the policy alone, in worlds apart from those of training.

    trained: of the environment in which the policy was trained, where that is not known to have these spaces.

    Raises:
        EnvError: the environment cannot be made.
        SpaceError: its spaces are not those that the policy was trained in.
        ConfigError: its episodes are too long for the positions that training learned.
    """
    with kept_torch_settings():
        env_batch = make_env_batch([env], num_envs)
    with ExitStack() as failing:
        failing.callback(env_batch.close)
        if trained is not None:
            require_spaces(trained, env_batch.spec)
        runner = EnvRunner(
            env_batch,
            Policy(config, _policy_spec(config, env_batch.spec), device=device),
            seed=config.seed,
            # No episode of an evaluation is stored.
            run_id=0,
            runner=EVALUATION_RUNNER + number,
            incarnation=0,
            exploration=NoExploration(),
            greedy=greedy,
            keeps_episodes=False,
        )
        failing.pop_all()
    return runner


def _policy_spec(config: Config, spec: EnvSpec) -> EnvSpec:
    """The evaluation environment's spec, with the horizon for which the networks were built."""
    model = config.model.sequence_model
    if not isinstance(model, TransformerConfig) or model.positions != "learned":
        return spec
    with kept_torch_settings():
        horizon = make_spec(config.envs).horizon if model.max_time_index is None else model.max_time_index - 1
    if horizon is not None and spec.horizon is not None and spec.horizon > horizon:
        raise ConfigError(
            f"evaluation: {spec.name}: expected episodes of at most {horizon} steps, for which positions were learned, "
            f"got {spec.horizon}"
        )
    return dataclasses.replace(spec, horizon=horizon)


def run_episodes(
    runner: EnvRunner, num_episodes: int, is_interrupted: Callable[[], bool] = lambda: False
) -> list[EpisodeStats]:
    """The first `num_episodes` episodes of the runner's incarnation, in the order of their start.

    Counting by start, not by end, keeps short (often successful) episodes from being over-represented. One that was
    lost to a failure is replaced by the next that started. Call `EnvRunner.begin_incarnation` before.

    Raises:
        EvaluationInterrupted: `is_interrupted`, asked before every step, said so.
        EnvError: an episode does not end, or one after the other is lost.
    """
    finished: dict[int, EpisodeStats] = {}
    longest = max(LONGEST_EPISODE, 2 * (runner.horizon or 0))
    oldest, age, lost_before = runner.oldest_running, 0, runner.num_dropped_episodes
    while not is_interrupted():
        ended = runner.step()
        age = age + 1 if runner.oldest_running == oldest else 0
        oldest = runner.oldest_running
        if age == longest // 5:
            _log.warning(
                "no episode ended in %s steps of evaluation: it is given up after %s", f"{age:,}", f"{longest:,}"
            )
        if age >= longest:
            raise EnvError(f"no episode ended in {age:,} steps: set env.max_episode_steps")
        if ended:
            lost_before = runner.num_dropped_episodes
        elif runner.num_dropped_episodes - lost_before >= MOST_LOST_EPISODES:
            kind = runner.failures.most_common(1)[0][0]
            raise EnvError(
                f"{MOST_LOST_EPISODES} episodes in a row were lost to failures, mostly {runner.failure_messages[kind]}"
            )
        if not ended:
            continue
        finished |= {stats.counter: stats for stats in ended}
        first = sorted(finished)[:num_episodes]
        if len(first) == num_episodes and first[-1] < runner.oldest_running:
            return [finished[counter] for counter in first]
    raise EvaluationInterrupted
