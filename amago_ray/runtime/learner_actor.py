"""`LearnerActor`: a process that trains from replay and broadcasts weights."""

from __future__ import annotations

import queue
import threading
import time
from collections import deque
from collections.abc import Mapping
from typing import Any

import ray

from amago_ray.config import Config
from amago_ray.data.episode import PolicyVersion
from amago_ray.data.specs import EnvSpec
from amago_ray.learning.process import prepare_process
from amago_ray.runtime.actors import ASIDE, get, is_gone
from amago_ray.runtime.credit import BatchNumber
from amago_ray.runtime.endings import LostPeerError
from amago_ray.runtime.messages import LearnerBeat, learner_name
from amago_ray.runtime.pulse import start_pulses
from amago_ray.runtime.shard_table import ShardTable

_RESTART_PAUSE_S = 0.1
_TURN_S = 1.0
"""How long a learner waits for a batch before it tells the others that it has none."""
_TOLD_AFTER_S = 10.0


class LearnerActor:
    """A thin shell around `Learner`: `run` trains until the control actor says stop.

    A thread keeps `learner.prefetch` sample requests outstanding; each has its credit from the governor, which is
    reserved for as many at once, and goes to the shard that the control actor drew for it. Requests are consumed in the
    order in which they were issued.

    Of several learners each asks for batches of its own; they train when each has one, and end together. The first one
    broadcasts, is captured, and tells metrics, which are of all.
    """

    def __init__(
        self,
        config: Config,
        spec: EnvSpec,
        incarnation: int,
        control: Any,
        table: ShardTable,
        files: Mapping[str, bytes] | None,
        rank: int = 0,
    ) -> None:
        """incarnation: of all that train together. rank: this one's among them."""
        self._rank = rank
        self._group: Any = None
        self._rendezvous: Any = None
        self._config = config
        self._control = control
        self._table = table
        self._spec = spec
        self._incarnation = incarnation
        self._files = files
        self._is_made = threading.Event()
        self._pulses = start_pulses(config, learner_name(rank, config.learner.num_learners), control)
        self._lock = threading.Lock()
        self._requests: queue.Queue[tuple[Any, int] | Exception | None] = queue.Queue(maxsize=config.learner.prefetch)
        self._num_requested = 0
        """Batches asked for, without those that were lost."""
        self._credits: deque[tuple[int, int]] = deque()
        """Batches reserved and not asked for yet: each one's shard and credit."""
        self._request_lock = threading.Lock()
        self._current: tuple[Any, int] | None = None
        """The request whose batch is waited for, or trained on."""
        self._batch: Any = None
        self._is_over = False
        self._totals = dict.fromkeys(
            (
                "updates",
                "settled_transitions",
                "trained_transitions",
                "learner_s",
                "governor_s",
                "replay_s",
                "broadcast_s",
            ),
            0.0,
        )
        # Reserved per batch until lengths are known: full sequences.
        self._estimate = config.learner.batch_size * config.model.sequence_model.context_length

    def open_rendezvous(self) -> tuple[str, int]:
        """Where the others find this one, the first of several: an address and a port."""
        prepare_process(self._config.learner)
        from amago_ray.learning.process_group import Rendezvous

        address = _node_address()
        self._rendezvous = Rendezvous(address, self._config.learner.num_learners)
        return address, self._rendezvous.port

    def make(self, rendezvous: tuple[str, int] | None = None) -> None:
        """Make the networks and load the checkpoint: before `run`, so that the caller learns why not.

        rendezvous: what `open_rendezvous` of the first of several returned, for all of them. Waits for the others.

        Raises:
            LostPeerError: not all of them came.
        """
        self._pulses.works("making the networks")
        # Before what loads torch. The driver, which names this class, needs no torch.
        prepare_process(self._config.learner)
        from amago_ray.learning.learner import Learner

        if rendezvous is not None:
            self._group = self._join(rendezvous)
        learner = Learner(
            self._config, self._spec, incarnation=self._incarnation, seed=self._config.seed, collective=self._group
        )
        if self._files is not None:
            learner.load_files(self._files.__getitem__)
            self._files = None
        self._learner = learner
        self._first_update = learner.learner_steps + 1
        self._is_made.set()
        self._pulses.waits("waiting for training to begin")

    def run(self) -> None:
        """Train until training stops.

        Raises:
            TrainingError: losses stay non-finite.
            LostPeerError: another of several learners is gone.
        """
        from amago_ray.learning.collective import CollectiveError

        if self._is_first:
            self._broadcast()
        prefetcher = threading.Thread(target=self._prefetch, name="prefetch", daemon=True)
        prefetcher.start()
        try:
            while self._take_turn():
                pass
        except CollectiveError as error:
            # Whoever started this process is told of the cause, too, and will have ended it before it says so itself.
            time.sleep(_TOLD_AFTER_S)
            raise LostPeerError(str(error)) from error
        finally:
            # The others do not wait for one that ends.
            if self._group is not None:
                self._group.close()
        if self._is_first:
            # Whoever asks for the newest weights after training gets the last ones.
            get(self._broadcast())

    def _take_turn(self) -> bool:
        """Train on the next batch, if all learners have one before long; False when training is over."""
        config = self._config.learner
        self._pulses.waits("waiting for credit or a batch")
        batch = self._await_batch(time.perf_counter() + _TURN_S)
        arrived = time.perf_counter()
        self._pulses.waits("waiting for the other learners")
        agreement = self._learner.agree(batch, is_over=self._is_over)
        if agreement.is_over:
            return False
        if batch is None or agreement.counts is None:
            self._beat(learner_s=time.perf_counter() - arrived)
            return True
        self._pulses.works(f"at update {self._learner.learner_steps + 1}")
        with self._lock:
            # None while batches accumulate for an update.
            has_updated = self._learner.step(batch, agreement.counts) is not None
        trained = time.perf_counter()
        steps = self._learner.learner_steps
        if has_updated and self._is_first and steps % config.broadcast_interval == 0:
            self._broadcast()
        assert self._current is not None
        reserved, self._current, self._batch = self._current[1], None, None
        self._estimate = batch.num_transitions
        tells = has_updated and self._is_first and steps % config.metrics_interval == 0
        self._beat(
            self._learner.metrics() if tells else {},
            updates=int(has_updated and self._is_first),
            settled_transitions=reserved,
            trained_transitions=batch.num_transitions,
            learner_s=trained - arrived,
            broadcast_s=time.perf_counter() - trained,
        )
        return True

    def _await_batch(self, deadline_s: float) -> Any:
        """The next batch, which is trained on next; None where it does not come in time, or training is over.

        What takes longer goes on where it was when this is called again.
        """
        if self._batch is not None or self._is_over:
            return self._batch
        began = time.perf_counter()
        if self._current is None:
            self._current = self._take_request(deadline_s - began)
            self._totals["governor_s"] += time.perf_counter() - began
            if self._current is None:
                return None
        reference, reserved = self._current
        requested = time.perf_counter()
        try:
            self._batch = get(reference, max(deadline_s - requested, 0.0))
            if self._batch is None:
                # The shard has lost all that it held.
                self._void(reserved)
        except ray.exceptions.GetTimeoutError:
            pass
        except ray.exceptions.RayError as error:
            if not is_gone(error):
                raise
            # The shard died with the request.
            self._void(reserved)
        self._totals["replay_s"] += time.perf_counter() - requested
        return self._batch

    def _void(self, reserved: int) -> None:
        """Nothing comes of the current request: give its credit back, the next one draws anew."""
        with self._request_lock:
            self._num_requested -= 1
        self._current = None
        self._totals["settled_transitions"] += reserved
        time.sleep(_RESTART_PAUSE_S)

    def _take_request(self, timeout_s: float) -> tuple[Any, int] | None:
        try:
            request = self._requests.get(timeout=max(timeout_s, 0.0))
        except queue.Empty:
            return None
        if isinstance(request, Exception):
            raise request
        self._is_over = request is None
        return request

    def _join(self, rendezvous: tuple[str, int]) -> Any:
        """The group of all learners, when all are there."""
        import torch

        from amago_ray.learning.collective import CollectiveError
        from amago_ray.learning.process_group import ProcessGroup, Rendezvous

        size, (address, port) = self._config.learner.num_learners, rendezvous
        share = self._config.learner.num_gpus_per_learner
        try:
            return ProcessGroup(
                self._rendezvous or Rendezvous(address, size, port=port),
                rank=self._rank,
                size=size,
                address=_node_address(),
                device=torch.device("cuda" if torch.cuda.is_available() else "cpu"),
                shares_device=share is not None and share < 1,
            )
        except CollectiveError as error:
            raise LostPeerError(str(error)) from error

    @property
    def _is_first(self) -> bool:
        return self._rank == 0

    @ray.method(concurrency_group=ASIDE)
    def capture(self) -> tuple[int, Mapping[str, bytes]]:
        """Learner steps and the files of a checkpoint, between two updates; waits until there is a learner."""
        self._is_made.wait()
        with self._lock:
            return self._learner.learner_steps, self._learner.save_files()

    @ray.method(concurrency_group=ASIDE)
    def broadcast(self) -> None:
        """Push the weights once more: the control actor lost them."""
        self._is_made.wait()
        self._broadcast()

    def __repr__(self) -> str:
        """The name in logs and in the Ray dashboard."""
        return "Learner" if self._config.learner.num_learners == 1 else f"Learner {self._rank}"

    def _prefetch(self) -> None:
        try:
            while (request := self._request()) is not None:
                self._requests.put(request)
            self._requests.put(None)
        except Exception as error:
            # Raised by `run`, which waits for what this thread puts.
            self._requests.put(error)

    def _request(self) -> tuple[Any, int] | None:
        """The next batch asked for, with its credit; None when training is over."""
        while not self._credits:
            estimate = self._estimate
            with self._request_lock:
                first = BatchNumber(self._incarnation, self._num_requested)
            several = {"first": first} if self._config.learner.num_learners > 1 else {}
            version = self._table.version
            reserved = get(self._control.reserve.remote(estimate, self._num_wanted(), version, **several))
            if reserved.stop:
                return None
            if reserved.table is not None:
                self._table = reserved.table
            self._credits.extend((shard, estimate) for shard in reserved.shards)
        shard, estimate = self._credits.popleft()
        with self._request_lock:
            self._num_requested += 1
        return self._table.entries[shard].actor.sample.remote(self._config.learner.batch_size), estimate

    def _num_wanted(self) -> int:
        """Batches to reserve credit for: not more than the run's last update needs."""
        last = self._config.stop.learner_steps
        if last is None:
            return self._config.learner.prefetch
        with self._request_lock:
            num_left = (last + 1 - self._first_update) * self._config.learner.batches_per_update - self._num_requested
        return max(min(self._config.learner.prefetch, num_left), 0)

    def _broadcast(self) -> Any:
        with self._lock:
            snapshot = self._learner.snapshot()
        return self._control.push_weights.remote(snapshot)

    def _beat(self, metrics: Mapping[str, float] | None = None, **news: float) -> None:
        for name, more in news.items():
            self._totals[name] += more
        version = PolicyVersion(self._learner.incarnation, self._learner.learner_steps)
        self._control.beat_learner.remote(LearnerBeat(version, dict(self._totals), metrics or {}, self._rank))


def _node_address() -> str:
    address: str = ray.util.get_node_ip_address()  # type: ignore[no-untyped-call]
    return address
