"""Suite `loading`: whether batches arrive while the device works, and how much of the time it is idle."""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from types import TracebackType

import numpy as np
from bench_learner import make_batch
from measuring.device import Device
from measuring.rows import Case, Row
from measuring.works import relabeled_lengths
from torch.autograd import DeviceType  # type: ignore[attr-defined]
from torch.profiler import ProfilerActivity, profile

from amago_ray.data.sequence_batch import SequenceBatch
from amago_ray.learning.learner import Learner
from gpu_suites.setting import LearnerSize, Setting

ABOUT = (
    "Updates on batches that lie in memory, and on batches that a thread of the same process makes anew meanwhile "
    "(three ahead, as `learner.prefetch`); each is copied through pinned memory without waiting. Waited: share of the "
    "time in which the learner's thread waited for a batch. Idle: share of the time in which the device ran nothing, "
    "from a trace of some updates; tracing slows the host down, so it is an upper bound, and it holds every gap, those "
    "between an update's own kernels too. Target: below 3 %, which small models miss for want of work, not of data."
)
DEFAULT, MIDDLE, LARGE = LearnerSize(24, 250, 256, 3), LearnerSize(64, 1000, 512, 6), LearnerSize(24, 2000, 768, 12)
TINY = LearnerSize(2, 8, 32, 1)
# Size, and whether all sequences are full.
BATCHES = ((DEFAULT, True), (LARGE, True), (MIDDLE, True), (DEFAULT, False), (MIDDLE, False))
TINY_BATCHES = ((TINY, True), (TINY, False))
PREFETCH = 3
TRACED_UPDATES = 10


def cases(setting: Setting) -> Iterator[Case]:
    """Full and relabeled lengths, from memory and from a thread."""
    for size, has_full_lengths in TINY_BATCHES if setting.is_tiny else BATCHES:
        for source in ("memory", "thread"):
            yield _case(setting, size, has_full_lengths, source)


def _case(setting: Setting, size: LearnerSize, has_full_lengths: bool, source: str) -> Case:
    case: Row = {
        "batch_size": size.batch_size,
        "context": size.context,
        "width": size.width,
        "layers": size.layers,
        "lengths": "full" if has_full_lengths else "relabeled",
        "source": source,
    }
    lengths = size.lengths if has_full_lengths else relabeled_lengths(size.batch_size, size.context)
    return case, lambda: measure(setting, size, lengths, source)


def measure(setting: Setting, size: LearnerSize, lengths: Sequence[int], source: str) -> Row:
    """Time of updates, of waiting, and of an idle device."""
    device, spec = setting.device, size.spec
    rng = np.random.default_rng(0)

    def make() -> SequenceBatch:
        return make_batch(spec, list(lengths), rng)

    learner = Learner(size.config, spec, device=device.kind)
    if source == "memory":
        batches = [make() for _ in range(PREFETCH)]
        taken = iter(range(10**9))
        return _measure(device, setting.seconds, learner, lambda: batches[next(taken) % PREFETCH])
    with Producer(make) as producer:
        return _measure(device, setting.seconds, learner, producer.take)


def _measure(device: Device, seconds: float, learner: Learner, take: Callable[[], SequenceBatch]) -> Row:
    waited_s = 0.0

    def update() -> None:
        nonlocal waited_s
        began = time.perf_counter()
        batch = take()
        waited_s += time.perf_counter() - began
        learner.step(batch)

    for _ in range(3):
        update()
    device.wait()
    waited_s, updates, began = 0.0, 0, time.perf_counter()
    while updates < 2 or time.perf_counter() - began < seconds:
        update()
        updates += 1
    device.wait()
    elapsed_s = time.perf_counter() - began
    return {
        "ms_per_update": elapsed_s / updates * 1e3,
        "waited": waited_s / elapsed_s,
        "idle": traced_idle_share(update) if device.is_cuda else None,
    }


def traced_idle_share(update: Callable[[], None]) -> float | None:
    """Share of the time of some updates in which the device ran nothing; None where tracing shows nothing."""
    with profile(activities=[ProfilerActivity.CUDA]) as trace:
        for _ in range(TRACED_UPDATES):
            update()
    return idle_share(
        [
            (float(event.time_range.start), float(event.time_range.end))
            for event in trace.events() or ()
            # Annotations are drawn over the gaps between the kernels that belong to them.
            if event.device_type == DeviceType.CUDA and not getattr(event, "is_user_annotation", False)
        ]
    )


def idle_share(busy: Sequence[tuple[float, float]]) -> float | None:
    """Share of the time from the first beginning to the last end in which no interval lies; None without intervals."""
    if not busy:
        return None
    ordered = sorted(busy)
    first = until = ordered[0][0]
    idle = 0.0
    for start, stop in ordered:
        idle += max(0.0, start - until)
        until = max(until, stop)
    return idle / (until - first) if until > first else 0.0


class Producer:
    """A thread that makes batches, a few ahead."""

    def __init__(self, make: Callable[[], SequenceBatch]) -> None:
        self._make = make
        self._made: queue.Queue[SequenceBatch] = queue.Queue(PREFETCH)
        self._has_ended = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def take(self) -> SequenceBatch:
        """The next batch, once it is made."""
        return self._made.get()

    def __enter__(self) -> Producer:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._has_ended.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._has_ended.is_set():
            batch = self._make()
            while not self._has_ended.is_set():
                try:
                    self._made.put(batch, timeout=0.05)
                    break
                except queue.Full:
                    continue
