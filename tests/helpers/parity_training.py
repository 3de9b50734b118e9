"""Recorded training steps and full forwards, replayed and compared, on any device.

A device other than the host sums in other orders and has its own exp and log: there tolerances are four times as wide,
and a weight's first Adam step may go either way where its gradient is nothing but rounding.
"""

from __future__ import annotations

import numpy as np
import torch
from helpers.parity_case import ParityCase
from helpers.parity_checks import Checks
from helpers.parity_replay import Replay

from amago_ray.learning.batch import to_device_batch

MID = 3e-5
TWO_HOT = {"td_labels": {"absolute": 1e-3}, "critic_loss_unmasked": {"relative": 3e-4}}


def checks_on(device: str) -> Checks:
    """Comparisons of what was computed there."""
    return Checks(slack=1.0 if device == "cpu" else 4.0)


def check_training_step(case: ParityCase, device: str = "cpu") -> None:
    """One whole step: intermediates, losses, gradients, norms, weights and buffers afterwards."""
    replay = Replay(case, device)
    replay.record()
    checks = checks_on(device)
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
    checks.close("grad_norm_before_clip", np.hypot(norm.cpu().numpy(), untrained), theirs, relative=1e-5)
    clip = np.minimum(1.0, case.settings["grad_clip"] / (np.hypot(norm.cpu().numpy(), untrained) + 1e-6))
    checks.close("clip_coef", clip, case.arrays["clip_coef"], relative=1e-5)

    replay.step(torch.from_numpy(theirs))
    first_step = 2e-4 if device == "cpu" else 2.1 * case.config.learner.learning_rate
    replay.check_state(checks, case.group("after/"), trained_absolute=first_step)
    checks.finish()


def check_several_steps(case: ParityCase, leaks: bool, device: str = "cpu") -> None:
    """With the original's norm where it clips: its steps. With our own: those of the original without the leak."""
    replay = Replay(case, device)
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
    checks = checks_on(device)
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


def check_full_forward(case: ParityCase, device: str = "cpu") -> None:
    """A forward in eval mode."""
    replay = Replay(case, device)
    replay.record()
    replay.agent.eval()
    batch = to_device_batch(case.batch(), torch.device(device))
    with torch.no_grad():
        states = replay.agent.states(batch.tokens, batch.layout)
        params = replay.agent.policy_head(states)
    found = {"tstep_emb": replay.outputs["timestep_encoder"][0], "traj_emb": states, "actor_params": params}
    expected = case.group("eval/")
    assert found.keys() == expected.keys()
    checks = checks_on(device)
    for array, value in expected.items():
        checks.close(f"eval/{array}", found[array], golden_rows(case, "tokens", value), relative=MID)
    checks.finish()


def intermediates(replay, batch, evaluation):
    """What each golden intermediate is called here: array of rows, and which rows these are."""
    agent, case, outputs = replay.agent, replay.case, replay.outputs
    (terms,) = evaluation.losses
    returns, popart = evaluation.returns, agent.popart
    found = {
        "tstep_emb": ("tokens", outputs["timestep_encoder"][0]),
        "traj_emb": ("tokens", evaluation.states),
        "actor_params": ("moves", outputs["policy_head"][-1]),
        "actor_loss_unmasked": ("moves", terms.policy_entries[..., None]),
        "q_sa_action": ("moves", replay.objective.distribution.encode(batch.transitions.action)),
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
    target_head = "target_policy_head" if case.config.agent.use_target_policy else "policy_head"
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
        found["td_labels"] = ("moves", replay.objective.bins.label(returns)[:, None])
        sampled = replay.objective.bins.value(outputs["target_critics"][0])
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
        if name == "filter" and not case.config.agent.filters_by_advantage:
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
