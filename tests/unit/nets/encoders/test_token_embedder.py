from typing import Any

import pytest
import torch
from helpers.model_configs import encoder_config
from helpers.numeric import as_float64, assert_as_exact_as

from amago_ray.data.specs import ActionSpec, EnvSpec, ObservationSpec
from amago_ray.errors import ConfigError
from amago_ray.nets.encoders.make import build_timestep_encoder
from amago_ray.nets.tokens import TokenColumns

pytestmark = pytest.mark.numeric

WORDS = ObservationSpec("multi_discrete", (4,), "int64", (7, 7, 7, 7))
GOALS = ObservationSpec("box", (2, 3), "int32")
STATE = ObservationSpec("box", (3,), "float32")
IMAGE = ObservationSpec("box", (3, 8, 8), "uint8")
SMALL: dict[str, Any] = {"hidden_dim": 16, "output_dim": 8, "token_embedding_dim": 4, "token_hidden_dim": 6}
CNN: dict[str, Any] = {"cnn_channels": (4,), "cnn_kernel_sizes": (3,), "cnn_strides": (2,), "image_dim": 6}


def build(config: dict[str, Any], **observations: ObservationSpec):
    torch.manual_seed(0)
    spec = EnvSpec("test", observations, ActionSpec("discrete", (), (4,)))
    return build_timestep_encoder(encoder_config(**SMALL, **config), spec)


def columns(**observations: torch.Tensor) -> TokenColumns:
    rows = len(next(iter(observations.values())))
    return TokenColumns(observations, torch.arange(rows) % 4, torch.linspace(0, 1, rows), torch.arange(rows))


def test_the_order_of_words_matters_and_other_leaves_stay_features() -> None:
    encoder = build({"token_keys": ("words",)}, words=WORDS, state=STATE).eval()
    assert encoder.features.num_features == 3 + 1 + 4
    state = torch.randn(3, 3)
    first = encoder(columns(words=torch.tensor([[0, 1, 2, 3]] * 3), state=state))
    other = encoder(columns(words=torch.tensor([[3, 2, 1, 0]] * 3), state=state))
    assert first.shape == (3, 8)
    assert not torch.allclose(first, other)
    assert torch.equal(first, encoder.fold()(columns(words=torch.tensor([[0, 1, 2, 3]] * 3), state=state)))


def formula(embedder: Any, words: torch.Tensor) -> torch.Tensor:
    (rnn,) = embedder.rnns
    hidden = torch.zeros(len(words), 6, dtype=rnn.weight_hh_l0.dtype)
    for x in embedder.embeddings[0](words).unbind(1):
        gates, states = x @ rnn.weight_ih_l0.T + rnn.bias_ih_l0, hidden @ rnn.weight_hh_l0.T + rnn.bias_hh_l0
        (r, z, n), (hr, hz, hn) = gates.chunk(3, -1), states.chunk(3, -1)
        update = torch.sigmoid(z + hz)
        hidden = (1 - update) * torch.tanh(n + torch.sigmoid(r + hr) * hn) + update * hidden
    return torch.nn.functional.layer_norm(embedder.outputs[0](hidden), (32,))


def test_the_formula_of_a_token_leaf() -> None:
    embedder = build({"token_keys": ("words",)}, words=WORDS).token_embedder
    words = torch.tensor([[0, 6, 2, 3], [1, 1, 5, 4]])
    plain, reference = formula(embedder, words), formula(as_float64(embedder), words)
    assert_as_exact_as(embedder({"words": words}), plain, reference=reference)


def test_instructions_of_integers_are_read_goal_after_goal_and_clamped() -> None:
    config = {"token_keys": ("desired_goal",), "token_low": -1, "token_high": 5}
    embedder = build(config, desired_goal=GOALS).token_embedder
    assert embedder.embeddings[0].num_embeddings == 7
    inside = torch.tensor([[[-1, 0, 5], [3, 2, 1]]], dtype=torch.int32)
    outside = torch.tensor([[[-9, 0, 99], [3, 2, 1]]], dtype=torch.int32)
    assert torch.equal(embedder({"desired_goal": inside}), embedder({"desired_goal": outside}))
    assert not torch.allclose(embedder({"desired_goal": inside}), embedder({"desired_goal": inside.flip(1)}))


def test_words_beside_an_image() -> None:
    encoder = build({"token_keys": ("words",), **CNN}, words=WORDS, camera=IMAGE, state=STATE)
    base = {
        "camera": torch.randint(0, 256, (3, 3, 8, 8), dtype=torch.uint8),
        "state": torch.randn(3, 3),
        "words": torch.randint(0, 7, (3, 4)),
    }
    reference = encoder(columns(**base))
    assert not torch.allclose(encoder(columns(**{**base, "words": (base["words"] + 1) % 7})), reference)
    reference.square().sum().backward()
    assert all(parameter.grad is not None for parameter in encoder.token_embedder.parameters())


@pytest.mark.parametrize(
    ("config", "leaf", "message"),
    [
        ({"token_keys": ("goal",)}, WORDS, 'expected keys among words, got "goal"'),
        ({"token_keys": ("words",)}, STATE, 'got "words" (box, float32)'),
        ({"token_keys": ("words",)}, GOALS, 'token_high: expected the largest token of "words"'),
        ({"token_keys": ("words",)}, ObservationSpec("box", (), "int64"), "expected leaves of several tokens"),
    ],
)
def test_leaves_that_are_no_tokens_are_refused(config: dict[str, Any], leaf: ObservationSpec, message: str) -> None:
    with pytest.raises(ConfigError) as error:
        build(config, words=leaf)
    assert message in str(error.value)
