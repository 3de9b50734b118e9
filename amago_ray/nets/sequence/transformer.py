"""The causal Transformer over the rows of an episode."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from amago_ray.config.model import TransformerConfig
from amago_ray.errors import ConfigError
from amago_ray.nets.attention.backend import AttentionBackend
from amago_ray.nets.attention.make import build_attention
from amago_ray.nets.contracts import SequenceModel
from amago_ray.nets.decoding.transformer import TransformerDecoder
from amago_ray.nets.folded import FoldedLayer, FoldedTransformer
from amago_ray.nets.folding import fold_norm, norm_weights
from amago_ray.nets.layout import SequenceLayout
from amago_ray.nets.mlp import activate
from amago_ray.nets.positions import LearnedPositions, SinusoidalPositions, rotary_tables, rotate
from amago_ray.nets.sequence.dropout import dropout
from amago_ray.nets.sequence.sigma_reparam import SigmaReparamLinear, reparametrised_weights

if TYPE_CHECKING:
    from jaxtyping import Float

Projection = SigmaReparamLinear | nn.Linear


class LayerWeights(NamedTuple):
    """The matrices that a layer's projections apply, `[out, in]` each."""

    qkv: Float[Tensor, "3*D D"]
    output: Float[Tensor, "D D"]
    expand: Float[Tensor, "d_ff D"]
    contract: Float[Tensor, "D d_ff"]


