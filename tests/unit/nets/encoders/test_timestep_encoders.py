from typing import Any

import pytest
import torch
from helpers.model_configs import encoder_config
from helpers.numeric import as_float64, assert_as_exact_as, assert_rounded, float64
from torch import Tensor

from amago_ray.config.model import CustomEncoderConfig
from amago_ray.data.specs import ActionSpec, EnvSpec, ObservationSpec
from amago_ray.errors import ConfigError
from amago_ray.nets.contracts import TimestepEncoder
from amago_ray.nets.encoders.cnn import CnnTimestepEncoder, convolutions_for, delta_orthogonal_, random_shift, symlog
from amago_ray.nets.encoders.make import build_timestep_encoder
from amago_ray.nets.encoders.mlp import MlpTimestepEncoder
from amago_ray.nets.tokens import TokenColumns

pytestmark = pytest.mark.numeric

BOX = ObservationSpec("box", (3,), "float32")
IMAGE = ObservationSpec("box", (3, 12, 12), "uint8")
SMALL: dict[str, Any] = {
    "hidden_dim": 16,
    "output_dim": 8,
    "cnn_channels": (4, 5),
    "cnn_kernel_sizes": (3, 3),
    "cnn_strides": (2, 1),
    "image_dim": 6,
    "rl2_dim": 4,
}


def spec(**observations: ObservationSpec) -> EnvSpec:
    return EnvSpec("test", observations, ActionSpec("discrete", (), (4,)))


def tokens(num_tokens: int = 5, **observations: Tensor) -> TokenColumns:
    action, reward = torch.arange(num_tokens) % 4, torch.linspace(0, 1, num_tokens)
    return TokenColumns(observations, action, reward, torch.arange(num_tokens))


def pixels(num_tokens: int = 5) -> Tensor:
    return torch.randint(0, 256, (num_tokens, 3, 12, 12), dtype=torch.uint8)


def test_auto_takes_the_cnn_where_a_selected_leaf_is_an_image() -> None:
    both = spec(camera=IMAGE, state=BOX)
    assert isinstance(build_timestep_encoder(encoder_config(**SMALL), both), CnnTimestepEncoder)
    only_state = encoder_config(**SMALL, observation_keys=("state",))
    assert isinstance(build_timestep_encoder(only_state, both), MlpTimestepEncoder)


def test_selected_leaves_alone_are_read() -> None:
    torch.manual_seed(0)
    encoder = build_timestep_encoder(encoder_config(**SMALL, observation_keys=("b",)), spec(a=BOX, b=BOX)).eval()
    b = torch.randn(5, 3)
    assert torch.equal(encoder(tokens(a=torch.randn(5, 3), b=b)), encoder(tokens(a=torch.randn(5, 3), b=b)))


def test_mlp_normalises_with_the_weights_of_rows() -> None:
    torch.manual_seed(0)
    encoder = build_timestep_encoder(encoder_config(**SMALL), spec(a=BOX))
    twin = build_timestep_encoder(encoder_config(**SMALL), spec(a=BOX))
    twin.load_state_dict(encoder.state_dict())
    a = torch.randn(5, 3)
    full = tokens(a=a)
    first = TokenColumns({"a": a[:3]}, full.prev_action[:3], full.prev_reward[:3], full.time_index[:3])
    weighted = encoder(full, torch.tensor([1.0, 1, 1, 0, 0]))
    alone = twin(first)
    with float64():
        # With the moments that the step led to.
        reference = as_float64(twin).eval()(as_float64(first))
    assert_as_exact_as(weighted[:3], alone, reference=reference)
    assert encoder.input_norm is not None
    assert twin.input_norm is not None
    assert_rounded(encoder.input_norm.mean, twin.input_norm.mean, roundings=8)


