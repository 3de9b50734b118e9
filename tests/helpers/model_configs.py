"""Settings of networks of any kind, of which those that the kind does not have are left out."""

from __future__ import annotations

from typing import Any

from amago_ray.config.hints import alternatives, hints_of
from amago_ray.config.kinds import class_of
from amago_ray.config.model import SequenceModelConfig, TimestepEncoderConfig


def sequence_config(kind: str = "transformer", **options: Any) -> SequenceModelConfig:
    """The sequence model's."""
    return _of(SequenceModelConfig, kind, options)


def encoder_config(kind: str = "auto", **options: Any) -> TimestepEncoderConfig:
    """The timestep encoder's."""
    return _of(TimestepEncoderConfig, kind, options)


def _of(family: Any, kind: str, options: dict[str, Any]) -> Any:
    chosen = class_of(alternatives(family), kind)
    assert chosen is not None, kind
    return chosen(**{name: value for name, value in options.items() if name in hints_of(chosen)}, kind=kind)
