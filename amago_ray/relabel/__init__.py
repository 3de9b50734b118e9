"""Hindsight: whole episodes relabeled with goals that they did achieve."""

from __future__ import annotations

from typing import TYPE_CHECKING

from amago_ray._lazy import importer

if TYPE_CHECKING:
    from amago_ray.relabel.her import HerRelabeler
    from amago_ray.relabel.instruction import InstructionRelabeler
    from amago_ray.relabel.make import make_relabeler
    from amago_ray.relabel.relabeler import NoRelabeler, Relabeler

__all__ = ["HerRelabeler", "InstructionRelabeler", "NoRelabeler", "Relabeler", "make_relabeler"]

__getattr__ = importer(
    __name__,
    {
        "HerRelabeler": "her",
        "InstructionRelabeler": "instruction",
        "NoRelabeler": "relabeler",
        "Relabeler": "relabeler",
        "make_relabeler": "make",
    },
)
