"""Weights that the original saved, imported: the checkpoint acts as recorded, and a run goes on from it."""

import dataclasses
import json
import os
from pathlib import Path

import pytest
import torch
from helpers.parity_case import ParityCase
from helpers.parity_inference import check_inference
from helpers.parity_replay import Replay

import amago_ray
from amago_ray.cli.app import main
from amago_ray.config.env import EnvConfig
from amago_ray.config.exploration import NoExplorationConfig
from amago_ray.config.learner import LearnerConfig
from amago_ray.config.load import dump_yaml, load_config
from amago_ray.config.replay import ReplayConfig
from amago_ray.config.rollout import RolloutConfig
from amago_ray.config.training import EvaluationConfig, ReportConfig, StopConfig
from amago_ray.errors import CheckpointError, RunDirectoryError
from amago_ray.training.checkpoints import open_checkpoint
from amago_ray.training.loading import load_policy

pytestmark = pytest.mark.numeric

HOME = Path(__file__).parent / "data"
DATA = Path(os.environ.get("AMAGO_RAY_PARITY_DIR") or HOME)
ONE = HOME / "agent_discrete"
CASES = sorted(path.stem for path in DATA.glob("*.json") if "agent_class" in json.loads(path.read_text()))
SINGLE_STEP = [name for name in CASES if not json.loads((DATA / f"{name}.json").read_text())["config"].get("multistep")]


def prepare(path: Path, folder: Path) -> tuple[ParityCase, Path]:
    """The case's `before/` weights as the original saves them, and a config file with its settings and spaces."""
    case = ParityCase.load(path)
    torch.save(case.tensors("before/"), folder / "policy.pt")
    settings = case.settings
    kwargs = {"obs": settings["obs"], "action": settings["action"], "size": settings["A"]}
    config = dataclasses.replace(
        case.config,
        env=EnvConfig(id="helpers.golden_env:GoldenEnv", kwargs=kwargs),
        exploration=NoExplorationConfig(),
        rollout=RolloutConfig(num_envs_per_env_runner=2),
        replay=ReplayConfig(samples_per_insert=8.0),
        learner=LearnerConfig(batch_size=2, metrics_interval=1),
        evaluation=EvaluationConfig(num_episodes=2, num_envs=2),
        report=ReportConfig(loggers=()),
        stop=StopConfig(learner_steps=2),
    )
    (folder / "settings.yaml").write_text(dump_yaml(config))
    return case, folder / "settings.yaml"


def run_import(folder: Path, *overrides: str, out: str = "imported") -> int:
    weights, settings = str(folder / "policy.pt"), str(folder / "settings.yaml")
    with pytest.raises(SystemExit) as end:
        main(["import-checkpoint", weights, "--config", settings, "--out", str(folder / out), *overrides])
    return int(end.value.code or 0)


@pytest.mark.parametrize("name", SINGLE_STEP)
def test_an_imported_checkpoint_acts_as_recorded(name, tmp_path):
    case, _ = prepare(DATA / name, tmp_path)

    assert run_import(tmp_path) == 0

    policy = load_policy(tmp_path / "imported")
    stored, recorded = (
        {name: (leaf.kind, leaf.shape, leaf.dtype) for name, leaf in spec.observations.items()}
        for spec in (policy.spec, case.spec)
    )
    assert stored == recorded
    check_inference(case, Replay(case).agent.eval(), policy.network)


def test_an_imported_checkpoint_is_whole_and_a_run_goes_on_from_it(tmp_path, capsys):
    case, _ = prepare(ONE, tmp_path)
    assert run_import(tmp_path) == 0
    checkpoint = open_checkpoint(Path(capsys.readouterr().out.strip()))
    assert checkpoint.path == tmp_path / "imported" / "checkpoints" / "step_000000000"
    names = {"policy.safetensors", "training_state.pt", "config.yaml", "env_spec.json"}
    assert set(checkpoint.metadata["sha256"]) == names
    assert checkpoint.metadata["imported_from"] == str(tmp_path / "policy.pt")

    assert amago_ray.evaluate(tmp_path / "imported", num_episodes=2)["eval/return_mean"] == 5.0
    outcome = amago_ray.train(load_config(tmp_path / "imported" / "config.yaml"), local=True, resume=True)

    assert outcome.before["eval/return_mean"] == 5.0
    assert outcome.checkpoint == tmp_path / "imported" / "checkpoints" / "step_000000002"
    state = torch.load(outcome.checkpoint / "training_state.pt", weights_only=True)["state"]["agent"]
    before = Replay(case).agent.state_dict()
    target, online = (before[f"{name}.layers.0.weight"] for name in ("target_critics", "critics"))
    # Two updates, each a step of tau towards weights that have moved by little themselves.
    change = (state["target_critics.layers.0.weight"] - target).abs().max()
    assert 0 < change < 3 * case.config.agent.tau * (online - target).abs().max()


def test_weights_that_do_not_fit_are_one_line_and_write_nothing(tmp_path, capsys):
    case, _ = prepare(ONE, tmp_path)
    state = case.tensors("before/")
    state["actor.base.surprise"] = state.pop("actor.base.in_layer.bias")
    torch.save(state, tmp_path / "policy.pt")

    assert run_import(tmp_path) == 2

    line = (
        f"error: {tmp_path / 'policy.pt'}: AMAGO weights: missing are actor.base.in_layer.bias; "
        "unknown are actor.base.surprise\n"
    )
    assert capsys.readouterr().err == line
    assert not (tmp_path / "imported").exists()


def test_settings_that_do_not_fit_are_one_line(tmp_path, capsys):
    prepare(ONE, tmp_path)
    assert run_import(tmp_path, "agent.num_critics=3") == 2
    assert "shapes do not fit the settings: critics.net.inp_layer.weight" in capsys.readouterr().err


def test_an_earlier_run_is_replaced_only_when_asked_to(tmp_path):
    _, settings = prepare(ONE, tmp_path)
    config, weights = load_config(settings), tmp_path / "policy.pt"
    amago_ray.import_checkpoint(weights, config, tmp_path / "run")
    with pytest.raises(RunDirectoryError, match="taken by an earlier run"):
        amago_ray.import_checkpoint(weights, config, tmp_path / "run")
    again = amago_ray.import_checkpoint(weights, config, tmp_path / "run", overwrite=True)
    assert again.is_dir()


def test_an_import_that_fails_costs_the_earlier_run_nothing(tmp_path):
    _, settings = prepare(ONE, tmp_path)
    run = amago_ray.import_checkpoint(tmp_path / "policy.pt", load_config(settings), tmp_path / "run").parents[1]
    before = {path: path.read_bytes() for path in run.rglob("*") if path.is_file()}
    (tmp_path / "broken.pt").write_text("text\n")
    with pytest.raises(CheckpointError, match=r"broken\.pt: expected AMAGO weights"):
        amago_ray.import_checkpoint(tmp_path / "broken.pt", load_config(settings), run, overwrite=True)
    assert {path: path.read_bytes() for path in run.rglob("*") if path.is_file()} == before


def test_a_missing_file_is_one_line(tmp_path):
    _, settings = prepare(ONE, tmp_path)
    with pytest.raises(CheckpointError, match=r"nothing\.pt: expected AMAGO weights"):
        amago_ray.import_checkpoint(tmp_path / "nothing.pt", load_config(settings), tmp_path / "run")
