"""What sums over learners cost on a link, from their number and bytes."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Link:
    """What connects learners: bytes/s in each direction of each, and seconds that a small sum takes."""

    name: str
    bytes_per_s: float
    latency_s: float

    def sum_s(self, num_learners: int, num_bytes: float) -> float:
        """Seconds of one sum over learners in a ring: each sends and receives all but one part, twice."""
        if num_learners == 1:
            return 0.0
        return self.latency_s + 2 * (num_learners - 1) / num_learners * num_bytes / self.bytes_per_s


@dataclass(frozen=True)
class UpdateSums:
    """The sums of one update: those on the device by their bytes, and how long the one on the host takes."""

    device_bytes: tuple[float, ...]
    host_s: float

    def gain(self, num_learners: int, update_s: float, link: Link) -> float:
        """Transitions/s of several learners over those of one whose update takes `update_s`; nothing overlaps."""
        if num_learners == 1:
            return 1.0
        sums_s = self.host_s + sum(link.sum_s(num_learners, each) for each in self.device_bytes)
        return num_learners * update_s / (update_s + sums_s)
