from typing import Any

import pytest
import torch
from helpers.model_configs import sequence_config
from helpers.numeric import as_float64, assert_as_exact_as, float64, nudged, with_nudged_weights
from helpers.small_sequences import SMALL, make, packed
from torch import Tensor

from amago_ray.errors import ConfigError
from amago_ray.nets.contracts import SequenceModel
from amago_ray.nets.layout import SequenceLayout
from amago_ray.nets.sequence.make import build_sequence_model

pytestmark = pytest.mark.numeric
KINDS: dict[str, dict[str, Any]] = {
    "sinusoidal": {},
    "learned": {"positions": "learned"},
    "rotary": {"positions": "rotary"},
    "plain projections": {"sigma_reparam": False},
    "gru": {"kind": "gru"},
    "wide gru": {"kind": "gru", "gru_hidden_dim": 20},
    "feed_forward": {"kind": "feed_forward"},
}


@pytest.mark.parametrize("lengths", [[4, 4, 4], [3, 8, 1, 8, 5]], ids=["equal", "ragged"])
@pytest.mark.parametrize("options", KINDS.values(), ids=KINDS.keys())
def test_batch_of_sequences_equals_each_alone(options: dict[str, Any], lengths: list[int]) -> None:
    """docs/algorithm.md §14.7: packing changes neither values nor gradients."""
    model = make(options)
    x, time_index, layout = packed(lengths)
    cotangent = torch.randn(len(x), model.output_dim)
    ours = results(model, cotangent, model(x, time_index, layout))
    plain = results(model, cotangent, one_by_one(model, x, time_index, lengths))
    with float64():
        exact = as_float64(model)
        reference = results(exact, cotangent.double(), one_by_one(exact, x.double(), time_index, lengths))
    assert_as_exact_as(ours, plain, reference=reference)


def one_by_one(model: SequenceModel, x: Tensor, time_index: Tensor, lengths: list[int]) -> Tensor:
    sequences = zip(x.split(lengths), time_index.split(lengths), lengths, strict=True)
    return torch.cat([model(rows, time, SequenceLayout.from_lengths([length])) for rows, time, length in sequences])


def results(model: SequenceModel, cotangent: Tensor, output: Tensor) -> dict[str, Tensor]:
    """Outputs, and gradients of all parameters by name."""
    parameters = dict(model.named_parameters())
    gradients = torch.autograd.grad(output, list(parameters.values()), cotangent)
    return {"output": output, **dict(zip(parameters, gradients, strict=True))}


@pytest.mark.parametrize("options", KINDS.values(), ids=KINDS.keys())
def test_output_is_causal(options: dict[str, Any]) -> None:
    model = make(options)
    x, time_index, layout = packed([6])
    before = model(x, time_index, layout)
    x[4] += 1
    after = model(x, time_index, layout)
    assert torch.equal(before[:4], after[:4])
    assert not torch.allclose(before[4], after[4])


@pytest.mark.parametrize(
    ("options", "horizon", "message"),
    [
        ({"num_heads": 5}, 9, "num_heads: expected a divisor of d_model 16, got 5"),
        ({"num_heads": 16, "positions": "rotary"}, 9, "divisor of d_model 16 with an even quotient, got 16"),
        ({"positions": "learned"}, None, "max_time_index: expected a number"),
        ({"kind": "no_such_models:Lstm"}, 9, 'cannot import "no_such_models"'),
        ({"attention_backend": "fast"}, 9, 'got "fast"'),
    ],
)
def test_bad_settings_get_one_line(options: dict[str, Any], horizon: int | None, message: str) -> None:
    with pytest.raises(ConfigError, match=message) as error:
        build_sequence_model(sequence_config(**{**SMALL, **options}), 10, horizon)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("options", [KINDS["sinusoidal"], KINDS["rotary"], KINDS["gru"]])
def test_bfloat16_autocast_stays_near_float32(options: dict[str, Any]) -> None:
    model = make(options)
    x, time_index, layout = packed([3, 8, 5])
    exact = as_float64(model)(x.double(), time_index, layout)
    with torch.autocast("cpu", torch.bfloat16):
        rough = model(x, time_index, layout)
    rough.float().square().sum().backward()
    # What is rounded on the way counts about as much as what is rounded before: inputs and weights.
    rounded = [
        with_nudged_weights(model, seed)(nudged(x, seed, torch.bfloat16), time_index, layout) for seed in range(4)
    ]
    assert_as_exact_as(rough.bfloat16(), *rounded, reference=exact)
    assert not torch.equal(rough.float(), model(x, time_index, layout))
    for parameter in model.parameters():
        assert parameter.grad is not None
        assert parameter.grad.dtype == torch.float32
        assert torch.isfinite(parameter.grad).all()
