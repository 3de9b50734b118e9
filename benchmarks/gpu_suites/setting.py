"""What every suite is given, and the sizes that they share."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from bench_learner import NUM_ACTIONS, Updates, make_config, make_spec
from measuring.device import Device, DeviceCeilings
from measuring.floors import NetworkSize

from amago_ray.config import Config
from amago_ray.data.specs import EnvSpec

NUM_INPUTS = 19
ENCODER_WIDTH = 128
ENCODER_OUTPUT = 256


@dataclass(frozen=True)
class Peer:
    """A checkout of the original, and the Python that can import it."""

    checkout: Path
    python: Path


@dataclass(frozen=True)
class Setting:
    """Where and for how long cases are measured; tiny sizes show that a suite works, and nothing else."""

    device: Device
    ceilings: DeviceCeilings
    seconds: float
    is_tiny: bool
    peer: Peer | None = None


@dataclass(frozen=True)
class LearnerSize:
    """One learner on batches of `batch_size` sequences of `context` transitions."""

    batch_size: int
    context: int
    width: int
    layers: int
    precision: str = "bfloat16"
    compile: bool = False

    @property
    def lengths(self) -> tuple[int, ...]:
        """All full."""
        return (self.context,) * self.batch_size

    @property
    def network(self) -> NetworkSize:
        """For floors."""
        return NetworkSize(NUM_INPUTS, ENCODER_WIDTH, ENCODER_OUTPUT, self.width, self.layers, NUM_ACTIONS)

    @property
    def config(self) -> Config:
        """Defaults in all else."""
        return make_config(
            argparse.Namespace(
                batch_size=self.batch_size,
                length=self.context,
                width=self.width,
                layers=self.layers,
                encoder_width=ENCODER_WIDTH,
                encoder_output=ENCODER_OUTPUT,
                dropout=0.05,
                agent="actor_critic",
                compile=self.compile,
                precision=self.precision,
                attention="auto",
            )
        )

    @property
    def spec(self) -> EnvSpec:
        """Of observations that look like MazeRunner's."""
        return make_spec(self.context, continuous=False)

    def updates(self, device: Device, lengths: Sequence[int] | None = None) -> Updates:
        """A learner of this size, and batches of these lengths in memory."""
        return Updates(self.config, self.spec, [lengths or self.lengths], device=device.kind)
