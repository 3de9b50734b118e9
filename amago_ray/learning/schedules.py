"""Schedules of the optimizer, as functions of the number of updates done."""

from __future__ import annotations


def warmed_up(learning_rate: float, learner_steps: int, warmup_steps: int) -> float:
    """The rate of the update that follows `learner_steps` others: linear from 0 over `warmup_steps`, then constant."""
    return learning_rate if learner_steps >= warmup_steps else learning_rate * learner_steps / warmup_steps
