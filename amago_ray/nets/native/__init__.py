"""Small compiled kernels for the CPU. Optional: where they could not be built at install, torch does the same work."""

from __future__ import annotations

import ctypes
from pathlib import Path
from typing import Any


def load_kernel(library: str, function: str) -> Any | None:
    """A function of a compiled library in this folder, still without types; None where it was not built."""
    found = list(Path(__file__).parent.glob(f"{library}*.so"))
    return getattr(ctypes.CDLL(str(found[0])), function, None) if found else None
