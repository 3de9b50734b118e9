"""The commands of `amago-ray`. Whatever loads torch or Ray is imported inside the command that needs it."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from datetime import datetime
from pathlib import Path
from typing import Annotated, NoReturn

import typer

from amago_ray.cli.streams import flush_streams, is_output_failure, prepare_streams
from amago_ray.config.paths import shown
from amago_ray.errors import AmagoRayError, error_line, raised_at
from amago_ray.telemetry.screen import printable

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    context_settings={"help_option_names": ["-h", "--help"]},
    help="Train, evaluate and watch in-context reinforcement learning agents.\n\n"
    "Start with [bold]amago-ray train quickstart[/bold]. Every setting of a config can be changed behind it, as in "
    "[bold]amago-ray train quickstart learner.batch_size=32[/bold]; "
    "[bold]amago-ray config --fields[/bold] explains them all.",
)

ConfigArgument = Annotated[str, typer.Argument(metavar="CONFIG", help="A YAML file, or the name of a shipped config.")]
OverridesArgument = Annotated[
    list[str] | None,
    typer.Argument(metavar="section.key=value", help="Settings to change, with values as in YAML."),
]
RunArgument = Annotated[Path, typer.Argument(metavar="RUN", help="A run's directory, or its name in runs/.")]
CheckpointOption = Annotated[
    str, typer.Option(help="The one that evaluated best, or: latest, or the name of a folder in checkpoints/.")
]
DebugOption = Annotated[bool, typer.Option("--debug", help="Show the full traceback of an error.")]

_INTERRUPTED = 130
"""What Typer exits with, without a word, where a KeyboardInterrupt ended a command."""


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line. An error made by the user's input is one line on stderr, and exit code 2."""
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    # So that `module:attr` finds modules in the folder where the command was given, as `python -m` would.
    if str(Path.cwd()) not in sys.path:
        sys.path.insert(0, str(Path.cwd()))
    prepare_streams()
    try:
        app(args=arguments, prog_name="amago-ray")
    except SystemExit as end:
        if end.code == _INTERRUPTED:
            with suppress(OSError):
                sys.stderr.write("stopped by the user\n")
        raise
    except Exception as error:
        if "--debug" in arguments:
            raise
        if isinstance(error, AmagoRayError):
            _fail(str(error))
        if isinstance(error, OSError) and is_output_failure(error):
            _fail(f"the output cannot be written: {error.strerror}")
        # Parts of the user's own run in here, and raise what they like.
        _fail(f"{error_line(error)} ({raised_at(error)}; --debug shows the way there)")
    finally:
        trouble = flush_streams()
        if trouble is not None:
            _fail(trouble)


def _fail(message: str) -> NoReturn:
    with suppress(OSError):
        sys.stderr.write(f"error: {printable(shown(' '.join(message.split())))}\n")
    flush_streams()
    raise SystemExit(2) from None


@app.command()
def train(
    config: ConfigArgument,
    overrides: OverridesArgument = None,
    local: Annotated[bool, typer.Option("--local", help="One process without Ray, deterministic.")] = False,
    resume: Annotated[bool, typer.Option("--resume", help="Go on from the run's newest checkpoint.")] = False,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Delete an earlier run of this name.")] = False,
    address: Annotated[
        str | None, typer.Option(help="A running Ray cluster; by default Ray is started on this machine.")
    ] = None,
    name: Annotated[str | None, typer.Option(help="Name of the run, whose directory is runs/NAME.")] = None,
    debug: DebugOption = False,
) -> None:
    """Train an agent. Ctrl-C (or SIGTERM, SIGHUP) writes a checkpoint and ends; a second one ends at once."""
    from amago_ray.config.load import load_config

    if resume and overwrite:
        raise typer.BadParameter("--resume and --overwrite exclude each other")
    # Quoted, so that a name such as 1e5 stays a text.
    named = [] if name is None else [f"name={json.dumps(name)}"]
    settings = load_config(config, [*(overrides or []), *named])

    from amago_ray.api import train as run
    from amago_ray.telemetry.console import print_outcome

    print_outcome(run(settings, local=local, resume=resume, overwrite=overwrite, address=address))
    # A console that fails is no failure of the run.
    flush_streams()


@app.command(name="eval")
def evaluate(
    run: RunArgument,
    episodes: Annotated[int, typer.Option(min=1, help="Whole episodes, in each environment.")] = 100,
    greedy: Annotated[bool, typer.Option("--greedy", help="Take the most likely actions; default: sample.")] = False,
    env: Annotated[str | None, typer.Option(help="Id of another environment of equal spaces.")] = None,
    seed: Annotated[int, typer.Option(min=0, help="Seed of the episodes.")] = 0,
    checkpoint: CheckpointOption = "best",
    debug: DebugOption = False,
) -> None:
    """Evaluate a trained agent over a fixed number of fresh episodes."""
    from amago_ray.api import evaluate as run_evaluation

    metrics = run_evaluation(run, num_episodes=episodes, greedy=greedy, env=env, seed=seed, checkpoint=checkpoint)
    _print_pairs(f"{run}: {episodes} episodes", {name: f"{value:.4g}" for name, value in metrics.items()})


