"""Settings of the learner."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True, kw_only=True)
class LearnerConfig:
    """Updates: batches, optimizer, precision, and how weights travel."""

    batch_size: int = 24
    """B, sequences per update."""
    learning_rate: float = 1e-4
    """AdamW step size after warm-up."""
    weight_decay: float = 1e-3
    """AdamW weight decay, on every parameter."""
    max_grad_norm: float = 1.0
    """Global norm to which gradients are clipped."""
    warmup_steps: int = 500
    """Linear warm-up of the learning rate, in updates."""
    batches_per_update: int = 1
    """Batches whose gradients are accumulated for one update."""
    max_consecutive_nonfinite_updates: int = 20
    """Updates with a non-finite loss or gradient are skipped and counted; after this many in a row training stops."""
    num_cpus_per_learner: float = 1.0
    """Logical CPUs that Ray reserves for each learner."""
    num_threads: int | None = None
    """Threads of a learner on the CPU; None takes num_cpus_per_learner, at least 1."""
    num_gpus_per_learner: float | None = None
    """GPUs of each learner; None takes one where the cluster has one."""
    precision: Literal["auto", "float32", "bfloat16"] = "auto"
    """"bfloat16" runs networks under autocast; weights, statistics and losses stay float32. "auto" does so where the
    device multiplies bfloat16 itself: GPUs, CPUs with AVX-512 BF16 or AMX."""
    compile: bool = False
    """Compile the update with torch.compile; costs about a minute at start."""
    prefetch: int = 3
    """Sample requests outstanding."""
    broadcast_interval: int = 10
    """Updates between broadcasts of the weights."""
    metrics_interval: int = 20
    """Updates between full loss metrics."""
