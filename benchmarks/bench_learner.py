"""Milliseconds per update of the learner on synthetic MazeRunner-like batches.

    python benchmarks/bench_learner.py --batch-size 24 --length 250 --width 128 --layers 3

The floor printed beside the figure is the matrix products' floating-point work at this machine's measured rate.
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import time
from collections.abc import Sequence
from pathlib import Path
from typing import get_args

import numpy as np
import torch
from measuring.ceilings import measure_ceilings
from measuring.floors import NetworkSize, update_floor
from measuring.works import relabeled_batches

from amago_ray.config import Config
from amago_ray.config.agent import ActorCriticConfig, MultiTaskConfig
from amago_ray.config.env import EnvConfig
from amago_ray.config.learner import LearnerConfig
from amago_ray.config.model import AutoEncoderConfig, BackendName, ModelConfig, TransformerConfig
from amago_ray.data.sequence_batch import SequenceBatch
from amago_ray.data.specs import ActionSpec, EnvSpec, ObservationSpec
from amago_ray.learning.learner import Learner

NUM_ACTIONS = 5


def make_spec(length: int, continuous: bool) -> EnvSpec:
    action = ActionSpec("box", (2,)) if continuous else ActionSpec("discrete", (), (NUM_ACTIONS,))
    leaves = {
        "desired_goal": ObservationSpec("box", (3, 2), "float32"),
        "observation": ObservationSpec("box", (7,), "float32"),
    }
    return EnvSpec("synthetic", leaves, action, horizon=length)


def make_batch(spec: EnvSpec, lengths: list[int], rng: np.random.Generator) -> SequenceBatch:
    num_sequences, num_transitions = len(lengths), sum(lengths)
    num_tokens = num_transitions + num_sequences

    def actions(rows: int) -> np.ndarray:
        if spec.action.kind == "discrete":
            return rng.integers(NUM_ACTIONS, size=rows)
        return rng.uniform(-1, 1, (rows, *spec.action.shape)).astype(np.float32)

    return SequenceBatch(
        observations={
            name: rng.standard_normal((num_tokens, *leaf.shape), dtype=np.float32)
            for name, leaf in spec.observations.items()
        },
        prev_action=actions(num_tokens),
        prev_reward=(rng.random(num_tokens) < 0.02).astype(np.float32),
        time_index=np.concatenate([np.arange(length + 1) for length in lengths]),
        action=actions(num_transitions),
        reward=(rng.random(num_transitions) < 0.02).astype(np.float32),
        terminated=np.zeros(num_transitions, bool),
        cu_seqlens=np.concatenate([[0], np.cumsum(np.array(lengths) + 1)]).astype(np.int32),
        max_seqlen=max(lengths) + 1,
        weight=np.ones(num_sequences, np.float32),
        episode_ids=np.zeros((num_sequences, 4), np.int64),
        policy_versions=np.zeros((num_sequences, 2), np.int64),
    )


def make_config(args: argparse.Namespace) -> Config:
    return Config(
        env=EnvConfig(id="synthetic"),
        model=ModelConfig(
            timestep_encoder=AutoEncoderConfig(hidden_dim=args.encoder_width, output_dim=args.encoder_output),
            sequence_model=TransformerConfig(
                context_length=args.length,
                d_model=args.width,
                num_layers=args.layers,
                num_heads=8,
                dropout=args.dropout,
                attention_backend=args.attention,
            ),
        ),
        agent=MultiTaskConfig() if args.agent == "multi_task" else ActorCriticConfig(),
        learner=LearnerConfig(batch_size=args.batch_size, compile=args.compile, precision=args.precision),
    )


class Updates:
    """A learner and batches in memory, each of other lengths if several are given, measured in updates.

    Raises:
        ConfigError: the settings do not fit each other.
    """

    def __init__(self, config: Config, spec: EnvSpec, lengths: Sequence[Sequence[int]], *, device: str = "cpu") -> None:
        rng = np.random.default_rng(0)
        self._batches = [make_batch(spec, list(each), rng) for each in lengths]
        self.num_tokens = round(statistics.mean(batch.num_tokens for batch in self._batches))
        self.learner = Learner(config, spec, device=device)
        self.device = device
        self._count = 0

    @property
    def num_parameters(self) -> int:
        """Those that are trained."""
        return sum(parameter.numel() for parameter in self.learner.agent.trained_parameters().values())

    def update(self) -> None:
        """One more update, on a batch of the host; does not wait for the device."""
        self.learner.step(self._batches[self._count % len(self._batches)])
        self._count += 1

    def update_ms(self) -> float:
        """Milliseconds of one more update."""
        began = time.perf_counter()
        self.update()
        if self.device != "cpu":
            torch.cuda.synchronize()
        return (time.perf_counter() - began) * 1e3


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    parser.add_argument("--batch-size", type=int, default=24, help="sequences per update")
    parser.add_argument("--length", type=int, default=250, help="transitions per sequence")
    parser.add_argument("--mean-share", type=float, default=1.0, help="below 1: lengths vary, with this mean share")
    parser.add_argument("--width", type=int, default=128)
    parser.add_argument("--layers", type=int, default=3)
    parser.add_argument("--encoder-width", type=int, default=128)
    parser.add_argument("--encoder-output", type=int, default=256)
    parser.add_argument("--dropout", type=float, default=0.05)
    parser.add_argument("--agent", choices=["actor_critic", "multi_task"], default="actor_critic")
    parser.add_argument("--continuous", action="store_true")
    parser.add_argument("--precision", choices=["float32", "bfloat16"], default="float32")
    parser.add_argument("--attention", choices=get_args(BackendName), default="auto")
    parser.add_argument("--compile", action="store_true")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--updates", type=int, default=20)
    parser.add_argument("--warmup", type=int, default=3)
    parser.add_argument("--out", type=Path, help="write the result as JSON")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)

    lengths: Sequence[Sequence[int]] = [[args.length] * args.batch_size]
    if args.mean_share < 1:
        lengths = relabeled_batches(args.batch_size, args.length, args.mean_share)
    updates = Updates(make_config(args), make_spec(args.length, args.continuous), lengths, device=args.device)
    times_ms = [updates.update_ms() for _ in range(args.warmup + args.updates)][args.warmup :]
    size = NetworkSize(19, args.encoder_width, args.encoder_output, args.width, args.layers, NUM_ACTIONS)
    result = {
        "batch_size": args.batch_size,
        "length": args.length,
        "tokens": updates.num_tokens,
        "width": args.width,
        "layers": args.layers,
        "parameters": updates.num_parameters,
        "threads": args.threads,
        "device": args.device,
        "median_ms": statistics.median(times_ms),
        "min_ms": min(times_ms),
        "max_ms": max(times_ms),
        "gflop": size.mean_update_flops(lengths) / 1e9,
        "torch": torch.__version__,
        "processor": platform.processor() or platform.machine(),
    }
    if args.device == "cpu":
        floor = update_floor(size, lengths, measure_ceilings(1e8, precision=args.precision))
        result["machine_gflops_per_s"] = floor["gflop_per_s"]
        result["floor_ms"] = floor["limit"]
    for name, value in result.items():
        print(f"{name:22} {value:.1f}" if isinstance(value, float) else f"{name:22} {value}")
    if args.out:
        args.out.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
