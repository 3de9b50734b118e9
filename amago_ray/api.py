"""The Python face: train, evaluate, record, load a policy."""

from __future__ import annotations

import dataclasses
import logging
import signal
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING

from amago_ray.config import Config
from amago_ray.config.env import EnvConfig
from amago_ray.config.validate import validate, validate_horizon
from amago_ray.data.specs import EnvSpec
from amago_ray.errors import AmagoRayError, ConfigError
from amago_ray.telemetry.console import ConsoleReporter, RunOutcome
from amago_ray.telemetry.loggers import JsonlLogger, LoggerGroup, MetricLogger, TensorBoardLogger, read_metrics
from amago_ray.training.run_directory import RunDirectory

if TYPE_CHECKING:
    from amago_ray.acting.policy import Policy
    from amago_ray.training.checkpoints import Checkpoint
    from amago_ray.training.ports import Backend
    from amago_ray.training.trainer import Trainer

_FILMED_EPISODES = 3

_log = logging.getLogger(__name__)


def train(
    config: Config,
    *,
    local: bool = False,
    resume: bool = False,
    overwrite: bool = False,
    address: str | None = None,
) -> RunOutcome:
    """Train until a stop criterion of the config is met, or Ctrl-C.

    local: in this process, without Ray, deterministic. resume: go on with the run in its directory. overwrite: replace
    it. address: join the Ray cluster there instead of starting one.

    Raises: AmagoRayError, with one readable line.
    """
    from amago_ray.envs.make import make_spec

    if address is not None:
        config = dataclasses.replace(config, cluster=dataclasses.replace(config.cluster, address=address))
    if resume and overwrite:
        raise ConfigError("resume and overwrite exclude each other")
    validate(config)
    spec = make_spec(config.envs)
    _check_parts(config, spec)
    directory = RunDirectory.create(config, resume=resume, overwrite=overwrite)
    with ExitStack() as stack:
        stack.callback(directory.release)
        checkpoint = _newest_checkpoint(directory) if resume else None
        backend = _local_backend(config, directory, spec) if local else _ray_backend(config, directory, spec, stack)
        trainer = _trainer(config, backend, directory, spec, checkpoint, local=local)
        stack.enter_context(_stop_on_interrupt(trainer))
        outcome = trainer.run(checkpoint)
    if config.evaluation.film_at_end and not trainer.is_interrupted:
        try:
            video = record(directory.path, directory.path / "videos" / "final.gif", num_episodes=_FILMED_EPISODES)
        except AmagoRayError as error:
            # The run itself succeeded.
            _log.warning("no film: %s", error)
        else:
            outcome = dataclasses.replace(outcome, video=video)
    return outcome


def evaluate(
    run: str | Path,
    *,
    num_episodes: int = 100,
    greedy: bool = False,
    env: str | None = None,
    seed: int = 0,
    checkpoint: str = "best",
) -> dict[str, float]:
    """Statistics of `num_episodes` whole episodes per environment under a run's policy, as `eval/...` metrics.

    checkpoint: "best" by evaluation, "latest", or its name.
    env: another environment's id; None takes the run's evaluation environments. seed: which fresh worlds.

    Raises: AmagoRayError, with one readable line.
    """
    from amago_ray.acting.evaluation import make_evaluation_runner, run_episodes
    from amago_ray.telemetry.metrics import episode_metrics
    from amago_ray.training.loading import load_snapshot

    _require_episodes(num_episodes)
    config, snapshot, _ = load_snapshot(run, checkpoint)
    envs = [EnvConfig(id=env)] if env is not None else _evaluation_envs(config)
    episodes = []
    for number, entry in enumerate(envs):
        num_envs = min(config.evaluation.num_envs, num_episodes)
        runner = make_evaluation_runner(config, entry, num_envs, number, greedy=greedy)
        with closing(runner):
            runner.policy.load(snapshot)
            runner.begin_incarnation(_FRESH_WORLDS + seed)
            episodes.extend(run_episodes(runner, num_episodes))
    return episode_metrics(episodes, "eval")


def record(run: str | Path, out: str | Path, *, num_episodes: int = 1, seed: int = 0, checkpoint: str = "best") -> Path:
    """Film episodes of a run's policy in fresh worlds: `out` ends in .gif or .mp4.

    Raises: AmagoRayError, with one readable line.
    """
    from amago_ray.envs.make import make_env_batch
    from amago_ray.training.filming import check_film_name, film, write_film
    from amago_ray.training.loading import load_policy, load_snapshot

    _require_episodes(num_episodes)
    check_film_name(Path(out))
    config, _, found = load_snapshot(run, checkpoint)
    policy = load_policy(found.path)
    policy.generator.manual_seed(seed)
    env = _evaluation_envs(config)[0]
    # Gymnasium environments render only if they were made for it.
    env = dataclasses.replace(env, kwargs={"render_mode": "rgb_array", **env.kwargs})
    seeds = [_FRESH_WORLDS + seed * num_episodes + number for number in range(num_episodes)]
    with closing(make_env_batch([env], 1)) as env_batch:
        frames = film(env_batch, policy, seeds, greedy=config.evaluation.greedy)
    return write_film(frames, Path(out))


