"""Settings of the networks."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal


@dataclass(frozen=True, kw_only=True)
class TimestepEncoderConfig:
    """From one timestep's observation, previous reward and previous action to a vector."""

    kind: str = "auto"
    """"mlp", "cnn", "auto" (cnn where an observation is an image), or `module:attr`."""
    num_layers: int = 2
    """Hidden layers of the MLP."""
    hidden_dim: int = 512
    """Width of the hidden layers."""
    output_dim: int = 256
    """Width of the result."""
    normalize_inputs: bool = True
    """MLP: normalise inputs by running moments."""
    observation_keys: tuple[str, ...] | None = None
    """Observation leaves that are read; None reads all."""
    token_keys: tuple[str, ...] = ()
    """Leaves that hold tokens, such as an instruction in words: embedded and read in order by a small GRU, instead of
    one-hot or as numbers. Multi-discrete leaves, or boxes of integers (then see `token_low` and `token_high`)."""
    token_low: int = 0
    """Tokens in boxes of integers: the smallest one (-1 where completed goals are marked so)."""
    token_high: int | None = None
    """Tokens in boxes of integers: the largest one; must be given for such leaves."""
    token_embedding_dim: int = 16
    """Tokens: width of one token's embedding."""
    token_hidden_dim: int = 64
    """Tokens: width of the GRU."""
    token_output_dim: int = 32
    """Tokens: width of what each token leaf becomes."""
    cnn_channels: tuple[int, ...] = (32, 64, 64)
    """CNN: output channels of each convolution."""
    cnn_kernel_sizes: tuple[int, ...] = (8, 4, 3)
    """CNN: kernel size of each convolution."""
    cnn_strides: tuple[int, ...] = (4, 2, 1)
    """CNN: stride of each convolution."""
    image_dim: int = 256
    """CNN: width of the image's features."""
    rl2_dim: int = 12
    """CNN: width of the features of previous reward and action."""
    random_shift_pixels: int = 0
    """CNN: random-shift augmentation in training, up to this many pixels; 0 is off."""


@dataclass(frozen=True, kw_only=True)
class SequenceModelConfig:
    """The causal model over the timesteps of an episode."""

    kind: str = "transformer"
    """"transformer", "gru", "feed_forward" (no memory), or `module:attr`."""
    context_length: int = 128
    """Timesteps the model sees at once (YAML alias: max_seq_len)."""
    d_model: int = 256
    """D, width."""
    num_layers: int = 3
    """Layers."""
    num_heads: int = 8
    """H, attention heads; divides d_model."""
    d_ff: int | None = None
    """Width of the feed-forward part; None is 4 * d_model."""
    dropout: float = 0.05
    """Transformer: dropout on embeddings and the feed-forward part."""
    positions: Literal["sinusoidal", "learned", "rotary"] = "sinusoidal"
    """Transformer: how the time index enters."""
    max_time_index: int | None = None
    """Learned positions: size of the table; None is the environment's horizon + 1."""
    attention_window: int | None = None
    """Transformer: tokens that each token sees in every layer, itself included; None is all of the context. Work and
    memory then grow with the context times the window, for episodes that are longer than memory allows."""
    attention_backend: Literal["auto", "sdpa", "native", "varlen", "flash_attn"] = "auto"
    """Transformer: "auto" takes the fastest that this machine has; all give the same values."""
    sigma_reparam: bool = True
    """Transformer: reparametrise projections by their spectral norm, against attention-entropy collapse."""
    gru_hidden_dim: int | None = None
    """GRU: width of the hidden state; None is d_model."""


@dataclass(frozen=True, kw_only=True)
class HeadConfig:
    """Policy head and critics: MLPs on the sequence model's output."""

    num_layers: int = 2
    """Hidden layers."""
    hidden_dim: int = 256
    """Width of the hidden layers."""


@dataclass(frozen=True, kw_only=True)
class ModelConfig:
    """All networks."""

    timestep_encoder: TimestepEncoderConfig = field(default_factory=TimestepEncoderConfig)
    sequence_model: SequenceModelConfig = field(default_factory=SequenceModelConfig)
    policy_head: HeadConfig = field(default_factory=HeadConfig)
    critic: HeadConfig = field(default_factory=HeadConfig)
