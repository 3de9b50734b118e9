"""Evaluation: a fixed number of whole episodes per environment, first started first counted."""

from __future__ import annotations

from typing import TYPE_CHECKING

from amago_ray.acting.env_runner import EnvRunner
from amago_ray.acting.exploration import NoExploration
from amago_ray.acting.policy import Policy
from amago_ray.config import Config
from amago_ray.config.env import EnvConfig
from amago_ray.data.episode_stats import EpisodeStats
from amago_ray.envs.make import make_env_batch

if TYPE_CHECKING:
    from amago_ray.data.snapshot import Snapshot

EVALUATION_RUNNER = 1_000_000
"""First runner number of evaluation, far from those of training, so that worlds are never shared."""


class Evaluator:
    """Evaluates snapshots in environments of its own; nothing of it goes to replay."""

    def __init__(self, config: Config) -> None:
        evaluation = config.evaluation
        envs = config.envs if evaluation.env is None else evaluation.env
        self._num_episodes = evaluation.num_episodes
        self._runners = [
            make_evaluation_runner(config, env, evaluation.num_envs, number, greedy=evaluation.greedy)
            for number, env in enumerate(envs if isinstance(envs, list) else [envs])
        ]

    def evaluate(self, number: int, snapshot: Snapshot) -> list[EpisodeStats]:
        """The episodes of the run's evaluation `number`, whose worlds belong to that number alone."""
        episodes = []
        for runner in self._runners:
            runner.policy.load(snapshot)
            runner.begin_incarnation(number)
            episodes.extend(run_episodes(runner, self._num_episodes))
        return episodes

    def close(self) -> None:
        """Release the environments."""
        for runner in self._runners:
            runner.close()


def make_evaluation_runner(
    config: Config, env: EnvConfig, num_envs: int, number: int, *, greedy: bool, device: str = "cpu"
) -> EnvRunner:
    """A runner that acts by the policy alone, in worlds apart from those of training."""
    env_batch = make_env_batch([env], num_envs)
    return EnvRunner(
        env_batch,
        Policy(config, env_batch.spec, device=device),
        run=config.seed,
        runner=EVALUATION_RUNNER + number,
        incarnation=0,
        exploration=NoExploration(),
        greedy=greedy,
    )


def run_episodes(runner: EnvRunner, num_episodes: int) -> list[EpisodeStats]:
    """The first `num_episodes` episodes of the runner's incarnation, in the order of their start.

    Counting by start, not by end, keeps short (often successful) episodes from being over-represented. Call
    `EnvRunner.begin_incarnation` before.
    """
    finished: dict[int, EpisodeStats] = {}
    while len(finished) < num_episodes:
        for done in runner.step():
            if done.stats.counter < num_episodes:
                finished[done.stats.counter] = done.stats
    return [finished[counter] for counter in sorted(finished)]
