"""`CheckedRelabeler`: a relabeler of one's own, whose episodes are looked at before anything is trained on them."""

from __future__ import annotations

import numpy as np

from amago_ray.data.episode import Episode, validate_episode
from amago_ray.errors import DataError
from amago_ray.relabel.relabeler import Relabeler


class CheckedRelabeler(Relabeler):
    """Passes everything on to `inner`, the relabeler that `relabel.kind` names as `kind`."""

    def __init__(self, inner: Relabeler, kind: str) -> None:
        self._inner = inner
        self._kind = kind
        self.watches_storage = inner.watches_storage

    def observe(self, episode: Episode) -> None:
        """See `Relabeler`."""
        self._inner.observe(episode)

    def forget(self, episode: Episode) -> None:
        """See `Relabeler`."""
        self._inner.forget(episode)

    def relabel(self, episode: Episode, rng: np.random.Generator) -> Episode:
        """See `Relabeler`.

        Raises:
            DataError: what `inner` returns is no episode of the same schema and 1..T transitions.
        """
        relabeled = self._inner.relabel(episode, rng)
        if relabeled is not episode:
            self._check(relabeled, episode)
        return relabeled

    def _check(self, relabeled: object, episode: Episode) -> None:
        where = f'relabel.kind: "{self._kind}"'
        if not isinstance(relabeled, Episode):
            raise DataError(f"{where}: expected an Episode, got {type(relabeled).__name__}")
        try:
            validate_episode(relabeled)
        except DataError as error:
            raise DataError(f"{where}: {error}") from error
        if len(relabeled) > len(episode):
            raise DataError(f"{where}: expected at most {len(episode)} transitions, got {len(relabeled)}")
        for name, (before, after) in _columns(episode, relabeled).items():
            if before != after:
                raise DataError(f"{where}: {name}: expected {before}, got {after}")


def _columns(episode: Episode, relabeled: Episode) -> dict[str, tuple[str, str]]:
    """What a row of each column is like, before and after."""
    names = {**episode.observations, **relabeled.observations}
    pairs = {
        f"observation {name!r}": (episode.observations.get(name), relabeled.observations.get(name)) for name in names
    }
    pairs["actions"] = (episode.actions, relabeled.actions)
    pairs["action_mask"] = (episode.action_mask, relabeled.action_mask)
    return {name: (_row(before), _row(after)) for name, (before, after) in pairs.items()}


def _row(column: np.ndarray | None) -> str:
    return "none" if column is None else f"rows of {column.dtype}{list(column.shape[1:])}"
