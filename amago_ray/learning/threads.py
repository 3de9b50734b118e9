"""CPU threads of a process that trains."""

from __future__ import annotations

import os

from amago_ray.config.learner import LearnerConfig


def limit_threads(config: LearnerConfig) -> None:
    """Use `learner.num_threads` threads, or as many as the learner's CPUs; call it before torch is loaded.

    Without it torch takes every core, or, under Ray, as many as the process reserved, which may be none. A fixed number
    also keeps sums in the same order, so that results do not depend on the machine's cores.
    """
    # Threads that spin long while they wait take the cores from the run's other processes; threads that sleep at once
    # wake late. Tens of microseconds serve both. Read when torch loads.
    os.environ.setdefault("GOMP_SPINCOUNT", "10000")
    import torch

    torch.set_num_threads(config.num_threads or max(int(config.num_cpus_per_learner), 1))
