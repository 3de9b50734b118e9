"""The original AMAGO at the same works, for `versus_amago.py`; runs in the original's own virtual environment.

    PEER_PYTHON benchmarks/peer_amago.py CHECKOUT acting|learning|solve '{"work": ..., ...}'

Only drives it from outside: its own classes collect, write, load and learn. On a CPU its compiled update needs two
buffers of its spectral reparametrisation to be contiguous, which is all that is changed in it.
"""

from __future__ import annotations

import importlib.util
import itertools
import json
import os
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from types import ModuleType
from typing import Any

from measuring.protocol import Measure, serve

CHECKOUT = Path(sys.argv[1]).resolve()
sys.path.insert(0, str(CHECKOUT))

import amago  # noqa: E402
import torch  # noqa: E402
from amago import cli_utils  # noqa: E402
from amago.agent import Agent, Multigammas  # noqa: E402
from amago.envs import AMAGOEnv  # noqa: E402
from amago.envs.builtin.mazerunner import MazeRunnerAMAGOEnv  # noqa: E402
from amago.envs.builtin.popgym_envs import POPGymAMAGO  # noqa: E402
from amago.envs.builtin.tmaze import TMazeAltPassive  # noqa: E402
from amago.envs.builtin.toy_gym import RoomKeyDoor  # noqa: E402
from amago.envs.exploration import EpsilonGreedy  # noqa: E402
from amago.loading import DiskTrajDataset, RLData, RLData_pad_collate  # noqa: E402
from amago.nets.traj_encoders import TformerTrajEncoder  # noqa: E402
from amago.nets.transformer import SigmaReparam, VanillaAttention, VanillaFlexAttention  # noqa: E402
from amago.nets.tstep_encoders import FFTstepEncoder  # noqa: E402

ATTENTION = {"vanilla": VanillaAttention, "flex": VanillaFlexAttention}
ACTING_EPSILON = 0.05
SOLVING_ENVS = 8
EVALUATION_EPISODES = 104


class TrainingIsOverError(Exception):
    """Leaves the original's training loop."""


