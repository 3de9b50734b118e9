"""Networks of each kind have settings of their own."""

from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest
from helpers.one_line import one_line

from amago_ray.config.load import config_from_dict, config_to_dict, load_config
from amago_ray.config.model import (
    AutoEncoderConfig,
    CnnEncoderConfig,
    CustomEncoderConfig,
    CustomSequenceModelConfig,
    FeedForwardConfig,
    GruConfig,
    MlpEncoderConfig,
    ModelConfig,
    TransformerConfig,
)
from amago_ray.errors import ConfigError


def load(**sections: Any) -> ModelConfig:
    config = config_from_dict({"env": "A-v0", "model": sections})
    assert config_from_dict(config_to_dict(config)) == config
    return config.model


@pytest.mark.parametrize(
    ("tree", "expected"),
    [
        ({}, AutoEncoderConfig()),
        ({"hidden_dim": 8, "image_dim": 9}, AutoEncoderConfig(hidden_dim=8, image_dim=9)),
        ({"kind": "mlp", "hidden_dim": 8}, MlpEncoderConfig(hidden_dim=8)),
        ({"kind": "cnn", "cnn_channels": [4, 4, 4]}, CnnEncoderConfig(cnn_channels=(4, 4, 4))),
        (
            {"kind": "m:a", "output_dim": 8, "kwargs": {"x": [1]}},
            CustomEncoderConfig(kind="m:a", output_dim=8, kwargs={"x": [1]}),
        ),
    ],
)
def test_timestep_encoders(tree: dict[str, Any], expected: Any) -> None:
    assert load(timestep_encoder=tree).timestep_encoder == expected


@pytest.mark.parametrize(
    ("tree", "expected"),
    [
        ({}, TransformerConfig()),
        ({"max_seq_len": 9, "positions": "rotary"}, TransformerConfig(context_length=9, positions="rotary")),
        ({"kind": "gru", "gru_hidden_dim": 8}, GruConfig(gru_hidden_dim=8)),
        ({"kind": "feed_forward", "d_ff": 8}, FeedForwardConfig(d_ff=8)),
        (
            {"kind": "m:a", "d_model": 8, "kwargs": {"x": 1}},
            CustomSequenceModelConfig(kind="m:a", d_model=8, kwargs={"x": 1}),
        ),
    ],
)
def test_sequence_models(tree: dict[str, Any], expected: Any) -> None:
    assert load(sequence_model=tree).sequence_model == expected


@pytest.mark.parametrize(
    ("section", "tree", "message"),
    [
        (
            "sequence_model",
            {"kind": "gru", "attention_window": 8},
            'attention_window: expected only with kind "transformer", got 8 with kind "gru"',
        ),
        (
            "sequence_model",
            {"gru_hidden_dim": 8},
            'gru_hidden_dim: expected only with kind "gru", got 8 with kind "transformer"',
        ),
        (
            "sequence_model",
            {"kind": "m:a", "d_ff": 8},
            'd_ff: expected only with kind "transformer" or "feed_forward", got 8 with kind "m:a"',
        ),
        (
            "timestep_encoder",
            {"kind": "mlp", "cnn_strides": [1, 1, 1]},
            'cnn_strides: expected only with kind "auto" or "cnn", got [1, 1, 1] with kind "mlp"',
        ),
        (
            "sequence_model",
            {"kind": "lstm"},
            'kind: expected one of "transformer", "gru", "feed_forward", or module:attr, got "lstm"',
        ),
        ("timestep_encoder", {"kind": "mpl"}, 'kind: expected one of "auto", "mlp", "cnn", or module:attr, got "mpl"'),
    ],
)
def test_what_a_kind_does_not_have_is_one_line(section: str, tree: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError) as error:
        load(**{section: tree})

    assert one_line(error) == f"model.{section}.{message}"


EARLIER_ENCODER = {each.name: each.default for each in fields(AutoEncoderConfig)} | {
    "cnn_kernel_sizes": [8, 4, 3],
    "cnn_strides": [4, 2, 1],
}
EARLIER_SEQUENCE_MODEL = {each.name: each.default for kind in (TransformerConfig, GruConfig) for each in fields(kind)}


@pytest.mark.parametrize("encoder", ["auto", "mlp", "cnn", "m:a"])
@pytest.mark.parametrize("sequence_model", ["transformer", "gru", "feed_forward", "m:a"])
def test_settings_resolved_when_every_kind_had_all_fields_still_load(encoder: str, sequence_model: str) -> None:
    model = load(
        timestep_encoder={**EARLIER_ENCODER, "kind": encoder},
        sequence_model={**EARLIER_SEQUENCE_MODEL, "kind": sequence_model},
    )
    assert (model.timestep_encoder.kind, model.sequence_model.kind) == (encoder, sequence_model)
    if isinstance(model.timestep_encoder, AutoEncoderConfig | CnnEncoderConfig):
        assert model.timestep_encoder.cnn_kernel_sizes == (8, 4, 3)


def test_another_kind_on_the_command_line_leaves_what_belongs_to_the_file_s_alone(tmp_path: Path) -> None:
    path = tmp_path / "x.yaml"
    path.write_text("env: A-v0\nmodel: {sequence_model: {max_seq_len: 9, d_model: 8, num_heads: 2, dropout: 0.5}}\n")
    config = load_config(path, ["model.sequence_model.kind=gru"])
    assert config.model.sequence_model == GruConfig(context_length=9, d_model=8)
