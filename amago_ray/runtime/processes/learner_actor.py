"""`LearnerActor`: a process that trains from replay and broadcasts weights."""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping
from typing import Any

import ray

from amago_ray.config import Config
from amago_ray.data.episode import PolicyVersion
from amago_ray.data.specs import EnvSpec
from amago_ray.learning.process import prepare_process
from amago_ray.runtime.processes.batch_requests import BatchRequests
from amago_ray.runtime.protocol.actors import ASIDE, get
from amago_ray.runtime.protocol.endings import LostPeerError
from amago_ray.runtime.protocol.messages import LearnerBeat, learner_name
from amago_ray.runtime.protocol.pulse import start_pulses
from amago_ray.runtime.protocol.shard_table import ShardTable

_TURN_S = 1.0
"""How long a learner waits for a batch before it tells the others that it has none."""
_TOLD_AFTER_S = 10.0


class LearnerActor:
    """A thin shell around `Learner`: `run` trains until the control actor says stop.

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
        self._requests = BatchRequests(
            self._config,
            self._control,
            self._table,
            incarnation=self._incarnation,
            first_update=learner.learner_steps + 1,
            rank=self._rank,
        )
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
        self._requests.start()
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
        batch = self._requests.next(_TURN_S)
        arrived = time.perf_counter()
        self._pulses.waits("waiting for the other learners")
        agreement = self._learner.agree(batch, is_over=self._requests.is_over)
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
        self._requests.trained()
        tells = has_updated and self._is_first and steps % config.metrics_interval == 0
        self._beat(
            self._learner.metrics() if tells else {},
            updates=int(has_updated and self._is_first),
            learner_s=trained - arrived,
            broadcast_s=time.perf_counter() - trained,
        )
        return True

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

    def _broadcast(self) -> Any:
        with self._lock:
            snapshot = self._learner.snapshot()
        return self._control.push_weights.remote(snapshot)

    def _beat(self, metrics: Mapping[str, float] | None = None, **news: float) -> None:
        for name, more in (*news.items(), *self._requests.take_news().items()):
            self._totals[name] += more
        version = PolicyVersion(self._learner.incarnation, self._learner.learner_steps)
        self._control.beat_learner.remote(LearnerBeat(version, dict(self._totals), metrics or {}, self._rank))


def _node_address() -> str:
    address: str = ray.util.get_node_ip_address()  # type: ignore[no-untyped-call]
    return address
