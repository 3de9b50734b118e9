"""The checks of `TimestepEncoder`: everything of ours passes them, and they find what is broken."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from helpers.custom_parts import Linear
from helpers.model_configs import encoder_config
from torch import Tensor, nn

from amago_ray.config.model import CustomEncoderConfig
from amago_ray.data.specs import ActionSpec, EnvSpec, ObservationSpec
from amago_ray.nets.encoders.make import build_timestep_encoder
from amago_ray.nets.tokens import TokenColumns
from amago_ray.testing import check_timestep_encoder

CONFIG = CustomEncoderConfig(kind="helpers.custom_parts:Linear", output_dim=8)
BOX = ObservationSpec("box", (3,), "float32")
LEAVES = {
    "card": ObservationSpec("discrete", (), "int64", (4,)),
    "observation": BOX,
    "pair": ObservationSpec("multi_discrete", (2,), "int64", (2, 3)),
    "switches": ObservationSpec("multi_binary", (2, 2), "int8"),
}
PLAIN = EnvSpec("plain", {"observation": BOX}, ActionSpec("discrete", (), (5,)))
MIXED = EnvSpec("mixed", LEAVES, ActionSpec("box", (2,)), has_action_mask=False)
PIXELS = EnvSpec(
    "pixels",
    {"camera": ObservationSpec("box", (3, 12, 12), "uint8"), **LEAVES},
    ActionSpec("multi_discrete", (2,), (2, 3)),
    has_action_mask=True,
)


@pytest.fixture(autouse=True)
def seed() -> None:
    torch.manual_seed(0)


@pytest.mark.parametrize("spec", [PLAIN, MIXED, PIXELS], ids=lambda spec: spec.name)
@pytest.mark.parametrize("options", [{}, {"normalize_inputs": False}, {"token_keys": ("pair",)}], ids=str)
@pytest.mark.numeric
def test_every_encoder_of_ours_passes(spec: EnvSpec, options: dict[str, Any]) -> None:
    if not set(options.get("token_keys", ())) <= set(spec.observations):
        options = {}
    config = encoder_config(hidden_dim=16, output_dim=8, **options)
    check_timestep_encoder(build_timestep_encoder(config, spec), spec)


def test_the_example_passes() -> None:
    check_timestep_encoder(Linear(CONFIG, PLAIN), PLAIN)


class OtherWidth(Linear):
    def forward(self, tokens: TokenColumns, weight: Tensor | None = None) -> Tensor:
        return super().forward(tokens, weight)[:, :3]


class InPlace(Linear):
    def forward(self, tokens: TokenColumns, weight: Tensor | None = None) -> Tensor:
        tokens.observations["observation"].mul_(2)
        return super().forward(tokens, weight)


class Dropping(Linear):
    def forward(self, tokens: TokenColumns, weight: Tensor | None = None) -> Tensor:
        return nn.functional.dropout(super().forward(tokens, weight), 0.3, training=True)


class Centring(Linear):
    def forward(self, tokens: TokenColumns, weight: Tensor | None = None) -> Tensor:
        output = super().forward(tokens, weight)
        return output - output.mean(0)


class Infinite(Linear):
    def forward(self, tokens: TokenColumns, weight: Tensor | None = None) -> Tensor:
        return super().forward(tokens, weight) / 0


class Counting(Linear):
    def __init__(self, config: CustomEncoderConfig, spec: EnvSpec) -> None:
        super().__init__(config, spec)
        self.register_buffer("mean", torch.zeros(3))

    def forward(self, tokens: TokenColumns, weight: Tensor | None = None) -> Tensor:
        if self.training:
            self.mean += tokens.observations["observation"].mean(0)
        return super().forward(tokens, weight)


class OtherFold(Linear):
    def fold(self) -> Callable[[TokenColumns], Tensor]:
        return lambda tokens: self(replace(tokens, prev_reward=tokens.prev_reward * 0.999))


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        (OtherWidth, r"forward: expected shape \[12, 8\], got \[12, 3\]"),
        (InPlace, "forward changed the column observation that it was given"),
        (Dropping, "in eval mode two equal calls gave different results"),
        (Infinite, "forward: expected finite numbers"),
        (Centring, "row 0 of 12 depends on other rows"),
        (Counting, "rows of weight zero count in the running statistic mean"),
        (OtherFold, "the folded encoder is not the encoder in eval mode: off by"),
    ],
)
def test_what_breaks_the_contract_is_said(kind: type[Linear], message: str) -> None:
    with pytest.raises(AssertionError, match=message):
        check_timestep_encoder(kind(CONFIG, PLAIN), PLAIN)
