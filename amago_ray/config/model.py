"""Settings of the networks."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated, Literal

from amago_ray.config.ranges import BELOW_ONE, COUNT, INTEGER, POSITIVE_INTEGER, POSITIVE_INTEGERS


@dataclass(frozen=True, kw_only=True)
class TimestepEncoderConfig:
    """From one timestep's observation, previous reward and previous action to a vector."""

    kind: str = "auto"
    """"mlp", "cnn", "auto" (cnn where an observation is an image), or `module:attr`."""
    num_layers: Annotated[int, COUNT] = 2
    """Hidden layers of the MLP."""
    hidden_dim: Annotated[int, POSITIVE_INTEGER] = 512
    """Width of the hidden layers."""
    output_dim: Annotated[int, POSITIVE_INTEGER] = 256
    """Width of the result."""
    normalize_inputs: bool = True
    """MLP: normalise inputs by running moments."""
    observation_keys: tuple[str, ...] | None = None
    """Observation leaves that are read; None reads all."""
    token_keys: tuple[str, ...] = ()
    """Leaves that hold tokens, such as an instruction in words: embedded and read in order by a small GRU, instead of
    one-hot or as numbers. Multi-discrete leaves, or boxes of integers (then see `token_low` and `token_high`)."""
    token_low: Annotated[int, INTEGER] = 0
    """Tokens in boxes of integers: the smallest one (-1 where completed goals are marked so)."""
    token_high: Annotated[int, INTEGER] | None = None
    """Tokens in boxes of integers: the largest one; must be given for such leaves."""
    token_embedding_dim: Annotated[int, POSITIVE_INTEGER] = 16
    """Tokens: width of one token's embedding."""
    token_hidden_dim: Annotated[int, POSITIVE_INTEGER] = 64
    """Tokens: width of the GRU."""
    token_output_dim: Annotated[int, POSITIVE_INTEGER] = 32
    """Tokens: width of what each token leaf becomes."""
    cnn_channels: Annotated[tuple[int, ...], POSITIVE_INTEGERS] = (32, 64, 64)
    """CNN: output channels of each convolution."""
    cnn_kernel_sizes: Annotated[tuple[int, ...], POSITIVE_INTEGERS] | None = None
    """CNN: kernel size of each convolution; None is 8, 4, 3, or smaller ones for images of fewer than 36 pixels."""
    cnn_strides: Annotated[tuple[int, ...], POSITIVE_INTEGERS] | None = None
    """CNN: stride of each convolution; None is 4, 2, 1, or smaller ones for images of fewer than 36 pixels."""
    image_dim: Annotated[int, POSITIVE_INTEGER] = 256
    """CNN: width of the image's features."""
    rl2_dim: Annotated[int, POSITIVE_INTEGER] = 12
    """CNN: width of the features of previous reward and action."""
    random_shift_pixels: Annotated[int, COUNT] = 0
    """CNN: random-shift augmentation in training, up to this many pixels; 0 is off."""


@dataclass(frozen=True, kw_only=True)
class SequenceModelConfig:
    """The causal model over the timesteps of an episode."""

    kind: str = "transformer"
    """"transformer", "gru", "feed_forward" (no memory), or `module:attr`."""
    context_length: Annotated[int, POSITIVE_INTEGER] = 128
    """Timesteps the model sees at once (YAML alias: max_seq_len)."""
    d_model: Annotated[int, POSITIVE_INTEGER] = 256
    """D, width."""
    num_layers: Annotated[int, POSITIVE_INTEGER] = 3
    """Layers."""
    num_heads: Annotated[int, POSITIVE_INTEGER] = 8
    """H, attention heads; divides d_model."""
    d_ff: Annotated[int, POSITIVE_INTEGER] | None = None
    """Width of the feed-forward part; None is 4 * d_model."""
    dropout: Annotated[float, BELOW_ONE] = 0.05
    """Transformer: dropout on embeddings and the feed-forward part."""
    positions: Literal["sinusoidal", "learned", "rotary"] = "sinusoidal"
    """Transformer: how the time index enters."""
    max_time_index: Annotated[int, POSITIVE_INTEGER] | None = None
    """Learned positions: size of the table; None is the environment's horizon + 1."""
    attention_window: Annotated[int, POSITIVE_INTEGER] | None = None
    """Transformer: tokens that each token sees in every layer, itself included; None is all of the context. Work and
    memory then grow with the context times the window, for episodes that are longer than memory allows."""
    attention_backend: Literal["auto", "sdpa", "native", "varlen", "flash_attn"] = "auto"
    """Transformer: "auto" takes the fastest that this machine has; all give the same values."""
    sigma_reparam: bool = True
    """Transformer: reparametrise projections by their spectral norm, against attention-entropy collapse."""
    gru_hidden_dim: Annotated[int, POSITIVE_INTEGER] | None = None
    """GRU: width of the hidden state; None is d_model."""


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

    timestep_encoder: TimestepEncoderConfig = field(default_factory=TimestepEncoderConfig)
    sequence_model: SequenceModelConfig = field(default_factory=SequenceModelConfig)
    policy_head: HeadConfig = field(default_factory=HeadConfig)
    critic: HeadConfig = field(default_factory=HeadConfig)
