"""`TokenEmbedder`: instructions made of tokens, as a vector."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from amago_ray.config.model import TokensConfig
from amago_ray.data.specs import ObservationSpec
from amago_ray.errors import ConfigError

if TYPE_CHECKING:
    from jaxtyping import Float, Shaped

WHERE = "model.timestep_encoder.token_keys"


class TokenEmbedder(nn.Module):
    """Each token leaf by itself: embedding, a GRU over its tokens in order, linear, LayerNorm; leaves side by side.

    A leaf is "multi_discrete", or a box of integers between `token_low` and `token_high`, beyond which tokens are
    clamped. Of more than one axis, the last runs fastest: an instruction `[I, goal_dim]` is read goal after goal.

    Source: docs/algorithm.md §2.6; the token-goal embedding of AMAGO (arXiv 2310.09971), appendix on Crafter.
    Differs: the recurrent net is a GRU, where the original has a plain one.

    Raises:
        ConfigError: a leaf is not made of tokens.
    """

    def __init__(self, config: TokensConfig, leaves: Mapping[str, ObservationSpec]) -> None:
        super().__init__()
        self._ranges = {name: _token_range(config, name, leaf) for name, leaf in sorted(leaves.items())}
        self.embeddings = nn.ModuleList()
        self.rnns = nn.ModuleList()
        self.outputs = nn.ModuleList()
        self.output_norms = nn.ModuleList()
        for low, high in self._ranges.values():
            self.embeddings.append(nn.Embedding(high - low + 1, config.token_embedding_dim))
            self.rnns.append(nn.GRU(config.token_embedding_dim, config.token_hidden_dim, batch_first=True))
            self.outputs.append(nn.Linear(config.token_hidden_dim, config.token_output_dim))
            self.output_norms.append(nn.LayerNorm(config.token_output_dim))
        self.output_dim = len(self._ranges) * config.token_output_dim
        """Width of the result."""

    def forward(self, observations: Mapping[str, Shaped[Tensor, "N ..."]]) -> Float[Tensor, "N output_dim"]:
        """`[N, output_dim]` of the token leaves `[N, ...]` among `observations`."""
        columns = []
        parts = zip(self._ranges.items(), self.embeddings, self.rnns, self.outputs, self.output_norms, strict=True)
        for (name, (low, high)), embedding, rnn, output, norm in parts:
            tokens = observations[name].flatten(1).to(torch.int64).clamp(low, high) - low
            _, hidden = rnn(embedding(tokens))
            columns.append(norm(output(hidden[-1])))
        return torch.cat(columns, dim=-1)


def split_token_leaves(
    config: TokensConfig, leaves: Mapping[str, ObservationSpec]
) -> tuple[TokenEmbedder | None, dict[str, ObservationSpec]]:
    """The embedder of the leaves that `token_keys` names, None without any, and all other leaves.

    Raises:
        ConfigError: a key that is not among the leaves, or a leaf that is not made of tokens.
    """
    for key in config.token_keys:
        if key not in leaves:
            raise ConfigError(f'{WHERE}: expected keys among {", ".join(sorted(leaves))}, got "{key}"')
    tokens = {name: leaf for name, leaf in leaves.items() if name in config.token_keys}
    others = {name: leaf for name, leaf in leaves.items() if name not in tokens}
    return (TokenEmbedder(config, tokens) if tokens else None), others


def _token_range(config: TokensConfig, name: str, leaf: ObservationSpec) -> tuple[int, int]:
    """The smallest and the largest token of a leaf."""
    if math.prod(leaf.shape) < 1 or not leaf.shape:
        raise ConfigError(f'{WHERE}: expected leaves of several tokens, got "{name}" of shape {list(leaf.shape)}')
    if leaf.kind == "multi_discrete":
        return 0, max(leaf.num_categories) - 1
    if leaf.kind == "box" and not leaf.dtype.startswith("float") and leaf.dtype != "bool":
        if config.token_high is None:
            raise ConfigError(f'model.timestep_encoder.token_high: expected the largest token of "{name}", got null')
        return config.token_low, config.token_high
    raise ConfigError(
        f'{WHERE}: expected multi-discrete leaves or boxes of integers, got "{name}" ({leaf.kind}, {leaf.dtype})'
    )
