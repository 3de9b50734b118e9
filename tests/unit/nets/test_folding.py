import torch

from amago_ray.config.model import TimestepEncoderConfig
from amago_ray.data.specs import ActionSpec, EnvSpec, ObservationSpec
from amago_ray.nets.encoders.make import build_timestep_encoder
from amago_ray.nets.folding import fold_norm, plain_norm
from amago_ray.nets.tokens import TokenColumns


def test_folded_norm_equals_norm_then_linear() -> None:
    torch.manual_seed(0)
    norm, linear = torch.nn.LayerNorm(6), torch.nn.Linear(6, 4)
    torch.nn.init.normal_(norm.weight)
    torch.nn.init.normal_(norm.bias)
    x = torch.randn(5, 6) * 3 + 1
    weight, bias = fold_norm(norm, linear.weight, linear.bias)
    torch.testing.assert_close(plain_norm(x) @ weight.T + bias, linear(norm(x)))
    weight, bias = fold_norm(norm, linear.weight, None)
    torch.testing.assert_close(plain_norm(x) @ weight.T + bias, norm(x) @ linear.weight.T)


def test_folded_encoder_keeps_clamps_unstable_features_and_digits_of_large_means() -> None:
    torch.manual_seed(0)
    spec = EnvSpec("test", {"o": ObservationSpec("box", (4,), "float32")}, ActionSpec("box", (2,)))
    encoder = build_timestep_encoder(TimestepEncoderConfig(hidden_dim=16, output_dim=8), spec).eval()
    norm = encoder.get_submodule("input_norm")
    # A large mean against a small deviation, and a feature too steady to be divided.
    norm.mean.copy_(torch.tensor([1000.0, 3.0, 0.0, 0.0, 0.0, 0.0, 0.0]))
    norm.mean_square.copy_(torch.tensor([1000.0**2 + 1, 9.0, 4.0, 1.0, 1.0, 1.0, 1.0]))
    observation = torch.tensor([1000.0, 3.0, 0.0, 0.0]) + torch.randn(20, 4)
    observation[0, 2], observation[1, 3] = 1e7, -1e7
    tokens = TokenColumns({"o": observation}, torch.randn(20, 2), torch.randn(20), torch.arange(20))
    torch.testing.assert_close(encoder.fold()(tokens), encoder(tokens), atol=1e-5, rtol=1e-5)
