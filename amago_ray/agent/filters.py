"""Advantage filters: how strongly a transition is imitated."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import torch
from torch import Tensor
from torch.nn import functional

from amago_ray.config.advantage_filter import (
    AdvantageFilterConfig,
    BinaryFilterConfig,
    ExponentialFilterConfig,
    LeakyFilterConfig,
    NoFilterConfig,
)
from amago_ray.config.kinds import Registry
from amago_ray.errors import ConfigError

if TYPE_CHECKING:
    from jaxtyping import Float

_WHERE = "agent.advantage_filter.kind"


class AdvantageFilter(Protocol):
    """f(A), the weight of a transition in the behaviour-cloning term.

    A custom one is named `module:attr` in `agent.advantage_filter.kind`, where `attr` is called with
    `(config: CustomFilterConfig, **config.kwargs)`. No gradient passes through a filter.
    """

    def __call__(self, advantage: Float[Tensor, "R G"]) -> Float[Tensor, "R G"]:
        """Weights of transitions from their advantages, which are in the units of the critics' raw outputs."""
        ...


@dataclass(frozen=True)
class BinaryFilter:
    """1 where the advantage is above the threshold, else 0.

    Source: docs/algorithm.md §7.4; Wang et al. 2020 (arXiv 2006.15134), equation 4.
    """

    config: BinaryFilterConfig

    def __call__(self, advantage: Float[Tensor, "R G"]) -> Float[Tensor, "R G"]:
        """See `AdvantageFilter`."""
        return (advantage > self.config.threshold).to(advantage.dtype)


@dataclass(frozen=True)
class ExponentialFilter:
    """exp(beta * A), advantage and weight clipped.

    Source: docs/algorithm.md §7.4; Peng et al. 2019 (arXiv 1910.00177), equation 9, with clipping.
    """

    config: ExponentialFilterConfig

    def __call__(self, advantage: Float[Tensor, "R G"]) -> Float[Tensor, "R G"]:
        """See `AdvantageFilter`."""
        config = self.config
        weight = torch.exp(config.beta * _clip(advantage, config.advantage_low, config.advantage_high))
        return _clip(weight, config.weight_low, config.weight_high)


@dataclass(frozen=True)
class LeakyFilter:
    """A leaky ramp that passes through `ramp_at_zero` at A = 0, plus the binary filter.

    Source: docs/algorithm.md §7.4.
    """

    config: LeakyFilterConfig

    def __call__(self, advantage: Float[Tensor, "R G"]) -> Float[Tensor, "R G"]:
        """See `AdvantageFilter`."""
        config = self.config
        base = config.ramp_at_zero + config.slope * config.offset / config.scale
        ramp = base + functional.leaky_relu((advantage - config.offset) / config.scale, config.slope)
        ramp = _clip(ramp, config.ramp_low, config.ramp_high)
        return ramp + (advantage > 0) if config.adds_binary else ramp


@dataclass(frozen=True)
class NoFilter:
    """1 everywhere."""

    config: NoFilterConfig

    def __call__(self, advantage: Float[Tensor, "R G"]) -> Float[Tensor, "R G"]:
        """See `AdvantageFilter`."""
        return torch.ones_like(advantage)


ADVANTAGE_FILTERS: Registry[AdvantageFilter] = Registry(
    _WHERE,
    {
        BinaryFilterConfig: BinaryFilter,
        ExponentialFilterConfig: ExponentialFilter,
        LeakyFilterConfig: LeakyFilter,
        NoFilterConfig: NoFilter,
    },
)


def make_filter(config: AdvantageFilterConfig) -> AdvantageFilter:
    """The filter that `config` asks for.

    Raises:
        ConfigError: one of the user's own cannot be made, or is none.
    """
    made = ADVANTAGE_FILTERS.make(config)
    if not callable(made):
        raise ConfigError(f'{_WHERE}: expected "{config.kind}" to make a function of advantages, got {made!r}')
    return made


def _clip(x: Float[Tensor, "R G"], low: float | None, high: float | None) -> Float[Tensor, "R G"]:
    return x if low is None and high is None else x.clamp(low, high)
