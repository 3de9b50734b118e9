"""The agent against recorded training steps and inference of the original, through the packed path.

Cases are all `*.npz` with a configuration in the directory named by AMAGO_RAY_PARITY_DIR, by default the one beside.
Comparisons and tolerances are those of the recordings' documentation: infer, eval and mid 3e-5 of an array's largest
entry, losses 5e-6, norms 1e-5, gradients 3e-5 of a network's largest entry, weights after the step 2e-4 (1e-5 from a
warm Adam state), targets 5e-6, buffers 2e-6.
"""

import copy
import json
import os
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers.parity_case import ParityCase
from helpers.parity_checks import Checks

from amago_ray.acting.network import ActingNetwork
from amago_ray.agent.actor_critic import build_actor_critic
from amago_ray.agent.weights import to_arrays
from amago_ray.learning.amago_import import LAGGING_PREFIX, AmagoNames
from amago_ray.learning.batch import to_device_batch
from amago_ray.learning.gradients import accumulate_gradients
from amago_ray.learning.optimizer import AgentOptimizer
from amago_ray.nets.folding import apply_mlp
from amago_ray.nets.tokens import TokenColumns

DATA = Path(os.environ.get("AMAGO_RAY_PARITY_DIR") or Path(__file__).parent / "data")
CASES = sorted(path.stem for path in DATA.glob("*.json") if "agent_class" in json.loads(path.read_text()))
MULTI_STEP = [name for name in CASES if json.loads((DATA / f"{name}.json").read_text())["config"].get("multistep")]
SINGLE_STEP = [name for name in CASES if name not in MULTI_STEP]

MID = 3e-5
TWO_HOT = {"td_labels": {"absolute": 1e-3}, "critic_loss_unmasked": {"relative": 3e-4}}
BUFFER = 2e-6
TARGET = 5e-6
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
    known = {*INPUTS, *COMPARED, *NORMS, *LEFT_OUT, *(f"s{step}" for step in range(case.num_steps))}
    assert {array.split("/")[0] for array in case.arrays} <= known


@pytest.mark.parametrize("name", CASES)
def test_constants_equal_the_original(name):
    case = load(name)
    agent = build_actor_critic(case.config, case.spec)
    found = {"gammas": agent.discounts, "bin_vals": agent.value_bins.centers}
    checks = Checks()
    for array, value in case.group("const/").items():
        checks.close(f"const/{array}", found[array], value, relative=1e-6)
    checks.finish()


class Replay:
    """The agent with a case's weights, and the original's lagging copy of the critics."""

    def __init__(self, case):
        self.case = case
        self.agent = build_actor_critic(case.config, case.spec)
        self.names = AmagoNames.of(self.agent)
        before = case.tensors("before/")
        self.agent.load_state_dict(self.names.from_amago(before))
        self.lagging = copy.deepcopy(self.agent.critics).requires_grad_(False)
        for ours, parameter in self.lagging.named_parameters():
            theirs = self.names.names[f"critics.{ours}"].replace("critics.", LAGGING_PREFIX, 1)
            parameter.copy_(before[theirs].reshape(parameter.shape))
        self.optimizer = AgentOptimizer(self.agent, case.config.learner)
        self.outputs = {}

    def record(self):
        """Keep every output of the networks."""
        modules = dict(self.agent.named_modules())
        for name in (
            "timestep_encoder",
            "timestep_encoder.input_norm",
            "critics",
            "target_critics",
            "policy_head",
            "target_policy_head",
        ):
            self.outputs[name] = []
            if name in modules:
                modules[name].register_forward_hook(lambda _m, _i, y, kept=self.outputs[name]: kept.append(y.detach()))

    def gradients(self, prefix=""):
        """One evaluation in training mode; gradients are left in the parameters."""
        self.agent.train()
        self.optimizer.zero_grad()
        batch = to_device_batch(self.case.batch(prefix), CPU, n_step=self.agent.config.n_step)
        return batch, accumulate_gradients(
            self.agent,
            batch,
            self.case.draws(prefix),
            num_transitions=batch.num_transitions,
            value_critics=self.lagging,
        )

    def step(self, grad_norm):
        """Targets, weights and the lagging copy, in the original's order."""
        pre_step = copy.deepcopy(self.agent.critics).requires_grad_(False)
        self.optimizer.step(grad_norm, self.case.config.learner.learning_rate, torch.zeros(()))
        self.lagging = pre_step

    def state_as_amago(self, expected):
        """Every weight under the original's name, in the shape that the golden array has."""
        state = self.agent.state_dict()
        theirs = {
            name: self.names.tensor_to_amago(ours, state[ours], expected[name].shape)
            for ours, name in self.names.names.items()
            if name in expected
        }
        for ours, parameter in self.lagging.named_parameters():
            name = self.names.names[f"critics.{ours}"].replace("critics.", LAGGING_PREFIX, 1)
            if name in expected:
                theirs[name] = parameter.reshape(expected[name].shape)
        return theirs


