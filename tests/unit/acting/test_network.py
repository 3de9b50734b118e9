"""Acting one step at a time equals full forwards, whatever the environments' episodes do (docs/algorithm.md §14.6)."""

import sys
import types
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from helpers.model_configs import sequence_config
from helpers.numeric import as_float64, assert_as_exact_as, float64
from torch import Tensor, nn

from amago_ray.acting.network import ActingNetwork, ActingState
from amago_ray.agent.weights import to_arrays
from amago_ray.config import Config
from amago_ray.config.agent import ActorCriticConfig
from amago_ray.config.env import EnvConfig
from amago_ray.config.model import AutoEncoderConfig, CustomSequenceModelConfig, HeadConfig, ModelConfig
from amago_ray.data.specs import ActionSpec, EnvSpec, ObservationSpec
from amago_ray.errors import CheckpointError
from amago_ray.nets import folding
from amago_ray.nets.contracts import SequenceModel
from amago_ray.nets.decoding import transformer as decoding_transformer
from amago_ray.nets.encoders.make import build_timestep_encoder
from amago_ray.nets.heads import PolicyHead
from amago_ray.nets.layout import SequenceLayout
from amago_ray.nets.sequence.make import build_sequence_model
from amago_ray.nets.sequence.sigma_reparam import SigmaReparamLinear, reparametrised_weights
from amago_ray.nets.sequence.transformer import Transformer
from amago_ray.nets.tokens import TokenColumns

pytestmark = pytest.mark.numeric

CONTEXT = 6
NUM_ENVS = 4
SPEC = EnvSpec(
    "test",
    {"goal": ObservationSpec("discrete", (), "int64", (3,)), "state": ObservationSpec("box", (2,), "float32")},
    ActionSpec("discrete", (), (5,)),
    horizon=60,
)


class LastTwo(SequenceModel):
    """A custom model without a decoder of its own: each token with the mean of itself and the one before."""

    def __init__(self, config: CustomSequenceModelConfig, input_dim: int, horizon: int | None) -> None:
        super().__init__()
        self.output_dim = config.d_model
        self.linear = nn.Linear(2 * input_dim, config.d_model)

    def forward(self, x: Tensor, time_index: Tensor, layout: SequenceLayout) -> Tensor:
        before = torch.cat((x[:1], x[:-1]))
        first = layout.cu_seqlens[:-1].long()
        before[first] = x[first]
        result: Tensor = self.linear(torch.cat((x, before), -1)) + torch.sin(time_index)[:, None]
        return result


KINDS: dict[str, dict[str, Any]] = {
    "sinusoidal": {},
    "learned": {"positions": "learned"},
    "rotary": {"positions": "rotary"},
    "plain projections": {"sigma_reparam": False},
    "windowed": {"attention_window": 3},
    "windowed rotary": {"attention_window": 2, "positions": "rotary"},
    "gru": {"kind": "gru", "gru_hidden_dim": 20},
    "feed_forward": {"kind": "feed_forward"},
    "custom": {"kind": "my_sequence_models:LastTwo"},
    "custom with a state of its own": {"kind": "helpers.custom_parts:RunningSum"},
}
TRANSFORMERS = ["sinusoidal", "learned", "rotary", "plain projections", "windowed", "windowed rotary"]


@pytest.fixture(autouse=True)
def custom_models(monkeypatch: pytest.MonkeyPatch) -> None:
    module = types.ModuleType("my_sequence_models")
    module.LastTwo = LastTwo  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "my_sequence_models", module)


