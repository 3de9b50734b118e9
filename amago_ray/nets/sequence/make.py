"""From settings to a sequence model."""

from __future__ import annotations

from amago_ray.config.kinds import Registry
from amago_ray.config.model import FeedForwardConfig, GruConfig, SequenceModelConfig, TransformerConfig
from amago_ray.nets.contracts import SequenceModel
from amago_ray.nets.custom import checked
from amago_ray.nets.sequence.feed_forward import FeedForwardSequenceModel
from amago_ray.nets.sequence.gru import GruSequenceModel
from amago_ray.nets.sequence.transformer import Transformer

_WHERE = "model.sequence_model.kind"
SEQUENCE_MODELS: Registry[SequenceModel] = Registry(
    _WHERE,
    {
        TransformerConfig: Transformer,
        GruConfig: GruSequenceModel,
        FeedForwardConfig: FeedForwardSequenceModel,
    },
)


def build_sequence_model(config: SequenceModelConfig, input_dim: int, horizon: int | None) -> SequenceModel:
    """The model that `config` asks for, over vectors of width `input_dim`; `horizon`: longest episode, None if unknown.

    Raises:
        ConfigError: widths that do not fit, an attention backend that this machine lacks, or one of the user's own that
            cannot be made.
    """
    return checked(_WHERE, config.kind, SEQUENCE_MODELS.make(config, input_dim, horizon), SequenceModel, "output_dim")
