import pytest
import torch
from helpers.numeric import as_float64, assert_as_exact_as, float64
from torch.nn import functional

from amago_ray.config.model import AutoEncoderConfig
from amago_ray.data.specs import ActionSpec, EnvSpec, ObservationSpec
from amago_ray.nets.encoders.make import build_timestep_encoder
from amago_ray.nets.folding import fold_norm, plain_norm
from amago_ray.nets.tokens import TokenColumns

pytestmark = pytest.mark.numeric


def test_folded_norm_equals_norm_then_linear() -> None:
    torch.manual_seed(0)
    norm, linear = torch.nn.LayerNorm(6), torch.nn.Linear(6, 4)
    torch.nn.init.normal_(norm.weight)
    torch.nn.init.normal_(norm.bias)
    x = torch.randn(5, 6) * 3 + 1
    for bias in (linear.bias, None):
        weight, shift = fold_norm(norm, linear.weight, bias)
        plain, reference = (
            functional.linear(n(y), w, b)
            for n, y, w, b in ((norm, x, linear.weight, bias), as_float64((norm, x, linear.weight, bias)))
        )
        assert_as_exact_as(plain_norm(x) @ weight.T + shift, plain, reference=reference)


def test_folded_encoder_keeps_clamps_unstable_features_and_digits_of_large_means() -> None:
    torch.manual_seed(0)
    spec = EnvSpec("test", {"o": ObservationSpec("box", (4,), "float32")}, ActionSpec("box", (2,)))
    encoder = build_timestep_encoder(AutoEncoderConfig(hidden_dim=16, output_dim=8), spec).eval()
    norm = encoder.get_submodule("input_norm")
    # A large mean against a small deviation, and a feature too steady to be divided.
    norm.mean.copy_(torch.tensor([1000.0, 3.0, 0.0, 0.0, 0.0, 0.0, 0.0]))
    norm.mean_square.copy_(torch.tensor([1000.0**2 + 1, 9.0, 4.0, 1.0, 1.0, 1.0, 1.0]))
    observation = torch.tensor([1000.0, 3.0, 0.0, 0.0]) + torch.randn(20, 4)
    observation[0, 2], observation[1, 3] = 1e7, -1e7
    tokens = TokenColumns({"o": observation}, torch.randn(20, 2), torch.randn(20), torch.arange(20))
    with float64():
        reference = as_float64(encoder)(as_float64(tokens))
    assert_as_exact_as(encoder.fold()(tokens), encoder(tokens), reference=reference)
