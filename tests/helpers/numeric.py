"""How exact a result must be, without a constant found by trying: such a constant holds on one CPU only.

Another CPU sums in another order and has another exponential. What is right on all of them: compared with float64, our
error is no more than a small factor of the error that torch's plain operations make in the same precision. Where an
exact value is known beforehand and operations can be counted, it is off by so many roundings.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import fields, is_dataclass, replace
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

FACTOR = 8.0
"""Largest errors of two correct ways to round differ by less; those of a wrong formula by orders of magnitude."""
SIGMAS = 5.0
"""A share or mean of random draws is further off once in two million."""

Module = TypeVar("Module", bound=nn.Module)
Values = Tensor | np.ndarray | float | Sequence[Any] | Mapping[str, Any]


def assert_as_exact_as(ours: Values, *plain: Values, reference: Values, factor: float = FACTOR) -> None:
    """max|ours - reference| <= factor * max(max|plain - reference|, eps * max|reference|).

    plain: the same by torch's own operations in the precision of `ours`; where rounding is blown up in few places,
    several times, from inputs that `nudged` moved. reference: in float64. All of one form: a tensor, a sequence that is
    compared as a whole, or tensors by name, each with an error of its own. eps, one rounding of the largest number, is
    that of `ours`: plain may be exact by luck.
    """
    found, exact = _named(ours), _named(reference)
    theirs = [_named(each) for each in plain]
    largest = max((float(value.abs().max()) for value in exact.values() if value.numel()), default=0.0)
    failures = []
    for each in theirs:
        assert each.keys() == found.keys() == exact.keys()
    for name, value in exact.items():
        assert value.dtype == torch.float64, f"{name}: a reference in {value.dtype} is none"
        for each in (found, *theirs):
            assert each[name].shape == value.shape, f"{name}: shape {list(each[name].shape)}, not {list(value.shape)}"
        error, allowed = _error(found[name], value), max(_error(each[name], value) for each in theirs)
        limit = factor * max(allowed, torch.finfo(found[name].dtype).eps * largest)
        if not error <= limit:
            failures.append(
                f"{name}: off by {error:.3g}, allowed {limit:.3g} (plain by {allowed:.3g} of {largest:.3g})"
            )
    assert not failures, "\n".join(failures)


def nudged(x: Tensor, seed: int, dtype: torch.dtype | None = None) -> Tensor:
    """`x` with every entry moved by up to one rounding of `dtype`, by default its own."""
    generator = torch.Generator().manual_seed(seed)
    moves = 2 * torch.rand(x.shape, generator=generator, dtype=x.dtype) - 1
    return x * (1 + torch.finfo(dtype or x.dtype).eps * moves)


def assert_rounded(found: Values, exact: Values, *, roundings: int, magnitude: float | None = None) -> None:
    """|found - exact| <= roundings * eps * magnitude.

    roundings: operations on the way, each of which is off by at most one eps (an exponential or logarithm counts as
    four). magnitude: the largest number met there, by default the largest entry of `exact`.
    """
    (value,), (expected,) = _named(found).values(), _named(exact).values()
    expected = expected.double().expand(value.shape)
    size = float(expected.abs().max()) if magnitude is None else magnitude
    error, limit = _error(value, expected), roundings * torch.finfo(value.dtype).eps * size
    assert error <= limit, f"off by {error:.3g}, allowed {limit:.3g}: {value} is not {expected}"


def assert_share(found: float, probability: float, num_draws: int) -> None:
    """A share of independent draws is as likely as it should be."""
    assert_mean(found, probability, math.sqrt(probability * (1 - probability)), num_draws)


def assert_mean(found: float, mean: float, std: float, num_draws: int) -> None:
    """A mean of independent draws lies within `SIGMAS` of its own deviations."""
    assert abs(found - mean) <= SIGMAS * std / math.sqrt(num_draws), f"{found} of {num_draws} draws, expected {mean}"


def with_nudged_weights(module: Module, seed: int) -> Module:
    """A copy whose weights are off by as much as bfloat16 rounds them."""
    module = copy.deepcopy(module)
    with torch.no_grad():
        for number, parameter in enumerate(module.parameters()):
            parameter.copy_(nudged(parameter, 100 * seed + number, torch.bfloat16))
    return module


@contextmanager
def float64() -> Iterator[None]:
    """Inside, whatever asks for float32 gets float64: the package's own code as its reference."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    try:
        with _Float64():
            yield
    finally:
        torch.set_default_dtype(before)


def as_float64(value: Any) -> Any:
    """A copy in which every float32 tensor or array is float64, in modules, dataclasses, mappings and sequences too."""
    if isinstance(value, nn.Module):
        return copy.deepcopy(value).double()
    if isinstance(value, Tensor):
        return value.detach().clone().double() if value.is_floating_point() else value
    if isinstance(value, np.ndarray):
        return value.astype(np.float64) if np.issubdtype(value.dtype, np.floating) else value
    if is_dataclass(value) and not isinstance(value, type):
        return replace(value, **{field.name: as_float64(getattr(value, field.name)) for field in fields(value)})
    if isinstance(value, Mapping):
        return {name: as_float64(part) for name, part in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(as_float64(part) for part in value)
    return value


class _Float64(TorchFunctionMode):
    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        func = torch.Tensor.double if func is torch.Tensor.float else func
        args = tuple(torch.float64 if value is torch.float32 else value for value in args)
        kwargs = {name: torch.float64 if value is torch.float32 else value for name, value in (kwargs or {}).items()}
        return func(*args, **kwargs)


def _named(values: Values) -> dict[str, Tensor]:
    if isinstance(values, Mapping):
        return {name: _tensor(value) for name, value in values.items()}
    return {"result": _tensor(values)}


def _tensor(values: Any) -> Tensor:
    if isinstance(values, Tensor):
        return values.detach()
    if isinstance(values, list | tuple) and values and isinstance(values[0], Tensor | np.ndarray):
        return torch.cat([_tensor(value).flatten() for value in values])
    return torch.as_tensor(np.asarray(values))


def _error(found: Tensor, exact: Tensor) -> float:
    """The largest deviation; NaN where either has one, which no limit allows."""
    return float((found.double() - exact).abs().max()) if exact.numel() else 0.0
