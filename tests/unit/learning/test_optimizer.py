import copy

import torch
from helpers.batches import make_config, make_spec

from amago_ray.agent.actor_critic import build_actor_critic
from amago_ray.config.learner import LearnerConfig
from amago_ray.learning.optimizer import AgentOptimizer

CONFIG = LearnerConfig(learning_rate=1e-2, weight_decay=0.1, max_grad_norm=0.5)
GO, SKIP = torch.zeros(()), torch.ones(())


def make():
    torch.manual_seed(0)
    agent = build_actor_critic(make_config(tau=0.25), make_spec())
    return agent, AgentOptimizer(agent, CONFIG)


def fill(agent, seed):
    generator = torch.Generator().manual_seed(seed)
    for parameter in agent.trained_parameters().values():
        parameter.grad = torch.randn(parameter.shape, generator=generator)


def test_steps_equal_those_of_torch():
    agent, optimizer = make()
    reference = copy.deepcopy(agent)
    parameters = list(reference.trained_parameters().values())
    adamw = torch.optim.AdamW(parameters, lr=CONFIG.learning_rate, weight_decay=CONFIG.weight_decay, foreach=False)
    for step in range(4):
        fill(agent, step)
        fill(reference, step)
        norm = optimizer.grad_norm()
        assert torch.allclose(norm, torch.nn.utils.clip_grad_norm_(parameters, CONFIG.max_grad_norm))
        optimizer.step(norm, CONFIG.learning_rate, GO)
        adamw.step()
    for name, parameter in agent.trained_parameters().items():
        assert torch.allclose(parameter, reference.get_parameter(name), atol=1e-6), name


def test_small_gradients_are_not_scaled_up():
    agent, optimizer = make()
    fill(agent, 0)
    for parameter in agent.trained_parameters().values():
        parameter.grad *= 1e-6
    expected = {name: p.grad.clone() for name, p in agent.trained_parameters().items()}
    optimizer.step(optimizer.grad_norm(), 1e-2, GO)
    moments = optimizer.state_dict()["exp_avg"]
    assert all(torch.allclose(moments[name], 0.1 * grad, rtol=1e-4, atol=0) for name, grad in expected.items())


def test_targets_follow_the_weights_before_the_step():
    agent, optimizer = make()
    weight = agent.critics.layers[0].weight
    with torch.no_grad():
        weight += 1.0
    before, target = weight.detach().clone(), agent.target_critics.layers[0].weight.clone()
    fill(agent, 0)
    optimizer.step(optimizer.grad_norm(), 1e-2, GO)
    expected = 0.75 * target + 0.25 * before
    assert torch.allclose(agent.target_critics.layers[0].weight, expected, atol=1e-6)
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
