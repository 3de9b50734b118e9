"""The Python face: train, evaluate, record, load a policy; every error is one line."""

from __future__ import annotations

import dataclasses
import json
import logging
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import imageio.v3 as imageio
import numpy as np
import pytest
import torch
from helpers.local_runs import TINY, kill_at, tiny_config
from helpers.one_line import one_line
from helpers.refusals import refusal

import amago_ray
from amago_ray import AmagoRayError, Config
from amago_ray.config.load import config_from_dict, load_config
from amago_ray.data.sequence_batch import SequenceBatch
from amago_ray.errors import CheckpointError, ConfigError, EnvError, RunDirectoryError, SpaceError
from amago_ray.learning.learner import Learner, StepReport
from amago_ray.training.checkpoints import Checkpoints

SHORT = {"stop": {"learner_steps": 10}}


@pytest.fixture(autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A trained run that tests only read."""
    config = tiny_config(tmp_path_factory.mktemp("runs"), evaluation={"film_at_end": True}, **SHORT)
    return amago_ray.train(config, local=True).run_directory


def test_train_leaves_everything_in_the_run_directory(tmp_path: Path) -> None:
    config = tiny_config(
        tmp_path, report={"loggers": ["jsonl", "tensorboard"]}, evaluation={"film_at_end": True}, **SHORT
    )
    outcome = amago_ray.train(config, local=True)
    path = tmp_path / "tiny"
    assert outcome.run_directory == path
    assert outcome.reason == "reached 10 learner steps"
    assert set(outcome.before) == set(outcome.after) > {"eval/return_mean", "eval/success_rate"}
    assert outcome.checkpoint == path / "checkpoints" / "step_000000010"
    assert outcome.video == path / "videos" / "final.gif"
    assert len(imageio.imread(outcome.video, index=None)) > 3
    names = {entry.name for entry in path.iterdir()}
    assert {"config.yaml", "metadata.json", "status.json", "metrics.jsonl", "checkpoints", "replay", "videos"} <= names
    assert any(name.startswith("events.out.tfevents") for name in names)
    assert load_config(path / "config.yaml") == config
    assert json.loads((path / "status.json").read_text())["state"] == "ended"


def test_evaluate_counts_fresh_episodes_reproducibly(run: Path) -> None:
    metrics = amago_ray.evaluate(run, num_episodes=7)
    assert 0 <= metrics["eval/success_rate"] <= 1
    assert round(metrics["eval/success_rate"] * 7, 6) % 1 == 0
    assert metrics["eval/length_mean"] <= 12
    assert amago_ray.evaluate(str(run), num_episodes=7) == metrics
    others = [amago_ray.evaluate(run, num_episodes=7, seed=seed) for seed in range(1, 6)]
    assert any(other != metrics for other in others)
    assert amago_ray.evaluate(run, num_episodes=7, greedy=True) == amago_ray.evaluate(
        run, num_episodes=7, greedy=True, checkpoint="step_000000010"
    )


def test_evaluate_elsewhere_needs_equal_spaces(run: Path) -> None:
    with pytest.raises(SpaceError, match="does not fit the policy") as error:
        amago_ray.evaluate(run, num_episodes=1, env="amago_ray/TMaze-v0")
    one_line(error)
    with pytest.raises(EnvError, match="no such environment") as error:
        amago_ray.evaluate(run, num_episodes=1, env="Nothing-v0")
    one_line(error)


def test_evaluate_looks_at_every_environment_of_a_mixture(tmp_path: Path) -> None:
    kwargs = TINY["env"]["kwargs"]
    env = [
        {"id": TINY["env"]["id"], "name": "short", "kwargs": kwargs},
        {"id": TINY["env"]["id"], "name": "long", "kwargs": {**kwargs, "episode_length": 20}},
    ]
    config = tiny_config(tmp_path, env=env, **SHORT)
    outcome = amago_ray.train(config, local=True)
    assert {"eval/short/return_mean", "eval/long/return_mean"} <= set(outcome.after)
    metrics = amago_ray.evaluate(outcome.run_directory, num_episodes=3)
    assert metrics["eval/short/length_mean"] <= 12
    assert metrics["eval/long/length_mean"] <= 20


def test_record_writes_a_film(run: Path, tmp_path: Path) -> None:
    out = amago_ray.record(run, tmp_path / "films" / "x.gif", num_episodes=2)
    frames = imageio.imread(out, index=None)
    assert frames.ndim == 4
    assert frames.shape[-1] == 3
    # Every episode ends with seven pictures of its last state.
    assert 16 <= len(frames) <= 2 * (12 + 7)
    again = amago_ray.record(run, tmp_path / "again.gif", num_episodes=2)
    assert again.read_bytes() == out.read_bytes()
    other = amago_ray.record(run, str(tmp_path / "other.gif"), seed=1)
    assert other.read_bytes() != out.read_bytes()


def test_record_refuses_a_name_before_it_films(run: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"\.gif or \.mp4") as error:
        amago_ray.record(tmp_path / "nothing", tmp_path / "x.png")
    one_line(error)
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(RunDirectoryError, match="cannot be written") as error:
        amago_ray.record(run, tmp_path / "file" / "x.gif")
    one_line(error)


def test_a_loaded_policy_acts(run: Path) -> None:
    policy = amago_ray.load_policy(run)
    assert policy.version.learner_steps == 10
    state = policy.initial_state(2)
    rng = np.random.default_rng(0)
    for _ in range(12):
        shown = {"desired_goal": rng.integers(0, 7, (2, 2, 2)), "observation": rng.random((2, 7))}
        action, state = policy.act(shown, state, reward=[0.0, 1.0])
        assert action.shape == (2,)
        assert ((action >= 0) & (action < 5)).all()
    best = amago_ray.load_policy(run, checkpoint="best")
    assert best.version.learner_steps in (0, 10)


def test_resume_goes_on_where_the_run_ended(tmp_path: Path) -> None:
    amago_ray.train(tiny_config(tmp_path, **SHORT), local=True)
    outcome = amago_ray.train(tiny_config(tmp_path, stop={"learner_steps": 20}), local=True, resume=True)
    assert outcome.reason == "reached 20 learner steps"
    metadata = json.loads((tmp_path / "tiny" / "metadata.json").read_text())
    assert metadata["sessions"] == 2
    steps = steps_of(tmp_path / "tiny")
    assert steps == sorted(steps)
    assert Checkpoints(tmp_path / "tiny" / "checkpoints", keep=1).load().metadata["learner_steps"] == 20


def test_resume_without_a_checkpoint_begins_anew_and_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    config = tiny_config(tmp_path, **SHORT)
    with monkeypatch.context() as patch:
        kill_at(patch, 6)
        with pytest.raises(KeyboardInterrupt):
            amago_ray.train(config, local=True)
    with caplog.at_level(logging.WARNING):
        outcome = amago_ray.train(config, local=True, resume=True)
    assert "no checkpoint yet" in caplog.text
    assert outcome.reason == "reached 10 learner steps"


def steps_of(run: Path) -> list[tuple[int, float]]:
    """Env steps and learner steps of every report in metrics.jsonl."""
    reports = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return [(report["env_steps"], report["learner_steps"]) for report in reports]


def test_what_a_killed_session_logged_beyond_its_checkpoint_is_gone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    config = tiny_config(tmp_path, report={"loggers": ["jsonl", "tensorboard"]})
    with monkeypatch.context() as patch:
        kill_at(patch, 28)
        with pytest.raises(KeyboardInterrupt):
            amago_ray.train(config, local=True)
    saved = Checkpoints(tmp_path / "tiny" / "checkpoints", keep=1).load().metadata
    assert saved["learner_steps"] == 20
    before = steps_of(tmp_path / "tiny")
    amago_ray.train(config, local=True, resume=True)
    after = steps_of(tmp_path / "tiny")
    kept = [each for each in before if each[0] <= saved["env_steps"] and each[1] <= saved["learner_steps"]]
    assert len(kept) < len(before), "something was logged beyond the checkpoint"
    assert after == sorted(after)
    assert after[: len(kept)] == kept
    events = EventAccumulator(str(tmp_path / "tiny"))
    events.Reload()
    assert [(event.step, event.value) for event in events.Scalars("learner_steps")] == after


def test_overwrite_begins_anew(tmp_path: Path) -> None:
    config = tiny_config(tmp_path, **SHORT)
    first = amago_ray.train(config, local=True)
    again = amago_ray.train(dataclasses.replace(config, seed=8), local=True, overwrite=True)
    assert first.after != again.after
    assert json.loads((tmp_path / "tiny" / "metadata.json").read_text())["sessions"] == 1


# --- stopping -------------------------------------------------------------------------------------------------------


def at_step(monkeypatch: pytest.MonkeyPatch, learner_steps: int, action: Callable[[], object]) -> None:
    original = Learner.step

    def step(self: Learner, batch: SequenceBatch) -> StepReport | None:
        report = original(self, batch)
        if self.learner_steps == learner_steps:
            action()
        return report

    monkeypatch.setattr(Learner, "step", step)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_one_signal_checkpoints_and_ends(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: signal.Signals
) -> None:
    before = signal.getsignal(number)
    at_step(monkeypatch, 7, lambda: signal.raise_signal(number))
    outcome = amago_ray.train(tiny_config(tmp_path, evaluation={"film_at_end": True}), local=True)
    assert outcome.reason == "stopped by the user"
    assert outcome.checkpoint is not None
    assert outcome.checkpoint.name == "step_000000007"
    assert outcome.video is None, "who wants to leave waits for no film"
    assert signal.getsignal(number) is before


@pytest.mark.parametrize("before", [signal.default_int_handler, signal.SIG_IGN], ids=["foreground", "background"])
def test_a_second_ctrl_c_ends_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, before: Callable[..., object] | signal.Handlers
) -> None:
    def twice() -> None:
        signal.raise_signal(signal.SIGINT)
        signal.raise_signal(signal.SIGINT)

    at_step(monkeypatch, 7, twice)
    own = signal.signal(signal.SIGINT, before)
    try:
        with pytest.raises(KeyboardInterrupt):
            amago_ray.train(tiny_config(tmp_path), local=True)
        assert signal.getsignal(signal.SIGINT) is before
    finally:
        signal.signal(signal.SIGINT, own)
    assert not Checkpoints(tmp_path / "tiny" / "checkpoints", keep=1).exists()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_every_end_writes_a_final_status(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: signal.Signals
) -> None:
    def twice() -> None:
        signal.raise_signal(number)
        signal.raise_signal(number)

    status = tmp_path / "tiny" / "status.json"
    with monkeypatch.context() as patch:
        at_step(patch, 7, lambda: signal.raise_signal(number))
        amago_ray.train(tiny_config(tmp_path), local=True)
    found = json.loads(status.read_text())
    assert (found["state"], found["reason"]) == ("ended", "stopped by the user")
    at_step(monkeypatch, 7, twice)
    with pytest.raises(KeyboardInterrupt):
        amago_ray.train(tiny_config(tmp_path), local=True, overwrite=True)
    found = json.loads(status.read_text())
    assert (found["state"], found["reason"]) == ("failed", "Interrupted")


# --- one-line errors ------------------------------------------------------------------------------------------------


def refused(config: Config, kind: type[AmagoRayError], words: str, **options: Any) -> None:
    with refusal(Path(config.runs_dir), kind, words):
        amago_ray.train(config, local=True, **options)


def test_a_taken_run_directory(run: Path) -> None:
    config = load_config(run / "config.yaml")
    refused(config, RunDirectoryError, "taken by an earlier run")


def test_contradictory_and_empty_requests(run: Path, tmp_path: Path) -> None:
    refused(tiny_config(tmp_path), ConfigError, "exclude each other", resume=True, overwrite=True)
    refused(tiny_config(tmp_path), ConfigError, "local and address exclude each other", address="auto")
    for call in (
        lambda: amago_ray.evaluate(run, num_episodes=0),
        lambda: amago_ray.record(run, tmp_path / "x.gif", num_episodes=0),
    ):
        with refusal(tmp_path, ConfigError, "expected a positive integer, got 0"):
            call()


def test_nothing_to_resume(tmp_path: Path) -> None:
    refused(tiny_config(tmp_path), RunDirectoryError, "nothing to resume", resume=True)


def test_a_corrupt_checkpoint(tmp_path: Path) -> None:
    config = tiny_config(tmp_path, **SHORT)
    amago_ray.train(config, local=True)
    for path in (tmp_path / "tiny" / "checkpoints").glob("*/policy.safetensors"):
        path.write_bytes(path.read_bytes()[:-1])
    refused(config, CheckpointError, "no readable checkpoint", resume=True)
    for call in (amago_ray.evaluate, amago_ray.load_policy):
        with refusal(tmp_path, CheckpointError, r"policy\.safetensors: expected sha256"):
            call(tmp_path / "tiny")


def test_a_checkpoint_of_another_model(tmp_path: Path) -> None:
    amago_ray.train(tiny_config(tmp_path, **SHORT), local=True)
    model = {**TINY["model"], "critic": {"num_layers": 2, "hidden_dim": 8}}
    refused(tiny_config(tmp_path, model=model), CheckpointError, "expected one of this agent", resume=True)


@pytest.mark.parametrize(
    ("sections", "kind", "words"),
    [
        ({"env": "no_such_module:Env"}, EnvError, "cannot import"),
        ({"env": "NoSuchEnv-v0"}, EnvError, "no such environment"),
        ({"env": "helpers.wordy_env:WordyEnv"}, SpaceError, "unsupported space Text"),
        ({"evaluation": {"env": "NoSuchEnv-v0"}}, EnvError, "no such environment"),
        ({"exploration": {"kind": "no_such_module:Noise"}}, ConfigError, "exploration.kind"),
        ({"relabel": {"kind": "her"}}, ConfigError, "relabel.kind: expected 'instruction'"),
        ({"env": "helpers.envs:CounterEnv"}, ConfigError, "CounterEnv"),
    ],
    ids=["import", "unknown env", "space", "evaluation env", "exploration", "relabel", "bilevel without horizon"],
)
def test_what_cannot_be_used_is_found_before_anything_is_written(
    tmp_path: Path, sections: dict[str, Any], kind: type[AmagoRayError], words: str
) -> None:
    refused(tiny_config(tmp_path / "runs", **sections), kind, words)
    assert not (tmp_path / "runs").exists()


def test_an_unknown_attention_backend() -> None:
    model = {"sequence_model": {"attention_backend": "xformers"}}
    with pytest.raises(ConfigError, match=r"model\.sequence_model\.attention_backend: expected one of") as error:
        config_from_dict({**TINY, "model": model})
    one_line(error)


def test_an_attention_backend_that_this_machine_lacks_leaves_no_run(tmp_path: Path) -> None:
    model = json.loads(json.dumps(TINY["model"]))
    model["sequence_model"]["attention_backend"] = "flash_attn"
    config = tiny_config(tmp_path, model=model)
    refused(config, ConfigError, "flash_attn")
    amago_ray.train(tiny_config(tmp_path, **SHORT), local=True)


def test_settings_made_in_python_are_checked_too(tmp_path: Path) -> None:
    config = tiny_config(tmp_path)
    wrong = dataclasses.replace(config, learner=dataclasses.replace(config.learner, batch_size=0))
    refused(wrong, ConfigError, r"learner\.batch_size: expected a positive integer, got 0")


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (EnvError("renders nothing"), "no film: renders nothing (film later with amago-ray record)"),
        (RuntimeError("no\ndisplay"), "no film: RuntimeError: no display"),
        (KeyboardInterrupt(), "no film: KeyboardInterrupt"),
    ],
)
def test_a_film_that_fails_does_not_fail_the_run(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    error: BaseException,
    words: str,
) -> None:
    def fail(*args: object, **kwargs: object) -> None:
        raise error

    monkeypatch.setattr("amago_ray.api.record", fail)
    with caplog.at_level(logging.WARNING):
        outcome = amago_ray.train(tiny_config(tmp_path, evaluation={"film_at_end": True}, **SHORT), local=True)
    assert outcome.video is None
    assert outcome.checkpoint is not None
    assert words in caplog.text


def test_an_environment_that_cannot_be_made_to_render_is_one_line(tmp_path: Path) -> None:
    settings = {"relabel": {"kind": "none"}, "exploration": {"kind": "none"}, "evaluation": {"num_episodes": 0}}
    config = tiny_config(tmp_path, env="helpers.envs:CounterEnv", **settings, **SHORT)
    run = amago_ray.train(config, local=True).run_directory
    with refusal(tmp_path, EnvError, r"to be filmed it must take render_mode=\"rgb_array\""):
        amago_ray.record(run, tmp_path / "x.gif")
