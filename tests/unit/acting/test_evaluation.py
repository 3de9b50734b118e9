"""Evaluation: a fixed number of episodes, first started first counted, by the policy alone, in worlds of its own."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
from helpers.envs import SeedLogEnv
from helpers.one_line import one_line
from helpers.peculiar_envs import Database
from helpers.scripted import ScriptedBatch, make_agent, make_config, snapshot_of

from amago_ray.acting.env_runner import EnvRunner, make_env_runner
from amago_ray.acting.evaluation import (
    EvaluationInterrupted,
    Evaluator,
    make_evaluation_runner,
    run_episodes,
)
from amago_ray.acting.exploration import NoExploration
from amago_ray.acting.policy import Policy
from amago_ray.agent.make import build_actor_critic
from amago_ray.config import Config
from amago_ray.config.env import EnvConfig
from amago_ray.config.exploration import EpsilonGreedyConfig, NoExplorationConfig
from amago_ray.config.training import EvaluationConfig
from amago_ray.data.snapshot import Snapshot
from amago_ray.envs.make import make_spec
from amago_ray.errors import ConfigError, EnvError, SpaceError

MAZE = EnvConfig(id="amago_ray/MazeRunner-v0", kwargs={"size": 7, "num_goals": 1, "episode_length": 12})


def maze_config(**evaluation: object) -> Config:
    return replace(make_config(), env=MAZE, seed=5, evaluation=EvaluationConfig(**evaluation))


def maze_snapshot(config: Config, seed: int = 0) -> Snapshot:
    return snapshot_of(make_agent(config, make_spec(config.envs), seed))


def scripted_runner(batch: ScriptedBatch) -> EnvRunner:
    policy = Policy(make_config(), batch.spec)
    return EnvRunner(batch, policy, seed=0, run_id=0, runner=0, incarnation=0, exploration=NoExploration())


class ShortOnesSucceed(ScriptedBatch):
    """Seeds divisible by 3 succeed, and are short; the others take ten times as long."""

    def __init__(self, num_envs: int) -> None:
        super().__init__(num_envs, length_of=lambda index, seed: 2 if seed % 3 == 0 else 20)


@pytest.mark.parametrize("num_envs", [1, 4, 30])
def test_a23_episodes_are_counted_in_the_order_of_their_start(num_envs: int) -> None:
    """docs/algorithm.md §14.23: short, successful episodes do not crowd out the long ones that started before them."""
    runner = scripted_runner(ShortOnesSucceed(num_envs))
    episodes = run_episodes(runner, 30)
    assert [episode.counter for episode in episodes] == list(range(30))
    # The first to end would have been short ones above all.
    assert np.mean([episode.length for episode in episodes]) > 10


def test_a23_the_number_of_environments_changes_nothing() -> None:
    """The same episodes are counted, however many environments play them."""
    outcomes = []
    for num_envs in (1, 3, 40):
        episodes = run_episodes(scripted_runner(ShortOnesSucceed(num_envs)), 20)
        outcomes.append([(episode.counter, episode.length, episode.success) for episode in episodes])
    assert outcomes[0] == outcomes[1] == outcomes[2]


def test_an_episode_lost_to_a_failure_is_replaced_by_the_next_that_started() -> None:
    def fail(batch: ScriptedBatch) -> list[int]:
        return [i for i in range(batch.num_envs) if batch.time[i] == 2 and batch.seeds[i] % 4 == 0]

    runner = scripted_runner(ScriptedBatch(3, step_hook=fail))
    episodes = run_episodes(runner, 12)
    counters = [episode.counter for episode in episodes]
    assert len(episodes) == 12
    assert counters == sorted(counters)
    assert runner.num_dropped_episodes > 0
    missing = set(range(counters[-1])) - set(counters)
    assert 0 < len(missing) <= runner.num_dropped_episodes


def test_begun_episodes_that_reset_late_do_not_hold_evaluation_up() -> None:
    """An environment that makes no transition in its first step begins its episode twice."""
    episodes = run_episodes(scripted_runner(ScriptedBatch(3, resets_late=True)), 10)
    assert len(episodes) == 10
    assert all(3 <= episode.length <= 7 for episode in episodes)


def test_evaluation_never_explores() -> None:
    config = maze_config(num_episodes=6, num_envs=6, greedy=True)
    config = replace(config, exploration=EpsilonGreedyConfig(epsilon_start=1.0, epsilon_final=1.0))
    snapshot = maze_snapshot(config)
    plain = Evaluator(replace(config, exploration=NoExplorationConfig()))
    noisy = Evaluator(config)
    assert noisy.evaluate(3, snapshot) == plain.evaluate(3, snapshot)


def test_an_evaluation_is_reproducible_and_its_worlds_belong_to_its_number() -> None:
    config = maze_config(num_episodes=8, num_envs=4)
    snapshot = maze_snapshot(config)
    used, fresh = Evaluator(config), Evaluator(config)
    first = used.evaluate(0, snapshot)
    second = used.evaluate(1, snapshot)
    assert [episode.counter for episode in first] == list(range(8))
    assert first != second
    assert fresh.evaluate(1, snapshot) == second, "whatever was evaluated before"
    used.close()


def test_evaluation_and_training_share_no_worlds() -> None:
    env = EnvConfig(id="helpers.envs:SeedLogEnv")
    config = replace(make_config(), env=env, seed=5, exploration=NoExplorationConfig())
    seeds = []
    for make in (
        lambda: make_env_runner(config, run_id=8, runner=0, incarnation=0),
        lambda: make_evaluation_runner(config, env, config.rollout.num_envs_per_env_runner, 0, greedy=False),
    ):
        runner = make()
        # Spaces were read from one of a fixed seed.
        SeedLogEnv.seeds.clear()
        for _ in range(20):
            runner.step()
        runner.close()
        seeds.append(set(SeedLogEnv.seeds))
    training, evaluation = seeds
    assert len(training) >= 4 * config.rollout.num_envs_per_env_runner <= len(evaluation)
    assert not training & evaluation


def test_every_environment_of_a_mixture_is_evaluated_as_often() -> None:
    small = replace(MAZE, name="small")
    long = replace(MAZE, name="long", kwargs={**MAZE.kwargs, "episode_length": 30})
    config = replace(maze_config(num_episodes=5, num_envs=50), env=[small, long])
    episodes = Evaluator(config).evaluate(0, maze_snapshot(config))
    assert [episode.env_name for episode in episodes] == ["small"] * 5 + ["long"] * 5


def test_a18_evaluation_acts_with_the_normalisers_of_the_snapshot() -> None:
    """docs/algorithm.md §14.18: running moments are part of the weights that evaluation loads."""
    config = maze_config(num_episodes=6, num_envs=6, greedy=True)
    agent = make_agent(config, make_spec(config.envs))
    before = snapshot_of(agent)
    mean = agent.state_dict()["timestep_encoder.input_norm.mean"]
    mean += 3.0
    after = snapshot_of(agent)
    fresh = Evaluator(config)
    assert fresh.evaluate(0, before) != fresh.evaluate(0, after)
    assert Evaluator(config).evaluate(0, after) == fresh.evaluate(0, after)


def learned_config(env: EnvConfig | list[EnvConfig], evaluation_env: EnvConfig | None) -> Config:
    config = make_config(sequence_model={"positions": "learned"})
    return replace(config, env=env, evaluation=EvaluationConfig(num_episodes=2, env=evaluation_env))


def test_learned_positions_keep_the_size_that_training_gave_them() -> None:
    """Evaluation in an environment of shorter episodes, of a mixture or of its own, loads the same weights."""
    shorter = replace(MAZE, kwargs={**MAZE.kwargs, "episode_length": 5})
    for env, evaluation_env in ((MAZE, shorter), ([shorter, MAZE], None)):
        config = learned_config(env, evaluation_env)
        snapshot = snapshot_of(build_actor_critic(config, make_spec(config.envs)))
        episodes = Evaluator(config).evaluate(0, snapshot)
        assert min(episode.length for episode in episodes) <= 5


def test_episodes_beyond_the_learned_positions_are_refused() -> None:
    longer = replace(MAZE, kwargs={**MAZE.kwargs, "episode_length": 13})
    with pytest.raises(ConfigError, match="at most 12 steps") as error:
        Evaluator(learned_config(MAZE, longer))
    assert "13" in one_line(error)


def test_episodes_of_unknown_length_are_evaluated_as_long_as_the_learned_positions_reach() -> None:
    env = EnvConfig(id="helpers.space_env:SpaceEnv", kwargs={"observation": "vector", "action": "discrete"})
    assert make_spec([env]).horizon is None
    for num_positions in (6, 5):
        config = make_config(sequence_model={"positions": "learned", "max_time_index": num_positions})
        config = replace(config, env=env, evaluation=EvaluationConfig(num_episodes=2))
        evaluator = Evaluator(config)
        snapshot = snapshot_of(build_actor_critic(config, make_spec([env])))
        if num_positions == 6:
            assert [episode.length for episode in evaluator.evaluate(0, snapshot)] == [6, 6]
            continue
        with pytest.raises(ConfigError, match="max_time_index: expected more than 5") as error:
            evaluator.evaluate(0, snapshot)
        one_line(error)


# --- episodes that do not end ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("num_endless", [1, 2])
def test_an_evaluation_with_endless_episodes_is_given_up(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, num_endless: int
) -> None:
    """One that never ends is enough: the first started are the ones that count."""
    monkeypatch.setattr("amago_ray.acting.evaluation.LONGEST_EPISODE", 40)
    batch = ScriptedBatch(2, length_of=lambda index, seed: 10**9 if index < num_endless else 4)
    with pytest.raises(EnvError, match=r"no episode ended in 40 steps: set env\.max_episode_steps") as error:
        run_episodes(scripted_runner(batch), 3)
    one_line(error)
    assert caplog.messages == ["no episode ended in 8 steps of evaluation: it is given up after 40"]


def test_an_evaluation_that_loses_every_episode_is_given_up() -> None:
    batch = ScriptedBatch(2, step_hook=lambda b: [0, 1] if b.time[0] == 2 else [])
    with pytest.raises(
        EnvError, match="100 episodes in a row were lost to failures, mostly RuntimeError: it broke"
    ) as error:
        run_episodes(scripted_runner(batch), 3)
    one_line(error)


def test_an_evaluation_is_interrupted_at_its_next_step() -> None:
    batch = ScriptedBatch(2, length_of=lambda index, seed: 10**9)
    with pytest.raises(EvaluationInterrupted):
        run_episodes(scripted_runner(batch), 3, lambda: len(batch.history) == 7)
    assert len(batch.history) == 7


def test_environments_are_closed_where_no_runner_comes_of_them() -> None:
    """One may hold what only its `close` lets go, such as a thread that would keep the process alive."""
    env = EnvConfig(id="helpers.peculiar_envs:Database")
    wordy = EnvConfig(id="helpers.wordy_env:WordyEnv")
    config = replace(make_config(), env=env, evaluation=EvaluationConfig(env=[env, wordy], num_episodes=2))
    for make in (
        lambda: make_evaluation_runner(config, env, 2, 0, greedy=False, trained=ScriptedBatch(1).spec),
        lambda: Evaluator(config),
    ):
        Database.log.clear()
        with pytest.raises(SpaceError):
            make()
        calls = Counter(what for what, _ in Database.log)
        assert calls["made"] == calls["closed"] == 2
