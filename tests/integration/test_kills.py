"""The processes of one run over Ray are killed, one kind after the other: the run goes on and loses nothing.

All kills happen in one run, so that it is also seen to survive them together.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from helpers.ledger import close_books
from helpers.small_run import SMALL
from helpers.stored import stored_episodes
from helpers.watched_run import WatchedRun

pytestmark = pytest.mark.timeout(240)

ENVS_PER_RUNNER = 4
SETTINGS = [
    "rollout.num_env_runners=2",
    "replay.num_shards=2",
    f"rollout.num_envs_per_env_runner={ENVS_PER_RUNNER}",
    "replay.samples_per_insert=2",
    "evaluation.interval_env_steps=2000",
    "stop.env_steps=100000000",
    "report.loggers=[console,jsonl]",
]


@pytest.fixture(scope="module")
def killed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[WatchedRun]:
    run = WatchedRun(tmp_path_factory.mktemp("kills"), [*SMALL, *SETTINGS], name="small")
    run.start()
    try:
        run.wait_until_trained()
        yield run
    finally:
        run.end()


def test_an_env_runner(killed: WatchedRun) -> None:
    runner = killed.kill("EnvRunnerActor")
    killed.wait_for_warning(r"the env runner \d died and is started again")
    killed.wait_until_replaced(runner, count=2)
    killed.grows("env_steps", "learner_steps")


def test_a_replay_shard(killed: WatchedRun) -> None:
    killed.kill("ReplayShardActor")
    killed.wait_for_warning(r"the replay shard \d died and was started again")
    killed.grows("env_steps", "learner_steps", "replay/inserted_timesteps")


def test_the_control_actor(killed: WatchedRun) -> None:
    before = killed.last
    killed.kill("ControlActor")
    killed.wait_for_warning(r"the control actor died and was started again")
    killed.grows("env_steps", "learner_steps", "replay/inserted_timesteps")
    # Weights travel again: what is collected now is of new ones.
    killed.wait_until(lambda: killed.last.get("time/policy_lag", 1e9) < 200)
    assert killed.last["env_steps"] > before["env_steps"]


def test_the_evaluator(killed: WatchedRun) -> None:
    # An idle evaluator is missed when it is needed next.
    evaluated = killed.wait_until(lambda: killed.last.get("eval/env_steps"))
    killed.kill("EvaluatorActor")
    killed.wait_for_warning(r"the evaluator died and is started again")
    killed.wait_until(lambda: killed.last.get("eval/env_steps", 0) > evaluated)


def test_the_learner(killed: WatchedRun) -> None:
    saved = killed.saved["learner_steps"]
    killed.kill("LearnerActor")
    killed.wait_for_warning(r"the learner died and is started again")
    killed.grows("env_steps")
    killed.wait_until(lambda: killed.last["learner_steps"] > saved)
    killed.grows("learner_steps")


def test_nothing_acknowledged_was_lost_and_no_count_fell(killed: WatchedRun) -> None:
    """Last: the run ends, and its books are closed."""
    killed.stop()
    books = close_books(killed.path / "replay", killed.reports)
    assert books.evicted == 0
    assert books.acknowledged > 0
    # The one that was killed, and the two that were interrupted.
    books.check(num_silent_runners=3)
    ids = stored_episodes(killed.path / "replay")
    newest = {runner: max(each.incarnation for each in ids if each.runner == runner) for runner in (0, 1)}
    for runner, incarnation in newest.items():
        counters = {each.counter for each in ids if each[1:3] == (runner, incarnation)}
        missing = set(range(max(counters) + 1)) - counters
        assert len(missing) < ENVS_PER_RUNNER, "all but the episodes that were running at the end are stored"
