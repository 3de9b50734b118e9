"""What every `TimestepEncoder` must do."""

from __future__ import annotations

import copy
import dataclasses

import numpy as np
import torch
from torch import Tensor

from amago_ray.data.specs import ActionSpec, EnvSpec, ObservationSpec
from amago_ray.nets.contracts import TimestepEncoder
from amago_ray.nets.tokens import TokenColumns
from amago_ray.testing.rounding import assert_equal_up_to_rounding

_NUM_ROWS = 12
_COUNTED = 8


def check_timestep_encoder(encoder: TimestepEncoder, spec: EnvSpec) -> None:
    """Run all checks on an encoder of the rows of an environment; it is left in eval mode, otherwise as it was.

    The shape of the result; nothing random in eval mode; each row depends on its own token alone; tokens stay as they
    are; rows of weight zero stay out of running statistics; and `fold` gives what acting may call instead.

    Raises:
        AssertionError: one does not hold.
    """
    encoder.eval()
    tokens = _draw_tokens(spec, seed=0)
    others = _draw_tokens(spec, seed=1)
    with torch.no_grad():
        _check_rows(encoder, tokens, others)
        _check_statistics(encoder, tokens, others)
        _check_fold(encoder, tokens)


def _check_rows(encoder: TimestepEncoder, tokens: TokenColumns, others: TokenColumns) -> None:
    kept = copy.deepcopy(tokens)
    output = encoder(tokens)
    for name, before in _columns(kept).items():
        assert torch.equal(before, _columns(tokens)[name]), f"forward changed the column {name} that it was given"
    expected = [_NUM_ROWS, encoder.output_dim]
    assert list(output.shape) == expected, f"forward: expected shape {expected}, got {list(output.shape)}"
    assert output.isfinite().all(), "forward: expected finite numbers, got NaN or infinity"
    assert torch.equal(encoder(tokens), output), "in eval mode two equal calls gave different results"
    for row in range(_NUM_ROWS):
        after = encoder(_mixed(tokens, others, torch.arange(_NUM_ROWS) == row))[row]
        assert torch.equal(after, output[row]), f"row {row} of {_NUM_ROWS} depends on other rows"


def _check_statistics(encoder: TimestepEncoder, tokens: TokenColumns, others: TokenColumns) -> None:
    counts = torch.arange(_NUM_ROWS) < _COUNTED
    found = []
    for each in (tokens, _mixed(tokens, others, counts)):
        trained = copy.deepcopy(encoder).train()
        # What is random in training is no statistic.
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            trained(each, counts.float())
        found.append(dict(trained.named_buffers()))
    for name, buffer in found[0].items():
        assert torch.equal(buffer, found[1][name]), f"rows of weight zero count in the running statistic {name}"


def _check_fold(encoder: TimestepEncoder, tokens: TokenColumns) -> None:
    folded = encoder.fold()(tokens)
    names = [name for name, leaf in tokens.observations.items() if leaf.is_floating_point()]

    def forward(reward: Tensor, *leaves: Tensor) -> Tensor:
        observations = {**tokens.observations, **dict(zip(names, leaves, strict=True))}
        output: Tensor = encoder(dataclasses.replace(tokens, prev_reward=reward, observations=observations))
        return output

    inputs = [tokens.prev_reward, *(tokens.observations[name] for name in names)]
    assert_equal_up_to_rounding(folded, forward, inputs, "the folded encoder is not the encoder in eval mode")


def _draw_tokens(spec: EnvSpec, seed: int) -> TokenColumns:
    rng = np.random.default_rng(seed)
    mask = rng.random((_NUM_ROWS, spec.action.mask_size)) < 0.5 if spec.has_action_mask else None
    return TokenColumns(
        {name: torch.from_numpy(_draw(leaf, rng)) for name, leaf in spec.observations.items()},
        torch.from_numpy(_draw(spec.action, rng)),
        torch.from_numpy(rng.normal(size=_NUM_ROWS).astype(np.float32)),
        torch.arange(_NUM_ROWS) % 5,
        None if mask is None else torch.from_numpy(mask),
    )


def _draw(spec: ObservationSpec | ActionSpec, rng: np.random.Generator) -> np.ndarray:
    """Rows of a leaf or action, as stored."""
    shape = (_NUM_ROWS, *spec.shape)
    if spec.num_categories:
        values = rng.integers(spec.num_categories, size=(_NUM_ROWS, len(spec.num_categories)))
        return values.reshape(shape).astype(spec.dtype)
    if np.dtype(spec.dtype).kind == "f":
        return rng.uniform(-1, 1, shape).astype(spec.dtype)
    highest = 2 if spec.kind == "multi_binary" or spec.dtype == "bool" else 100
    return rng.integers(highest, size=shape).astype(spec.dtype)


def _mixed(one: TokenColumns, other: TokenColumns, takes_one: Tensor) -> TokenColumns:
    """Rows of `one` where `takes_one [N]`, of `other` elsewhere."""

    def mix(mine: Tensor, theirs: Tensor) -> Tensor:
        return torch.where(takes_one.view(-1, *[1] * (mine.dim() - 1)), mine, theirs)

    return TokenColumns(
        {name: mix(leaf, other.observations[name]) for name, leaf in one.observations.items()},
        mix(one.prev_action, other.prev_action),
        mix(one.prev_reward, other.prev_reward),
        mix(one.time_index, other.time_index),
        None if one.action_mask is None or other.action_mask is None else mix(one.action_mask, other.action_mask),
    )


def _columns(tokens: TokenColumns) -> dict[str, Tensor]:
    columns = {"prev_action": tokens.prev_action, "prev_reward": tokens.prev_reward, "time_index": tokens.time_index}
    return {**tokens.observations, **columns}