@pytest.fixture(autouse=True, params=["compiled", "torch"])
def kernels(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every test runs with the compiled kernels, where a compiler could build them, and without."""
    if request.param == "torch":
        monkeypatch.setattr(folding, "load_mlp_kernel", lambda: None)
        monkeypatch.setattr(decoding_transformer, "load_decode_kernel", lambda: None)


def make_config(**options: Any) -> Config:
    return Config(
        env=EnvConfig(id="test"),
        model=ModelConfig(
            timestep_encoder=AutoEncoderConfig(hidden_dim=12, output_dim=10),
            sequence_model=sequence_config(
                **{"d_model": 16, "num_layers": 2, "num_heads": 4, "d_ff": 24, "context_length": CONTEXT, **options}
            ),
            policy_head=HeadConfig(hidden_dim=14),
        ),
        agent=ActorCriticConfig(auxiliary_discounts=(0.5, 0.9)),
    )


class FullNetwork(nn.Module):
    """The modules as training has them, run over whole episodes."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.timestep_encoder = build_timestep_encoder(config.model.timestep_encoder, SPEC)
        self.sequence_model = build_sequence_model(config.model.sequence_model, 10, SPEC.horizon)
        self.policy_head = PolicyHead(16, config.model.policy_head, 3, 5)
        self.eval()
        with torch.no_grad():
            for name, tensor in self.state_dict().items():
                if "num_updates" not in name and "mean_square" not in name:
                    tensor.add_(torch.randn_like(tensor) * 0.3)
            for module in self.modules():
                if isinstance(module, SigmaReparamLinear):
                    reparametrised_weights([module.train()])
                    module.eval()

    def arrays(self) -> dict[str, npt.NDArray[np.generic]]:
        arrays: dict[str, npt.NDArray[np.generic]] = {
            name: tensor.numpy().copy() for name, tensor in self.state_dict().items()
        }
        arrays["critics.weight"] = np.zeros(3)
        return arrays

    def forward(self, tokens: TokenColumns, window: int | None = None) -> Tensor:
        """Parameters of the acting discount after the last token of one episode."""
        layout = SequenceLayout.from_lengths([len(tokens.time_index)])
        x = self.timestep_encoder(tokens)
        model = self.sequence_model
        if isinstance(model, Transformer):
            state = model(x, tokens.time_index, layout, window)
        else:
            state = model(x, tokens.time_index, layout)
        params: Tensor = self.policy_head(state)[-1, -1]
        return params


class Episodes:
    """Running episodes of E environments, as lists of tokens of one row each."""

    def __init__(self, first_time_index: list[int]) -> None:
        self.histories: list[list[TokenColumns]] = [[] for _ in first_time_index]
        self.time_index = list(first_time_index)

    def reset(self, index: int) -> None:
        self.histories[index].clear()
        self.time_index[index] = 0

    def next_tokens(self) -> TokenColumns:
        num_envs = len(self.histories)
        tokens = TokenColumns(
            {"goal": torch.randint(0, 3, (num_envs,)), "state": torch.randn(num_envs, 2)},
            torch.randint(0, 5, (num_envs,)),
            torch.randn(num_envs),
            torch.tensor(self.time_index),
        )
        for e, history in enumerate(self.histories):
            history.append(tokens.rows(e, e + 1))
            self.time_index[e] += 1
        return tokens

    def last(self, index: int, count: int) -> TokenColumns:
        return joined(self.histories[index][-count:])


def joined(parts: list[TokenColumns]) -> TokenColumns:
    return TokenColumns(
        {name: torch.cat([part.observations[name] for part in parts]) for name in parts[0].observations},
        torch.cat([part.prev_action for part in parts]),
        torch.cat([part.prev_reward for part in parts]),
        torch.cat([part.time_index for part in parts]),
    )


def rebuild(network: ActingNetwork, state: ActingState, episodes: Episodes, indices: list[int]) -> None:
    """What an env runner does after a swap of weights, for those episodes that have begun."""
    parts = [episodes.last(e, CONTEXT - 1) for e in indices if episodes.histories[e]]
    begun = [e for e in indices if episodes.histories[e]]
    layout = SequenceLayout.from_lengths([len(part.time_index) for part in parts])
    network.rebuild(state, np.array(begun), joined(parts), layout)


class Comparison:
    """What acting gave, beside full forwards over what each environment has shown."""

    def __init__(self, full: FullNetwork) -> None:
        self.full, self.exact = full, as_float64(full)
        self.ours: list[Tensor] = []
        self.plain: list[Tensor] = []
        self.reference: list[Tensor] = []

    @torch.no_grad()
    def add(self, params: Tensor, tokens: TokenColumns, window: int | None = CONTEXT) -> None:
        self.ours.append(params)
        self.plain.append(self.full(tokens, window))
        with float64():
            self.reference.append(self.exact(as_float64(tokens), window))

    def finish(self) -> None:
        assert_as_exact_as(self.ours, self.plain, reference=self.reference)


@pytest.mark.parametrize("kind", KINDS)
def test_cached_acting_equals_the_full_forward_with_staggered_resets_and_rollover(kind: str) -> None:
    torch.manual_seed(1)
    config = make_config(**KINDS[kind])
    full, network = FullNetwork(config), ActingNetwork(config, SPEC)
    network.load(full.arrays())
    compared = Comparison(full)
    state, episodes = network.initial_state(NUM_ENVS), Episodes([0, 3, 0, 11])
    resets = {3: [0], 5: [1, 2], 8: [0], 9: [3], 15: [0, 1]}
    for t in range(24):
        ended = resets.get(t, [])
        network.reset(state, np.array(ended, dtype=np.int64))
        for e in ended:
            episodes.reset(e)
        params = network.step(episodes.next_tokens(), state)
        for e, history in enumerate(episodes.histories):
            # Attention looks back a context in every layer, a GRU to the start, the custom model sees the last context.
            compared.add(params[e], episodes.last(e, CONTEXT if kind == "custom" else len(history)))
    compared.finish()


@pytest.mark.parametrize("kind", KINDS)
def test_after_a_swap_and_rebuild_acting_equals_the_full_forward_under_the_new_weights(kind: str) -> None:
    torch.manual_seed(2)
    config = make_config(**KINDS[kind])
    network = ActingNetwork(config, SPEC)
    network.load(FullNetwork(config).arrays())
    state, episodes = network.initial_state(NUM_ENVS), Episodes([0, 2, 0, 5])
    for t in range(9):
        if t in (4, 6):
            network.reset(state, np.array([t // 2]))
            episodes.reset(t // 2)
        network.step(episodes.next_tokens(), state)
    network.reset(state, np.array([1]))
    episodes.reset(1)
    full = FullNetwork(config)
    network.load(full.arrays())
    rebuild(network, state, episodes, [3, 0, 1, 2])
    compared = Comparison(full)
    for steps_since in range(1, 2 * CONTEXT):
        params = network.step(episodes.next_tokens(), state)
        for e, history in enumerate(episodes.histories):
            # All that the state holds came from the tokens rebuilt and from those since.
            count = min(len(history), CONTEXT - 1 + steps_since)
            compared.add(params[e], episodes.last(e, min(count, CONTEXT) if kind == "custom" else count))
        if steps_since == 1 and kind in TRANSFORMERS:
            # Right after the swap this is what training sees: the last context of tokens, attended in full.
            compared.add(params[3], episodes.last(3, CONTEXT), None)
    compared.finish()


def test_rebuild_leaves_other_environments_alone() -> None:
    torch.manual_seed(3)
    config = make_config()
    network = ActingNetwork(config, SPEC)
    network.load(FullNetwork(config).arrays())
    states, episodes = [network.initial_state(2), network.initial_state(2)], Episodes([0, 0])
    for _ in range(4):
        tokens = episodes.next_tokens()
        for state in states:
            network.step(tokens, state)
    network.load(FullNetwork(config).arrays())
    rebuild(network, states[0], episodes, [0])
    tokens = episodes.next_tokens()
    first, second = (network.step(tokens, state) for state in states)
    assert torch.equal(first[1], second[1])
    assert not torch.allclose(first[0], second[0])


@pytest.mark.parametrize("num_tokens", [1, 7, 11])
def test_rebuild_may_go_in_chunks(num_tokens: int) -> None:
    torch.manual_seed(7)
    config = make_config()
    full, network = FullNetwork(config), ActingNetwork(config, SPEC, rebuild_tokens=num_tokens)
    network.load(full.arrays())
    episodes, state = Episodes([0, 0, 0, 0]), network.initial_state(NUM_ENVS)
    for t in range(7):
        if t in (3, 5):
            episodes.reset(t - 2)
            network.reset(state, np.array([t - 2]))
        network.step(episodes.next_tokens(), state)
    rebuild(network, state, episodes, [0, 1, 2, 3])
    params, compared = network.step(episodes.next_tokens(), state), Comparison(full)
    for e in range(NUM_ENVS):
        compared.add(params[e], episodes.last(e, CONTEXT))
    compared.finish()


def test_rebuild_refuses_more_than_the_next_step_can_see() -> None:
    network = ActingNetwork(make_config(), SPEC)
    episodes = Episodes([0])
    for _ in range(CONTEXT):
        episodes.next_tokens()
    layout = SequenceLayout.from_lengths([CONTEXT])
    with pytest.raises(ValueError, match="at most 5 tokens of each episode, got 6"):
        network.rebuild(network.initial_state(1), np.array([0]), episodes.last(0, CONTEXT), layout)


def test_columns_may_be_reused_after_a_step() -> None:
    """docs/algorithm.md §14.12: no state keeps a reference to what it was given."""
    torch.manual_seed(4)
    for kind, options in KINDS.items():
        config = make_config(**options)
        network = ActingNetwork(config, SPEC)
        network.load(FullNetwork(config).arrays())
        episodes = Episodes([0, 4])
        tokens = [episodes.next_tokens() for _ in range(4)]
        kept, reused = network.initial_state(2), network.initial_state(2)
        for column in tokens:
            expected = network.step(column, kept)
            copy = replace(column, time_index=column.time_index.clone(), prev_reward=column.prev_reward.clone())
            actual = network.step(copy, reused)
            assert torch.equal(actual, expected), kind
            copy.time_index.fill_(40)
            copy.prev_reward.fill_(9)


def test_weights_that_do_not_fit_are_refused_and_the_old_ones_stay() -> None:
    torch.manual_seed(5)
    config = make_config()
    network = ActingNetwork(config, SPEC)
    arrays = FullNetwork(config).arrays()
    network.load(arrays)
    tokens = Episodes([0, 0]).next_tokens()
    before = network.step(tokens, network.initial_state(2))
    other = FullNetwork(config).arrays()
    del other["policy_head.mlp.layers.2.bias"]
    with pytest.raises(CheckpointError, match=r"expected policy_head.mlp.layers.2.bias \[15\], got no such array"):
        network.load(other)
    other["policy_head.mlp.layers.2.bias"] = np.zeros(4, np.float32)
    with pytest.raises(CheckpointError, match=r"of shape \[15\], got \[4\]"):
        network.load(other)
    assert torch.equal(network.step(tokens, network.initial_state(2)), before)


def test_bfloat16_weights_are_read() -> None:
    torch.manual_seed(6)
    config = make_config()
    network, rounded = ActingNetwork(config, SPEC), ActingNetwork(config, SPEC)
    weights = {name: tensor.bfloat16() for name, tensor in FullNetwork(config).state_dict().items()}
    network.load(to_arrays(weights))
    rounded.load({name: tensor.float().numpy() for name, tensor in weights.items()})
    tokens = Episodes([0]).next_tokens()
    assert torch.equal(network.step(tokens, network.initial_state(1)), rounded.step(tokens, rounded.initial_state(1)))


def test_read_only_arrays_are_copied() -> None:
    config = make_config()
    network = ActingNetwork(config, SPEC)
    arrays = FullNetwork(config).arrays()
    for array in arrays.values():
        array.flags.writeable = False
    network.load(arrays)
    assert network.step(Episodes([0]).next_tokens(), network.initial_state(1)).shape == (1, 5)
