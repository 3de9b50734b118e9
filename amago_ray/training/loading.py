"""Loading what a run trained: the policy of a run directory or of one checkpoint."""

from __future__ import annotations

from pathlib import Path

from amago_ray.acting.policy import Policy
from amago_ray.agent.weights import load_snapshot as read_snapshot
from amago_ray.config import Config
from amago_ray.config.load import load_config
from amago_ray.config.paths import local_path
from amago_ray.data.files import POLICY_FILE
from amago_ray.data.snapshot import Snapshot
from amago_ray.data.spec_json import spec_from_json
from amago_ray.data.specs import EnvSpec
from amago_ray.training.checkpoints import CONFIG_FILE, SPEC_FILE, Checkpoint, Checkpoints, open_checkpoint
from amago_ray.training.run_directory import RunDirectory


def load_snapshot(path: str | Path, checkpoint: str = "best") -> tuple[Config, Snapshot, Checkpoint]:
    """Settings and weights of a run directory's checkpoint, or of a checkpoint's own directory.

    checkpoint: "best" by evaluation, "latest", or its name.

    Raises:
        RunDirectoryError: there is no such run.
        CheckpointError: there is no such checkpoint, or it cannot be read.
        ConfigError: the run's settings cannot be read.
    """
    path = local_path("run", path)
    if (path / POLICY_FILE).is_file():
        found = open_checkpoint(path)
    else:
        found = Checkpoints(RunDirectory.open(path).checkpoints, keep=1).load(checkpoint)
    return load_config(found.path / CONFIG_FILE), read_snapshot(found.path / POLICY_FILE), found


def load_spec(checkpoint: Checkpoint) -> EnvSpec:
    """The spec of the environments that a checkpoint's policy was trained in.

    Raises:
        CheckpointError: the checkpoint has none.
        DataError: it is no spec.
    """
    return spec_from_json(checkpoint.read(SPEC_FILE).decode(errors="replace"))


def load_policy(path: str | Path, *, device: str = "cpu", checkpoint: str = "best") -> Policy:
    """The policy of a run directory or of a checkpoint's directory, with neither Ray nor environment.

    Raises:
        RunDirectoryError: there is no such run.
        CheckpointError: there is no such checkpoint, or it cannot be read.
        ConfigError: the run's settings cannot be read.
    """
    config, snapshot, found = load_snapshot(path, checkpoint)
    policy = Policy(config, load_spec(found), device=device)
    policy.load(snapshot)
    return policy
