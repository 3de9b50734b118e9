import copy
from dataclasses import replace

import pytest
import torch
from helpers.batches import ACTIONS, make_batch, make_config, make_spec
from helpers.numeric import as_float64, assert_as_exact_as, assert_rounded, float64

from amago_ray.agent.make import build_actor_critic, make_objective
from amago_ray.agent.objective import compute_returns
from amago_ray.agent.terms import EPSILON
from amago_ray.agent.value_regression import ValueRegression
from amago_ray.learning.batch import to_device_batch

pytestmark = pytest.mark.numeric

KINDS = [(agent, action) for agent in ("actor_critic", "multi_task") for action in ACTIONS]


class Setup:
    def __init__(self, action="discrete", *, action_mask=False, seed=0, **agent):
        torch.manual_seed(seed)
        self.config = make_config(**agent)
        spec = make_spec(action, has_action_mask=action_mask)
        self.agent, self.objective = (
            build_actor_critic(self.config, spec),
            make_objective(self.config.agent, spec.action),
        )
        batch = make_batch(spec, [5, 3, 4], action_mask=action_mask)
        self.batch = to_device_batch(batch, torch.device("cpu"), n_step=self.config.agent.n_step)
        self.transitions = self.batch.transitions
        generator = torch.Generator().manual_seed(1)
        self.draws = self.objective.make_draws(self.config.agent, len(self.transitions), generator)
        states = self.agent.states(self.batch.tokens, self.batch.layout).detach()
        rows = self.batch.layout.transition_rows
        self.states, self.next_states = states[rows].requires_grad_(), states[rows + 1]

    def in_float64(self):
        """The same agent, rows and draws; to be asked within `float64`."""
        twin = copy.copy(self)
        for name in ("agent", "objective", "transitions", "draws"):
            setattr(twin, name, as_float64(getattr(self, name)))
        twin.states, twin.next_states = as_float64(self.states).requires_grad_(), as_float64(self.next_states)
        return twin

    def next_values(self):
        given = self.next_states, self.transitions, self.draws
        return self.objective.next_values(self.agent, self.config.agent, *given)

    def returns(self):
        return compute_returns(self.agent, self.config.agent, self.transitions, self.next_values().reduced)

    def losses(self, returns, start=0, stop=12):
        return self.objective.losses(
            self.agent,
            self.config.agent,
            self.states[start:stop],
            self.transitions.rows(start, stop),
            None if returns is None else returns[start:stop],
            self.draws.rows(start, stop),
            12.0,
        )


@pytest.mark.parametrize(("agent", "action"), KINDS)
@pytest.mark.parametrize("coefficients", [(1.0, 0.1), (0.0, 1.0), (1.0, 0.0)])
def test_every_kind_has_a_finite_loss_that_reaches_every_network(agent, action, coefficients):
    online, offline = coefficients
    setup = Setup(
        action, kind=agent, online_coefficient=online, offline_coefficient=offline, advantage_filter="exponential"
    )
    losses = setup.losses(setup.returns())
    losses.total.backward()
    assert torch.isfinite(losses.total)
    for network in (setup.agent.policy_head, setup.agent.critics):
        assert all(torch.isfinite(p.grad).all() and p.grad.abs().max() > 0 for p in network.parameters())
    for network in (setup.agent.target_policy_head, setup.agent.target_critics):
        assert all(parameter.grad is None for parameter in network.parameters())


@pytest.mark.parametrize(("agent", "action"), KINDS)
def test_chunks_of_rows_add_up(agent, action):
    # The binary filter would jump where a sample is the action taken: its advantage is then 0 but for rounding.
    setup = Setup(action, kind=agent, num_action_samples_in_policy_loss=2, advantage_filter="exponential")
    returns = setup.returns()
    # Epsilon in the denominator is the same for the whole and for each part.
    parts = added_up(setup.losses(returns, start, start + 4) for start in (0, 4, 8))
    with float64():
        reference = added_up([setup.in_float64().losses(returns.double())])
    assert_as_exact_as(parts, added_up([setup.losses(returns)]), reference=reference)


def added_up(parts):
    parts = list(parts)
    entries = ("policy_entries", "critic_entries")
    return {
        **{name: sum(getattr(part, name) for part in parts) for name in ("total", "critic", "policy")},
        **{name: torch.cat([getattr(part, name) for part in parts], -2) for name in entries},
    }


