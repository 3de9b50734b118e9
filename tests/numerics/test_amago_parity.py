"""The agent against recorded training steps and inference of the original, through the packed path.

Cases are all `*.npz` with a configuration in the directory named by AMAGO_RAY_PARITY_DIR, by default the one beside.
Comparisons and tolerances are those of the recordings' documentation: infer, eval and mid 3e-5 of an array's largest
entry, losses 5e-6, norms 1e-5, gradients 3e-5 of a network's largest entry, weights after the step 2e-4 (1e-5 from a
warm Adam state), targets 5e-6, buffers 2e-6.
"""

import json
import os
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers.parity_case import ParityCase
from helpers.parity_checks import Checks
from helpers.parity_inference import check_inference
from helpers.parity_replay import Replay

from amago_ray.acting.network import ActingNetwork
from amago_ray.agent.actor_critic import build_actor_critic
from amago_ray.agent.weights import to_arrays
from amago_ray.learning.batch import to_device_batch

DATA = Path(os.environ.get("AMAGO_RAY_PARITY_DIR") or Path(__file__).parent / "data")
CASES = sorted(path.stem for path in DATA.glob("*.json") if "agent_class" in json.loads(path.read_text()))
MULTI_STEP = [name for name in CASES if json.loads((DATA / f"{name}.json").read_text())["config"].get("multistep")]
SINGLE_STEP = [name for name in CASES if name not in MULTI_STEP]

MID = 3e-5
TWO_HOT = {"td_labels": {"absolute": 1e-3}, "critic_loss_unmasked": {"relative": 3e-4}}
CPU = torch.device("cpu")
# Inputs of the replay, and results that some test compares. The gradients of the original's lagging copy of the critics
# are what we leave out on purpose (see `AgentOptimizer.grad_norm`); `alt_frozen` shows the original without them.
INPUTS = ("before", "batch", "draws", "lengths", "adam_before")
COMPARED = ("const", "mid", "loss", "grads", "after", "eval", "infer", "alt_frozen", "adam_after")
NORMS = ("grad_norm_before_clip", "grad_norm_trainable_only", "grad_norm_untrained_only", "clip_coef")
LEFT_OUT = ("grads_untrained",)


@cache
def load(name):
    return ParityCase.load(DATA / name)


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
    found = {"gammas": agent.discounts, "bin_vals": agent.value_bins.centers}
    checks = Checks()
    for array, value in case.group("const/").items():
        checks.close(f"const/{array}", found[array], value, relative=1e-6)
    checks.finish()


def intermediates(replay, batch, evaluation):
    """What each golden intermediate is called here: array of rows, and which timesteps these are."""
    agent, case, outputs = replay.agent, replay.case, replay.outputs
    (terms,) = evaluation.losses
    returns, popart = evaluation.returns, agent.popart
    found = {
        "tstep_emb": ("tokens", outputs["timestep_encoder"][0]),
        "traj_emb": ("tokens", evaluation.states),
        "actor_params": ("moves", outputs["policy_head"][-1]),
        "actor_loss_unmasked": ("moves", terms.policy_entries[..., None]),
        "q_sa_action": ("moves", agent.distribution.encode(batch.transitions.action)),
        **_moments("actor", "moves", case, terms.policy_moments),
    }
    if case.settings["tstep"]["type"] == "ff":
        normed = outputs["timestep_encoder.input_norm"] or [agent.timestep_encoder.features(batch.tokens)]
        found["tstep_normed_input"] = ("tokens", normed[0])
    for name, value in (("advantage", terms.advantage), ("filter", terms.filter), ("logp", terms.log_prob)):
        if value is not None:
            found[name] = ("moves", value[..., None])
    if returns is None:
        return found
    (targets,) = evaluation.next_values
    target_head = "target_policy_head" if agent.config.use_target_policy else "policy_head"
    found |= {
        "target_actor_params": ("successors", outputs[target_head][0]),
        **_moments("target_actor", "successors", case, targets.policy),
        "q_target": ("moves", _critics_inside(targets.ensemble)),
        "q_target_reduced": ("moves", targets.reduced[:, None, :, None]),
        "td_target": ("moves", returns[:, None, :, None]),
        "q_sa": ("moves", _critics_inside(terms.taken_values)),
        "critic_loss_unmasked": ("moves", _critics_inside(terms.critic_entries)),
    }
    if case.is_multi_task:
        found["q_sa_logits"] = ("moves", outputs["critics"][0][:, :, 0].log_softmax(-1).transpose(0, 1))
        found["td_labels"] = ("moves", agent.value_bins.label(returns)[:, None])
        sampled = agent.value_bins.value(outputs["target_critics"][0])
        found["q_target_samples"] = ("moves of samples", _samples_first(sampled))
        if terms.policy_values is not None:
            found["q_pi"] = ("moves of samples", _samples_first(terms.policy_values))
        if terms.online_samples is not None:
            found["q_dpg"] = ("moves of samples", _samples_first(terms.online_samples))
            found["q_dpg_norm"] = ("moves", terms.online_values[..., None])
    else:
        found["q_target_raw"] = ("moves", _critics_inside(targets.raw))
        found["q_pi"] = ("moves", _critics_inside(terms.policy_values))
        found["td_target_norm"] = ("moves", popart.normalized(returns)[:, None, :, None])
        found["q_sa_popart"] = ("moves", _critics_inside(popart.normalized_output(terms.taken_values)))
        if terms.online_values is not None:
            found["q_dpg_popart"] = ("moves", terms.online_values[..., None])
    return found


