"""From settings to a relabeler."""

from __future__ import annotations

import numpy as np

from amago_ray.config.module_attr import load_module_attr
from amago_ray.config.replay import RelabelConfig
from amago_ray.data.goal_rule import GoalRule
from amago_ray.data.specs import EnvSpec
from amago_ray.errors import ConfigError
from amago_ray.relabel.hindsight import DESIRED_GOAL
from amago_ray.relabel.relabeler import NoRelabeler, Relabeler


def make_relabeler(config: RelabelConfig, spec: EnvSpec) -> Relabeler:
    """The relabeler that `config` asks for, made for episodes of `spec`.

    Raises:
        ConfigError: the environment does not fit it, or a custom one cannot be made.
    """
    if config.kind == "none":
        return NoRelabeler()
    if config.kind == "instruction":
        from amago_ray.relabel.instruction import InstructionRelabeler

        rule, num_goals = _require_goals(config.kind, spec)
        if rule.persistent:
            raise ConfigError(f"relabel.kind: goals of {spec.name} never complete: expected 'her', found 'instruction'")
        if config.weighting != "uniform" and rule.match != "equal":
            raise ConfigError(
                f"relabel.weighting: expected 'uniform' where goals match within a tolerance ({spec.name}), "
                f"found {config.weighting!r}"
            )
        return InstructionRelabeler(config, rule)
    if config.kind == "her":
        from amago_ray.relabel.her import HerRelabeler

        rule, num_goals = _require_goals(config.kind, spec)
        if num_goals != 1:
            raise ConfigError(
                f"relabel.kind: expected 'instruction' for the {num_goals} goals of {spec.name}, found 'her'"
            )
        return HerRelabeler(config, rule)
    relabeler: Relabeler = load_module_attr("relabel.kind", config.kind)(config, spec)
    return relabeler


def _require_goals(kind: str, spec: EnvSpec) -> tuple[GoalRule, int]:
    """The goal rule and the number of goals in an instruction."""
    rule, leaf = spec.goal_rule, spec.observations.get(DESIRED_GOAL)
    if rule is None or leaf is None or spec.goal_dim < 1:
        raise ConfigError(
            f"relabel.kind: {kind!r} expects an environment with achieved goals, a desired_goal and a goal rule; "
            f"{spec.name} declares none"
        )
    num_entries = int(np.prod(leaf.shape, dtype=np.int64))
    if num_entries % spec.goal_dim:
        raise ConfigError(f"{spec.name}: desired_goal: expected rows of {spec.goal_dim}, found shape {leaf.shape}")
    dtype = np.dtype(leaf.dtype)
    if rule.marker is not None and not rule.persistent and dtype.kind in "iu":
        limits = np.iinfo(dtype)
        if not limits.min <= rule.marker <= limits.max:
            raise ConfigError(f"{spec.name}: goal rule: marker {rule.marker:g} does not fit desired_goal's {dtype}")
    return rule, num_entries // spec.goal_dim
