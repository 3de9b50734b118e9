import pytest
import torch
from helpers.batches import make_config, make_spec
from helpers.model_configs import sequence_config

from amago_ray.agent.make import build_actor_critic
from amago_ray.config.model import ModelConfig
from amago_ray.errors import CheckpointError
from amago_ray.learning.amago_import import AmagoNames, read_amago_weights


def as_amago(agent, names):
    state = agent.state_dict()
    return {
        theirs: names.tensor_to_amago(ours, state[ours], tuple(state[ours].shape))
        for ours, theirs in names.names.items()
    }


def make(seed=0, **model):
    torch.manual_seed(seed)
    config = make_config()
    if model:
        settings = {"context_length": 16, "d_model": 8, "num_layers": 2, "num_heads": 2, "dropout": 0.0, **model}
        config = type(config)(
            env=config.env, model=ModelConfig(sequence_model=sequence_config(**settings)), agent=config.agent
        )
    agent = build_actor_critic(config, make_spec())
    return agent, AmagoNames.of(agent)


@pytest.mark.parametrize(
    "model",
    [
        {},
        {"kind": "gru"},
        {"kind": "feed_forward"},
        {"positions": "learned"},
        {"positions": "rotary"},
        {"sigma_reparam": False},
    ],
    ids=str,
)
def test_every_weight_has_a_counterpart_and_comes_back(model):
    agent, names = make(**model)
    state = agent.state_dict()
    assert names.names.keys() == state.keys()
    assert len(set(names.names.values())) == len(state)
    back = names.from_amago(as_amago(agent, names))
    assert all(torch.equal(back[name], value) for name, value in state.items())


def test_the_head_index_is_fastest_in_the_original():
    _, names = make()
    ours = "sequence_model.layers.0.attention.qkv.weight"
    theirs = names.tensor_to_amago(ours, torch.arange(24 * 8.0).view(24, 8), (24, 8))
    # Two heads of four channels: the original's row 1 is channel 0 of head 1, our row 4.
    assert theirs[1, 0] == 4 * 8
    assert theirs[2, 0] == 1 * 8


def test_the_lagging_critics_are_left_out():
    agent, names = make()
    state = as_amago(agent, names)
    lagging = {
        name.replace("critics", "maximized_critics", 1): v for name, v in state.items() if name.startswith("critics")
    }
    assert names.from_amago({**state, **lagging}).keys() == agent.state_dict().keys()


def test_missing_and_unknown_names_are_listed():
    agent, names = make()
    state = as_amago(agent, names)
    state["actor.base.surprise"] = state.pop("actor.base.in_layer.weight")
    with pytest.raises(
        CheckpointError, match=r"missing are actor.base.in_layer.weight; unknown are actor.base.surprise"
    ):
        names.from_amago(state)


def test_shapes_that_do_not_fit_are_listed():
    agent, names = make()
    state = as_amago(agent, names)
    state["popart.mu"] = torch.zeros(9, 1)
    with pytest.raises(CheckpointError, match=r"popart.mu \[9, 1\] for popart.mean \[3\]"):
        names.from_amago(state)


def test_a_policy_file_is_read_without_unpickling(tmp_path):
    agent, names = make()
    torch.save(as_amago(agent, names), tmp_path / "policy.pt")
    fresh, _ = make(seed=1)
    fresh.load_state_dict(read_amago_weights(tmp_path / "policy.pt", fresh))
    assert all(torch.equal(value, fresh.state_dict()[name]) for name, value in agent.state_dict().items())


@pytest.mark.parametrize("content", ["missing", "text", "line", "empty", "folder", "object", "list"])
def test_files_that_are_no_policy_are_one_readable_line(tmp_path, content):
    path = tmp_path / "policy.pt"
    if content == "text":
        path.write_text("no weights")
    elif content == "line":
        # Read as a pickle, it ends in the middle of an instruction.
        path.write_text("text\n")
    elif content == "empty":
        path.touch()
    elif content == "folder":
        path.mkdir()
    elif content == "object":
        torch.save({"model": Tricky()}, path)
    elif content == "list":
        torch.save([torch.zeros(2)], path)
    with pytest.raises(CheckpointError, match=r"policy\.pt: expected AMAGO weights") as error:
        read_amago_weights(path, make()[0])
    assert "\n" not in str(error.value)
    assert "weights_only" not in str(error.value), "torch's advice to unpickle whatever it is"


class Tricky:
    """What a pickle could run."""
