"""A process that trains, before torch is loaded."""

from __future__ import annotations

import os

from amago_ray.config.learner import LearnerConfig


def prepare_process(config: LearnerConfig) -> None:
    """Use `learner.num_threads` threads, or as many as the learner's CPUs, and keep few kernels; call it before torch.

    Without it torch takes every core, or, under Ray, as many as the process reserved, which may be none. A fixed number
    also keeps sums in the same order, so that results do not depend on the machine's cores. Of the environment, what
    the user has set stays.
    """
    # Threads that spin long while they wait take the cores from the run's other processes; threads that sleep at once
    # wake late. Tens of microseconds serve both. Read when torch loads.
    os.environ.setdefault("GOMP_SPINCOUNT", "10000")
    # Some 60 kernels for each size of batch, 0.2 MB each, and as much again where torch keeps their descriptions
    # beside oneDNN's own cache: by default both keep 1,024. An update meets few sizes for a while.
    os.environ.setdefault("ONEDNN_PRIMITIVE_CACHE_CAPACITY", "512")
    os.environ.setdefault("LRU_CACHE_CAPACITY", "1")
    import torch

    torch.set_num_threads(config.num_threads or max(int(config.num_cpus_per_learner), 1))
