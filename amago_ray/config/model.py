"""Settings of the networks."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated, Any, Literal

from amago_ray.config.ranges import BELOW_ONE, COUNT, INTEGER, MODULE_ATTR, POSITIVE_INTEGER, POSITIVE_INTEGERS

BackendName = Literal["auto", "sdpa", "native", "varlen", "flash_attn"]


@dataclass(frozen=True, kw_only=True)
class EncoderConfig:
    """What all timestep encoders have."""

    kind: str
    output_dim: Annotated[int, POSITIVE_INTEGER] = 256
    """Width of the result."""
    observation_keys: tuple[str, ...] | None = None
    """Observation leaves that are read; None reads all."""


@dataclass(frozen=True, kw_only=True)
class TokensConfig(EncoderConfig):
    """How the built-in encoders read instructions made of tokens."""

    token_keys: tuple[str, ...] = ()
    """Leaves that hold tokens, such as an instruction in words: embedded and read in order by a small GRU, instead of
    one-hot or as numbers. Multi-discrete leaves, or boxes of integers (then see `token_low` and `token_high`)."""
    token_low: Annotated[int, INTEGER] = 0
    """Tokens in boxes of integers: the smallest one (-1 where completed goals are marked so)."""
    token_high: Annotated[int, INTEGER] | None = None
    """Tokens in boxes of integers: the largest one; must be given for such leaves."""
    token_embedding_dim: Annotated[int, POSITIVE_INTEGER] = 16
    """Width of one token's embedding."""
    token_hidden_dim: Annotated[int, POSITIVE_INTEGER] = 64
    """Width of the GRU."""
    token_output_dim: Annotated[int, POSITIVE_INTEGER] = 32
    """Width of what each token leaf becomes."""


@dataclass(frozen=True, kw_only=True)
class VectorsConfig(TokensConfig):
    """How vectors are read: by an MLP."""

    num_layers: Annotated[int, COUNT] = 2
    """Hidden layers of the MLP."""
    hidden_dim: Annotated[int, POSITIVE_INTEGER] = 512
    """Width of the hidden layers."""
    normalize_inputs: bool = True
    """Normalise inputs by running moments."""


@dataclass(frozen=True, kw_only=True)
class ImagesConfig(TokensConfig):
    """How images are read: by a CNN, with all else beside them."""

    cnn_channels: Annotated[tuple[int, ...], POSITIVE_INTEGERS] = (32, 64, 64)
    """Output channels of each convolution."""
    cnn_kernel_sizes: Annotated[tuple[int, ...], POSITIVE_INTEGERS] | None = field(
        default=None, metadata={"earlier_default": (8, 4, 3)}
    )
    """Kernel size of each convolution; None is 8, 4, 3, or smaller ones for images of fewer than 36 pixels."""
    cnn_strides: Annotated[tuple[int, ...], POSITIVE_INTEGERS] | None = field(
        default=None, metadata={"earlier_default": (4, 2, 1)}
    )
    """Stride of each convolution; None is 4, 2, 1, or smaller ones for images of fewer than 36 pixels."""
    image_dim: Annotated[int, POSITIVE_INTEGER] = 256
    """Width of the image's features."""
    rl2_dim: Annotated[int, POSITIVE_INTEGER] = 12
    """Width of the features of previous reward and action."""
    random_shift_pixels: Annotated[int, COUNT] = 0
    """Random-shift augmentation in training, up to this many pixels; 0 is off."""


@dataclass(frozen=True, kw_only=True)
class AutoEncoderConfig(ImagesConfig, VectorsConfig):
    """A CNN where an observation is an image, else an MLP."""

    kind: Literal["auto"] = "auto"


@dataclass(frozen=True, kw_only=True)
class MlpEncoderConfig(VectorsConfig):
    """An MLP on everything side by side."""

    kind: Literal["mlp"] = "mlp"


@dataclass(frozen=True, kw_only=True)
class CnnEncoderConfig(ImagesConfig):
    """A CNN on each image, with all else beside them."""

    kind: Literal["cnn"] = "cnn"


