import copy

import pytest
import torch
from helpers.batches import make_config, make_spec
from helpers.numeric import as_float64, assert_as_exact_as, assert_rounded

from amago_ray.agent.make import build_actor_critic
from amago_ray.config.learner import LearnerConfig
from amago_ray.learning.optimizer import AgentOptimizer

pytestmark = pytest.mark.numeric

CONFIG = LearnerConfig(learning_rate=1e-2, weight_decay=0.1, max_grad_norm=0.5)
GO, SKIP = torch.zeros(()), torch.ones(())


def make():
    torch.manual_seed(0)
    agent = build_actor_critic(make_config(), make_spec())
    return agent, AgentOptimizer(agent, CONFIG, tau=0.25)


def fill(agent, seed):
    generator = torch.Generator().manual_seed(seed)
    for parameter in agent.trained_parameters().values():
        parameter.grad = torch.randn(parameter.shape, generator=generator).to(parameter.dtype)


def test_steps_equal_those_of_torch():
    agent, optimizer = make()
    plain, reference = steps_of_torch(copy.deepcopy(agent)), steps_of_torch(as_float64(agent))
    norms = []
    for step in range(4):
        fill(agent, step)
        norms.append(optimizer.grad_norm())
        optimizer.step(norms[-1], CONFIG.learning_rate, GO)
    ours = {"norms": torch.stack(norms), **agent.trained_parameters()}
    # The norm is the largest of these numbers: it is compared by itself.
    for names in (["norms"], list(agent.trained_parameters())):
        found, theirs, exact = ({name: each[name] for name in names} for each in (ours, plain, reference))
        assert_as_exact_as(found, theirs, reference=exact)


def steps_of_torch(agent):
    parameters = agent.trained_parameters()
    adamw = torch.optim.AdamW(
        parameters.values(), lr=CONFIG.learning_rate, weight_decay=CONFIG.weight_decay, foreach=False
    )
    norms = []
    for step in range(4):
        fill(agent, step)
        norms.append(torch.nn.utils.clip_grad_norm_(parameters.values(), CONFIG.max_grad_norm))
        adamw.step()
    return {"norms": torch.stack(norms), **parameters}


def test_small_gradients_are_not_scaled_up():
    agent, optimizer = make()
    fill(agent, 0)
    for parameter in agent.trained_parameters().values():
        parameter.grad *= 1e-6
    expected = {name: p.grad.clone() for name, p in agent.trained_parameters().items()}
    optimizer.step(optimizer.grad_norm(), 1e-2, GO)
    moments = optimizer.state_dict()["exp_avg"]
    for name, grad in expected.items():
        assert_rounded(moments[name], 0.1 * grad.double(), roundings=4)


def test_targets_follow_the_weights_before_the_step():
    agent, optimizer = make()
    weight = agent.critics.layers[0].weight
    with torch.no_grad():
        weight += 1.0
    before, target = weight.detach().clone(), agent.target_critics.layers[0].weight.clone()
    fill(agent, 0)
    optimizer.step(optimizer.grad_norm(), 1e-2, GO)
    expected = 0.75 * target + 0.25 * before
    assert_rounded(agent.target_critics.layers[0].weight, expected, roundings=4)
    assert not torch.allclose(weight, before)


def test_a_skipped_step_changes_nothing():
    agent, optimizer = make()
    fill(agent, 0)
    optimizer.step(optimizer.grad_norm(), 1e-2, GO)
    weights, moments = copy.deepcopy(agent.state_dict()), optimizer.state_dict()
    fill(agent, 1)
    next(iter(agent.trained_parameters().values())).grad.fill_(torch.nan)
    optimizer.step(optimizer.grad_norm(), 1e-2, SKIP)
    assert all(torch.equal(value, weights[name]) for name, value in agent.state_dict().items())
    after = optimizer.state_dict()
    assert all(torch.equal(after[kind][name], value) for kind in moments for name, value in moments[kind].items())


def test_parameters_that_the_loss_does_not_reach_stay():
    agent, optimizer = make()
    fill(agent, 0)
    for parameter in agent.critics.parameters():
        parameter.grad = None
    before = agent.critics.layers[0].weight.detach().clone()
    optimizer.step(optimizer.grad_norm(), 1e-2, GO)
    assert torch.equal(agent.critics.layers[0].weight, before)
