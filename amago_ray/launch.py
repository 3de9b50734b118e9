"""The composition root: from settings to a run that is ready to train."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass

from amago_ray.acting.exploration import make_exploration
from amago_ray.acting.torch_settings import kept_torch_settings
from amago_ray.config import Config
from amago_ray.config.load import checked
from amago_ray.config.model import CustomEncoderConfig
from amago_ray.config.validate import validate_horizon, validate_storage
from amago_ray.data.specs import EnvSpec, difference, require_spaces
from amago_ray.envs.make import make_spec
from amago_ray.errors import ConfigError
from amago_ray.relabel.make import make_relabeler
from amago_ray.telemetry.console import ConsoleReporter
from amago_ray.telemetry.loggers import JsonlLogger, LoggerGroup, MetricLogger, TensorBoardLogger, read_metrics
from amago_ray.telemetry.output_log import OutputLog
from amago_ray.telemetry.screen import make_console
from amago_ray.training.checkpoints import Checkpoint, Checkpoints
from amago_ray.training.loading import load_spec
from amago_ray.training.ports import Backend
from amago_ray.training.run_directory import RunDirectory
from amago_ray.training.state import TrainerState
from amago_ray.training.trainer import Trainer

_log = logging.getLogger(__name__)


_MANY_CATEGORIES = 10_000
"""Values of an observation from which on one column for each takes more time than all else."""


@dataclass(frozen=True)
class Launch:
    """A run that is ready to train: its parts, and the checkpoint it goes on from (None from scratch)."""

    directory: RunDirectory
    trainer: Trainer
    checkpoint: Checkpoint | None


@contextmanager
def launch(
    config: Config, output: OutputLog, *, local: bool, resume: bool = False, overwrite: bool = False
) -> Iterator[Launch]:
    """Put a run together: spec, directory, backend, loggers, trainer; its directory and Ray are let go at the end.

    output: keeps what foreign code prints, from here on in the run's directory. local: in this process, without Ray.
    resume: go on with the run in its directory. overwrite: replace it, which happens last, when everything that the new
    run needs has been made.

    Raises:
        AmagoRayError: the settings are wrong, the directory is not free, or Ray cannot be reached.
    """
    config = checked(config)
    if local and config.learner.num_learners > 1:
        raise ConfigError(
            f"learner.num_learners: expected 1 in one process without Ray, got {config.learner.num_learners}"
        )
    # Before anything else: code of the user's, which runs from here on, may change the working folder.
    directory = RunDirectory.of(config)
    with kept_torch_settings():
        spec = make_spec(config.envs)
        _check_parts(config, spec)
    with ExitStack() as stack:
        stack.enter_context(closing(directory))
        directory.reserve(resume=resume, overwrite=overwrite)
        checkpoint = _newest_checkpoint(directory, config, spec) if resume else None
        whereabouts: Mapping[str, str] | None = None
        if local:
            backend = _local_backend(config, directory, spec)
        else:
            backend, whereabouts = _ray_backend(config, directory, spec, stack)
        # Until the trainer stops it.
        with ExitStack() as failing:
            failing.callback(backend.stop)
            backend.prepare(checkpoint)
            directory.begin(config, whereabouts)
            output.write_to(directory.output)
            loggers = LoggerGroup(_make_loggers(config, directory, checkpoint))
            console = None
            if "console" in config.report.loggers:
                console = ConsoleReporter(config.name, make_console(output.terminal))
            failing.pop_all()
        yield Launch(directory, Trainer(config, backend, directory, spec, console, loggers, by_steps=local), checkpoint)


def _check_parts(config: Config, spec: EnvSpec) -> None:
    """Raise what the run's parts would, before anything is written: a wrong setting leaves no run directory behind."""
    _warn_of_categories(config, spec)
    validate_horizon(config, spec.horizon, spec.name)
    validate_storage(config, spec.row_bytes, spec.name)
    make_exploration(config.exploration, spec, config.rollout.num_envs_per_env_runner)
    make_relabeler(config.relabel, spec)
    if config.evaluation.num_episodes and config.evaluation.env is not None:
        for env in config.evaluation_envs:
            require_spaces(spec, make_spec([env]))


