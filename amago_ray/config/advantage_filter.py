"""Settings of the advantage filter: how strongly a transition is imitated."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated, Any, Literal

from amago_ray.config.ranges import FINITE, MODULE_ATTR, NON_NEGATIVE, POSITIVE


@dataclass(frozen=True, kw_only=True)
class BinaryFilterConfig:
    """Imitate what was better than the policy, all of it alike."""

    kind: Literal["binary"] = "binary"
    threshold: Annotated[float, FINITE] = 0.0
    """Advantage above which a transition is imitated."""


@dataclass(frozen=True, kw_only=True)
class ExponentialFilterConfig:
    """Imitate by the exponential of the advantage."""

    kind: Literal["exponential"] = "exponential"
    beta: Annotated[float, POSITIVE] = 1.0
    """Factor on the advantage, an inverse temperature."""
    advantage_low: Annotated[float, FINITE] | None = None
    """Lower clip of the advantage."""
    advantage_high: Annotated[float, FINITE] | None = 5.0
    """Upper clip of the advantage."""
    weight_low: Annotated[float, NON_NEGATIVE] | None = 1e-7
    """Lower clip of the weight."""
    weight_high: Annotated[float, POSITIVE] | None = None
    """Upper clip of the weight."""


@dataclass(frozen=True, kw_only=True)
class LeakyFilterConfig:
    """Imitate by a leaky ramp of the advantage."""

    kind: Literal["leaky"] = "leaky"
    scale: Annotated[float, POSITIVE] = 2.0
    """Advantage over which the ramp rises by one."""
    offset: Annotated[float, FINITE] = 0.01
    """Advantage at which the ramp has its knee."""
    slope: Annotated[float, NON_NEGATIVE] = 0.05
    """Slope of the ramp below its knee, relative to that above."""
    ramp_at_zero: Annotated[float, FINITE] = 0.01
    """The ramp at advantage zero."""
    ramp_low: Annotated[float, NON_NEGATIVE] | None = 1e-7
    """Lower clip of the ramp."""
    ramp_high: Annotated[float, POSITIVE] | None = 10.0
    """Upper clip of the ramp."""
    adds_binary: bool = True
    """Add 1 where the advantage is positive."""


@dataclass(frozen=True, kw_only=True)
class NoFilterConfig:
    """Imitate everything alike. Without online term this is plain behaviour cloning: critics are not trained, since
    nothing reads them.
    """

    kind: Literal["none"] = "none"


@dataclass(frozen=True, kw_only=True)
class CustomFilterConfig:
    """An advantage filter of one's own."""

    kind: Annotated[str, MODULE_ATTR]
    kwargs: dict[str, Any] = field(default_factory=dict)
    """Passed to it by name."""


AdvantageFilterConfig = (
    BinaryFilterConfig | ExponentialFilterConfig | LeakyFilterConfig | NoFilterConfig | CustomFilterConfig
)
