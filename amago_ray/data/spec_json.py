"""`EnvSpec` as JSON, so that a policy can be rebuilt without its environment."""

from __future__ import annotations

import dataclasses
import json
from typing import Any

from amago_ray.data.goal_rule import GoalRule
from amago_ray.data.specs import ActionSpec, EnvSpec, ObservationSpec
from amago_ray.errors import DataError

SPEC_VERSION = 2
"""Raised whenever fields change their meaning. Version 1, which has no `version`, knew only how values are stored."""


def spec_to_json(spec: EnvSpec) -> str:
    """The spec as a JSON object."""
    return json.dumps({"version": SPEC_VERSION, **dataclasses.asdict(spec)}, indent=1)


def spec_from_json(text: str) -> EnvSpec:
    """The inverse of `spec_to_json`; reads all versions up to its own.

    Raises:
        DataError: the text is not one.
    """
    try:
        plain = json.loads(text)
        version = plain.pop("version", 1)
        if version not in range(1, SPEC_VERSION + 1):
            raise ValueError(f"version: expected at most {SPEC_VERSION}, got {version!r}")
        # What version 1 did not know: from which numbers the environment counts.
        known: dict[str, Any] = {"start": None} if version == 1 else {}
        rule = plain.pop("goal_rule")
        action = _tuples(plain.pop("action"))
        observations = plain.pop("observations")
        return EnvSpec(
            **plain,
            action=ActionSpec(**action, **known),
            observations={name: ObservationSpec(**_tuples(leaf), **known) for name, leaf in observations.items()},
            goal_rule=None if rule is None else GoalRule(**rule),
        )
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise DataError(f"expected an environment's spec as JSON: {error}") from error


def _tuples(fields: dict[str, Any]) -> dict[str, Any]:
    return {name: tuple(value) if isinstance(value, list) else value for name, value in fields.items()}
