"""Updates and acting on a device that is not the host, of which "meta" is one that every machine has.

It computes nothing, but refuses to mix with tensors of the host, and to tell the host a value: so it shows that columns
arrive where they are read, and that no step waits for the device.
"""

import contextlib
import dataclasses

import numpy as np
import pytest
import torch
import torch._dynamo  # Annotations in there want the real `torch.Generator`.
from helpers.batches import make_batch, make_config, make_spec
from helpers.model_configs import sequence_config

from amago_ray.acting.network import ActingNetwork
from amago_ray.agent.value_classification import ValueClassification
from amago_ray.agent.value_regression import ValueRegression
from amago_ray.learning.batch import to_device_batch
from amago_ray.learning.learner import Learner

META = torch.device("meta")
MODELS = ["transformer", "gru", "feed_forward"]


@pytest.fixture(autouse=True)
def _meta_without_generators_and_autocast(monkeypatch):
    """The device has neither: draws are made on the host and copied."""

    def on_meta(make_draws):
        def make(*arguments):
            made = make_draws(*arguments)
            fields = {field.name: getattr(made, field.name) for field in dataclasses.fields(made)}
            return dataclasses.replace(made, **{name: x.to(META) for name, x in fields.items() if x is not None})

        return make

    generator = torch.Generator
    monkeypatch.setattr(torch, "Generator", lambda device=None: generator())
    monkeypatch.setattr(torch, "autocast", lambda *args, **kwargs: contextlib.nullcontext())
    for kind in (ValueRegression, ValueClassification):
        monkeypatch.setattr(kind, "make_draws", on_meta(kind.make_draws))


def config_of(model, **settings):
    config = make_config(**settings)
    sequence_model = sequence_config(
        model, d_model=8, num_layers=1, num_heads=2, context_length=4, positions="rotary", dropout=0.1
    )
    return dataclasses.replace(config, model=dataclasses.replace(config.model, sequence_model=sequence_model))


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("kind", ["actor_critic", "multi_task"])
@pytest.mark.parametrize("action", ["discrete", "multi_discrete", "multi_binary", "box"])
def test_updates_stay_on_the_device_and_never_wait_for_it(kind, model, action):
    has_mask = action == "discrete"
    spec = make_spec(action, has_action_mask=has_mask)
    config = config_of(model, kind=kind, n_step=2, online_coefficient=0.5, learner={"metrics_interval": 1})
    learner = Learner(config, spec, device="meta")
    for weight in (None, [1.0, 0.0, 1.0]):
        report = learner.step(make_batch(spec, [6, 4, 3], weight=weight, action_mask=has_mask))
        assert report is not None
    assert report.num_transitions == 9
    assert all(tensor.is_meta for tensor in learner.agent.state_dict().values())
    # It does notice when somebody asks for a value.
    with pytest.raises(NotImplementedError, match="meta"):
        learner.metrics()


@pytest.mark.parametrize("model", MODELS)
def test_acting_stays_on_the_device_and_never_waits_for_it(model):
    spec = make_spec()
    network = ActingNetwork(config_of(model), spec, device="meta")
    state = network.initial_state(3)
    step = to_device_batch(make_batch(spec, [1, 1, 1]), META).tokens.rows(0, 3)
    for number in range(6):
        # Environments at different steps, past the context too.
        network.reset(state, np.array([number % 2]))
        assert network.step(step, state).is_meta
    last = to_device_batch(make_batch(spec, [2, 1]), META)
    network.rebuild(state, np.array([0, 2]), last.tokens, last.layout)
    assert network.step(step, state).is_meta
