from typing import Any

import pytest
import torch
from helpers.model_configs import sequence_config
from helpers.numeric import as_float64, assert_as_exact_as
from helpers.small_sequences import SMALL, make, packed
from torch import Tensor

from amago_ray.nets.sequence.make import build_sequence_model
from amago_ray.nets.sequence.transformer import Transformer, channel_major_rows, head_major_rows

pytestmark = pytest.mark.numeric


@pytest.mark.parametrize("options", [{}, {"positions": "learned"}, {"positions": "rotary"}])
def test_order_and_time_matter_to_every_kind_of_positions(options: dict[str, Any]) -> None:
    model = make(options)
    x, time_index, layout = packed([6])
    gaps = time_index + torch.tensor([0, 0, 0, 4, 4, 4])
    assert not torch.allclose(model(x, time_index, layout), model(x, gaps, layout), atol=1e-4)


def transformer_formula(w: dict[str, Tensor], x: Tensor, time_index: Tensor) -> Tensor:
    """One sequence through one rotary layer, in the original's layout of the q, k, v rows."""
    heads, head_dim = 4, 4
    w, layer = dict(w), "layers.0"

    def norm(x: Tensor, name: str) -> Tensor:
        centred = x - x.mean(-1, keepdim=True)
        scaled = centred / (centred.square().mean(-1, keepdim=True) + 1e-5).sqrt()
        return scaled * w[f"{name}.weight"] + w[f"{name}.bias"]

    def linear(x: Tensor, name: str) -> Tensor:
        weight = w[f"{name}.weight"]
        scale = w[f"{name}.gamma"] / (w[f"{name}.u"] @ weight @ w[f"{name}.v"])
        return x @ (scale * weight).T + w.get(f"{name}.bias", torch.zeros(1, dtype=x.dtype))

    w[f"{layer}.attention.qkv.weight"] = channel_major_rows(w[f"{layer}.attention.qkv.weight"], heads)
    w[f"{layer}.attention.qkv.u"] = channel_major_rows(w[f"{layer}.attention.qkv.u"], heads)
    h = x @ w["embed.weight"].T + w["embed.bias"]
    qkv = linear(norm(h, f"{layer}.attention_norm"), f"{layer}.attention.qkv").view(5, 3, head_dim, heads)
    angle = time_index[:, None] * 10000.0 ** (-2 * torch.arange(2, dtype=x.dtype) / head_dim)
    cos, sin = angle.cos()[..., None], angle.sin()[..., None]
    q, k = (
        torch.cat((part[:, :2] * cos - part[:, 2:] * sin, part[:, 2:] * cos + part[:, :2] * sin), 1)
        for part in (qkv[:, 0], qkv[:, 1])
    )
    scores = torch.einsum("idh,jdh->hij", q, k) / head_dim**0.5
    scores = scores.masked_fill(torch.ones(5, 5).triu(1).bool(), -torch.inf)
    attended = torch.einsum("hij,jdh->ihd", scores.softmax(-1), qkv[:, 2])
    attended = (attended * w[f"{layer}.attention.head_scale"][:, None]).reshape(5, -1)
    h = h + norm(linear(attended, f"{layer}.attention.output"), f"{layer}.attention_output_norm")
    hidden = linear(norm(h, f"{layer}.feed_forward_norm"), f"{layer}.expand")
    hidden = torch.where(hidden > 0, hidden, 0.01 * hidden)
    return norm(h + linear(norm(hidden, f"{layer}.hidden_norm"), f"{layer}.contract"), "output_norm")


def test_transformer_follows_its_formula() -> None:
    model = make({"positions": "rotary", "num_layers": 1})
    assert isinstance(model, Transformer)
    x, time_index, layout = packed([5])
    weights = {name: tensor.detach() for name, tensor in model.state_dict().items()}
    plain = transformer_formula(weights, x, time_index)
    reference = transformer_formula(as_float64(weights), x.double(), time_index)
    assert_as_exact_as(model(x, time_index, layout), plain, reference=reference)


def test_row_orders_are_inverse() -> None:
    rows = torch.arange(3 * 4 * 2 * 5).view(24, 5)
    assert torch.equal(channel_major_rows(head_major_rows(rows, 2), 2), rows)
    # (which, channel, head) = (1, 3, 1) is row 8 + 6 + 1 of the original and row 8 + 4 + 3 of ours.
    assert torch.equal(head_major_rows(rows, 2)[8 + 4 + 3], rows[8 + 6 + 1])


def test_window_limits_every_layer() -> None:
    model = make({})
    assert isinstance(model, Transformer)
    x, time_index, layout = packed([12])
    before = model(x, time_index, layout, window=3)
    x[0] += 1
    after = model(x, time_index, layout, window=3)
    # Two layers of a window of 3 reach 4 tokens back.
    assert not torch.allclose(before[4], after[4])
    assert torch.equal(before[5:], after[5:])


def test_dropout_acts_in_training_alone() -> None:
    model = make({"dropout": 0.5, "sigma_reparam": False})
    arguments = packed([6])
    assert torch.equal(model(*arguments), model(*arguments))
    model.train()
    assert not torch.allclose(model(*arguments), model(*arguments))


def test_learned_table_has_an_entry_for_the_final_row() -> None:
    model = build_sequence_model(sequence_config(**SMALL, positions="learned"), 10, horizon=50)
    assert model.state_dict()["positions.table"].shape == (51, 16)
    sized = build_sequence_model(sequence_config(**SMALL, positions="learned", max_time_index=9), 10, None)
    assert sized.state_dict()["positions.table"].shape == (9, 16)
