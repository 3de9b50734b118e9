"""Settings of the supervision of a run's processes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from amago_ray.config.ranges import POSITIVE, POSITIVE_OR_INFINITE


@dataclass(frozen=True, kw_only=True)
class SupervisionConfig:
    """When a process over Ray that says nothing is spoken of, and when it is killed and started again.

    A thread of each process gives a pulse that tells what the process does and since when. So long work does not look
    like death: a stopped process gives no pulse, a busy one does.
    """

    pulse_interval_s: Annotated[float, POSITIVE] = 5.0
    """Seconds between pulses of a process; longer where a run has hundreds of them."""
    late_after_s: Annotated[float, POSITIVE_OR_INFINITE] = 30.0
    """A process without a pulse for so long is warned of, once."""
    dead_after_s: Annotated[float, POSITIVE_OR_INFINITE] = 120.0
    """A process without a pulse for so long is killed and started again. Above the 65 s after which Ray itself declares
    a node dead, so that a node which is out of reach for less costs nothing."""
    stuck_after_s: Annotated[float, POSITIVE_OR_INFINITE] = 1800.0
    """A process that is at one and the same piece of work for so long (an update, a step of its environments, a batch
    of replay) is killed and started again, though it gives pulses; at a sixth of it, it is warned of."""
