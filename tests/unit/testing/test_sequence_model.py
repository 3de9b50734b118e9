"""The checks of `SequenceModel`: everything of ours passes them, and they find what is broken."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from helpers.custom_parts import DecayingSum, RunningSum, RunningSumDecoder, Sums
from helpers.model_configs import sequence_config
from torch import Tensor, nn

from amago_ray.config.model import CustomSequenceModelConfig
from amago_ray.nets.layout import SequenceLayout
from amago_ray.nets.sequence.make import build_sequence_model
from amago_ray.testing import check_sequence_model

CONFIG = CustomSequenceModelConfig(kind="helpers.custom_parts:DecayingSum", d_model=8)
SMALL: dict[str, Any] = {
    "d_model": 16,
    "num_layers": 2,
    "num_heads": 4,
    "d_ff": 24,
    "context_length": 8,
    "dropout": 0.1,
}
OURS: dict[str, dict[str, Any]] = {
    "sinusoidal": {},
    "learned": {"positions": "learned"},
    "rotary": {"positions": "rotary"},
    "gru": {"kind": "gru"},
    "feed_forward": {"kind": "feed_forward"},
}


@pytest.fixture(autouse=True)
def seed() -> None:
    torch.manual_seed(0)


@pytest.mark.parametrize("options", OURS.values(), ids=OURS.keys())
@pytest.mark.numeric
def test_every_model_of_ours_passes(options: dict[str, Any]) -> None:
    check_sequence_model(build_sequence_model(sequence_config(**{**SMALL, **options}), 10, horizon=50), 10)


@pytest.mark.parametrize("kind", [DecayingSum, RunningSum])
@pytest.mark.numeric
def test_the_examples_pass(kind: type[DecayingSum]) -> None:
    check_sequence_model(kind(CONFIG, 6, None, decay=0.7), 6)


class OtherWidth(DecayingSum):
    def forward(self, x: Tensor, time_index: Tensor, layout: SequenceLayout) -> Tensor:
        return super().forward(x, time_index, layout)[:, :-1]


class InPlace(DecayingSum):
    def forward(self, x: Tensor, time_index: Tensor, layout: SequenceLayout) -> Tensor:
        return super().forward(x.mul_(2), time_index, layout)


class Dropping(DecayingSum):
    def forward(self, x: Tensor, time_index: Tensor, layout: SequenceLayout) -> Tensor:
        return nn.functional.dropout(super().forward(x, time_index, layout), 0.1, training=True)


class Clairvoyant(DecayingSum):
    def forward(self, x: Tensor, time_index: Tensor, layout: SequenceLayout) -> Tensor:
        return super().forward(x + 0.01 * x.roll(-1, 0), time_index, layout)


class Leaking(DecayingSum):
    def sums(self, x: Tensor, layout: SequenceLayout) -> Tensor:
        return super().sums(x, SequenceLayout.from_lengths([layout.num_tokens]))


class ByRow(DecayingSum):
    """Counts rows of the batch where it should count those of a sequence."""

    def forward(self, x: Tensor, time_index: Tensor, layout: SequenceLayout) -> Tensor:
        return super().forward(x, time_index, layout) + 0.01 * torch.arange(len(x))[:, None]


class NeverReset(RunningSum):
    def make_decoder(self, context_length: int, cache_dtype: torch.dtype = torch.float32) -> RunningSumDecoder:
        class State(Sums):
            def reset(self, indices: np.ndarray) -> None:
                pass

        class Decoder(RunningSumDecoder):
            def initial_state(self, batch_size: int) -> Sums:
                return State(super().initial_state(batch_size).values)

        return Decoder(self.eval())


class NeverRebuilt(RunningSum):
    def make_decoder(self, context_length: int, cache_dtype: torch.dtype = torch.float32) -> RunningSumDecoder:
        class Decoder(RunningSumDecoder):
            def rebuild(self, x: Any, time_index: Any, layout: Any, indices: Any, state: Sums) -> None:
                state.values[indices] = 0

        return Decoder(self.eval())


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        (OtherWidth, r"forward: expected shape \[15, 8\], got \[15, 7\]"),
        (InPlace, "forward changed the vectors that it was given"),
        (Dropping, "in eval mode two equal calls gave different results"),
        (Clairvoyant, "row 0 of a sequence of 4 depends on later rows or on other sequences"),
        (Leaking, "row 0 of a sequence of 1 depends on later rows or on other sequences"),
        (ByRow, "packed among others is not what it is alone"),
        (NeverReset, "a decoder's steps after a reset are not the rows of the full forward"),
        (NeverRebuilt, "a decoder's steps around a rebuild are not the rows of the full forward"),
    ],
)
def test_what_breaks_the_contract_is_said(kind: type[DecayingSum], message: str) -> None:
    with pytest.raises(AssertionError, match=message):
        check_sequence_model(kind(CONFIG, 6, None), 6)


def test_a_decoder_that_goes_on_from_another_forward_is_said() -> None:
    class Stale(RunningSum):
        def make_decoder(self, context_length: int, cache_dtype: torch.dtype = torch.float32) -> RunningSumDecoder:
            return RunningSumDecoder(RunningSum(CONFIG, 6, None).eval())

    with pytest.raises(AssertionError, match="a decoder's steps are not the rows of the full forward: off by"):
        check_sequence_model(Stale(CONFIG, 6, None), 6)
