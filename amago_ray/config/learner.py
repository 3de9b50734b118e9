"""Settings of the learner."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

from amago_ray.config.ranges import COUNT, NON_NEGATIVE, POSITIVE, POSITIVE_INTEGER, POSITIVE_OR_INFINITE


@dataclass(frozen=True, kw_only=True)
class LearnerConfig:
    """Updates: batches, optimizer, precision, and how weights travel."""

    num_learners: Annotated[int, POSITIVE_INTEGER] = 1
    """Learners that train together, each with batches of its own: an update follows the gradient of the mean loss over
    the transitions of all of them."""
    batch_size: Annotated[int, POSITIVE_INTEGER] = 24
    """B, sequences per batch of each learner; an update trains num_learners * batches_per_update batches."""
    learning_rate: Annotated[float, POSITIVE] = 1e-4
    """AdamW step size after warm-up."""
    weight_decay: Annotated[float, NON_NEGATIVE] = 1e-3
    """AdamW weight decay, on every parameter."""
    max_grad_norm: Annotated[float, POSITIVE_OR_INFINITE] = 1.0
    """Global norm to which gradients are clipped."""
    warmup_steps: Annotated[int, COUNT] = 500
    """Linear warm-up of the learning rate, in updates."""
    batches_per_update: Annotated[int, POSITIVE_INTEGER] = 1
    """Batches whose gradients each learner accumulates for one update."""
    max_consecutive_nonfinite_updates: Annotated[int, POSITIVE_INTEGER] = 20
    """Updates with a non-finite loss or gradient are skipped and counted; after this many in a row training stops."""
    num_cpus_per_learner: Annotated[float, NON_NEGATIVE] = 1.0
    """Logical CPUs that Ray reserves for each learner."""
    num_threads: Annotated[int, POSITIVE_INTEGER] | None = None
    """Threads of a learner on the CPU; None takes num_cpus_per_learner, at least 1."""
    num_gpus_per_learner: Annotated[float, NON_NEGATIVE] | None = None
    """GPUs of each learner; None takes one where the cluster has one."""
    precision: Literal["auto", "float32", "bfloat16"] = "auto"
    """"bfloat16" runs networks under autocast; weights, statistics and losses stay float32. "auto" does so where the
    device multiplies bfloat16 itself: GPUs, CPUs with AVX-512 BF16 or AMX."""
    compile: bool = False
    """Compile the update with torch.compile; costs about a minute at start."""
    prefetch: Annotated[int, POSITIVE_INTEGER] = 3
    """Sample requests outstanding."""
    broadcast_interval: Annotated[int, POSITIVE_INTEGER] = 10
    """Updates between broadcasts of the weights."""
    metrics_interval: Annotated[int, POSITIVE_INTEGER] = 20
    """Updates between full loss metrics."""
