"""What a checkpoint saves of the trainer, and a resume restores."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from helpers.fake_backend import stats
from helpers.one_line import one_line

from amago_ray.errors import CheckpointError
from amago_ray.training.checkpoints import Checkpoint
from amago_ray.training.ports import Counters, EvaluationResult
from amago_ray.training.state import TrainerState


def full_state() -> TrainerState:
    state = TrainerState(next_evaluation=600, counters=Counters(500, 50, 5))
    state.window.add(stats(number, 0.5 * number, success=None, steps=number) for number in range(5))
    state.begin_evaluation()
    metrics = {"eval/return_mean": 0.25, "eval/success_rate": 0.5}
    state.take_evaluation(EvaluationResult(0, Counters(), (), 0.1, b"weights"), metrics, is_before=True)
    state.begin_evaluation()
    return state


def test_everything_comes_back_from_plain_data(tmp_path: Path) -> None:
    state = full_state()
    plain = json.loads(json.dumps(state.metadata(state.counters, {"reports": 3})))
    again = TrainerState.of(Checkpoint(tmp_path, plain))
    assert again.window.episodes == state.window.episodes
    assert again.metadata(again.counters, {"reports": 3}) == state.metadata(state.counters, {"reports": 3})
    assert again.mark == state.mark
    assert (again.is_evaluating, again.num_evaluations, again.best) == (True, 2, (0.5, 0.25))


def test_the_counters_of_what_was_captured_are_saved() -> None:
    metadata = full_state().metadata(Counters(400, 40, 4), {})
    assert (metadata["env_steps"], metadata["learner_steps"], metadata["episodes"]) == (400, 40, 4)


def test_a_score_is_success_then_return_and_needs_weights_to_be_the_best() -> None:
    state = full_state()

    def scores(success: float, episode_return: float, policy: bytes | None = b"weights") -> bool:
        metrics = {"eval/return_mean": episode_return, "eval/success_rate": success}
        return state.take_evaluation(EvaluationResult(1, Counters(), (), 0.1, policy), metrics, is_before=False)

    assert scores(0.5, 0.25), "of equal ones, the newer"
    assert not scores(0.4, 9.0)
    assert not scores(0.9, 9.0, None)
    assert scores(0.5, 0.5)


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        ({"trainer": None}, "its metadata is not that of a run"),
        ({"trainer": {}}, "its metadata lacks 'next_evaluation'"),
        ({"env_steps": "many"}, "its metadata is not that of a run"),
    ],
)
def test_metadata_of_something_else_is_one_line(tmp_path: Path, damage: dict[str, object], words: str) -> None:
    state = full_state()
    with pytest.raises(CheckpointError, match=words) as error:
        TrainerState.of(Checkpoint(tmp_path, {**state.metadata(state.counters, {}), **damage}))
    one_line(error)