def example(prefix: str) -> ModuleType:
    """One of the original's example scripts, for the classes that it defines."""
    path = next((CHECKOUT / "examples").glob(f"{prefix}_*.py"))
    spec = importlib.util.spec_from_file_location(f"peer_example_{prefix}", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def environment_maker(kind: str, settings: Mapping[str, Any]) -> Callable[[], AMAGOEnv]:
    """Its own version of one of our environments."""
    if kind == "maze_runner":
        return lambda: MazeRunnerAMAGOEnv(
            maze_dim=settings["size"],
            num_goals=settings["num_goals"],
            time_limit=settings["episode_length"],
            randomized_action_space=False,
        )
    if kind == "dark_key_door":
        return lambda: AMAGOEnv(
            RoomKeyDoor(
                size=settings["size"],
                max_episode_steps=settings["attempt_length"],
                meta_rollout_horizon=settings["trial_length"],
            ),
            env_name="DarkKeyDoor",
        )
    if kind == "repeat_previous":
        return lambda: POPGymAMAGO("popgym-RepeatPreviousEasy-v0")
    length = settings["length"]
    return lambda: AMAGOEnv(TMazeAltPassive(corridor_length=length, penalty=-1 / length), env_name="TMaze")


def bind(cls: type, **values: Any) -> dict[str, Any]:
    """Settings of a class under the names by which the original's configuration knows them."""
    return {f"{cls.__module__}.{cls.__name__}.{name}": value for name, value in values.items()}


def make_experiment(
    kind: str,
    settings: Mapping[str, Any],
    *,
    folder: str,
    context_length: int,
    width: int,
    layers: int,
    encoder_output: int,
    encoder_hidden: int = 128,
    auxiliary_discounts: Sequence[float] | None = None,
    attention: str = "vanilla",
    normalize_inputs: bool = True,
    agent: Mapping[str, Any] | None = None,
    exploration: type = EpsilonGreedy,
    exploration_settings: Mapping[str, Any] | None = None,
    relabeler: Any = None,
    experiment_class: type = amago.Experiment,
    **arguments: Any,
) -> Any:
    """A started experiment of the original."""
    model = {"d_model": width, "d_ff": 4 * width, "n_layers": layers, "attention_type": ATTENTION[attention]}
    encoder: dict[str, Any] = {"n_layers": 2, "d_hidden": encoder_hidden, "d_output": encoder_output}
    if kind == "maze_runner":
        encoder["specify_obs_keys"] = ["obs", "goals"]
    cli_utils.use_config(
        bind(TformerTrajEncoder, **model)
        | bind(FFTstepEncoder, normalize_inputs=normalize_inputs, **encoder)
        | bind(Agent, **(agent or {}))
        | (bind(Multigammas, discrete=list(auxiliary_discounts)) if auxiliary_discounts else {})
        | bind(exploration, **(exploration_settings or {})),
        finalize=False,
    )
    dataset = DiskTrajDataset(
        dset_root=folder, dset_name="peer", dset_max_size=20_000, **({"relabeler": relabeler} if relabeler else {})
    )
    make_environment = environment_maker(kind, settings)
    experiment = experiment_class(
        run_name="peer",
        ckpt_base_dir=folder,
        max_seq_len=context_length,
        # Whole episodes are saved; one step of margin, as in its own examples.
        traj_save_len=context_length + 1,
        stagger_traj_file_lengths=False,
        dataset=dataset,
        tstep_encoder_type=FFTstepEncoder,
        traj_encoder_type=TformerTrajEncoder,
        agent_type=Agent,
        exploration_wrapper_type=exploration,
        make_train_env=make_environment,
        make_val_env=make_environment,
        learning_rate=3e-4,
        lr_warmup_steps=100,
        ckpt_interval=None,
        always_save_latest=False,
        verbose=False,
        **{"val_interval": None, "val_timesteps_per_epoch": 1, **arguments},
    )
    experiment.start()
    for module in experiment.policy.modules():
        if isinstance(module, SigmaReparam):
            module.u, module.v = module.u.contiguous(), module.v.contiguous()
    return experiment


def facts(experiment: Any) -> dict[str, Any]:
    """What a reader may want to know about this side."""
    return {
        "parameters": sum(parameter.numel() for parameter in experiment.policy.trainable_params),
        "torch": torch.__version__,
        "matmul_precision": torch.get_float32_matmul_precision(),
        "threads": torch.get_num_threads(),
    }


@contextmanager
def acting(case: Mapping[str, Any]) -> Iterator[tuple[dict[str, Any], Measure]]:
    """Env steps per second of its own collection loop: inference, environments, files of finished episodes."""
    work, num_envs, steps = case["work"], case["num_envs"], case["work"]["episode_length"]
    with tempfile.TemporaryDirectory() as folder:
        experiment = make_experiment(
            work["environment"],
            work["settings"],
            folder=folder,
            context_length=work["context_length"],
            width=work["width"],
            layers=work["layers"],
            encoder_hidden=work["encoder_hidden"],
            encoder_output=work["encoder_output"],
            auxiliary_discounts=work["auxiliary_discounts"],
            exploration_settings={"eps_start": ACTING_EPSILON, "eps_end": ACTING_EPSILON},
            parallel_actors=num_envs,
            env_mode=case["mode"],
            train_timesteps_per_epoch=steps,
        )
        experiment.collect_new_training_data()

        def measure(seconds: float) -> dict[str, Any]:
            rounds, began = 0, time.perf_counter()
            while rounds == 0 or time.perf_counter() - began < seconds:
                experiment.collect_new_training_data()
                rounds += 1
            return {"value": rounds * steps * num_envs / (time.perf_counter() - began), "rounds": rounds}

        yield facts(experiment), measure
        experiment.train_envs.close()
        experiment.val_envs.close()


@contextmanager
def learning(case: Mapping[str, Any]) -> Iterator[tuple[dict[str, Any], Measure]]:
    """Milliseconds of one of its updates on batches in memory, padded by its own collate function.

    Where the case names a device, the batches lie there already: their transfer is not counted.
    """
    work, device = case["work"], torch.device(case.get("device", "cpu"))
    if device.type == "cpu":
        # Else accelerate takes a GPU where it finds one.
        os.environ["ACCELERATE_USE_CPU"] = "true"
    with tempfile.TemporaryDirectory() as folder:
        experiment = make_experiment(
            "maze_runner",
            {"size": 11, "num_goals": 3, "episode_length": work["context_length"]},
            folder=folder,
            context_length=work["context_length"],
            width=work["width"],
            layers=work["layers"],
            encoder_output=work["encoder_output"],
            attention=case.get("attention", "vanilla"),
            parallel_actors=1,
            env_mode="sync",
            batch_size=len(work["lengths"][0]),
            mixed_precision={"float32": "no", "bfloat16": "bf16"}[case.get("precision", "float32")],
        )
        experiment.policy_aclr.train()
        batches = itertools.cycle(
            [
                RLData_pad_collate([make_sequence(length) for length in lengths]).to(experiment.DEVICE)
                for lengths in work["lengths"]
            ]
        )
        if experiment.DEVICE.type != device.type:
            raise RuntimeError(f"expected to run on {device.type}, got that accelerate chose {experiment.DEVICE}")

        def update() -> None:
            experiment.train_step(next(batches), log_step=False)
            if device.type == "cuda":
                torch.cuda.synchronize()

        began = time.perf_counter()
        update()
        first_s = time.perf_counter() - began
        for _ in range(max(2, len(work["lengths"]))):
            update()

        def measure(seconds: float) -> dict[str, Any]:
            updates, began = 0, time.perf_counter()
            while updates < 2 or time.perf_counter() - began < seconds:
                update()
                updates += 1
            return {"value": (time.perf_counter() - began) / updates * 1e3, "updates": updates}

        yield {**facts(experiment), "first_update_s": first_s}, measure


def make_sequence(length: int) -> RLData:
    """A sequence that looks like MazeRunner's."""
    actions = torch.nn.functional.one_hot(torch.randint(5, (length,)), 5).float()
    return RLData(
        obs={"obs": torch.randn(length + 1, 7), "goals": torch.randn(length + 1, 3, 2)},
        rews=(torch.rand(length, 1) < 0.02).float(),
        dones=torch.zeros(length, 1, dtype=torch.bool),
        actions=actions,
        time_idxs=torch.arange(length + 1)[:, None],
    )


def solve(case: Mapping[str, Any]) -> dict[str, Any]:
    """Seconds since the launch until an evaluation reaches the goal, the time spent in evaluations not counted."""
    work, launched = case["work"], case["launched_unix_s"]
    original = work["original"]
    greedy = original.get("greedy", False)
    rounds, spent_s, curve, first_update_s = -1, 0.0, [], []

    class Solving(amago.Experiment):
        """Evaluates a fixed number of episodes now and then, and ends when the goal is reached."""

        def evaluate_val(self) -> None:
            """Called by the original's loop before each round."""
            nonlocal rounds, spent_s
            rounds += 1
            last = rounds == case["max_rounds"]
            due = rounds - original["first_evaluation"]
            if last or (due >= 0 and due % original["rounds_between_evaluations"] == 0):
                began = time.time()
                elapsed_s = began - launched - spent_s
                returns = evaluate(self, work["context_length"])
                if work["measure"] == "success":
                    returns = [float(value >= work["settings"]["num_goals"]) for value in returns]
                score = sum(returns) / len(returns)
                spent_s += time.time() - began
                curve.append({"rounds": rounds, "elapsed_s": elapsed_s, work["measure"]: score})
                print(curve[-1], file=sys.stderr, flush=True)
                if score >= work["goal"] - 1e-6:
                    raise TrainingIsOverError
            if last or time.time() - launched > case["limit_s"]:
                raise TrainingIsOverError

        def train_step(self, batch: Any, log_step: bool) -> Any:
            """The original's update."""
            result = super().train_step(batch, log_step)
            if not first_update_s:
                first_update_s.append(time.time() - launched)
            return result

    relabeler, exploration, exploration_settings = None, EpsilonGreedy, {"steps_anneal": original["anneal_env_steps"]}
    if work["environment"] == "maze_runner":
        replay = example("13").HindsightInstructionReplay
        relabeler = replay(num_goals=work["settings"]["num_goals"], strategy=original["relabel"])
    elif work["environment"] == "t_maze":
        exploration = example("04").TMazeExploration
        exploration_settings["horizon"] = work["settings"]["length"]
    else:
        exploration = amago.envs.exploration.BilevelEpsilonGreedy
        exploration_settings["rollout_horizon"] = work["settings"]["trial_length"]
    with tempfile.TemporaryDirectory() as folder:
        experiment = make_experiment(
            work["environment"],
            work["settings"],
            folder=folder,
            context_length=work["context_length"],
            encoder_output=work["encoder_output"],
            **work["sizes"],
            normalize_inputs=original.get("normalize_inputs", True),
            agent={"reward_multiplier": original["reward_multiplier"], "gamma": original["acting_discount"]},
            exploration=exploration,
            exploration_settings=exploration_settings,
            relabeler=relabeler,
            experiment_class=Solving,
            parallel_actors=SOLVING_ENVS,
            env_mode="sync",
            epochs=1_000_000,
            batch_size=original["batch_size"],
            train_timesteps_per_epoch=original["env_steps_per_round"],
            train_batches_per_epoch=original["updates_per_round"],
            sample_actions_train=not greedy,
            sample_actions_val=not greedy,
            val_interval=1,
            dloader_workers=case["dataloader_workers"],
        )
        with suppress(TrainingIsOverError):
            experiment.learn()
    reached = bool(curve) and curve[-1][work["measure"]] >= work["goal"] - 1e-6
    return {
        "value": curve[-1]["elapsed_s"] if reached else time.time() - launched - spent_s,
        "reached": reached,
        "evaluations_s": spent_s,
        "first_update_s": first_update_s[0] if first_update_s else None,
        "updates": experiment.grad_update_counter,
        "env_steps": rounds * original["env_steps_per_round"] * SOLVING_ENVS,
        "curve": curve,
        **facts(experiment),
    }


def evaluate(experiment: Any, episode_length: int) -> list[float]:
    """Returns of a fixed number of episodes, the same number from each environment, first started first counted."""
    each = EVALUATION_EPISODES // SOLVING_ENVS
    returns: list[list[float]] = [[] for _ in range(SOLVING_ENVS)]
    experiment.val_envs.reset()
    state = None
    while min(map(len, returns)) < each:
        state, (histories, _) = experiment.interact(
            experiment.val_envs, episode_length, hidden_state=state, sample=experiment.sample_actions_val
        )
        for mine, history in zip(returns, histories, strict=True):
            for scores in history.data.values():
                mine.extend(float(score) for score in scores)
    return [value for mine in returns for value in mine[:each]]


def main() -> None:
    """Be a side of the comparison."""
    suite, case = sys.argv[2], json.loads(sys.argv[3])
    if suite == "solve":
        answers = sys.stdout
        sys.stdout = sys.stderr
        print(json.dumps(solve(case)), file=answers)
    else:
        serve(lambda: (acting if suite == "acting" else learning)(case))


if __name__ == "__main__":
    main()