class Transformer(SequenceModel):
    """Linear embedding plus position, pre-norm layers with NormFormer's extra norms, a final LayerNorm.

    Source: docs/algorithm.md §3.1; AMAGO (arXiv 2310.09971), appendix A; NormFormer (arXiv 2110.09456).

    Raises:
        ConfigError: heads that do not divide the width, learned positions without a number of them, or an attention
            backend that this machine lacks.
    """

    def __init__(self, config: TransformerConfig, input_dim: int, horizon: int | None) -> None:
        super().__init__()
        dim = config.d_model
        if dim % config.num_heads or (config.positions == "rotary" and (dim // config.num_heads) % 2):
            even = " with an even quotient" if config.positions == "rotary" else ""
            raise ConfigError(
                f"model.sequence_model.num_heads: expected a divisor of d_model {dim}{even}, got {config.num_heads}"
            )
        self.output_dim = dim
        self.head_dim = dim // config.num_heads
        self.rotary = config.positions == "rotary"
        self.context_length = config.context_length
        self.attention_window = config.attention_window
        self.dropout = config.dropout
        self.embed = nn.Linear(input_dim, dim)
        self.positions = _build_positions(config, horizon)
        if isinstance(self.positions, LearnedPositions):
            self.num_time_indices = len(self.positions.table)
        attention = build_attention(config.attention_backend)
        self.layers = nn.ModuleList(TransformerLayer(config, attention) for _ in range(config.num_layers))
        self.output_norm = nn.LayerNorm(dim)

    def forward(self, x: Tensor, time_index: Tensor, layout: SequenceLayout, window: int | None = None) -> Tensor:
        """See `SequenceModel`; with a `window`, a token sees at most window - 1 earlier ones in each layer.

        The smaller one holds of `window` and the settings' `attention_window`.
        """
        windows = [each for each in (window, self.attention_window) if each is not None]
        window = min(windows) if windows else None
        x = self.embed(x)
        if self.positions is not None:
            x = x + self.positions(time_index)
        x = dropout(x, self.dropout, training=self.training)
        turn = rotary_tables(time_index, self.head_dim) if self.rotary else None
        for layer, weights in zip(self.layers, layer_weights(self.layers), strict=True):
            x = layer(x, weights, turn, layout, window)
        output: Tensor = self.output_norm(x)
        return output

    def make_decoder(self, context_length: int, cache_dtype: torch.dtype = torch.float32) -> TransformerDecoder:
        """See `SequenceModel`; the state is a k/v cache."""
        return TransformerDecoder(self.fold(), context_length, cache_dtype)

    @torch.no_grad()
    def fold(self) -> FoldedTransformer:
        """The model in eval mode with its present weights."""
        self.eval()
        return FoldedTransformer(
            embed=(self.embed.weight.detach(), self.embed.bias.detach()),
            positions=self.positions,
            rotary=self.rotary,
            layers=[
                layer.fold(weights)
                for layer, weights in zip(self.layers, layer_weights(self.layers), strict=True)
                if isinstance(layer, TransformerLayer)
            ],
            output_norm=norm_weights(self.output_norm),
            num_heads=self.output_dim // self.head_dim,
            attention_window=self.attention_window,
        )


class TransformerLayer(nn.Module):
    """x <- x + LN(Attention(LN x)); x <- x + Contract(LN(act(Expand(LN x))))."""

    def __init__(self, config: TransformerConfig, attention: AttentionBackend) -> None:
        super().__init__()
        dim, d_ff = config.d_model, config.d_ff or 4 * config.d_model
        self.dropout = config.dropout
        self.attention_norm = nn.LayerNorm(dim)
        self.attention = SelfAttention(config, attention)
        self.attention_output_norm = nn.LayerNorm(dim)
        self.feed_forward_norm = nn.LayerNorm(dim)
        self.expand = _projection(config, dim, d_ff)
        self.hidden_norm = nn.LayerNorm(d_ff)
        self.contract = _projection(config, d_ff, dim)

    def forward(
        self,
        x: Float[Tensor, "N D"],
        weights: LayerWeights,
        turn: tuple[Tensor, Tensor] | None,
        layout: SequenceLayout,
        window: int | None,
    ) -> Float[Tensor, "N D"]:
        """`[N, D]` to `[N, D]`; `weights` are this layer's, `turn` holds the tables of rotary positions."""
        attended = self.attention(self.attention_norm(x), weights, turn, layout, window)
        x = x + self.attention_output_norm(attended)
        expanded = functional.linear(self.feed_forward_norm(x), weights.expand, self.expand.bias)
        contracted = functional.linear(self.hidden_norm(activate(expanded)), weights.contract, self.contract.bias)
        return x + dropout(contracted, self.dropout, training=self.training)

    def fold(self, weights: LayerWeights) -> FoldedLayer:
        """The layer with its present weights, of which `weights` are those that its projections apply."""
        attention, output_bias = self.attention, self.attention.output.bias
        assert output_bias is not None
        num_heads = attention.num_heads
        weight, bias = fold_norm(self.attention_norm, weights.qkv, None)
        head_dim = len(weight) // (3 * num_heads)
        q, k, v = weight.view(3, num_heads, head_dim, -1)
        q_bias, k_bias, v_bias = bias.view(3, num_heads, head_dim)
        scale = 1 / math.sqrt(head_dim)
        qkv_weight = torch.cat(((q * scale).flatten(0, 1), torch.stack((k, v), 1).flatten(0, 2)))
        qkv_bias = torch.cat(((q_bias * scale).flatten(), torch.stack((k_bias, v_bias), 1).flatten()))
        return FoldedLayer(
            qkv=(qkv_weight, qkv_bias),
            output=(attention.scale_heads(weights.output), output_bias.detach().clone()),
            output_norm=norm_weights(self.attention_output_norm),
            expand=fold_norm(self.feed_forward_norm, weights.expand, self.expand.bias),
            contract=fold_norm(self.hidden_norm, weights.contract, self.contract.bias),
        )


class SelfAttention(nn.Module):
    """Bias-free q, k, v projection, causal attention, a learned scale per head, output projection with bias.

    Differs: rows of the q, k, v projection are ordered (which of q, k, v; head; channel), where the original orders
    them (which; channel; head); `head_major_rows` and `channel_major_rows` convert weights, their u and gradients.
    The computed function is the same, and no copy is needed between projection and attention.
    """

    def __init__(self, config: TransformerConfig, attention: AttentionBackend) -> None:
        super().__init__()
        self.num_heads = config.num_heads
        self.attend = attention
        self.qkv = _projection(config, config.d_model, 3 * config.d_model, bias=False)
        self.head_scale = nn.Parameter(torch.ones(config.num_heads))
        self.output = _projection(config, config.d_model, config.d_model)

    def forward(
        self,
        x: Float[Tensor, "N D"],
        weights: LayerWeights,
        turn: tuple[Tensor, Tensor] | None,
        layout: SequenceLayout,
        window: int | None,
    ) -> Float[Tensor, "N D"]:
        """`[N, D]` to `[N, D]`."""
        q, k, v = functional.linear(x, weights.qkv).view(len(x), 3, self.num_heads, -1).unbind(1)
        if turn is not None:
            q, k = rotate(q, *turn).to(v.dtype), rotate(k, *turn).to(v.dtype)
        heads = self.attend(q, k, v, layout, window).flatten(1)
        return functional.linear(heads, self.scale_heads(weights.output), self.output.bias)

    def scale_heads(self, weight: Float[Tensor, "D D"]) -> Float[Tensor, "D D"]:
        """The output projection's weight with each head's scale on its columns: `[D, D]` is smaller than `[N, D]`."""
        return (weight.view(len(weight), self.num_heads, -1) * self.head_scale[:, None]).flatten(1)


def layer_weights(layers: nn.ModuleList) -> list[LayerWeights]:
    """What the projections of each of the Transformer's layers apply now."""
    projections: list[Projection] = []
    for layer in layers:
        assert isinstance(layer, TransformerLayer)
        projections += [layer.attention.qkv, layer.attention.output, layer.expand, layer.contract]
    reparametrised = [projection for projection in projections if isinstance(projection, SigmaReparamLinear)]
    if reparametrised:
        weights = reparametrised_weights(reparametrised)
    else:
        weights = tuple(projection.weight for projection in projections)
    return [LayerWeights(*weights[i : i + 4]) for i in range(0, len(weights), 4)]


def head_major_rows(rows: Float[Tensor, "3*D ..."], num_heads: int) -> Float[Tensor, "3*D ..."]:
    """Rows of a q, k, v projection (`[3 D, ...]`) from the original's order (which, channel, head) to ours."""
    return rows.reshape(3, -1, num_heads, *rows.shape[1:]).transpose(1, 2).flatten(0, 2)


def channel_major_rows(rows: Float[Tensor, "3*D ..."], num_heads: int) -> Float[Tensor, "3*D ..."]:
    """The inverse of `head_major_rows`."""
    return rows.reshape(3, num_heads, -1, *rows.shape[1:]).transpose(1, 2).flatten(0, 2)


def _projection(config: TransformerConfig, input_dim: int, output_dim: int, bias: bool = True) -> Projection:
    kind = SigmaReparamLinear if config.sigma_reparam else nn.Linear
    return kind(input_dim, output_dim, bias=bias)


def _build_positions(config: TransformerConfig, horizon: int | None) -> nn.Module | None:
    if config.positions == "sinusoidal":
        return SinusoidalPositions(config.d_model)
    if config.positions == "rotary":
        return None
    if config.max_time_index is None and horizon is None:
        raise ConfigError(
            "model.sequence_model.max_time_index: expected a number for learned positions in an environment "
            "without a known horizon, got null"
        )
    size = config.max_time_index if config.max_time_index is not None else (horizon or 0) + 1
    return LearnedPositions(size, config.d_model)
