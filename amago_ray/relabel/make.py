"""From settings to a relabeler."""

from __future__ import annotations

import numpy as np

from amago_ray.config.kinds import Registry
from amago_ray.config.relabel import (
    CustomRelabelConfig,
    HerRelabelConfig,
    InstructionRelabelConfig,
    NoRelabelConfig,
    RelabelConfig,
)
from amago_ray.data.goal_rule import GoalRule
from amago_ray.data.specs import DESIRED_GOAL, EnvSpec
from amago_ray.errors import ConfigError
from amago_ray.relabel.checked import CheckedRelabeler
from amago_ray.relabel.her import HerRelabeler
from amago_ray.relabel.instruction import InstructionRelabeler
from amago_ray.relabel.relabeler import NoRelabeler, Relabeler


def _instruction(config: InstructionRelabelConfig, spec: EnvSpec) -> InstructionRelabeler:
    rule, _ = _require_goals(config.kind, spec)
    if rule.persistent:
        raise ConfigError(f"relabel.kind: goals of {spec.name} never complete: expected 'her', got 'instruction'")
    if config.weighting != "uniform" and rule.match != "equal":
        raise ConfigError(
            f"relabel.weighting: expected 'uniform' where goals match within a tolerance ({spec.name}), "
            f"got {config.weighting!r}"
        )
    return InstructionRelabeler(config, rule)


def _her(config: HerRelabelConfig, spec: EnvSpec) -> HerRelabeler:
    rule, num_goals = _require_goals(config.kind, spec)
    if num_goals != 1:
        raise ConfigError(f"relabel.kind: expected 'instruction' for the {num_goals} goals of {spec.name}, got 'her'")
    return HerRelabeler(config, rule)


def _require_goals(kind: str, spec: EnvSpec) -> tuple[GoalRule, int]:
    """The goal rule and the number of goals in an instruction."""
    rule, leaf = spec.goal_rule, spec.observations.get(DESIRED_GOAL)
    lacking = [
        what
        for what, lacks in (
            ("desired_goal in its observations", leaf is None),
            ("achieved goals", spec.goal_dim < 1),
            ("attribute goal_rule (an amago_ray.data.GoalRule)", rule is None),
        )
        if lacks
    ]
    if rule is None or leaf is None or lacking:
        raise ConfigError(
            f"relabel.kind: {kind!r} expects an environment with goals and a rule for them; "
            f"{spec.name} declares no {', no '.join(lacking)}"
        )
    num_entries = int(np.prod(leaf.shape, dtype=np.int64))
    if num_entries % spec.goal_dim:
        raise ConfigError(f"{spec.name}: desired_goal: expected rows of {spec.goal_dim}, got shape {leaf.shape}")
    dtype = np.dtype(leaf.dtype)
    if rule.marker is not None and not rule.persistent and dtype.kind in "iu":
        limits = np.iinfo(dtype)
        if not limits.min <= rule.marker <= limits.max:
            raise ConfigError(f"{spec.name}: goal rule: marker {rule.marker:g} does not fit desired_goal's {dtype}")
    return rule, num_entries // spec.goal_dim


RELABELERS: Registry[Relabeler] = Registry(
    "relabel.kind",
    {
        NoRelabelConfig: lambda config, spec: NoRelabeler(),
        InstructionRelabelConfig: _instruction,
        HerRelabelConfig: _her,
    },
    has=("watches_storage", "observe", "forget", "relabel"),
)


def make_relabeler(config: RelabelConfig, spec: EnvSpec) -> Relabeler:
    """The relabeler that `config` asks for, made for episodes of `spec`.

    Raises:
        ConfigError: the environment does not fit it, or a custom one cannot be made.
    """
    relabeler = RELABELERS.make(config, spec)
    return CheckedRelabeler(relabeler, config.kind) if isinstance(config, CustomRelabelConfig) else relabeler
