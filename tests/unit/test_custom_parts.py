"""Parts of a user's own, each named `module:attr`, through a whole run, alone and together."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from helpers.custom_parts import DecayingSum, Kumaraswamy, Linear, RunningSum
from helpers.local_runs import TINY, tiny_config
from helpers.numeric import as_float64, assert_as_exact_as, assert_rounded, float64

import amago_ray
from amago_ray.agent.filters import make_filter
from amago_ray.agent.make import make_objective
from amago_ray.agent.value_regression import ValueRegression
from amago_ray.agent.weights import load_snapshot
from amago_ray.config.advantage_filter import CustomFilterConfig
from amago_ray.config.agent import ActorCriticConfig, CustomAgentConfig, CustomDistributionConfig
from amago_ray.config.model import CustomSequenceModelConfig
from amago_ray.config.module_attr import load_module_attr
from amago_ray.data.specs import ActionSpec
from amago_ray.errors import ConfigError
from amago_ray.nets.distributions import make_distribution
from amago_ray.nets.layout import SequenceLayout

PARTS = {
    "timestep_encoder": {"kind": "helpers.custom_parts:Linear", "output_dim": 8},
    "sequence_model": {
        "kind": "helpers.custom_parts:DecayingSum",
        "d_model": 8,
        "context_length": 8,
        "kwargs": {"decay": 0.25},
    },
    "relabel": {"kind": "helpers.custom_parts:Discounted"},
    "exploration": {"kind": "helpers.custom_parts:FirstAction"},
}


@pytest.mark.parametrize("parts", [*([name] for name in PARTS), list(PARTS)], ids=[*PARTS, "all"])
def test_a_run_with_parts_of_one_s_own(parts: list[str], tmp_path: Path) -> None:
    model = dict(TINY["model"])
    model |= {name: PARTS[name] for name in ("timestep_encoder", "sequence_model") if name in parts}
    sections = {name: PARTS[name] for name in ("relabel", "exploration") if name in parts}
    evaluation = {"num_episodes": 2, "num_envs": 2, "at_start": False}
    config = tiny_config(tmp_path, stop={"learner_steps": 6}, model=model, evaluation=evaluation, **sections)

    outcome = amago_ray.train(config, local=True)

    policy = amago_ray.load_policy(outcome.run_directory)
    kinds = [type(policy.network.modules[name]) for name in ("timestep_encoder", "sequence_model")]
    assert (kinds[0] is Linear) == ("timestep_encoder" in parts)
    assert (kinds[1] is DecayingSum) == ("sequence_model" in parts)


@pytest.mark.parametrize("kind", [DecayingSum, RunningSum], ids=["a window", "a state of its own"])
@pytest.mark.numeric
def test_acting_with_a_sequence_model_of_one_s_own_equals_its_full_forward(kind: type[DecayingSum]) -> None:
    torch.manual_seed(0)
    model = kind(CustomSequenceModelConfig(kind="helpers.custom_parts:DecayingSum", d_model=8), 8, None, decay=0.25)
    decoder = model.make_decoder(context_length=8)
    x, time = torch.randn(6, 2, 8), torch.arange(6)
    state = decoder.initial_state(2)
    with torch.no_grad():
        steps = torch.stack([decoder.step(x[t], time[t].expand(2), state) for t in range(6)], 1)
    given = time.repeat(2), SequenceLayout.from_lengths([6, 6])
    rows = x.transpose(0, 1).flatten(0, 1)
    with float64():
        reference = as_float64(model)(rows.double(), *given)
    assert_as_exact_as(steps.flatten(0, 1), model(rows, *given), reference=reference)


def test_a_dotted_attribute_is_found_and_what_is_not_there_is_one_line() -> None:
    assert load_module_attr("relabel.kind", "numpy:random.Generator") is np.random.Generator
    for name in ("numpy", "numpy:", ":x", "no_such_module:x", "numpy:no.such.name"):
        with pytest.raises(ConfigError, match=r"^relabel\.kind: ") as error:
            load_module_attr("relabel.kind", name)
        assert name.partition(":")[0] in str(error.value)
        assert "\n" not in str(error.value)


@pytest.mark.parametrize("agent", ["actor_critic", "multi_task"])
def test_a_run_with_a_policy_distribution_of_one_s_own(agent: str, tmp_path: Path) -> None:
    distribution = {"kind": "helpers.custom_parts:Kumaraswamy", "kwargs": {"least": 0.2}}
    config = tiny_config(
        tmp_path,
        env={"id": "amago_ray/HiddenVelocityPendulum-v0", "max_episode_steps": 20},
        agent={"kind": agent, "online_coefficient": 0.5, "policy_distribution": distribution},
        relabel={"kind": "none"},
        exploration={"kind": "none"},
        stop={"learner_steps": 6},
        evaluation={"num_episodes": 2, "num_envs": 2, "at_start": False},
    )

    outcome = amago_ray.train(config, local=True)

    policy = amago_ray.load_policy(outcome.run_directory)
    assert isinstance(policy.distribution, Kumaraswamy)
    assert policy.distribution.least == 0.2
    actions, _ = policy.act(np.zeros((4, 2)), policy.initial_state(4))
    assert len({tuple(action) for action in actions}) == 4


@pytest.mark.parametrize("parts", [["objective"], ["filter"], ["objective", "filter"]])
@pytest.mark.parametrize("env", ["amago_ray/MazeRunner-v0", "amago_ray/HiddenVelocityPendulum-v0"])
def test_a_run_with_an_objective_and_an_advantage_filter_of_one_s_own(
    env: str, parts: list[str], tmp_path: Path
) -> None:
    agent: dict[str, object] = {}
    if "objective" in parts:
        agent |= {"kind": "helpers.custom_parts:Huber", "kwargs": {"width": 0.5}}
    if "filter" in parts:
        agent["advantage_filter"] = {"kind": "helpers.custom_parts:Sigmoid", "kwargs": {"temperature": 0.1}}
    weights = []
    for name, settings in (("own", agent), ("built_in", {})):
        config = tiny_config(
            tmp_path,
            name=name,
            env={"id": env, "max_episode_steps": 20},
            agent=settings,
            relabel={"kind": "none"},
            stop={"learner_steps": 6},
            evaluation={"num_episodes": 0},
        )
        outcome = amago_ray.train(config, local=True)
        assert outcome.checkpoint is not None
        weights.append(load_snapshot(outcome.checkpoint / "policy.safetensors").arrays)
    assert any(not np.array_equal(array, weights[1][name]) for name, array in weights[0].items())


def test_an_objective_that_regresses_with_a_wide_huber_loss_is_the_built_in_one() -> None:
    values, targets = torch.randn(4, 5, 3), torch.randn(5, 3)
    action = ActionSpec("discrete", (), (4,))
    entries = []
    for config in (
        CustomAgentConfig(kind="helpers.custom_parts:Huber", kwargs={"width": 100.0}),
        ActorCriticConfig(),
    ):
        objective = make_objective(config, action)
        assert isinstance(objective, ValueRegression)
        entries.append(objective.critic_entries(values, targets))
    assert_rounded(entries[0], entries[1], roundings=4)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"kind": "helpers.custom_parts:Nothing"}, r"agent\.kind: .*Nothing"),
        ({"kind": "helpers.custom_parts:Huber", "kwargs": {"size": 1}}, r"agent\.kind: cannot make .* 'size'"),
        ({"kind": "unittest.mock:Mock"}, r"agent\.kind: expected .* to make an Objective \(of amago_ray.agent\)"),
    ],
)
def test_what_makes_no_objective_is_one_line(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=rf"^{message}") as error:
        make_objective(CustomAgentConfig(**settings), ActionSpec("discrete", (), (4,)))
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"kind": "helpers.custom_parts:Nothing"}, "Nothing"),
        ({"kind": "helpers.custom_parts:Sigmoid", "kwargs": {"size": 1}}, "cannot make .* 'size'"),
        ({"kind": "unittest.mock:NonCallableMock"}, "to make a function of advantages"),
    ],
)
def test_what_makes_no_advantage_filter_is_one_line(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=rf"^agent\.advantage_filter\.kind: .*{message}") as error:
        make_filter(CustomFilterConfig(**settings))
    assert "\n" not in str(error.value)


def test_the_example_s_density_is_that_of_its_samples() -> None:
    box = ActionSpec("box", (1,), (), (-1.0,), (1.0,))
    family = make_distribution(
        box, ActorCriticConfig(policy_distribution=CustomDistributionConfig(kind="helpers.custom_parts:Kumaraswamy"))
    )
    moments = family.moments(torch.tensor([[0.5, 1.0]], dtype=torch.float64))
    noise = torch.linspace(0.1, 0.9, 50, dtype=torch.float64)[:, None].requires_grad_()
    action = family.rsample(moments, noise)
    # Of uniform noise the density is one over the slope of what it becomes.
    (slope,) = torch.autograd.grad(action.sum(), noise)
    inside = (action.abs() < 0.99).squeeze(-1)
    assert inside.sum() > 40
    torch.testing.assert_close(family.log_prob(moments, action)[inside], -slope.squeeze(-1).log()[inside])


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("helpers.custom_parts:FirstAction", "cannot make"),
        ("amago_ray.nets:PolicyDistribution", "cannot make .* takes no arguments"),
        (
            "unittest.mock:Mock",
            r"to make a PolicyDistribution \(of amago_ray.nets\) with an integer num_params, got Mock",
        ),
    ],
)
def test_what_makes_no_policy_distribution_is_one_line(name: str, message: str) -> None:
    agent = ActorCriticConfig(policy_distribution=CustomDistributionConfig(kind=name))
    with pytest.raises(ConfigError, match=rf"^agent\.policy_distribution\.kind: .*{message}") as error:
        make_distribution(ActionSpec("box", (1,)), agent)
    assert "\n" not in str(error.value)
