"""`BatchRequests`: a learner's batches on their way, each with its credit."""

from __future__ import annotations

import queue
import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import ray

from amago_ray.config import Config
from amago_ray.data.sequence_batch import SequenceBatch
from amago_ray.runtime.protocol.actors import get, is_gone
from amago_ray.runtime.protocol.messages import BatchNumber, Received
from amago_ray.runtime.protocol.shard_table import ShardTable

_RESTART_PAUSE_S = 0.1


class _Request(NamedTuple):
    """A batch asked for at a time: the reference of the call, and its credit in transitions."""

    reference: Any
    reserved: int
    asked_at_s: float


class BatchRequests:
    """A thread keeps `learner.prefetch` sample requests outstanding; they are consumed in the order of their issue.

    Each has its credit from the governor, which is reserved for as many at once, and goes to the shard that the control
    actor drew for it. One whose shard dies, or has lost all that it held, gives its credit back, and another is drawn;
    so does one that does not come for long: where a node was out of reach for a while, the answer may be lost.
    """

    def __init__(
        self,
        config: Config,
        control: Any,
        table: ShardTable,
        *,
        incarnation: int,
        first_update: int,
        rank: int = 0,
        get: Callable[..., Any] = get,
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        """first_update: the number of the first one that these batches are for. rank: of the learner. get: waits for
        what a call returns. clock: seconds that never go back.
        """
        self._config = config
        self._control = control
        self._table = table
        self._incarnation = incarnation
        self._first_update = first_update
        self._rank = rank
        self._get = get
        self._clock = clock
        self._queue: queue.Queue[_Request | Exception | None] = queue.Queue(maxsize=config.learner.prefetch)
        self._lock = threading.Lock()
        self._num_requested = 0
        """Batches asked for, without those that were lost."""
        self._credits: deque[tuple[int, int]] = deque()
        """Batches reserved and not asked for yet: each one's shard and credit."""
        self._received = 0
        """Credit that ever came, in transitions."""
        self._lost_after_s = config.supervision.dead_after_s
        # Reserved per batch until lengths are known: full sequences.
        self._estimate = config.learner.batch_size * config.model.sequence_model.context_length
        self._current: _Request | None = None
        self._batch: SequenceBatch | None = None
        self._news: Counter[str] = Counter()
        self.is_over = False
        """Whether training is over: nothing more is asked for, and the last of what was has been taken."""

    def start(self) -> None:
        """Begin to ask."""
        threading.Thread(target=self._ask, name="prefetch", daemon=True).start()

    def next(self, timeout_s: float) -> SequenceBatch | None:
        """The next batch, the same until it is `trained`; None where it does not come in time, or training is over.

        Raises:
            Exception: what ended the thread, or what a shard raised.
        """
        deadline_s = time.perf_counter() + timeout_s
        if self._batch is None and not self.is_over:
            if self._current is None:
                self._current = self._take(timeout_s)
            if self._current is not None:
                self._batch = self._fetch(self._current, max(deadline_s - time.perf_counter(), 0.0))
        return self._batch

    def trained(self) -> None:
        """The batch has been trained on."""
        assert self._current is not None
        assert self._batch is not None
        self._estimate = self._batch.num_transitions
        self._news.update(settled_transitions=self._current.reserved, trained_transitions=self._batch.num_transitions)
        self._current = self._batch = None

    def take_news(self) -> Mapping[str, float]:
        """What `LearnerBeat.totals` grow by since the last call: credit settled, transitions trained, and waiting."""
        news, self._news = self._news, Counter()
        return news

    def _take(self, timeout_s: float) -> _Request | None:
        began = time.perf_counter()
        try:
            request = self._queue.get(timeout=timeout_s)
        except queue.Empty:
            request = None
        else:
            self.is_over = request is None
        self._wait_ended("governor_s", began)
        if isinstance(request, Exception):
            raise request
        return request

    def _fetch(self, request: _Request, timeout_s: float) -> SequenceBatch | None:
        began = time.perf_counter()
        try:
            batch: SequenceBatch | None = self._get(request.reference, timeout_s)
            self._lost_after_s = self._config.supervision.dead_after_s
            if batch is None:
                # The shard has lost all that it held.
                self._void(request)
            return batch
        except ray.exceptions.GetTimeoutError:
            if self._clock() - request.asked_at_s > self._lost_after_s:
                # If it is only slow, the next one has more time.
                self._lost_after_s *= 2
                self._void(request)
            return None
        except ray.exceptions.RayError as error:
            if not is_gone(error):
                raise
            # The shard died with the request.
            self._void(request)
            return None
        finally:
            self._wait_ended("replay_s", began)

    def _void(self, request: _Request) -> None:
        """Nothing comes of a request: give its credit back, the next one draws anew."""
        with self._lock:
            self._num_requested -= 1
        self._news.update(settled_transitions=request.reserved)
        self._current = None
        time.sleep(_RESTART_PAUSE_S)

    def _wait_ended(self, name: str, began_s: float) -> None:
        # A counter of floats: what it is typed for are whole numbers.
        self._news[name] += time.perf_counter() - began_s  # type: ignore[assignment]

    def _ask(self) -> None:
        try:
            while (request := self._request()) is not None:
                self._queue.put(request)
            self._queue.put(None)
        except Exception as error:
            # Raised by `next`, which waits for what this thread puts.
            self._queue.put(error)

    def _request(self) -> _Request | None:
        """The next batch asked for; None when training is over."""
        while not self._credits:
            estimate, (num_wanted, first) = self._estimate, self._wanted()
            received = Received(self._rank, self._incarnation, self._received)
            asked = self._control.reserve.remote(estimate, num_wanted, self._table.version, first, received)
            try:
                reserved = self._get(asked, self._config.supervision.dead_after_s)
            except ray.exceptions.GetTimeoutError:
                # The answer may be lost; the control actor learns what came.
                continue
            self._received += estimate * len(reserved.shards)
            if reserved.stop:
                return None
            if reserved.table is not None:
                self._table = reserved.table
            self._credits.extend((shard, estimate) for shard in reserved.shards)
        shard, estimate = self._credits.popleft()
        with self._lock:
            self._num_requested += 1
        reference = self._table.entries[shard].actor.sample.remote(self._config.learner.batch_size)
        return _Request(reference, estimate, self._clock())

    def _wanted(self) -> tuple[int, BatchNumber | None]:
        """Batches to reserve credit for, not more than the run's last update needs; and, of several learners, which."""
        learner, last = self._config.learner, self._config.stop.learner_steps
        with self._lock:
            num_requested = self._num_requested
        first = BatchNumber(self._incarnation, num_requested) if learner.num_learners > 1 else None
        if last is None:
            return learner.prefetch, first
        num_left = (last + 1 - self._first_update) * learner.batches_per_update - num_requested
        return max(min(learner.prefetch, num_left), 0), first
