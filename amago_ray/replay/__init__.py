"""Replay: whole episodes on disk, drawn exactly, relabeled, sliced and packed."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from amago_ray.replay.reports import AddReport, ShardReport
    from amago_ray.replay.shard import ReplayShard

__all__ = ["AddReport", "ReplayShard", "ShardReport"]

_MODULES = {"AddReport": "reports", "ReplayShard": "shard", "ShardReport": "reports"}


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_MODULES[name]}"), name)
