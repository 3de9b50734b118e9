"""`Credit`: the governor's credit for learners that train together."""

from __future__ import annotations

from amago_ray.runtime.protocol.messages import BatchNumber, Received
from amago_ray.training.governor import Governor


class Credit:
    """Gives learners credit for batches; once one of them got it for a batch, the others get it for theirs, too.

    An update needs a batch of each learner. Else one might hold the last credit, another wait for more, and runners be
    told to pause until the first has trained. So no more than a batch of each learner goes beyond the governor's ratio.
    """

    def __init__(self, governor: Governor) -> None:
        self._governor = governor
        self._next = BatchNumber(-1, 0)
        """After the furthest batch that any learner of the newest incarnation got credit for."""
        self._given: dict[int, Received] = {}
        """To each learner, by its rank."""
        self._received: dict[int, Received] = {}
        """What each has said last; one that says less says it late."""

    def settle(self, received: Received) -> None:
        """Take back what did not reach a learner that asks for more; before `give`."""
        rank, incarnation, transitions = received
        last, given = self._received.get(rank), self._given.get(rank)
        if last is None or given is None or last.incarnation < incarnation:
            self._received[rank] = self._given[rank] = received
        elif last.incarnation == incarnation and last.transitions <= transitions:
            self._governor.confirm(max(int(given.transitions - transitions), 0), 0)
            self._received[rank] = self._given[rank] = received

    def give(self, received: Received, transitions: float) -> None:
        """Note what a learner is given that has asked with `received`."""
        given = self._given[received.rank]
        if given.incarnation == received.incarnation:
            self._given[received.rank] = given._replace(transitions=given.transitions + transitions)

    def is_there(self, first: BatchNumber | None) -> bool:
        """Whether a learner may ask for its next batch, `first`; None for one that trains alone."""
        if first is not None and first.incarnation < self._next.incarnation:
            # Another group has taken the place of its own.
            return False
        return self._is_owed(first) or self._governor.may_train()

    def reserve(self, first: BatchNumber | None, num_batches: int, transitions: int) -> int:
        """Take credit for batches from `first` on, each of about this many transitions; for how many there was some."""
        for taken in range(num_batches):
            batch = None if first is None else BatchNumber(first.incarnation, first.number + taken)
            if not self.is_there(batch):
                return taken
            self._governor.reserve(transitions, is_owed=self._is_owed(batch))
            if batch is not None:
                self._next = max(self._next, BatchNumber(batch.incarnation, batch.number + 1))
        return num_batches

    def _is_owed(self, batch: BatchNumber | None) -> bool:
        return batch is not None and batch.incarnation == self._next.incarnation and batch < self._next