def _warn_of_categories(config: Config, spec: EnvSpec) -> None:
    encoder = config.model.timestep_encoder
    if isinstance(encoder, CustomEncoderConfig):
        return
    for name, leaf in spec.observations.items():
        width = sum(leaf.num_categories)
        if width < _MANY_CATEGORIES or name in encoder.token_keys:
            continue
        remedy = (
            "let the environment show its digits (MultiDiscrete), or give model.timestep_encoder.kind one of your own "
            "that embeds it"
            if leaf.kind == "discrete"
            else f'name "{name}" in model.timestep_encoder.token_keys'
        )
        _log.warning(
            "env '%s': observation '%s': %s is read as %s columns, one for each value, which is slow: %s",
            *(spec.name, name, leaf, f"{width:,}", remedy),
        )


def _local_backend(config: Config, directory: RunDirectory, spec: EnvSpec) -> Backend:
    from amago_ray.learning.process import prepare_process

    prepare_process(config.learner)
    from amago_ray.training.local import LocalBackend

    return LocalBackend(config, spec, directory.replay, directory.claim)


def _ray_backend(
    config: Config, directory: RunDirectory, spec: EnvSpec, stack: ExitStack
) -> tuple[Backend, Mapping[str, str]]:
    """The backend, and where other processes find its control actor."""
    from amago_ray.runtime.cluster.ray_connection import ray_connection
    from amago_ray.runtime.driver.backend import RayBackend
    from amago_ray.runtime.driver.remote_run import whereabouts

    address = stack.enter_context(ray_connection(config))
    backend = RayBackend(config, spec, directory.replay, directory.claim, directory.session)
    return backend, whereabouts(address, config.name, directory.claim)


def _newest_checkpoint(directory: RunDirectory, config: Config, spec: EnvSpec) -> Checkpoint | None:
    """What a resumed run goes on from, compared with its settings; None if it never came to a checkpoint."""
    checkpoints = Checkpoints(directory.checkpoints, keep=1)
    if not checkpoints.exists():
        _log.warning("%s: no checkpoint yet: the run begins anew", directory.path)
        return None
    checkpoint = checkpoints.load()
    # Its other settings may change from session to session.
    seed = directory.metadata.get("seed", config.seed)
    if config.seed != seed:
        raise ConfigError(f"seed: expected {seed}, with which the run {directory.path} began, got {config.seed}")
    changed = difference(load_spec(checkpoint), spec)
    if changed:
        raise ConfigError(f"env: expected that of the run {directory.path}: {changed}")
    TrainerState.of(checkpoint)
    return checkpoint


def _make_loggers(config: Config, directory: RunDirectory, checkpoint: Checkpoint | None) -> list[MetricLogger]:
    loggers: list[MetricLogger] = []
    if "jsonl" in config.report.loggers:
        loggers.append(JsonlLogger(directory.reports, _nothing if checkpoint is None else _precedes(checkpoint)))
    if "tensorboard" in config.report.loggers:
        env_steps = 0 if checkpoint is None else int(checkpoint.metadata.get("env_steps", 0))
        # TensorBoard hides by env steps alone: of the checkpoint's own step, what precedes it is written again.
        kept = read_metrics(directory.reports) if checkpoint is not None and "jsonl" in config.report.loggers else []
        again = [report for report in kept if report.get("env_steps") == env_steps]
        hides_from = env_steps if checkpoint is None or again else env_steps + 1
        is_first = directory.session == 1
        loggers.append(TensorBoardLogger(directory.path, None if is_first else hides_from, again))
    return loggers


def _nothing(report: Mapping[str, float]) -> bool:
    return False


def _precedes(checkpoint: Checkpoint) -> Callable[[Mapping[str, float]], bool]:
    """Tells which reports a run had made when it was saved; what a killed session reported later happens anew."""
    env_steps, learner_steps = (int(checkpoint.metadata.get(name, 0)) for name in ("env_steps", "learner_steps"))
    is_evaluated_anew = checkpoint.metadata.get("trainer", {}).get("evaluating", False)

    def precedes(report: Mapping[str, float]) -> bool:
        now = (report.get("env_steps", 0), report.get("learner_steps", 0))
        if now == (env_steps, learner_steps) and is_evaluated_anew and "eval/env_steps" in report:
            return False
        return now[0] <= env_steps and now[1] <= learner_steps

    return precedes
