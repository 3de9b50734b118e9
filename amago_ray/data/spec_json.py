"""`EnvSpec` as JSON, so that a policy can be rebuilt without its environment."""

from __future__ import annotations

import dataclasses
import json
from typing import Any

from amago_ray.data.goal_rule import GoalRule
from amago_ray.data.specs import ActionSpec, EnvSpec, ObservationSpec
from amago_ray.errors import DataError


def spec_to_json(spec: EnvSpec) -> str:
    """The spec as a JSON object."""
    return json.dumps(dataclasses.asdict(spec), indent=1)


def spec_from_json(text: str) -> EnvSpec:
    """The inverse of `spec_to_json`.

    Raises: DataError if the text is not one.
    """
    try:
        plain = json.loads(text)
        rule = plain.pop("goal_rule")
        action = _tuples(plain.pop("action"))
        observations = plain.pop("observations")
        return EnvSpec(
            **plain,
            action=ActionSpec(**action),
            observations={name: ObservationSpec(**_tuples(leaf)) for name, leaf in observations.items()},
            goal_rule=None if rule is None else GoalRule(**rule),
        )
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise DataError(f"expected an environment's spec as JSON: {error}") from error


def _tuples(fields: dict[str, Any]) -> dict[str, Any]:
    return {name: tuple(value) if isinstance(value, list) else value for name, value in fields.items()}
