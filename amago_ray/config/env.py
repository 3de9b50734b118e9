"""Settings of environments."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated, Any, Literal

from amago_ray.config.ranges import NOT_EMPTY, POSITIVE, POSITIVE_INTEGER


@dataclass(frozen=True, kw_only=True)
class EnvConfig:
    """One environment. In YAML also written as its bare `id`; `env` may be a list of these, a mixture."""

    id: Annotated[str, NOT_EMPTY]
    """A registered Gymnasium id ("amago_ray/MazeRunner-v0"), "module:EnvId-v0", or "module:attr" (a class or
    factory)."""
    kwargs: dict[str, Any] = field(default_factory=dict)
    """Passed to the environment's constructor."""
    name: Annotated[str, NOT_EMPTY] | None = None
    """Name in metrics; the id where not given."""
    share: Annotated[float, POSITIVE] = 1.0
    """Share of a runner's environments in a mixture, relative to the other entries."""
    max_episode_steps: Annotated[int, POSITIVE_INTEGER] | None = None
    """Cut episodes (truncated) after this many steps."""
    truncation_is_termination: bool = False
    """Treat reaching the time limit as a terminal state, for tasks whose horizon is part of the task."""
    vector_entry_point: bool = False
    """The id names a native vector environment (`gymnasium.vector.VectorEnv`), made with `num_envs`."""
    autoreset_mode: Literal["next_step", "same_step", "disabled"] | None = None
    """How a native vector environment resets, where its metadata does not declare it; undeclared is refused."""
    step_timeout_s: Annotated[float, POSITIVE] | None = 60.0
    """An environment whose step or reset takes longer is interrupted as by Ctrl-C, counts as hung and is rebuilt; one
    that does not heed this (native code that does not return) costs its env runner's process. None waits for ever.
    Built-in environments are not watched."""
