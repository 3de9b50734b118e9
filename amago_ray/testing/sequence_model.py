"""What every `SequenceModel` must do."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from amago_ray.nets.contracts import SequenceModel
from amago_ray.nets.layout import SequenceLayout
from amago_ray.testing.rounding import assert_equal_up_to_rounding

_LENGTHS = (4, 1, 6, 4)
_NUM_EPISODES, _NUM_STEPS = 3, 6


def check_sequence_model(model: SequenceModel, input_dim: int) -> None:
    """Run all checks on a model over vectors of width `input_dim`, which knows episodes of at least six rows.

    In eval mode, in which the model is left: the shape of the result; nothing random; each row depends on rows of its
    own sequence up to itself alone; packed sequences equal each alone; inputs stay as they are; and the decoder, step
    by step, after a reset and after a rebuild, equals the full forward.

    Raises:
        AssertionError: one does not hold.
    """
    model.eval()
    with torch.no_grad():
        _check_forward(model, input_dim)
        _check_packing(model, input_dim)
        _check_decoder(model, input_dim)


def _check_forward(model: SequenceModel, input_dim: int) -> None:
    x, time_index, layout = _packed(input_dim)
    kept = x.clone(), time_index.clone()
    output = model(x, time_index, layout)
    assert torch.equal(x, kept[0]), "forward changed the vectors that it was given"
    assert torch.equal(time_index, kept[1]), "forward changed the time indices that it was given"
    expected = (layout.num_tokens, model.output_dim)
    assert tuple(output.shape) == expected, f"forward: expected shape {list(expected)}, got {list(output.shape)}"
    assert torch.equal(model(x, time_index, layout), output), "in eval mode two equal calls gave different results"
    for start, length in zip(layout.starts.tolist(), layout.lengths, strict=True):
        for row in range(start, start + length):
            others = torch.ones(layout.num_tokens, dtype=torch.bool)
            others[start : row + 1] = False
            changed = torch.where(others[:, None], x.flip(0) + 1, x)
            after = model(changed, time_index, layout)[row]
            assert torch.equal(after, output[row]), (
                f"row {row - start} of a sequence of {length} depends on later rows or on other sequences"
            )


def _check_packing(model: SequenceModel, input_dim: int) -> None:
    x, time_index, layout = _packed(input_dim)
    output = model(x, time_index, layout)
    for start, length in zip(layout.starts.tolist(), layout.lengths, strict=True):
        rows = slice(start, start + length)
        alone = SequenceLayout.from_lengths([length])
        assert_equal_up_to_rounding(
            output[rows],
            lambda one, rows=rows, alone=alone: model(one, time_index[rows], alone),
            [x[rows]],
            f"a sequence of {length} packed among others is not what it is alone",
        )


def _check_decoder(model: SequenceModel, input_dim: int) -> None:
    """Three episodes of six steps; the second is reset after two of them, the third's state is rebuilt after four."""
    x = _vectors((_NUM_STEPS, _NUM_EPISODES, input_dim))
    time_index = torch.arange(_NUM_STEPS)[:, None].repeat(1, _NUM_EPISODES)
    decoder = model.make_decoder(_NUM_STEPS)
    state = decoder.initial_state(_NUM_EPISODES)
    reset, rebuilt = np.array([1]), np.array([2])
    steps = []
    for step in range(_NUM_STEPS):
        if step == 2:
            state.reset(reset)
            time_index[step:, 1] -= step
        if step == 4:
            past = SequenceLayout.from_lengths([step])
            decoder.rebuild(x[:step, 2].contiguous(), torch.arange(step), past, rebuilt, state)
        steps.append(decoder.step(x[step], time_index[step], state).clone())
    rows = torch.stack(steps)
    parts = {
        "a decoder's steps": (rows[:, 0], x[:, 0]),
        "a decoder's steps before a reset": (rows[:2, 1], x[:2, 1]),
        "a decoder's steps after a reset": (rows[2:, 1], x[2:, 1]),
        "a decoder's steps around a rebuild": (rows[:, 2], x[:, 2]),
    }
    for name, (found, vectors) in parts.items():
        layout = SequenceLayout.from_lengths([len(vectors)])
        assert_equal_up_to_rounding(
            found,
            lambda one, layout=layout: model(one, torch.arange(len(one)), layout),
            [vectors.contiguous()],
            f"{name} are not the rows of the full forward",
        )


def _packed(input_dim: int) -> tuple[Tensor, Tensor, SequenceLayout]:
    layout = SequenceLayout.from_lengths(_LENGTHS)
    return _vectors((layout.num_tokens, input_dim)), torch.cat([torch.arange(length) for length in _LENGTHS]), layout


def _vectors(shape: tuple[int, ...]) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(0))
