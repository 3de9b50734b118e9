"""Importing what AMAGO trained: its weights and the matching settings become a run that can be gone on with."""

from __future__ import annotations

import dataclasses
from contextlib import closing
from pathlib import Path

from amago_ray.config import Config
from amago_ray.config.load import checked, dump_yaml
from amago_ray.config.paths import local_path
from amago_ray.data.spec_json import spec_to_json
from amago_ray.envs.make import make_spec
from amago_ray.learning.amago_import import read_amago_weights
from amago_ray.learning.learner import Learner
from amago_ray.training.checkpoints import CONFIG_FILE, IMPORTED, SPEC_FILE, Checkpoints
from amago_ray.training.ports import Counters
from amago_ray.training.run_directory import RunDirectory
from amago_ray.training.state import TrainerState


def import_checkpoint(weights: str | Path, config: Config, out: str | Path, *, overwrite: bool = False) -> Path:
    """Write a run directory `out` whose one checkpoint acts as the AMAGO v3 weights in the file `weights` do.

    config: the settings that AMAGO trained with, in ours; its name and place become those of `out`. Optimizer moments
    start from zero, as they do not travel in AMAGO's `policy.pt`. overwrite: replace an earlier run there.

    Returns the checkpoint's directory.

    Raises, and then writes nothing:
        CheckpointError: the file holds no AMAGO weights, or they do not fit the settings one to one.
        ConfigError, SpaceError: the settings or their environment are wrong.
        RunDirectoryError: `out` is taken or cannot be written.
    """
    weights, place = local_path("weights", weights), local_path("out", out)
    config = dataclasses.replace(config, runs_dir=str(place.parent), name=place.name)
    config = checked(config)
    directory = RunDirectory.of(config)
    with closing(directory):
        directory.reserve(overwrite=overwrite)
        spec = make_spec(config.envs)
        learner = Learner(config, spec, device="cpu", seed=config.seed)
        learner.agent.load_state_dict(read_amago_weights(weights, learner.agent))
        directory.begin(config)
        files = {
            **learner.save_files(),
            CONFIG_FILE: dump_yaml(config).encode(),
            SPEC_FILE: spec_to_json(spec).encode(),
        }
        metadata = {**_fresh_state(config).metadata(Counters(), {}), IMPORTED: str(weights)}
        return Checkpoints(directory.checkpoints, config.checkpoint.keep).save(0, files, metadata)


def _fresh_state(config: Config) -> TrainerState:
    """The state of a run that goes on from here: it evaluates first, as a fresh one does."""
    state = TrainerState.fresh(config)
    if config.evaluation.num_episodes and config.evaluation.at_start:
        state.begin_evaluation()
    return state
