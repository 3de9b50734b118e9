"""The `Relabeler` protocol, and the relabeler that does nothing."""

from __future__ import annotations

from typing import Protocol

import numpy as np

from amago_ray.data.episode import Episode


class Relabeler(Protocol):
    """Turns a stored episode into one to train on, whenever it is drawn.

    A custom one is named in the settings as `relabel.kind: module:attr`, where `attr` is called with
    `(config: CustomRelabelConfig, spec: EnvSpec, **config.kwargs)` and returns an object of this shape, by subclassing
    or not. It runs in the shard's process: it needs neither the environment nor torch.
    """

    watches_storage: bool = False
    """Whether `observe` and `forget` are to be called; else episodes need not be read when they come and go."""

    def observe(self, episode: Episode) -> None:
        """An episode was stored, or found again on disk."""
        return

    def forget(self, episode: Episode) -> None:
        """An episode that was observed is about to be removed."""
        return

    def relabel(self, episode: Episode, rng: np.random.Generator) -> Episode:
        """The episode to train on: `episode` itself, or another of the same schema and 1..T transitions.

        All randomness comes from `rng`. The arrays of `episode` are read-only views on storage: what changes is
        copied first, what stays is shared.
        """
        ...


class NoRelabeler(Relabeler):
    """Episodes as they were."""

    def relabel(self, episode: Episode, rng: np.random.Generator) -> Episode:
        """The same episode."""
        return episode