@app.command()
def record(
    run: RunArgument,
    out: Annotated[Path, typer.Option(help="The film to write: .gif or .mp4.")],
    episodes: Annotated[int, typer.Option(min=1, help="Whole episodes, one after the other.")] = 1,
    seed: Annotated[int, typer.Option(min=0, help="Seed of the episodes.")] = 0,
    checkpoint: CheckpointOption = "best",
    debug: DebugOption = False,
) -> None:
    """Film a trained agent in fresh episodes."""
    from amago_ray.api import record as run_recording

    print(shown(run_recording(run, out, num_episodes=episodes, seed=seed, checkpoint=checkpoint)))


@app.command()
def import_checkpoint(
    weights: Annotated[Path, typer.Argument(metavar="PATH", help="AMAGO's policy.pt or policy_epoch_N.pt.")],
    config: Annotated[str, typer.Option(help="A YAML file or shipped config with the settings it was trained with.")],
    out: Annotated[Path, typer.Option(help="The run directory to write.")],
    overrides: OverridesArgument = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Delete an earlier run there.")] = False,
    debug: DebugOption = False,
) -> None:
    """Turn a policy that AMAGO v3 trained into a run: to evaluate, to film, to train on."""
    from amago_ray.config.load import load_config

    settings = load_config(config, overrides or [])

    from amago_ray.training.importing import import_checkpoint as run_import

    print(shown(run_import(weights, settings, out, overwrite=overwrite)))


@app.command()
def status(run: RunArgument, debug: DebugOption = False) -> None:
    """Show how far a run is, from its directory: metrics, processes with the ages of their last pulses, warnings."""
    from amago_ray.cli.status_text import process_lines, warning_lines
    from amago_ray.telemetry.console import duration
    from amago_ray.telemetry.metrics import flatten
    from amago_ray.training.run_directory import RunDirectory

    found = RunDirectory.open(run).read_status()
    processes, warnings = found.pop("processes", []), found.pop("warnings", [])
    newest = flatten(found) or {"state": "nothing reported yet"}
    age_s = 0.0
    if "unix_time_s" in newest:
        written_s = newest.pop("unix_time_s")
        age_s = max(time.time() - written_s, 0.0)
        age = duration(age_s)
        newest["written"] = f"{datetime.fromtimestamp(written_s):%Y-%m-%d %H:%M:%S} ({age} ago)"
    _print_pairs(
        str(run),
        {name: f"{value:,.6g}" if isinstance(value, float) else str(value) for name, value in newest.items()},
    )
    is_running = newest.get("state") in ("starting", "running")
    for title, lines in (
        ("processes", process_lines(processes, age_s) if processes and is_running else []),
        ("warnings", warning_lines(warnings)),
    ):
        if lines:
            print(f"\n{title}")
            for line in lines:
                print(printable(line))


@app.command()
def scale(
    run: RunArgument,
    env_runners: Annotated[int, typer.Option(min=1, help="How many the run shall have from now on.")],
    debug: DebugOption = False,
) -> None:
    """Change the number of env runners of a run that goes on, between its min_env_runners and max_env_runners."""
    from amago_ray.api import scale as run_scaling

    print(printable(f"{run_scaling(run, env_runners)} → {env_runners} env runners"))


@app.command()
def config(
    config: Annotated[str | None, typer.Argument(metavar="CONFIG", help="A YAML file, or a shipped name.")] = None,
    overrides: OverridesArgument = None,
    fields: Annotated[bool, typer.Option("--fields", help="Explain every setting instead.")] = False,
    debug: DebugOption = False,
) -> None:
    """Show every setting of a config as it would be used; without CONFIG, name the shipped ones."""
    if fields:
        from amago_ray.config.describe import describe_fields

        for field in describe_fields():
            print(f"{field.path} = {field.default}  ({field.type})\n    {field.meaning}")
        return
    from amago_ray.config.load import dump_yaml, load_config, shipped_configs

    if config is None:
        _print_pairs("shipped configs", {name: str(path) for name, path in shipped_configs().items()})
        return
    print(dump_yaml(load_config(config, overrides or [])), end="")


@app.command()
def envs(debug: DebugOption = False) -> None:
    """List the built-in environments. Any other Gymnasium id or `module:attr` works in a config too."""
    from amago_ray.envs.registry import list_envs

    for env in list_envs():
        settings = ", ".join(f"{name}: {json.dumps(value)}" for name, value in env.kwargs.items())
        print(f"{env.id}\n    {env.description}\n    kwargs: {{{settings}}}")


@app.command()
def doctor(
    runs_dir: Annotated[Path, typer.Option(help="Where runs would be written.")] = Path("runs"),
    debug: DebugOption = False,
) -> None:
    """Check that this machine has what a run needs."""
    from amago_ray.cli.doctor import examine

    findings = examine(runs_dir)
    width = max(len(finding.name) for finding in findings)
    for finding in findings:
        print(f"{'ok' if finding.ok else 'fails':<5}  {finding.name:<{width}}  {printable(finding.text)}")
    if not all(finding.ok for finding in findings):
        raise typer.Exit(1)


def _print_pairs(title: str, pairs: dict[str, str]) -> None:
    """A title, and names and values below it in two columns; the terminal breaks what is too long."""
    print(printable(title))
    width = max((len(name) for name in pairs), default=0)
    for name, text in pairs.items():
        print(f"{printable(name):<{width}}  {printable(text)}")
