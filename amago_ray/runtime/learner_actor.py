"""`LearnerActor`: a process that trains from replay and broadcasts weights."""

from __future__ import annotations

import queue
import threading
import time
from collections import deque
from collections.abc import Mapping, Sequence
from typing import Any

import ray

from amago_ray.config import Config
from amago_ray.data.episode import PolicyVersion
from amago_ray.data.specs import EnvSpec
from amago_ray.learning.process import prepare_process
from amago_ray.runtime.actors import ASIDE, get
from amago_ray.runtime.messages import LearnerBeat
from amago_ray.runtime.pulse import start_pulses

_RESTART_PAUSE_S = 0.1


class LearnerActor:
    """A thin shell around `Learner`: `run` trains until the control actor says stop.

    A thread keeps `learner.prefetch` sample requests outstanding; each has its credit from the governor, which is
    reserved for as many at once, and goes to the shard that the control actor drew for it. Requests are consumed in the
    order in which they were issued.
    """

    def __init__(
        self,
        config: Config,
        spec: EnvSpec,
        incarnation: int,
        control: Any,
        shards: Sequence[Any],
        files: Mapping[str, bytes] | None,
    ) -> None:
        self._config = config
        self._control = control
        self._shards = shards
        self._spec = spec
        self._incarnation = incarnation
        self._files = files
        self._is_made = threading.Event()
        self._pulses = start_pulses(config, "learner", control)
        self._lock = threading.Lock()
        self._requests: queue.Queue[tuple[Any, int] | Exception | None] = queue.Queue(maxsize=config.learner.prefetch)
        self._num_requested = 0
        """Batches asked for, without those that were lost."""
        self._credits: deque[tuple[int, int]] = deque()
        """Batches reserved and not asked for yet: each one's shard and credit."""
        self._request_lock = threading.Lock()
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

    def make(self) -> None:
        """Make the networks and load the checkpoint: before `run`, so that the caller learns why not."""
        self._pulses.works("making the networks")
        # Before what loads torch. The driver, which names this class, needs no torch.
        prepare_process(self._config.learner)
        from amago_ray.learning.learner import Learner

        learner = Learner(self._config, self._spec, incarnation=self._incarnation, seed=self._config.seed)
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
        """
        config = self._config.learner
        self._broadcast()
        prefetcher = threading.Thread(target=self._prefetch, name="prefetch", daemon=True)
        prefetcher.start()
        while True:
            began = time.perf_counter()
            self._pulses.waits("waiting for credit or a batch")
            request = self._requests.get()
            if request is None:
                # Whoever asks for the newest weights after training gets the last ones.
                get(self._broadcast())
                return
            if isinstance(request, Exception):
                raise request
            reference, reserved = request
            requested = time.perf_counter()
            try:
                batch = get(reference)
            except ray.exceptions.RayActorError:
                # The shard died with the request: give its credit back, the next request draws anew.
                with self._request_lock:
                    self._num_requested -= 1
                time.sleep(_RESTART_PAUSE_S)
                self._beat(settled_transitions=reserved, replay_s=time.perf_counter() - requested)
                continue
            arrived = time.perf_counter()
            self._pulses.works(f"at update {self._learner.learner_steps + 1}")
            with self._lock:
                # None while batches accumulate for an update.
                has_updated = self._learner.step(batch) is not None
            trained = time.perf_counter()
            steps = self._learner.learner_steps
            if has_updated and steps % config.broadcast_interval == 0:
                self._broadcast()
            self._estimate = batch.num_transitions
            self._beat(
                self._learner.metrics() if has_updated and steps % config.metrics_interval == 0 else {},
                updates=int(has_updated),
                settled_transitions=reserved,
                trained_transitions=batch.num_transitions,
                governor_s=requested - began,
                replay_s=arrived - requested,
                learner_s=trained - arrived,
                broadcast_s=time.perf_counter() - trained,
            )

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
        return "Learner"

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
            reserved = get(self._control.reserve.remote(estimate, self._num_wanted()))
            if reserved.stop:
                return None
            self._credits.extend((shard, estimate) for shard in reserved.shards)
        shard, estimate = self._credits.popleft()
        with self._request_lock:
            self._num_requested += 1
        return self._shards[shard].sample.remote(self._config.learner.batch_size), estimate

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
        self._control.beat_learner.remote(LearnerBeat(version, dict(self._totals), metrics or {}))
