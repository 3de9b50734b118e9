"""`ReplayShardActor`: a process that holds one replay shard."""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import ray
from ray.exceptions import RayError

from amago_ray.config import Config
from amago_ray.data.sequence_batch import SequenceBatch
from amago_ray.data.specs import EnvSpec
from amago_ray.errors import DiskFullError
from amago_ray.replay.layout import shard_directory
from amago_ray.replay.make import make_shard, surplus_shards
from amago_ray.replay.owner import Claim
from amago_ray.replay.shard import EmptyError, ReplayShard
from amago_ray.runtime.processes.shard_reports import ShardReports
from amago_ray.runtime.protocol.actors import ASIDE, get
from amago_ray.runtime.protocol.messages import ShardBeat
from amago_ray.runtime.protocol.pulse import start_pulses

# The control actor answers at once, when it lives; an answer may be lost.
_ANSWER_TIMEOUT_S = 10.0


class ReplayShardActor:
    """A thin shell around `ReplayShard`. Its process never loads torch.

    One that takes the place of another, with a higher incarnation, opens the same directory where it is there: what was
    acknowledged is in it.
    """

    def __init__(
        self,
        config: Config,
        spec: EnvSpec,
        directory: str,
        claim: Claim,
        shard: int,
        incarnation: int,
        control: Any,
    ) -> None:
        self._config = config
        self._replay = Path(directory)
        self._claim = claim
        self._number = shard
        self._closed = threading.Event()
        self._incarnation = incarnation
        self._control = control
        self._reports = ShardReports(self._tell)
        self._pulses = start_pulses(config, f"replay shard {shard}", self._control)
        self._opened: ReplayShard | Exception
        try:
            self._opened = make_shard(config, spec, self._replay, claim, shard, incarnation)
        except Exception as error:
            # Told to whoever asks: what a constructor raises, Ray prints.
            self._opened = error
        self._pulses.waits("waiting for requests")

    def open(self) -> int:
        """The epoch of the files that this shard goes on with.

        Raises:
            AmagoRayError: they cannot be opened.
        """
        return self._shard.epoch

    def begin(self) -> None:
        """Take over the directory, also where another run's files are to be overwritten."""
        with self._pulses.working("taking over its directory"):
            self._shard.begin()

    def surplus(self) -> Sequence[int]:
        """Shards that the run has no longer, and whose files are on this node."""
        return surplus_shards(self._config, self._replay, self._claim)

    def adopt(self, shards: Sequence[int]) -> Mapping[int, int]:
        """Take over the episodes of shards that the run has no longer; how many of each."""
        with self._pulses.working("taking over episodes"):
            return {shard: self._shard.adopt(shard_directory(self._replay, shard)) for shard in shards}

    def add(self, group: bytes) -> bool:
        """Store a group of encoded episodes; returns when they are on disk.

        False: the disk is full, and nothing of them is stored; the same group can be added again later.
        """
        is_stored = False
        with self._pulses.working("storing episodes"), suppress(DiskFullError):
            self._shard.add(group)
            is_stored = True
        self.report()
        return is_stored

    def take_back(self, group: bytes) -> int:
        """Store a group of episodes from other files of this shard; returns how many it lacked and had room for."""
        with self._pulses.working("taking back episodes"):
            num_taken = self._shard.take_back(group)
        self.report()
        return num_taken

    def sample(self, batch_size: int) -> SequenceBatch | None:
        """A batch drawn from this shard; None where all that it held turns out to be lost."""
        num_warnings = self._shard.num_warnings
        try:
            with self._pulses.working("making a batch"):
                return self._shard.sample(batch_size)
        except EmptyError:
            return None
        finally:
            if self._shard.num_warnings > num_warnings:
                self.report()

    def report(self) -> None:
        """Tell the control actor what is stored."""
        self._reports.put(ShardBeat(self._number, self._incarnation, self._shard.report()))

    @ray.method(concurrency_group=ASIDE)
    def watch(self) -> None:
        """Returns when the shard is closed: who waits is told when its process ends before."""
        self._closed.wait()

    @property
    def _shard(self) -> ReplayShard:
        if isinstance(self._opened, Exception):
            raise self._opened
        return self._opened

    def close(self) -> None:
        """Flush and close the segments."""
        self._closed.set()
        if not isinstance(self._opened, Exception):
            self._opened.close()

    def _tell(self, beat: ShardBeat) -> float | None:
        try:
            pause_s: float = get(self._control.beat_shard.remote(beat), _ANSWER_TIMEOUT_S)
        except RayError:
            return None
        return pause_s

    def __repr__(self) -> str:
        """The name in logs and in the Ray dashboard."""
        return f"ReplayShard({self._number})"
