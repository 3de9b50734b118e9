"""Replay: whole episodes on disk, drawn exactly, relabeled, sliced and packed."""

from __future__ import annotations

from typing import TYPE_CHECKING

from amago_ray._lazy import importer

if TYPE_CHECKING:
    from amago_ray.replay.reports import AddReport, ShardReport
    from amago_ray.replay.shard import ReplayShard

__all__ = ["AddReport", "ReplayShard", "ShardReport"]

__getattr__ = importer(__name__, {"AddReport": "reports", "ReplayShard": "shard", "ShardReport": "reports"})
