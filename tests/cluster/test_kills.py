"""Every process of a run on a cluster gets SIGKILL, at the worst moments: it goes on, and loses what it names.

All of them in one run, whose books are closed at the end.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from helpers.deadly_parts import DeadlyRun
from helpers.node_cluster import NodeCluster
from helpers.stored import stored_episodes

from .conftest import Fault, assert_nothing_is_left

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(300)]


@pytest.fixture(scope="module")
def run(cluster: NodeCluster, tmp_path_factory: pytest.TempPathFactory) -> Iterator[DeadlyRun]:
    run = DeadlyRun(tmp_path_factory.mktemp("kills"), cluster)
    run.start()
    try:
        run.wait_until_trained()
        yield run
    finally:
        run.end()


def test_an_env_runner(run: DeadlyRun, fault: Fault) -> None:
    with fault("env runner: SIGKILL"):
        run.num_silent_runners += 1
        run.is_killed("EnvRunnerActor", count=2)
    run.wait_for_warning(r"the env runner \d died and is started again")


@pytest.mark.parametrize("moment", ["reply", "sample"])
def test_a_shard(run: DeadlyRun, fault: Fault, moment: str) -> None:
    when = {"reply": "between storing and the reply", "sample": "in the middle of a sample"}[moment]
    died = run.num_warnings(r"the replay shard \d died")
    with fault(f"shard: SIGKILL {when}"):
        run.dies_of(moment, "ReplayShardActor", count=2)
    run.wait_until(lambda: run.num_warnings(r"the replay shard \d died") > died)


@pytest.mark.parametrize("moment", ["update", "checkpoint"])
def test_the_learner(run: DeadlyRun, fault: Fault, moment: str) -> None:
    saved = run.saved["learner_steps"]
    died = run.num_warnings("the learner died")
    with fault(f"learner: SIGKILL in the middle of {'an update' if moment == 'update' else 'a checkpoint'}"):
        run.dies_of(moment, "LearnerActor", count=1)
    run.wait_until(lambda: run.num_warnings("the learner died") > died)
    run.wait_until(lambda: run.last["learner_steps"] > saved)
    # The next checkpoint is written.
    run.wait_until(lambda: run.saved["learner_steps"] > saved)


def test_the_control_actor(run: DeadlyRun, fault: Fault) -> None:
    with fault("control actor: SIGKILL"):
        run.is_killed("ControlActor")
    run.wait_for_warning("the control actor died and was started again")
    # Weights travel again: what is collected now is of new ones.
    run.wait_until(lambda: run.last.get("time/policy_lag", 1e9) < 500)


def test_the_control_actor_while_an_evaluation_starts(run: DeadlyRun, fault: Fault) -> None:
    """The evaluator dies with the control actor, so that the next one starts with weights that are lost."""
    evaluated = run.wait_until(lambda: run.last.get("eval/env_steps"))
    died = run.num_warnings("the control actor died")
    with fault("control actor: SIGKILL while an evaluation starts"):
        evaluator = run.kill("EvaluatorActor")
        # Until the evaluation that is due next starts it again.
        run.wait_until_replaced(evaluator)
        control = run.kill("ControlActor")
        run.wait_until_replaced(control)
        run.wait_until(lambda: run.last.get("eval/env_steps", 0) > evaluated)
        run.grows("env_steps", "learner_steps")
    run.wait_until(lambda: run.num_warnings("the control actor died") > died)


def test_the_evaluator(run: DeadlyRun, fault: Fault) -> None:
    evaluated = run.wait_until(lambda: run.last.get("eval/env_steps"))
    with fault("evaluator: SIGKILL"):
        run.kill("EvaluatorActor")
        run.wait_until(lambda: run.last.get("eval/env_steps", 0) > evaluated)
    run.wait_for_warning("the evaluator died and is started again")


def test_the_books_are_closed_and_nothing_is_left(run: DeadlyRun, cluster: NodeCluster) -> None:
    books = run.win()
    assert books.acknowledged > 0
    assert_nothing_is_left(cluster, run)


def test_the_driver_and_a_resume_at_once(run: DeadlyRun, cluster: NodeCluster, fault: Fault) -> None:
    """Last. What the cluster still runs of the killed session does no harm; all that was on the disk is there."""
    run.start("--resume", "stop.eval_return=null")
    run.goes_on()
    before = stored_episodes(run.path / "replay")
    saved = run.saved
    with fault("driver: SIGKILL, and --resume at once"):
        run.kill_driver()
        run.start("--resume", "stop.eval_return=null")
        run.wait_until(lambda: run.last.get("learner_steps", 0) > saved["learner_steps"])
        run.goes_on()
    assert run.last["env_steps"] > saved["env_steps"]
    assert len(run.actors("LearnerActor")) == 1
    assert len(run.actors("EnvRunnerActor")) == 2
    run.stop()
    after = stored_episodes(run.path / "replay")
    assert set(before) < set(after)
    assert len(set(after)) == len(after), "none twice"
    assert_nothing_is_left(cluster, run)