def check_state(checks, replay, expected, *, trained_absolute):
    """Weights and buffers after a step."""
    trained = {replay.names.names[name] for name in replay.agent.trained_parameters()}
    found = replay.state_as_amago(expected)
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        if name in trained:
            checks.close(f"after/{name}", found[name], value, absolute=trained_absolute)
        elif name.startswith(("target_", LAGGING_PREFIX)):
            checks.close(f"after/{name}", found[name], value, relative=TARGET)
        else:
            checks.close(f"after/{name}", found[name], value, relative=BUFFER)


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
        **_moments("actor", "moves", case, terms.policy_moments),
    }
    if outputs["timestep_encoder.input_norm"]:
        found["tstep_normed_input"] = ("tokens", outputs["timestep_encoder.input_norm"][0])
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
        "q_sa_action": ("moves", agent.distribution.encode(batch.transitions.action)),
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
    check_state(checks, replay, case.group("after/"), trained_absolute=2e-4)
    checks.finish()


@pytest.mark.parametrize("name", MULTI_STEP)
@pytest.mark.parametrize("leaks", [True, False], ids=["original_norm", "own_norm"])
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
        expected = case.group(prefix if leaks else f"alt_frozen/{prefix}")
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
            check_state(checks, replay, after, trained_absolute=1e-5)
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
    replay = Replay(case)
    replay.agent.eval()
    network = ActingNetwork(case.config, case.spec)
    network.load(to_arrays(replay.agent.acting_state()))
    inputs, expected = case.group("infer/in/"), case.group("infer/out/")
    num_steps, num_envs = inputs["resets"].shape
    state, same = network.initial_state(num_envs), network.initial_state(num_envs)
    found = {array: [] for array in expected}
    for t in range(num_steps):
        begins = np.flatnonzero(inputs["resets"][t])
        network.reset(state, begins)
        network.reset(same, begins)
        tokens = TokenColumns(
            observations={leaf: torch.from_numpy(inputs[f"obs/{leaf}"][t]) for leaf in case.spec.observations},
            prev_action=torch.from_numpy(case.to_storage(inputs["rl2s"][t, :, 1:])),
            prev_reward=torch.from_numpy(inputs["rl2s"][t, :, 0]),
            time_index=torch.from_numpy(inputs["time_idxs"][t, :, 0]),
        )
        for array, value in acting_outputs(case, replay.agent, network, tokens, state, same).items():
            if array in found:
                found[array].append(np.asarray(value))
    checks = Checks()
    for array, value in expected.items():
        assert found[array], f"infer/out/{array} is compared with nothing"
        if array == "greedy_action" and case.settings["action"] == "multibinary":
            # The original's greedy bits are always zero; ours are the likelier ones.
            value = expected["probs"] > 0.5
        exact = array in ("greedy_action", "cache_len") and case.settings["action"] != "continuous"
        checks.close(f"infer/{array}", np.stack(found[array]), value, relative=0.0 if exact else MID)
    checks.finish()


def acting_outputs(case, agent, network, tokens, state, same):
    """Everything that the recording holds of one step; `same` goes through the public face alone."""
    with torch.inference_mode():
        params = network.step(tokens, same)
        embedding = network._encode(tokens)
        states = network._decoder.step(embedding, tokens.time_index, state)
        assert torch.equal(apply_mlp(states, network._head_layers), params)
        distribution = agent.distribution
        of_all = distribution.moments(agent.policy_head(states))
        greedy = distribution.act(params, greedy=True)
    names = ("mu", "std") if case.settings["action"] == "continuous" else ("probs",)
    outputs = {
        "tstep_emb": embedding,
        "traj_emb": states,
        "actor_params": params,
        "greedy_action": greedy.reshape(len(params), -1),
        **dict(zip(names, distribution.moments(params), strict=True)),
        **{f"{name}_all_gammas": value for name, value in zip(names, of_all, strict=True)},
    }
    if hasattr(state, "hidden"):
        outputs["gru_hidden"] = state.hidden.clone()
    if hasattr(state, "lengths"):
        outputs["cache_len"] = np.minimum(state.lengths, network.context_length - 1)
    return outputs
