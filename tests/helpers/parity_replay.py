"""The agent with a golden case's weights, taken through recorded steps."""

from __future__ import annotations

import copy
import dataclasses
from typing import Any

import torch
from helpers.parity_case import ParityCase

from amago_ray.agent.actor_critic import ActorCritic
from amago_ray.agent.draws import Draws
from amago_ray.agent.make import build_actor_critic, make_objective
from amago_ray.agent.objective import Objective
from amago_ray.learning.amago_import import INPUT_NORM_PREFIX, LAGGING_PREFIX, AmagoNames
from amago_ray.learning.batch import to_device_batch
from amago_ray.learning.gradients import accumulate_gradients
from amago_ray.learning.optimizer import AgentOptimizer
from amago_ray.nets.heads import Critics

BUFFER = 2e-6
TARGET = 5e-6
RECORDED = (
    "timestep_encoder",
    "timestep_encoder.input_norm",
    "critics",
    "target_critics",
    "policy_head",
    "target_policy_head",
)


def moved(draws: Draws, device: torch.device) -> Draws:
    """The draws on a device."""
    columns = {field.name: getattr(draws, field.name) for field in dataclasses.fields(draws)}
    return Draws(**{name: column if column is None else column.to(device) for name, column in columns.items()})


def with_lagging_judges(objective: Objective) -> Any:
    """The objective, with the policy's own actions valued by the original's lagging copy of the critics.

    The copy is kept in a list, so that it is no part of the module.
    """

    class Lagging(type(objective)):  # type: ignore[misc]
        lagging: list[Critics]

        def judges(self, agent: ActorCritic) -> Critics:
            return self.lagging[0]

    objective.__class__ = Lagging
    return objective


class Replay:
    """The agent with a case's weights, and the original's lagging copy of the critics."""

    def __init__(self, case: ParityCase, device: str = "cpu") -> None:
        self.case = case
        self.device = torch.device(device)
        self.agent = build_actor_critic(case.config, case.spec).to(self.device)
        self.names = AmagoNames.of(self.agent)
        before = case.tensors("before/")
        self.agent.load_state_dict(self.names.from_amago(before))
        self.objective = with_lagging_judges(make_objective(case.config.agent, case.spec.action)).to(self.device)
        self.lagging = copy.deepcopy(self.agent.critics).requires_grad_(False)
        for ours, parameter in self.lagging.named_parameters():
            theirs = self.names.names[f"critics.{ours}"].replace("critics.", LAGGING_PREFIX, 1)
            parameter.copy_(before[theirs].reshape(parameter.shape))
        self.objective.lagging = [self.lagging]
        self.optimizer = AgentOptimizer(self.agent, case.config.learner, case.config.agent.tau)
        self.outputs: dict[str, list[torch.Tensor]] = {}

    def record(self) -> None:
        """Keep every output of the networks."""
        modules = dict(self.agent.named_modules())
        for name in RECORDED:
            self.outputs[name] = []
            if name in modules:
                modules[name].register_forward_hook(lambda _m, _i, y, kept=self.outputs[name]: kept.append(y.detach()))

    def gradients(self, prefix=""):
        """One evaluation in training mode; gradients are left in the parameters."""
        self.agent.train()
        self.optimizer.zero_grad()
        batch = to_device_batch(self.case.batch(prefix), self.device, n_step=self.case.config.agent.n_step)
        return batch, accumulate_gradients(
            self.agent,
            self.objective,
            self.case.config.agent,
            batch,
            moved(self.case.draws(prefix), self.device),
            num_transitions=batch.num_transitions,
        )

    def step(self, grad_norm) -> None:
        """Targets, weights and the lagging copy, in the original's order."""
        pre_step = copy.deepcopy(self.agent.critics).requires_grad_(False)
        learning_rate = self.case.config.learner.learning_rate
        self.optimizer.step(grad_norm.to(self.device), learning_rate, torch.zeros((), device=self.device))
        self.lagging = pre_step
        self.objective.lagging = [pre_step]

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

    def check_state(self, checks, expected, *, trained_absolute) -> None:
        """Weights and buffers after a step."""
        trained = {self.names.names[name] for name in self.agent.trained_parameters()}
        found = self.state_as_amago(expected)
        if not self.case.normalizes_inputs:
            # The original moves the statistics of a normalisation that is switched off.
            expected = {name: value for name, value in expected.items() if not name.startswith(INPUT_NORM_PREFIX)}
        assert found.keys() == expected.keys()
        for name, value in expected.items():
            if name in trained:
                checks.close(f"after/{name}", found[name], value, absolute=trained_absolute)
            elif name.startswith(("target_", LAGGING_PREFIX)):
                checks.close(f"after/{name}", found[name], value, relative=TARGET)
            else:
                checks.close(f"after/{name}", found[name], value, relative=BUFFER)