def _moments(prefix, rows, case, moments):
    names = ("mu", "std") if case.settings["action"] == "continuous" else ("probs",)
    return {f"{prefix}_{name}": (rows, value) for name, value in zip(names, moments, strict=True)}


def _critics_inside(values):
    """[C, M, G] -> [M, C, G, 1]."""
    return values.transpose(0, 1)[..., None]


def _samples_first(values):
    """[C, M, K, G] -> [K, M, C, G, 1]."""
    return values.permute(2, 1, 0, 3)[..., None]


def golden_rows(case, rows, value):
    """The rows of a padded golden array that exist here, in packed order."""
    if rows == "moves of samples":
        return value[:, case.transition_mask(value.shape[2])]
    masks = {"tokens": case.token_mask, "moves": case.transition_mask, "successors": case.successor_mask}
    return value[masks[rows](value.shape[1])]


def check_intermediates(checks, case, found):
    for name, value in case.group("mid/").items():
        if name in ("state_mask", "nstep_mask"):
            valid = value.reshape(value.shape[:2]) != 0
            checks.close(f"mid/{name}", case.transition_mask(value.shape[1]), valid)
            continue
        if name == "filter" and case.config.agent.advantage_filter == "none":
            checks.close(f"mid/{name}", np.ones_like(value), value)
            continue
        assert name in found, f"mid/{name} is compared with nothing"
        rows, ours = found[name]
        tolerance = TWO_HOT.get(name) if case.is_multi_task else None
        checks.close(f"mid/{name}", ours, golden_rows(case, rows, value), **(tolerance or {"relative": MID}))


def check_losses(checks, evaluation, expected):
    (terms,) = evaluation.losses
    for name, value in {"total": terms.total, "actor": terms.policy, "critic": terms.critic}.items():
        checks.close(f"loss/{name}", value, expected[name], relative=5e-6)


