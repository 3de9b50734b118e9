"""Memory of a process that trains on a CPU."""

from __future__ import annotations

import ctypes

_MXFAST, _TRIM_THRESHOLD, _TOP_PAD, _MMAP_THRESHOLD = 1, -1, -2, -3
_MIB = 1024 * 1024


def keep_freed_memory() -> None:
    """Let glibc keep what tensors free instead of giving it back to the system; elsewhere nothing happens.

    An update allocates and frees activations of megabytes each. By default every one of them is mapped afresh: tens of
    thousands of page faults per update, 5 % of its time. Small blocks are freed at once: those put aside would be gone
    through at every free of a large one, 3 % of a small model's update.
    """
    try:
        mallopt = ctypes.CDLL("libc.so.6").mallopt
    except (OSError, AttributeError):
        return
    mallopt(_MXFAST, 0)
    mallopt(_MMAP_THRESHOLD, 32 * _MIB)
    mallopt(_TRIM_THRESHOLD, 1024 * _MIB)
    mallopt(_TOP_PAD, 16 * _MIB)
