import pytest
import torch
from helpers.model_configs import encoder_config
from helpers.numeric import as_float64, assert_as_exact_as, assert_rounded
from helpers.small_encoders import BOX, IMAGE, SMALL, pixels, spec, tokens
from torch import Tensor

from amago_ray.data.specs import ObservationSpec
from amago_ray.errors import ConfigError
from amago_ray.nets.encoders.cnn import CnnTimestepEncoder, convolutions_for, delta_orthogonal_, random_shift, symlog
from amago_ray.nets.encoders.make import build_timestep_encoder
from amago_ray.nets.tokens import TokenColumns

pytestmark = pytest.mark.numeric


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
    with pytest.raises(ConfigError, match=r'got "camera" of shape \[3, 4, 4\]'):
        build_timestep_encoder(encoder_config(**SMALL), spec(camera=tiny))
