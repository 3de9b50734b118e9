"""What two right ways to compute the same may differ by."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

_FACTOR = 64
"""Orders of summation differ by less than so many roundings of the inputs; a wrong row by orders of magnitude more."""
_NUM_NUDGES = 3


def assert_equal_up_to_rounding(
    found: Tensor, function: Callable[..., Tensor], inputs: Sequence[Tensor], message: str
) -> None:
    """Assert that `found` is `function(*inputs)`, up to what rounding the floating inputs once more would change."""
    expected = function(*inputs)
    assert found.shape == expected.shape, f"{message}: expected shape {list(expected.shape)}, got {list(found.shape)}"
    generator = torch.Generator().manual_seed(0)
    nudged = [function(*(_nudged(value, generator) for value in inputs)) for _ in range(_NUM_NUDGES)]
    eps = torch.finfo(expected.dtype).eps
    noise = max(float((each - expected).abs().max()) for each in nudged)
    allowed = _FACTOR * max(noise, eps * float(expected.abs().max()))
    error = float((found - expected).abs().max())
    assert error <= allowed, f"{message}: off by {error:.3g}, where rounding explains {allowed:.3g}"


def _nudged(value: Tensor, generator: torch.Generator) -> Tensor:
    """The tensor with each number moved by up to one rounding."""
    if not value.is_floating_point():
        return value
    moves = 2 * torch.rand(value.shape, generator=generator).to(value) - 1
    return value * (1 + torch.finfo(value.dtype).eps * moves)
