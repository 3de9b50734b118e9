"""The Python face: train, evaluate, record, load a policy."""

from __future__ import annotations

import dataclasses
import logging
import sys
from collections.abc import Iterator
from contextlib import chdir, closing, contextmanager, redirect_stderr, redirect_stdout
from pathlib import Path
from typing import TYPE_CHECKING

from amago_ray.config import Config
from amago_ray.config.env import EnvConfig
from amago_ray.config.load import checked
from amago_ray.config.paths import local_path
from amago_ray.errors import ConfigError, EnvError, error_line
from amago_ray.telemetry.console import RunOutcome
from amago_ray.telemetry.output_log import OutputLog, unclosed

if TYPE_CHECKING:
    from amago_ray.acting.policy import Policy
    from amago_ray.envs.env_batch import EnvBatch

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

    Raises:
        AmagoRayError: with one readable line.
    """
    from amago_ray.launch import launch
    from amago_ray.training.interrupt import stop_on_interrupt

    config = checked(config)
    if address is not None:
        config = dataclasses.replace(config, cluster=dataclasses.replace(config.cluster, address=address))
    if resume and overwrite:
        raise ConfigError("resume and overwrite exclude each other")
    if local and address is not None:
        raise ConfigError("local and address exclude each other")
    with _surroundings_kept(), OutputLog() as output:
        with (
            stop_on_interrupt() as on_interrupt,
            launch(config, output, local=local, resume=resume, overwrite=overwrite) as run,
        ):
            on_interrupt(run.trainer.request_stop)
            outcome = run.trainer.run(run.checkpoint)
        if config.evaluation.film_at_end and not run.trainer.is_interrupted:
            outcome = dataclasses.replace(outcome, video=_film(run.directory.path, run.directory.film))
    return outcome


def scale(run: str | Path, num_env_runners: int) -> int:
    """Let a run that goes on in another process have so many env runners; returns how many it had wanted before.

    run: its directory, or its name in `runs`. It has to be within `rollout.min_env_runners` and `max_env_runners`. The
    number holds for this session of the run: `resume` begins with `rollout.num_env_runners`.

    Raises:
        AmagoRayError: with one readable line.
    """
    from amago_ray.runtime.driver.remote_run import scale

    return scale(run, num_env_runners)


def _film(run: Path, out: Path) -> Path | None:
    """The film of a run that ended; None, with a warning, where there is none, as the run itself succeeded."""
    from amago_ray.training.interrupt import stop_on_interrupt

    try:
        with stop_on_interrupt():
            return record(run, out, num_episodes=_FILMED_EPISODES)
    except (Exception, KeyboardInterrupt) as error:
        _log.warning("no film: %s (film later with amago-ray record)", error_line(error))
        return None


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

    Raises:
        AmagoRayError: with one readable line.
    """
    from amago_ray.acting.evaluation import make_evaluation_runner, run_episodes
    from amago_ray.telemetry.metrics import episode_metrics
    from amago_ray.training.loading import load_snapshot, load_spec

    _require_episodes(num_episodes)
    config, snapshot, found = load_snapshot(run, checkpoint)
    trained = load_spec(found)
    envs = [EnvConfig(id=env)] if env is not None else config.evaluation_envs
    episodes = []
    for number, entry in enumerate(envs):
        num_envs = min(config.evaluation.num_envs, num_episodes)
        with (
            _surroundings_kept(),
            _one_thread(),
            closing(make_evaluation_runner(config, entry, num_envs, number, greedy=greedy, trained=trained)) as runner,
        ):
            runner.policy.load(snapshot)
            runner.begin_incarnation(_FRESH_WORLDS + seed)
            episodes.extend(run_episodes(runner, num_episodes))
    return episode_metrics(episodes, "eval")


def record(run: str | Path, out: str | Path, *, num_episodes: int = 1, seed: int = 0, checkpoint: str = "best") -> Path:
    """Film episodes of a run's policy in fresh worlds: `out` ends in .gif or .mp4.

    Raises:
        AmagoRayError: with one readable line.
    """
    from amago_ray.training.filming import check_film_name, film, write_film
    from amago_ray.training.loading import load_policy, load_snapshot

    _require_episodes(num_episodes)
    out = local_path("out", out)
    check_film_name(out)
    config, _, found = load_snapshot(run, checkpoint)
    policy = load_policy(found.path)
    policy.generator.manual_seed(seed)
    env = config.evaluation_envs[0]
    seeds = [_FRESH_WORLDS + seed * num_episodes + number for number in range(num_episodes)]
    with _surroundings_kept(), _one_thread(), closing(_make_filmed(env)) as env_batch:
        frames = film(env_batch, policy, seeds, greedy=config.evaluation.greedy)
    return write_film(frames, out)


def _make_filmed(env: EnvConfig) -> EnvBatch:
    """One environment that renders: Gymnasium's do only if they were made for it."""
    from amago_ray.acting.torch_settings import kept_torch_settings
    from amago_ray.envs.make import make_env_batch

    kwargs = {"render_mode": "rgb_array", **env.kwargs}
    try:
        with kept_torch_settings():
            return make_env_batch([dataclasses.replace(env, kwargs=kwargs)], 1)
    except EnvError as error:
        if "render_mode" in env.kwargs:
            raise
        raise EnvError(f'{error}; to be filmed it must take render_mode="rgb_array"') from error


def load_policy(path: str | Path, *, device: str = "cpu", checkpoint: str = "best") -> Policy:
    """The policy of a run directory, or of one checkpoint's directory: acts with neither Ray nor environment.

    Raises:
        AmagoRayError: with one readable line.
    """
    from amago_ray.training.loading import load_policy as load

    return load(path, device=device, checkpoint=checkpoint)


# Evaluation after training uses incarnations far above the numbers of evaluations during training.
_FRESH_WORLDS = 1_000_000_000


@contextmanager
def _surroundings_kept() -> Iterator[None]:
    """Environments may change the process's working folder and its standard streams; afterwards they are as before."""
    with chdir("."), redirect_stdout(unclosed(sys.stdout)), redirect_stderr(unclosed(sys.stderr)):
        yield


@contextmanager
def _one_thread() -> Iterator[None]:
    """Acting is many small operations: with more threads they wait for each other."""
    import torch

    from amago_ray.acting.torch_settings import kept_torch_settings

    with kept_torch_settings():
        torch.set_num_threads(1)
        yield


def _require_episodes(num_episodes: int) -> None:
    if num_episodes < 1:
        raise ConfigError(f"num_episodes: expected a positive integer, got {num_episodes}")
