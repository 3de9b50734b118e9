"""The agent against recorded training steps and inference of the original, through the packed path.

Cases are all `*.npz` with a configuration in the directory named by AMAGO_RAY_PARITY_DIR, by default the one beside.
Comparisons and tolerances are those of the recordings' documentation: infer, eval and mid 3e-5 of an array's largest
entry, losses 5e-6, norms 1e-5, gradients 3e-5 of a network's largest entry, weights after the step 2e-4 (1e-5 from a
warm Adam state), targets 5e-6, buffers 2e-6. Seen to hold on an AMD EPYC with AVX-512 BF16, by itself and imitating
older ones (`make test-isa`), and on an Intel Xeon with AVX-512 and AMX.
"""

import json
import os
from functools import cache
from pathlib import Path

import pytest
from helpers.parity_case import ParityCase
from helpers.parity_checks import Checks
from helpers.parity_inference import check_inference
from helpers.parity_replay import Replay
from helpers.parity_training import check_full_forward, check_several_steps, check_training_step

from amago_ray.acting.network import ActingNetwork
from amago_ray.agent.make import build_actor_critic, make_objective
from amago_ray.agent.weights import to_arrays

pytestmark = pytest.mark.numeric

DATA = Path(os.environ.get("AMAGO_RAY_PARITY_DIR") or Path(__file__).parent / "data")
CASES = sorted(path.stem for path in DATA.glob("*.json") if "agent_class" in json.loads(path.read_text()))
MULTI_STEP = [name for name in CASES if json.loads((DATA / f"{name}.json").read_text())["config"].get("multistep")]
SINGLE_STEP = [name for name in CASES if name not in MULTI_STEP]

# Inputs of the replay, and results that some test compares. The gradients of the original's lagging copy of the critics
# are what we leave out on purpose (see `AgentOptimizer.grad_norm`); `alt_frozen` shows the original without them.
INPUTS = ("before", "batch", "draws", "lengths", "adam_before")
COMPARED = ("const", "mid", "loss", "grads", "after", "eval", "infer", "alt_frozen", "adam_after")
NORMS = ("grad_norm_before_clip", "grad_norm_trainable_only", "grad_norm_untrained_only", "clip_coef")
LEFT_OUT = ("grads_untrained",)


@cache
def load(name, attention_backend="auto"):
    return ParityCase.load(DATA / name, attention_backend)


def _attention_runs():
    """Every single step with the backend that this machine prefers, and Transformers with PyTorch's attention too."""
    transformers = [name for name in SINGLE_STEP if load(name).config.model.sequence_model.kind == "transformer"]
    return [*((name, "auto") for name in SINGLE_STEP), *((name, "sdpa") for name in transformers)]


@pytest.mark.parametrize("name", CASES)
def test_every_array_has_its_place(name):
    case = load(name)
    known = {*INPUTS, *COMPARED, *NORMS, *LEFT_OUT}
    known_of_step = known | {"min_abs_adv"}
    for array in case.arrays:
        step, _, rest = array.removeprefix("alt_frozen/").partition("/")
        if step in [f"s{number}" for number in range(case.num_steps)]:
            assert rest.split("/")[0] in known_of_step, array
        else:
            assert array.split("/")[0] in known, array


@pytest.mark.parametrize("name", CASES)
def test_constants_equal_the_original(name):
    case = load(name)
    agent = build_actor_critic(case.config, case.spec)
    objective = make_objective(case.config.agent, case.spec.action)
    found = {"gammas": agent.discounts}
    if case.is_multi_task:
        found["bin_vals"] = objective.bins.centers
    checks = Checks()
    for array, value in case.group("const/").items():
        checks.close(f"const/{array}", found[array], value, relative=1e-6)
    checks.finish()


@pytest.mark.parametrize(("name", "attention_backend"), _attention_runs())
def test_training_step_equals_the_original(name, attention_backend):
    check_training_step(load(name, attention_backend))


def _multi_step_runs():
    """Every case with the original's norm, and with our own, which is the same where nothing leaks into it."""
    runs = []
    for name in MULTI_STEP:
        case = load(name)
        leaks = any(case.arrays[f"s{step}/grad_norm_untrained_only"] for step in range(case.num_steps))
        runs.append(pytest.param(name, True, id=f"{name}-original_norm"))
        if case.group("alt_frozen/") or not leaks:
            runs.append(pytest.param(name, False, id=f"{name}-own_norm"))
    return runs


@pytest.mark.parametrize(("name", "leaks"), _multi_step_runs())
def test_several_steps_equal_the_original(name, leaks):
    check_several_steps(load(name), leaks)


@pytest.mark.parametrize("name", SINGLE_STEP)
def test_full_forward_equals_the_original(name):
    check_full_forward(load(name))


@pytest.mark.parametrize("name", SINGLE_STEP)
def test_cached_inference_equals_the_original(name):
    case = load(name)
    agent = Replay(case).agent.eval()
    network = ActingNetwork(case.config, case.spec)
    network.load(to_arrays(agent.acting_state()))
    check_inference(case, agent, network)