def load_policy(path: str | Path, *, device: str = "cpu", checkpoint: str = "best") -> Policy:
    """The policy of a run directory, or of one checkpoint's directory: acts with neither Ray nor environment.

    Raises: AmagoRayError, with one readable line.
    """
    from amago_ray.training.loading import load_policy as load

    return load(path, device=device, checkpoint=checkpoint)


# Evaluation after training uses incarnations far above the numbers of evaluations during training.
_FRESH_WORLDS = 1_000_000_000


def _require_episodes(num_episodes: int) -> None:
    if num_episodes < 1:
        raise ConfigError(f"num_episodes: expected a positive integer, got {num_episodes}")


def _evaluation_envs(config: Config) -> list[EnvConfig]:
    env = config.evaluation.env
    if env is None:
        return config.envs
    return list(env) if isinstance(env, list) else [env]


def _check_parts(config: Config, spec: EnvSpec) -> None:
    """Raise what the run's parts would, before anything is written: a wrong setting leaves no run directory behind."""
    from amago_ray.acting.exploration import make_exploration
    from amago_ray.envs.make import make_spec
    from amago_ray.relabel.make import make_relabeler

    validate_horizon(config, spec.horizon, spec.name)
    make_exploration(config.exploration, spec, config.rollout.num_envs_per_env_runner)
    make_relabeler(config.relabel, spec)
    if config.evaluation.num_episodes and config.evaluation.env is not None:
        for env in _evaluation_envs(config):
            make_spec([env])


def _local_backend(config: Config, directory: RunDirectory, spec: EnvSpec) -> Backend:
    from amago_ray.learning.process import prepare_process

    prepare_process(config.learner)
    from amago_ray.training.local import LocalBackend

    return LocalBackend(config, spec, Path(config.replay.directory or directory.replay))


def _ray_backend(config: Config, directory: RunDirectory, spec: EnvSpec, stack: ExitStack) -> Backend:
    from amago_ray.runtime.backend import RayBackend
    from amago_ray.runtime.session import ray_session

    stack.enter_context(ray_session(config))
    return RayBackend(config, spec, directory.path, directory.session)


def _newest_checkpoint(directory: RunDirectory) -> Checkpoint | None:
    from amago_ray.training.checkpoints import Checkpoints

    checkpoints = Checkpoints(directory.checkpoints, keep=1)
    if checkpoints.exists():
        return checkpoints.load()
    _log.warning("%s: no checkpoint yet: the run begins anew", directory.path)
    (directory.path / "metrics.jsonl").unlink(missing_ok=True)
    return None


def _trainer(
    config: Config,
    backend: Backend,
    directory: RunDirectory,
    spec: EnvSpec,
    checkpoint: Checkpoint | None,
    *,
    local: bool,
) -> Trainer:
    from amago_ray.training.trainer import Trainer

    loggers: list[MetricLogger] = []
    reports = directory.path / "metrics.jsonl"
    if "jsonl" in config.report.loggers:
        loggers.append(JsonlLogger(reports, None if checkpoint is None else _precedes(checkpoint)))
    if "tensorboard" in config.report.loggers:
        env_steps = None if checkpoint is None else int(checkpoint.metadata.get("env_steps", 0))
        # TensorBoard hides by env steps alone: of the checkpoint's own step, what precedes it is written again.
        kept = read_metrics(reports) if checkpoint is not None and "jsonl" in config.report.loggers else []
        again = [report for report in kept if report.get("env_steps") == env_steps]
        first = env_steps if env_steps is None or again else env_steps + 1
        loggers.append(TensorBoardLogger(directory.path, first, again))
    console = ConsoleReporter(config.name) if "console" in config.report.loggers else None
    return Trainer(config, backend, directory, spec, console, LoggerGroup(loggers), by_steps=local)


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


@contextmanager
def _stop_on_interrupt(trainer: Trainer) -> Iterator[None]:
    """The first Ctrl-C (or SIGTERM) asks the trainer to checkpoint and stop, the second interrupts at once."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}

    def ask(number: int, frame: FrameType | None) -> None:
        trainer.request_stop("stopped by the user")
        for each, handler in before.items():
            # A shell's background job ignores Ctrl-C: who has sent one signal to it means the second one, too.
            signal.signal(each, signal.default_int_handler if handler is signal.SIG_IGN else handler)

    for number in before:
        signal.signal(number, ask)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
