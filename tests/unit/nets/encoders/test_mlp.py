import pytest
import torch
from helpers.model_configs import encoder_config
from helpers.numeric import as_float64, assert_as_exact_as, assert_rounded, float64
from helpers.small_encoders import BOX, SMALL, spec, tokens

from amago_ray.nets.encoders.make import build_timestep_encoder
from amago_ray.nets.tokens import TokenColumns

pytestmark = pytest.mark.numeric


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