@dataclass(frozen=True, kw_only=True)
class CustomEncoderConfig(EncoderConfig):
    """A timestep encoder of one's own."""

    kind: Annotated[str, MODULE_ATTR]
    kwargs: dict[str, Any] = field(default_factory=dict)
    """Passed to it by name."""


TimestepEncoderConfig = AutoEncoderConfig | MlpEncoderConfig | CnnEncoderConfig | CustomEncoderConfig
"""From one row's observation, previous reward and previous action to a vector."""


@dataclass(frozen=True, kw_only=True)
class SequenceConfig:
    """What all sequence models have."""

    kind: str
    context_length: Annotated[int, POSITIVE_INTEGER] = 128
    """Rows of an episode that the model sees at once (YAML alias: max_seq_len)."""
    d_model: Annotated[int, POSITIVE_INTEGER] = 256
    """D, width."""
    num_layers: Annotated[int, POSITIVE_INTEGER] = 3
    """Layers."""


@dataclass(frozen=True, kw_only=True)
class TransformerConfig(SequenceConfig):
    """A causal Transformer."""

    kind: Literal["transformer"] = "transformer"
    num_heads: Annotated[int, POSITIVE_INTEGER] = 8
    """H, attention heads; divides d_model."""
    d_ff: Annotated[int, POSITIVE_INTEGER] | None = None
    """Width of the feed-forward part; None is 4 * d_model."""
    dropout: Annotated[float, BELOW_ONE] = 0.05
    """Dropout on embeddings and the feed-forward part."""
    positions: Literal["sinusoidal", "learned", "rotary"] = "sinusoidal"
    """How the time index enters."""
    max_time_index: Annotated[int, POSITIVE_INTEGER] | None = None
    """Learned positions: size of the table; None is the environment's horizon + 1."""
    attention_window: Annotated[int, POSITIVE_INTEGER] | None = None
    """Tokens that each token sees in every layer, itself included; None is all of the context. Work and
    memory then grow with the context times the window, for episodes that are longer than memory allows."""
    attention_backend: BackendName = "auto"
    """"auto" takes the fastest that this machine has; all give the same values."""
    sigma_reparam: bool = True
    """Reparametrise projections by their spectral norm, against attention-entropy collapse."""


@dataclass(frozen=True, kw_only=True)
class GruConfig(SequenceConfig):
    """A GRU."""

    kind: Literal["gru"] = "gru"
    gru_hidden_dim: Annotated[int, POSITIVE_INTEGER] | None = None
    """Width of the hidden state; None is d_model."""


@dataclass(frozen=True, kw_only=True)
class FeedForwardConfig(SequenceConfig):
    """No memory, for ablation: each row by itself."""

    kind: Literal["feed_forward"] = "feed_forward"
    d_ff: Annotated[int, POSITIVE_INTEGER] | None = None
    """Width of the feed-forward part; None is 4 * d_model."""


@dataclass(frozen=True, kw_only=True)
class CustomSequenceModelConfig(SequenceConfig):
    """A sequence model of one's own."""

    kind: Annotated[str, MODULE_ATTR]
    kwargs: dict[str, Any] = field(default_factory=dict)
    """Passed to it by name."""


SequenceModelConfig = TransformerConfig | GruConfig | FeedForwardConfig | CustomSequenceModelConfig
"""The causal model over the rows of an episode."""


@dataclass(frozen=True, kw_only=True)
class HeadConfig:
    """Policy head and critics: MLPs on the sequence model's output."""

    num_layers: Annotated[int, COUNT] = 2
    """Hidden layers."""
    hidden_dim: Annotated[int, POSITIVE_INTEGER] = 256
    """Width of the hidden layers."""


@dataclass(frozen=True, kw_only=True)
class ModelConfig:
    """All networks."""

    timestep_encoder: TimestepEncoderConfig = field(default_factory=AutoEncoderConfig)
    sequence_model: SequenceModelConfig = field(default_factory=TransformerConfig)
    policy_head: HeadConfig = field(default_factory=HeadConfig)
    critic: HeadConfig = field(default_factory=HeadConfig)
