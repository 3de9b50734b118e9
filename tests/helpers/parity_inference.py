"""Recorded inference, token by token, against a network that acts."""

from __future__ import annotations

import numpy as np
import torch
from helpers.parity_case import ParityCase
from helpers.parity_checks import Checks

from amago_ray.acting.network import ActingNetwork
from amago_ray.agent.actor_critic import ActorCritic
from amago_ray.nets.distributions import make_distribution
from amago_ray.nets.tokens import TokenColumns

RELATIVE = 3e-5


def check_inference(
    case: ParityCase, agent: ActorCritic, network: ActingNetwork, *, device: str = "cpu", slack: float = 1.0
) -> None:
    """Everything recorded of acting: what `network` computes, and `agent`'s heads of all discounts on its states.

    Both live on `device`.
    """
    inputs, expected = case.group("infer/in/"), case.group("infer/out/")
    num_steps, num_envs = inputs["resets"].shape
    state, same = network.initial_state(num_envs), network.initial_state(num_envs)
    found: dict[str, list[np.ndarray]] = {array: [] for array in expected}
    for t in range(num_steps):
        begins = np.flatnonzero(inputs["resets"][t])
        network.reset(state, begins)
        network.reset(same, begins)
        tokens = TokenColumns(
            observations={
                leaf: torch.from_numpy(case.stored_leaf(leaf, inputs[f"obs/{leaf}"][t])).to(device)
                for leaf in case.spec.observations
            },
            prev_action=torch.from_numpy(case.to_storage(inputs["rl2s"][t, :, 1:])).to(device),
            prev_reward=torch.from_numpy(inputs["rl2s"][t, :, 0]).to(device),
            time_index=torch.from_numpy(inputs["time_idxs"][t, :, 0]).to(device),
        )
        for array, value in _outputs(case, agent, network, tokens, state, same).items():
            if array in found:
                found[array].append(value.cpu().numpy() if isinstance(value, torch.Tensor) else np.asarray(value))
    checks = Checks(slack)
    for array, value in expected.items():
        assert found[array], f"infer/out/{array} is compared with nothing"
        if array == "greedy_action" and case.settings["action"] == "multibinary":
            # The original's greedy bits are always zero; ours are the likelier ones.
            value = expected["probs"] > 0.5
        exact = array in ("greedy_action", "cache_len") and case.settings["action"] != "continuous"
        checks.close(f"infer/{array}", np.stack(found[array]), value, relative=0.0 if exact else RELATIVE)
    checks.finish()


def _outputs(case, agent, network, tokens, state, same):
    """Everything that the recording holds of one step; `same` goes through the public face alone."""
    with torch.inference_mode():
        params = network.step(tokens, same)
        embedding = network.encode(tokens)
        states = network.decoder.step(embedding, tokens.time_index, state)
        assert torch.equal(network.policy_head(states), params)
        distribution = make_distribution(case.spec.action, case.config.agent)
        of_all = distribution.moments(agent.policy_head(states))
        greedy = distribution.act(params)
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
