"""Bad input gets one readable line on stderr and exit code 2, whatever part of the program finds it."""

from pathlib import Path

import pytest
from helpers.refusals import contents

from amago_ray.cli.app import main

BAD_ENVS = """
import gymnasium as gym


class Words(gym.Env):
    observation_space = gym.spaces.Text(5)
    action_space = gym.spaces.Discrete(2)
"""

LONGER_THAN_IT_SAYS = """
import gymnasium as gym
import numpy as np


class Long(gym.Env):
    observation_space = gym.spaces.Box(-1, 1, (2,), np.float32)
    action_space = gym.spaces.Discrete(2)
    horizon = 7

    def __init__(self, length):
        self.length = length

    def reset(self, *, seed=None, options=None):
        self.time = 0
        return np.zeros(2, np.float32), {}

    def step(self, action):
        self.time += 1
        return np.zeros(2, np.float32), 1.0, self.time == self.length, False, {}
"""

TINY = (
    "stop.env_steps=40",
    "rollout.num_envs_per_env_runner=2",
    "evaluation.num_episodes=2",
    "evaluation.at_start=false",
    "evaluation.film_at_end=false",
    "env.kwargs={size: 7, num_goals: 1, episode_length: 10}",
    "model.sequence_model.d_model=8",
    "model.timestep_encoder.hidden_dim=8",
    "learner.batch_size=2",
    "stop.eval_success_rate=null",
    "report.loggers=[jsonl]",
)


def error_of(capsys: pytest.CaptureFixture[str], *arguments: str, begins: bool = False) -> str:
    """The one line that a command line which must fail writes to stderr; unless it begins first, it changes nothing."""
    before = contents(Path.cwd())
    with pytest.raises(SystemExit) as end:
        main(arguments)
    assert (contents(Path.cwd()) == before) != begins
    captured = capsys.readouterr()
    assert end.value.code == 2, captured.err
    assert captured.err.startswith("error: ")
    assert captured.err.count("\n") == 1
    return captured.err.removeprefix("error: ").rstrip("\n")


@pytest.fixture(autouse=True)
def work_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "words_env.py").write_text(BAD_ENVS)
    (tmp_path / "long_env.py").write_text(LONGER_THAN_IT_SAYS)
    (tmp_path / "broken_env.py").write_text("import a_package_that_is_nowhere\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    return tmp_path


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("lerner.batch_size=3", 'command line: lerner: unknown key; did you mean "learner"?'),
        (
            "replay.capacity_timesteps=5M",
            'command line: replay.capacity_timesteps: expected a positive integer, got "5M"',
        ),
        ("env=", "command line: env: expected an environment's id, or a mapping with one, got null"),
        (
            "model.sequence_model.context_length=0",
            "command line: model.sequence_model.context_length: expected a positive integer, got 0",
        ),
        (
            "model.sequence_model.attention_backend=xformers",
            'command line: model.sequence_model.attention_backend: expected one of "auto", "sdpa", "native", "varlen", '
            '"flash_attn", got "xformers"',
        ),
        ("name={{x}}", "command line: name: line 1: not readable as YAML: a key must be a text or a number"),
        ("name='~'", 'command line: name: expected a name that can be a folder\'s, got "~"'),
        ("runs_dir=s3://bucket/runs", 'command line: runs_dir: expected the path of a folder, got "s3://bucket/runs"'),
        (
            "seed=9223372036854775808",
            "command line: seed: expected an integer of at least 0 below 2**63, got 9223372036854775808",
        ),
        (
            "relabel.her_probability=0.5",
            'command line: relabel.her_probability: expected only with kind "her", got 0.5 with kind "instruction"',
        ),
        (
            "env.autoreset_mode=disabled",
            "command line: env.autoreset_mode: expected null without vector_entry_point, as other environments are "
            'reset by their runner, got "disabled"',
        ),
        (
            "env.step_timeout_s=3",
            "env 'amago_ray/MazeRunner-v0': step_timeout_s: expected null, as built-in environments step together in "
            "the runner's own process, got 3.0",
        ),
        (
            "replay.capacity_bytes=100",
            'replay.capacity_bytes: expected at least 768, for a row of "amago_ray/MazeRunner-v0" in each of 16 '
            "segments of each shard, got 100",
        ),
    ],
    ids=lambda text: text.partition(" ")[0][:30],
)
def test_a_wrong_setting(capsys: pytest.CaptureFixture[str], setting: str, message: str) -> None:
    assert error_of(capsys, "train", "quickstart", "--local", setting) == message


@pytest.mark.parametrize(
    ("env", "words"),
    [
        ("NoSuchThing-v0", ["env 'NoSuchThing-v0'", "no such environment"]),
        ("broken_env:Env", ["env 'broken_env:Env'", "cannot import", "a_package_that_is_nowhere"]),
        ("words_env:Missing", ["env 'words_env:Missing'", "Missing"]),
        ("words_env:Words", ["unsupported space Text"]),
    ],
    ids=["unknown id", "import fails", "no such attribute", "unsupported space"],
)
def test_an_environment_that_cannot_be_used(
    capsys: pytest.CaptureFixture[str], work_folder: Path, env: str, words: list[str]
) -> None:
    message = error_of(capsys, "train", "quickstart", "--local", f"env={env}", "relabel.kind=none")

    for word in words:
        assert word in message
    assert not (work_folder / "runs").exists()


def test_a_run_directory_that_cannot_be_written(capsys: pytest.CaptureFixture[str], work_folder: Path) -> None:
    (work_folder / "occupied").write_text("a file where a folder should be")

    message = error_of(capsys, "train", "quickstart", "--local", "runs_dir=occupied")

    assert message == "occupied/quickstart: cannot be written: Not a directory"


def test_a_run_that_exists_is_refused_and_its_broken_checkpoint_named(
    capsys: pytest.CaptureFixture[str], work_folder: Path
) -> None:
    main_ok("train", "quickstart", "--local", *TINY)
    capsys.readouterr()

    assert error_of(capsys, "train", "quickstart", "--local", *TINY).startswith(
        "runs/quickstart: taken by an earlier run"
    )

    for weights in work_folder.glob("runs/quickstart/checkpoints/*/policy.safetensors"):
        weights.write_bytes(weights.read_bytes()[:100])
    assert "checkpoint" in error_of(capsys, "eval", "runs/quickstart", "--episodes", "1")


def main_ok(*arguments: str) -> None:
    with pytest.raises(SystemExit) as end:
        main(arguments)
    assert not end.value.code


@pytest.mark.parametrize("command", [["status"], ["eval"], ["record", "--out", "x.gif"]], ids=lambda words: words[0])
def test_a_run_that_is_not_there(capsys: pytest.CaptureFixture[str], command: list[str]) -> None:
    assert error_of(capsys, *command, "runs/nothing").startswith("runs/nothing: not a run directory")


@pytest.mark.parametrize("length", [8, 30])
def test_episodes_beyond_the_learned_positions(capsys: pytest.CaptureFixture[str], length: int) -> None:
    """One step more than the environment says is met when learning, many are met when acting."""
    settings = [each for each in TINY if not each.startswith("env.kwargs")]
    env = [f"env={{id: long_env:Long, kwargs: {{length: {length}}}}}", "relabel.kind=none"]
    learned = "model.sequence_model.positions=learned"
    message = error_of(capsys, "train", "quickstart", "--local", *settings, *env, learned, begins=True)
    assert message.startswith("model.sequence_model.max_time_index: expected more than 8, as an episode goes on to")