def test_cnn_mixes_several_images_and_vectors() -> None:
    torch.manual_seed(0)
    encoder = build_timestep_encoder(encoder_config(**SMALL), spec(left=IMAGE, right=IMAGE, state=BOX)).eval()
    base = {"left": pixels(), "right": pixels(), "state": torch.randn(5, 3)}
    reference = encoder(tokens(**base))
    assert reference.shape == (5, 8)
    for name, other in {"left": pixels(), "right": pixels(), "state": torch.randn(5, 3)}.items():
        assert not torch.allclose(encoder(tokens(**{**base, name: other})), reference)


def cnn_formula(weights: dict[str, Tensor], columns: TokenColumns) -> Tensor:
    dtype = weights["rl2.weight"].dtype

    def act(x: Tensor) -> Tensor:
        return torch.where(x > 0, x, 0.01 * x)

    x = columns.observations["camera"].to(dtype) / 128 - 1
    for i, stride in enumerate((2, 1)):
        kernel, bias = weights[f"images.0.convolutions.{i}.weight"], weights[f"images.0.convolutions.{i}.bias"]
        x = act(torch.nn.functional.conv2d(x, kernel, bias, stride=stride))
    image = x.reshape(5, -1) @ weights["images.0.output.weight"].T + weights["images.0.output.bias"]
    rl2 = torch.zeros(5, 5, dtype=dtype)
    rl2[1:, 0] = columns.prev_reward[1:]
    rl2[torch.arange(1, 5), 1 + columns.prev_action[1:]] = 1
    side = symlog(rl2) @ weights["rl2.weight"].T + weights["rl2.bias"]
    merged = act(torch.cat((image, side), -1)) @ weights["merge.weight"].T + weights["merge.bias"]
    return torch.nn.functional.layer_norm(merged, (8,))


def test_cnn_follows_its_formula() -> None:
    torch.manual_seed(0)
    encoder = build_timestep_encoder(encoder_config(**SMALL), spec(camera=IMAGE)).eval()
    columns = tokens(camera=pixels())
    weights = dict(encoder.named_parameters())
    reference = cnn_formula(*as_float64((weights, columns)))
    assert_as_exact_as(encoder(columns), cnn_formula(weights, columns), reference=reference)


def test_delta_orthogonal_fills_the_centre_tap_alone() -> None:
    torch.manual_seed(0)
    convolution = torch.nn.Conv2d(3, 5, 4)
    delta_orthogonal_(convolution)
    centre = convolution.weight[:, :, 2, 2]
    # Orthogonalised column by column, each of five numbers.
    assert_rounded(centre.T @ centre, torch.eye(3) * 2 / (1 + 0.01**2), roundings=30)
    assert convolution.weight.abs().sum() == centre.abs().sum()
    assert convolution.bias is not None
    assert not convolution.bias.any()


def test_random_shift_moves_whole_images_and_repeats_edges() -> None:
    torch.manual_seed(0)
    images = pixels(40)
    shifted = random_shift(images, 2)
    assert shifted.dtype == torch.uint8
    padded = torch.nn.functional.pad(images.float(), (2, 2, 2, 2), mode="replicate").to(torch.uint8)
    seen = set()
    for image, result in zip(padded, shifted, strict=True):
        matches = [(y, x) for y in range(5) for x in range(5) if torch.equal(image[:, y : y + 12, x : x + 12], result)]
        assert matches
        seen.update(matches)
    assert len(seen) > 10


def test_random_shift_is_for_training_only() -> None:
    torch.manual_seed(0)
    encoder = build_timestep_encoder(encoder_config(**SMALL, random_shift_pixels=2), spec(camera=IMAGE))
    columns = tokens(camera=pixels())
    assert not torch.equal(encoder(columns), encoder(columns))
    encoder.eval()
    assert torch.equal(encoder(columns), encoder(columns))


class EveryThird(TimestepEncoder):
    def __init__(self, config: CustomEncoderConfig, spec: EnvSpec) -> None:
        super().__init__()
        self.output_dim = config.output_dim

    def forward(self, tokens: TokenColumns, weight: Tensor | None = None) -> Tensor:
        return tokens.observations["a"][:, :1].expand(-1, self.output_dim)


