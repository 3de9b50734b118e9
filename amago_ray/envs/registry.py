"""The built-in environments by id, and their registration with Gymnasium."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, cast

from gymnasium.envs.registration import register, registry

from amago_ray.config.module_attr import load_module_attr

if TYPE_CHECKING:
    from amago_ray.envs.kernel import Kernel


@dataclass(frozen=True)
class BuiltIn:
    """One built-in environment: `kernel` is the "module:attr" of its class, `kwargs` its settings with defaults."""

    id: str
    description: str
    kernel: str
    kwargs: dict[str, Any] = field(default_factory=dict)

    def load(self) -> type[Kernel]:
        """The kernel's class."""
        return cast("type[Kernel]", load_module_attr(self.id, self.kernel))


BUILT_INS: dict[str, BuiltIn] = {
    entry.id: entry
    for entry in (
        BuiltIn(
            "amago_ray/MazeRunner-v0",
            "random mazes with goals to be visited in order",
            "amago_ray.envs.maze_runner:MazeRunner",
            {"size": 11, "num_goals": 3, "episode_length": 250, "permute_actions": False, "mask_walls": False},
        ),
        BuiltIn(
            "amago_ray/DarkKeyDoor-v0",
            "trials of several attempts at a hidden key and door",
            "amago_ray.envs.dark_key_door:DarkKeyDoor",
            {"size": 9, "trial_length": 500, "attempt_length": 50},
        ),
        BuiltIn(
            "amago_ray/TMaze-v0",
            "remember a side, seen once, through a long corridor",
            "amago_ray.envs.t_maze:TMaze",
            {"length": 20},
        ),
        BuiltIn(
            "amago_ray/RepeatPrevious-v0",
            "cards dealt one by one: name the suit of the one some steps ago",
            "amago_ray.envs.repeat_previous:RepeatPrevious",
            {"num_decks": 1, "k": 4},
        ),
        BuiltIn(
            "amago_ray/HiddenVelocityPendulum-v0",
            "Pendulum-v1 seen without its velocity",
            "amago_ray.envs.hidden_velocity_pendulum:HiddenVelocityPendulum",
            {"episode_length": 200},
        ),
    )
}


def list_envs() -> list[BuiltIn]:
    """The built-in environments, by id."""
    return sorted(BUILT_INS.values(), key=lambda entry: entry.id)


def register_envs() -> None:
    """Make the built-in environments known to `gymnasium.make`; calling it again is fine."""
    for entry in BUILT_INS.values():
        if entry.id not in registry:
            register(entry.id, entry_point="amago_ray.envs.single:SingleEnv", kwargs={"built_in": entry.id})
