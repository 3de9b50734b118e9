"""`MlpTimestepEncoder`: vectors and everything that flattens to them through a multilayer perceptron."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from amago_ray.config.model import VectorsConfig
from amago_ray.data.specs import EnvSpec, ObservationSpec
from amago_ray.nets.contracts import TimestepEncoder
from amago_ray.nets.encoders.input_norm import InputNorm
from amago_ray.nets.encoders.token_embedder import split_token_leaves
from amago_ray.nets.folding import fold_mlp, mlp_layers, norm_weights
from amago_ray.nets.mlp import Mlp
from amago_ray.nets.tokens import TokenColumns, TokenFeatures


class MlpTimestepEncoder(TimestepEncoder):
    """Flat features → InputNorm, embedded token leaves beside them → MLP → LayerNorm."""

    def __init__(self, config: VectorsConfig, leaves: dict[str, ObservationSpec], spec: EnvSpec) -> None:
        super().__init__()
        self.token_embedder, others = split_token_leaves(config, leaves)
        self.features = TokenFeatures(others, spec.action)
        self.input_norm = InputNorm(self.features.num_features) if config.normalize_inputs else None
        width = self.features.num_features + (0 if self.token_embedder is None else self.token_embedder.output_dim)
        self.mlp = Mlp(width, config.hidden_dim, config.num_layers, config.output_dim)
        self.output_norm = nn.LayerNorm(config.output_dim)
        self.output_dim = config.output_dim

    def forward(self, tokens: TokenColumns, weight: Tensor | None = None) -> Tensor:
        """See `TimestepEncoder`."""
        x = self.features(tokens)
        if self.input_norm is not None:
            x = self.input_norm(x, weight)
        if self.token_embedder is not None:
            x = torch.cat((x, self.token_embedder(tokens.observations)), dim=-1)
        output: Tensor = self.output_norm(self.mlp(x))
        return output

    @torch.no_grad()
    def fold(self) -> Callable[[TokenColumns], Tensor]:
        """See `TimestepEncoder`.

        Of an `InputNorm` only the division goes into the first layer: folding the mean too would cancel digits where a
        feature's mean is large against its deviation, and the clamp needs the centred value.
        """
        if self.input_norm is None or self.token_embedder is not None:
            return super().fold()
        features = self.features
        mean, divisor, limit = (x.clone() for x in self.input_norm.affine())
        (weight, bias), *rest = mlp_layers(self.mlp)
        mlp = fold_mlp([(weight / divisor, bias), *rest], norm_weights(self.output_norm))

        def encode(tokens: TokenColumns) -> Tensor:
            return mlp(torch.clamp(features(tokens).sub_(mean), -limit, limit))

        return encode