@pytest.mark.parametrize("action", ACTIONS)
def test_the_policy_loss_gives_critics_and_their_state_no_gradient(action):
    setup = Setup(action, offline_coefficient=0.0)
    losses = setup.losses(setup.returns())
    parameters = list(setup.agent.critics.parameters())
    assert torch.autograd.grad(losses.policy, parameters, retain_graph=True, allow_unused=True) == (None,) * len(
        parameters
    )
    # What remains of the state's gradient goes through the policy head: none without it.
    for parameter in setup.agent.policy_head.parameters():
        parameter.data.zero_()
    losses = setup.losses(setup.returns())
    (gradient,) = torch.autograd.grad(losses.policy, [setup.states])
    assert gradient.abs().max() == 0


class OtherJudges(ValueRegression):
    """The policy's own actions are valued by a forward of their own."""

    def judges(self, agent):
        return copy.deepcopy(agent.critics)


def test_one_critic_forward_serves_both_terms():
    """A second forward of the same critics leads to the same losses and gradients as reusing their outputs."""
    setup, twice = Setup(), Setup()
    twice.objective = OtherJudges(setup.config.agent, setup.objective.distribution)
    returns = setup.returns()
    with float64():
        exact = twice.in_float64()
        reference = total_and_gradients(exact, exact.losses(returns.double()))
    reused, given = (total_and_gradients(each, each.losses(returns)) for each in (setup, twice))
    assert_as_exact_as(reused, given, reference=reference)


def total_and_gradients(setup, losses):
    heads = torch.nn.ModuleDict({"policy_head": setup.agent.policy_head, "critics": setup.agent.critics})
    parameters = dict(heads.named_parameters())
    gradients = torch.autograd.grad(losses.total, list(parameters.values()))
    return {"total": losses.total, **dict(zip(parameters, gradients, strict=True))}


@pytest.mark.parametrize("agent", ["actor_critic", "multi_task"])
def test_masked_actions_are_given_no_value_and_no_probability(agent):
    setup = Setup(kind=agent, action_mask=True)
    mask, next_mask = setup.transitions.action_mask, setup.transitions.next_action_mask
    targets = setup.next_values()
    losses = setup.losses(setup.returns())
    assert (losses.policy_moments[0].permute(0, 2, 1)[~mask] == 0).all()
    assert (targets.policy[0].permute(0, 2, 1)[~next_mask] == 0).all()
    losses.total.backward()
    assert torch.isfinite(setup.states.grad).all()
    if agent == "actor_critic":
        # Whatever the target critics say of masked actions, targets stay.
        for layer in setup.agent.target_critics.layers[-1:]:
            outputs = layer.bias.data.view(4, 3, 4)
            setup.transitions = replace(
                setup.transitions, next_action_mask=torch.tensor([True, True, True, False]).expand(12, 4)
            )
            before = setup.returns()
            outputs[..., 3] += 1e3
            assert torch.equal(setup.returns(), before)


def test_online_targets_take_the_minimum_and_offline_ones_the_mean():
    pessimistic = Setup(online_coefficient=1.0).next_values()
    mean = Setup(online_coefficient=0.0).next_values()
    assert (pessimistic.reduced <= mean.reduced).all()
    assert (pessimistic.reduced < mean.reduced).any()


def test_targets_may_use_the_online_policy():
    slow, fast = Setup(use_target_policy=True), Setup(use_target_policy=False)
    for setup in (slow, fast):
        for parameter in setup.agent.target_policy_head.parameters():
            parameter.data.zero_()
    uniform = slow.next_values().policy[0]
    assert_rounded(uniform, 0.25, roundings=8)
    assert not torch.allclose(fast.next_values().policy[0], uniform)


def test_behaviour_cloning_leaves_critics_out():
    setup = Setup(online_coefficient=0.0, offline_coefficient=1.0, advantage_filter="none")
    assert not setup.config.agent.trains_critics
    losses = setup.losses(None)
    assert losses.critic == 0
    assert_rounded(losses.total, -losses.log_prob.double().sum() / (12 * 3 + EPSILON), roundings=36)