def test_custom_encoder_by_name(monkeypatch: pytest.MonkeyPatch) -> None:
    import sys
    import types

    module = types.ModuleType("my_encoders")
    module.EveryThird = EveryThird  # type: ignore[attr-defined]
    module.number = lambda config, spec: 3  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "my_encoders", module)
    config = encoder_config(**SMALL, kind="my_encoders:EveryThird")
    assert isinstance(build_timestep_encoder(config, spec(a=BOX)), EveryThird)
    with pytest.raises(ConfigError, match=r"expected .* to make a TimestepEncoder .* found int"):
        build_timestep_encoder(encoder_config(**SMALL, kind="my_encoders:number"), spec(a=BOX))


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"kind": "no.such.module:Encoder"}, 'cannot import "no.such.module"'),
        ({"kind": "math:Encoder"}, 'expected "module:attr", got "math:Encoder"'),
        ({"kind": "cnn"}, r"expects an image .* found a float32\[3\]"),
        ({"observation_keys": ("a", "z")}, 'expected keys among a, found "z"'),
    ],
)
def test_bad_settings_get_one_line(config: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message) as error:
        build_timestep_encoder(encoder_config(**{**SMALL, **config}), spec(a=BOX))
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("channels", [1, 3, 12])
@pytest.mark.parametrize(
    "sides", [*((n, n) for n in (1, 2, 3, 4, 5, 7, 9, 11, 12, 17, 24, 35, 36, 84)), (1, 40), (60, 5), (36, 35)]
)
def test_images_of_any_size_work_by_default(sides: tuple[int, int], channels: int) -> None:
    image = ObservationSpec("box", (channels, *sides), "uint8")
    encoder = build_timestep_encoder(encoder_config(output_dim=8), spec(camera=image))
    assert isinstance(encoder, CnnTimestepEncoder)
    shown = torch.randint(0, 256, (3, *image.shape), dtype=torch.uint8)
    columns = tokens(3, camera=shown)
    output = encoder(columns)
    output.square().sum().backward()
    assert all(convolution.weight.grad.any() for convolution in encoder.images[0].convolutions)
    assert not torch.equal(encoder(tokens(3, camera=255 - shown)), output)


@pytest.mark.parametrize(
    ("side", "kernel_sizes", "strides"),
    [
        (84, [8, 4, 3], [4, 2, 1]),
        (36, [8, 4, 3], [4, 2, 1]),
        (35, [3, 3, 3], [2, 2, 1]),
        (7, [3, 3, 3], [1, 1, 1]),
        (1, [1, 1, 1], [1, 1, 1]),
    ],
)
def test_only_images_without_room_for_the_usual_convolutions_get_others(
    side: int, kernel_sizes: list[int], strides: list[int]
) -> None:
    assert convolutions_for(encoder_config(), side) == (kernel_sizes, strides)
    given = encoder_config(cnn_channels=(4, 4, 4), cnn_kernel_sizes=(2, 2, 2))
    assert convolutions_for(given, side) == ((2, 2, 2), [4, 2, 1])


@pytest.mark.parametrize("depth", [1, 2, 5])
def test_more_or_fewer_convolutions_fit_too(depth: int) -> None:
    config = encoder_config(cnn_channels=(4,) * depth, output_dim=8)
    for side in (6, 64):
        image = ObservationSpec("box", (3, side, side), "uint8")
        encoder = build_timestep_encoder(config, spec(camera=image))
        assert encoder(tokens(2, camera=torch.zeros(2, *image.shape, dtype=torch.uint8))).shape == (2, 8)


def test_image_smaller_than_the_kernels_asked_for_is_refused() -> None:
    tiny = ObservationSpec("box", (3, 4, 4), "uint8")
    with pytest.raises(ConfigError, match=r'found "camera" of shape \[3, 4, 4\]'):
        build_timestep_encoder(encoder_config(**SMALL), spec(camera=tiny))
