"""Loading what a run trained, also where neither Ray nor an environment is at hand."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest
from helpers.one_line import one_line
from helpers.scripted import make_agent, make_config, make_spec, snapshot_of

from amago_ray.acting.policy import Policy
from amago_ray.agent.weights import snapshot_to_bytes
from amago_ray.config.load import dump_yaml
from amago_ray.data.episode import PolicyVersion
from amago_ray.data.files import POLICY_FILE
from amago_ray.data.spec_json import spec_to_json
from amago_ray.data.specs import ActionSpec
from amago_ray.errors import AmagoRayError, CheckpointError, RunDirectoryError
from amago_ray.training.checkpoints import CONFIG_FILE, SPEC_FILE, Checkpoints
from amago_ray.training.loading import load_policy, load_snapshot
from amago_ray.training.run_directory import RunDirectory

CONFIG = make_config()
SPEC = make_spec(ActionSpec("box", (2,), (), (-2.0, 0.0), (2.0, 10.0)))


def files_of(seed: int) -> Mapping[str, bytes]:
    return {
        POLICY_FILE: snapshot_to_bytes(snapshot_of(make_agent(CONFIG, SPEC, seed), 10 * seed)),
        CONFIG_FILE: dump_yaml(CONFIG).encode(),
        SPEC_FILE: spec_to_json(SPEC).encode(),
    }


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """A run directory with checkpoints of steps 10 and 20, and 10 as the best."""
    path = tmp_path / "runs" / "mine"
    path.mkdir(parents=True)
    (path / CONFIG_FILE).write_bytes(files_of(1)[CONFIG_FILE])
    checkpoints = Checkpoints(RunDirectory.open(path).checkpoints, keep=3)
    for seed in (1, 2):
        checkpoints.save(10 * seed, files_of(seed), {})
    checkpoints.save_best(10, files_of(1), {})
    return path


def actions_of(policy: Policy) -> np.ndarray:
    shown = np.random.default_rng(0).normal(size=(5, 3)).astype(np.float32)
    state, actions = policy.initial_state(5), []
    for step in range(8):
        action, state = policy.act(shown + step, state, reward=np.full(5, step), greedy=True)
        actions.append(action)
    return np.stack(actions)


def test_a_run_or_a_checkpoint_may_be_named(run: Path) -> None:
    for path, checkpoint, seed in (
        (run, "latest", 2),
        (run, "best", 1),
        (run, "step_000000010", 1),
        (run / "checkpoints" / "step_000000010", "latest", 1),
        (run / "checkpoints" / "best_000000010", "latest", 1),
    ):
        policy = load_policy(path, checkpoint=checkpoint)
        assert policy.version == PolicyVersion(0, 10 * seed)
        expected = Policy(CONFIG, SPEC)
        expected.load(snapshot_of(make_agent(CONFIG, SPEC, seed)))
        assert np.array_equal(actions_of(policy), actions_of(expected))
    config, snapshot, found = load_snapshot(str(run))
    assert config == CONFIG
    assert snapshot.version == PolicyVersion(0, 10), "the best, if none is named"
    assert found.path.name == "best_000000010"


ACT = """
import sys
import numpy as np
import amago_ray

policy = amago_ray.load_policy(sys.argv[1])
shown = np.random.default_rng(0).normal(size=(5, 3)).astype(np.float32)
state, actions = policy.initial_state(5), []
for step in range(8):
    action, state = policy.act(shown + step, state, reward=np.full(5, step), greedy=True)
    actions.append(action)
np.save(sys.argv[2], np.stack(actions))
loaded = {name.partition(".")[0] for name in sys.modules}
print(sorted(loaded & {"ray", "gymnasium", "pyarrow", "tensorboard", "imageio"}))
"""


def test_a_policy_acts_in_a_process_that_loads_neither_ray_nor_gymnasium(run: Path, tmp_path: Path) -> None:
    out = tmp_path / "actions.npy"
    done = subprocess.run(
        [sys.executable, "-c", ACT, str(run), str(out)], capture_output=True, text=True, check=False, timeout=60
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "[]"
    actions = np.load(out)
    assert np.array_equal(actions, actions_of(load_policy(run)))
    # Boxes come in the bounds of the environment.
    assert np.abs(actions[..., 0]).max() <= 2
    assert actions[..., 1].min() >= 0
    assert actions[..., 1].max() > 2


def refused(path: Path, kind: type[AmagoRayError], words: str, **options: str) -> None:
    with pytest.raises(kind, match=words) as error:
        load_policy(path, **options)  # type: ignore[arg-type]
    one_line(error)


def test_what_cannot_be_loaded_is_one_line(run: Path, tmp_path: Path) -> None:
    refused(tmp_path, RunDirectoryError, "not a run directory")
    refused(run, CheckpointError, "step_7", checkpoint="step_7")
    newest = run / "checkpoints" / "step_000000020"
    (newest / POLICY_FILE).write_bytes(b"nonsense")
    refused(newest, CheckpointError, "expected sha256")
    assert load_policy(run, checkpoint="latest").version == PolicyVersion(0, 10), "the one before is taken"
    (run / "checkpoints" / "step_000000010" / CONFIG_FILE).unlink()
    refused(run, CheckpointError, "no readable checkpoint", checkpoint="latest")


def test_files_that_do_not_belong_together_are_one_line(run: Path, tmp_path: Path) -> None:
    checkpoints = Checkpoints(tmp_path / "mixed", keep=9)
    other = spec_to_json(make_spec(ActionSpec("discrete", (), (3,)))).encode()
    refused(
        checkpoints.save(1, {**files_of(1), SPEC_FILE: other}, {}),
        CheckpointError,
        "weights: expected timestep_encoder",
    )
    only_weights = {name: content for name, content in files_of(1).items() if name != SPEC_FILE}
    refused(checkpoints.save(2, only_weights, {}), CheckpointError, "env_spec.json: cannot be read")
    broken = {**files_of(1), POLICY_FILE: b"not safetensors"}
    refused(checkpoints.save(3, broken, {}), CheckpointError, "expected policy weights in safetensors format")
    without_config = {name: content for name, content in files_of(1).items() if name != CONFIG_FILE}
    refused(checkpoints.save(4, without_config, {}), AmagoRayError, "config.yaml")