@pytest.mark.parametrize("name", SINGLE_STEP)
def test_training_step_equals_the_original(name):
    case = load(name)
    replay = Replay(case)
    replay.record()
    checks = Checks()
    batch, evaluation = replay.gradients()

    check_intermediates(checks, case, intermediates(replay, batch, evaluation))
    check_losses(checks, evaluation, case.group("loss/"))

    grads = case.group("grads/")
    trained = replay.agent.trained_parameters()
    ours = {replay.names.names[name]: (name, p) for name, p in trained.items() if p.grad is not None}
    # What no loss reaches has no gradient here.
    grads = {name: value for name, value in grads.items() if name in ours or value.any()}
    assert grads.keys() == ours.keys()
    for network in {name.split(".")[0] for name in grads}:
        inside = {name: value for name, value in grads.items() if name.split(".")[0] == network}
        largest = max(float(np.abs(value).max()) for value in inside.values())
        for theirs, value in inside.items():
            mine, parameter = ours[theirs]
            gradient = replay.names.tensor_to_amago(mine, parameter.grad, value.shape)
            checks.close(f"grads/{theirs}", gradient, value, absolute=3e-5 * largest)

    norm = replay.optimizer.grad_norm()
    checks.close("grad_norm_trainable_only", norm, case.arrays["grad_norm_trainable_only"], relative=1e-5)
    # The original's norm also holds the gradients of a copy that nothing trains: we take those from the recording.
    untrained = case.arrays["grad_norm_untrained_only"]
    theirs = case.arrays["grad_norm_before_clip"]
    checks.close("grad_norm_before_clip", np.hypot(norm.numpy(), untrained), theirs, relative=1e-5)
    clip = np.minimum(1.0, case.settings["grad_clip"] / (np.hypot(norm.numpy(), untrained) + 1e-6))
    checks.close("clip_coef", clip, case.arrays["clip_coef"], relative=1e-5)

    replay.step(torch.from_numpy(theirs))
    replay.check_state(checks, case.group("after/"), trained_absolute=2e-4)
    checks.finish()


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
    """With the original's norm where it clips: its steps. With our own: those of the original without the leak."""
    case = load(name)
    replay = Replay(case)
    moments = {
        moment: {
            ours: replay.names.tensor_from_amago(ours, torch.from_numpy(case.arrays[f"adam_before/{moment}/{theirs}"]))
            for ours, theirs in replay.names.names.items()
            if ours in replay.agent.trained_parameters()
        }
        for moment in ("exp_avg", "exp_avg_sq")
    }
    num_steps = torch.from_numpy(case.arrays["adam_before/step"]).reshape(())
    replay.optimizer.load_state_dict({**moments, "step": {"num_steps": num_steps}})
    checks = Checks()
    for step in range(case.num_steps):
        prefix = f"s{step}/"
        expected = case.group(prefix)
        if not leaks:
            expected = case.group(f"alt_frozen/{prefix}") or expected
        _, evaluation = replay.gradients(prefix)
        check_losses(checks, evaluation, {name: expected[f"loss/{name}"] for name in ("total", "actor", "critic")})
        norm = replay.optimizer.grad_norm()
        if leaks:
            checks.close(f"{prefix}norm", norm, expected["grad_norm_trainable_only"], relative=1e-5)
            norm = torch.from_numpy(expected["grad_norm_before_clip"])
        else:
            checks.close(f"alt_frozen/{prefix}norm", norm, expected["grad_norm_before_clip"], relative=1e-5)
        replay.step(norm)
        after = {name[len("after/") :]: value for name, value in expected.items() if name.startswith("after/")}
        if after:
            replay.check_state(checks, after, trained_absolute=1e-5)
    if leaks:
        check_moments(checks, replay, case)
    checks.finish()


def check_moments(checks, replay, case):
    state = replay.optimizer.state_dict()
    expected = case.group("adam_after/")
    expected.pop("step", None)
    # A moment's noise is that of the gradients of its network, so it is measured by the largest entry there.
    scale = {}
    for name, value in expected.items():
        network = name.split(".")[0]
        scale[network] = max(scale.get(network, 0.0), float(np.abs(value).max()))
    theirs_of = {theirs: ours for ours, theirs in replay.names.names.items()}
    for name, value in expected.items():
        moment, _, theirs = name.partition("/")
        ours = theirs_of[theirs]
        found = replay.names.tensor_to_amago(ours, state[moment][ours], value.shape)
        checks.close(f"adam_after/{name}", found, value, absolute=3e-5 * scale[name.split(".")[0]])


@pytest.mark.parametrize("name", SINGLE_STEP)
def test_full_forward_equals_the_original(name):
    case = load(name)
    replay = Replay(case)
    replay.record()
    replay.agent.eval()
    batch = to_device_batch(case.batch(), CPU)
    with torch.no_grad():
        states = replay.agent.states(batch.tokens, batch.layout)
        params = replay.agent.policy_head(states)
    found = {"tstep_emb": replay.outputs["timestep_encoder"][0], "traj_emb": states, "actor_params": params}
    expected = case.group("eval/")
    assert found.keys() == expected.keys()
    checks = Checks()
    for array, value in expected.items():
        checks.close(f"eval/{array}", found[array], golden_rows(case, "tokens", value), relative=MID)
    checks.finish()


@pytest.mark.parametrize("name", SINGLE_STEP)
def test_cached_inference_equals_the_original(name):
    case = load(name)
    agent = Replay(case).agent.eval()
    network = ActingNetwork(case.config, case.spec)
    network.load(to_arrays(agent.acting_state()))
    check_inference(case, agent, network)
