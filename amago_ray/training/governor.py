"""`Governor`: holds the ratio of transitions trained to transitions inserted."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from amago_ray.config.replay import ReplayConfig


class Governor:
    """Flow control between acting and learning: `trained = samples_per_insert * inserted`, within a tolerance.

    Shards report what was inserted (totals, so that a lost or repeated report does no harm), learners reserve credit
    before they ask for a batch and confirm the transitions really trained. Nothing here blocks: callers are told
    whether they may go on, and ask again later.

    Invariants: trained + reserved <= samples_per_insert * inserted + one batch of each learner; and runners are told to
    pause while inserted > (trained + allowance) / samples_per_insert.
    """

    def __init__(self, config: ReplayConfig) -> None:
        self._ratio = config.samples_per_insert
        self._tolerance = config.samples_per_insert_tolerance
        self._min_timesteps = config.min_timesteps
        self._totals: dict[int, int] = {}
        self._incarnations: dict[int, int] = {}
        self._stored: dict[int, int] = {}
        self._inserted_elsewhere = 0
        """Into files that shards go on with no longer."""
        self._returned: dict[int, tuple[int, int]] = {}
        """What came back to each shard's incarnation from other files: that is no new insert."""
        self._num_returned = 0
        self._base = 0
        self._trained = 0
        self._reserved = 0
        self._largest_insert = 0

    @property
    def inserted(self) -> int:
        """Transitions inserted since the last rebase."""
        return self._ever_inserted - self._base

    @property
    def _ever_inserted(self) -> int:
        return sum(self._totals.values()) + self._inserted_elsewhere - self._num_returned

    def metrics(self) -> dict[str, float]:
        """`replay/samples_per_insert`, the ratio since the last rebase; nothing before the first insert."""
        return {"replay/samples_per_insert": self._trained / self.inserted} if self.inserted > 0 else {}

    def report_shard(
        self, shard: int, incarnation: int, inserted_total: int, stored_transitions: int, returned_total: int = 0
    ) -> bool:
        """A shard's counts: transitions it ever accepted in its directory, and those it holds now.

        incarnation: grows when the shard starts again. returned_total: of the inserted, what this incarnation took back
        that was counted before. False, and nothing changes, where the report is older than
        another that came before it.
        """
        before, known = self._totals.get(shard), self._incarnations.get(shard, incarnation)
        if incarnation < known or (incarnation == known and before is not None and inserted_total < before):
            return False
        self._incarnations[shard] = incarnation
        of, so_far = self._returned.get(shard, (incarnation, 0))
        returned = returned_total - (so_far if of == incarnation else 0)
        self._returned[shard] = (incarnation, returned_total)
        self._num_returned += returned
        if before is None:
            # A shard seen first brings what it accepted in the past (a resume): that is no new insert.
            self._base += inserted_total - returned
        elif inserted_total < before:
            # A shard lost its files and started empty: what it inserted stays counted.
            self._base -= before - inserted_total + returned
        else:
            self._largest_insert = max(self._largest_insert, inserted_total - before - returned)
        self._totals[shard] = inserted_total
        self._stored[shard] = stored_transitions
        return True

    def replace_shard(self, shard: int) -> None:
        """A shard goes on with other files: what was inserted stays counted, and its next report brings nothing new."""
        self._inserted_elsewhere += self._totals.pop(shard, 0)
        self._stored.pop(shard, None)

    def may_train(self) -> bool:
        """Whether a learner may reserve another batch."""
        if not self._is_filled:
            return False
        if self._ratio is None:
            return True
        return self._trained + self._reserved < self._ratio * self.inserted

    def reserve(self, transitions: int, *, is_owed: bool = False) -> bool:
        """Take credit for a batch of about this many transitions; False where there is none now.

        is_owed: takes it in any case, for a batch without which others that have credit cannot be trained.
        """
        if not is_owed and not self.may_train():
            return False
        self._reserved += transitions
        return True

    def confirm(self, reserved: int, trained: int) -> None:
        """A reserved batch was trained, with this many transitions (0 where it was lost or given back)."""
        self._reserved = max(self._reserved - reserved, 0)
        self._trained += trained

    def may_act(self) -> bool:
        """Whether runners may go on; False asks them to pause."""
        if self._ratio is None or not self._is_filled:
            return True
        # Two of the largest groups may wait for training, so that collecting overlaps with learning.
        allowance = max(self._tolerance * self.inserted, 2 * self._largest_insert)
        return self.inserted <= self._trained / self._ratio + allowance

    @property
    def _is_filled(self) -> bool:
        """Whether `min_timesteps` came in; what was evicted counts, as a replay that evicts holds all it ever can."""
        return sum(self._stored.values()) > 0 and self._ever_inserted >= self._min_timesteps

    def rebase(self) -> None:
        """Forget past imbalance (after a resume or a lost learner), so that neither side bursts to make up for it."""
        self._base = self._ever_inserted
        self._trained = 0
        self._reserved = 0

    def state(self) -> dict[str, Any]:
        """Plain data for a deterministic resume."""
        return {
            "totals": {str(shard): total for shard, total in self._totals.items()},
            "stored": {str(shard): stored for shard, stored in self._stored.items()},
            "base": self._base,
            "trained": self._trained,
            "largest_insert": self._largest_insert,
        }

    def load_state(self, state: Mapping[str, Any]) -> None:
        """Go on from `state()`; outstanding reservations are void."""
        self._totals = {int(shard): total for shard, total in state["totals"].items()}
        self._incarnations = {}
        self._stored = {int(shard): stored for shard, stored in state["stored"].items()}
        self._base = state["base"]
        self._trained = state["trained"]
        self._largest_insert = state["largest_insert"]
        self._reserved = 0
