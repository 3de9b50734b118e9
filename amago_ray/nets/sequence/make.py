"""Making the sequence model that the settings ask for."""

from __future__ import annotations

from amago_ray.config.model import SequenceModelConfig
from amago_ray.nets.contracts import SequenceModel
from amago_ray.nets.custom import load_custom_module
from amago_ray.nets.sequence.feed_forward import FeedForwardSequenceModel
from amago_ray.nets.sequence.gru import GruSequenceModel
from amago_ray.nets.sequence.transformer import Transformer


def build_sequence_model(config: SequenceModelConfig, input_dim: int, horizon: int | None) -> SequenceModel:
    """The model that `config` asks for, over vectors of width `input_dim`; `horizon`: longest episode, None if unknown.

    Raises:
        ConfigError: an unknown kind, widths that do not fit, or an attention backend that this machine lacks.
    """
    if config.kind == "transformer":
        return Transformer(config, input_dim, horizon)
    if config.kind == "gru":
        return GruSequenceModel(config, input_dim, horizon)
    if config.kind == "feed_forward":
        return FeedForwardSequenceModel(config, input_dim, horizon)
    return load_custom_module("model.sequence_model.kind", config.kind, SequenceModel, config, input_dim, horizon)
