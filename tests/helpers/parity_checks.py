"""Comparison with golden arrays, at the tolerances of the reference; all deviations are reported together."""

from __future__ import annotations

import numpy as np
import torch


class Checks:
    """Collects deviations; `finish` fails with all of them."""

    def __init__(self, slack: float = 1.0) -> None:
        self.slack = slack
        self.failures: list[str] = []
        self.num_compared = 0

    def close(self, name: str, found: object, expected: np.ndarray, *, relative: float = 0.0, absolute: float = 0.0):
        """max|found - expected| <= slack * (absolute + relative * max|expected|), with equal shapes."""
        found = found.detach().cpu().numpy() if isinstance(found, torch.Tensor) else np.asarray(found)
        self.num_compared += 1
        if found.shape != expected.shape:
            self.failures.append(f"{name}: shape {found.shape}, expected {expected.shape}")
            return
        limit = self.slack * (absolute + relative * float(np.abs(expected).max(initial=0.0)))
        error = float(np.abs(found.astype(np.float64) - expected.astype(np.float64)).max(initial=0.0))
        if not error <= limit:
            self.failures.append(f"{name}: differs by {error:.3g}, allowed {limit:.3g}")

    def finish(self) -> None:
        assert self.num_compared > 0
        assert not self.failures, "\n".join(self.failures)
