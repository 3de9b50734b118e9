"""Hindsight: whole episodes relabeled with goals that they did achieve."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from amago_ray.relabel.her import HerRelabeler
    from amago_ray.relabel.instruction import InstructionRelabeler
    from amago_ray.relabel.make import make_relabeler
    from amago_ray.relabel.relabeler import NoRelabeler, Relabeler

__all__ = ["HerRelabeler", "InstructionRelabeler", "NoRelabeler", "Relabeler", "make_relabeler"]

_MODULES = {
    "HerRelabeler": "her",
    "InstructionRelabeler": "instruction",
    "NoRelabeler": "relabeler",
    "Relabeler": "relabeler",
    "make_relabeler": "make",
}


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_MODULES[name]}"), name)
