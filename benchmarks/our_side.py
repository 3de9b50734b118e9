"""Ours at the works of `versus_amago.py`, in a process of its own.

python benchmarks/our_side.py acting|learning '{"work": ..., ...}'
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict
from typing import Any

from measuring.protocol import Measure, serve

from amago_ray.config.learner import LearnerConfig
from amago_ray.learning.process import prepare_process

ENVIRONMENTS = {
    "maze_runner": "MazeRunner",
    "dark_key_door": "DarkKeyDoor",
    "t_maze": "TMaze",
    "repeat_previous": "RepeatPrevious",
}


@contextmanager
def acting(case: Mapping[str, Any]) -> Iterator[tuple[dict[str, Any], Measure]]:
    """Env steps per second of all runners together: policy, environments, episodes encoded and added to replay."""
    from bench_acting import Runners

    work = case["work"]
    environment = ENVIRONMENTS[work["environment"]]
    kwargs = ", ".join(f"{name}: {value}" for name, value in work["settings"].items())
    discounts = work["auxiliary_discounts"]
    overrides = [
        "relabel.kind=none",
        f"env={{id: amago_ray/{environment}-v0, kwargs: {{{kwargs}}}}}",
        *([] if discounts is None else [f"agent.auxiliary_discounts={list(discounts)}"]),
        f"model.timestep_encoder.hidden_dim={work['encoder_hidden']}",
        f"model.timestep_encoder.output_dim={work['encoder_output']}",
        f"model.sequence_model.context_length={work['context_length']}",
        f"model.sequence_model.d_model={work['width']}",
        f"model.sequence_model.num_layers={work['layers']}",
    ]
    with Runners("maze_runner", overrides, num_runners=case["num_runners"], num_envs=case["num_envs"]) as runners:

        def measure(seconds: float) -> dict[str, Any]:
            rate = asdict(runners.measure(seconds))
            return {"value": rate.pop("env_steps_per_s"), **rate}

        yield {"ceilings": asdict(runners.ceilings)}, measure


@contextmanager
def learning(case: Mapping[str, Any]) -> Iterator[tuple[dict[str, Any], Measure]]:
    """Milliseconds of one update on batches in memory."""
    # As in a run's learner process, with all cores.
    prepare_process(LearnerConfig(num_threads=os.cpu_count()))
    import torch
    from bench_learner import Updates, make_config, make_spec
    from measuring.ceilings import measure_ceilings

    work = case["work"]
    settings = argparse.Namespace(
        length=work["context_length"],
        batch_size=len(work["lengths"][0]),
        width=work["width"],
        layers=work["layers"],
        encoder_width=128,
        encoder_output=work["encoder_output"],
        dropout=0.05,
        agent="actor_critic",
        compile=False,
        precision=case.get("precision", "float32"),
        attention=case.get("attention", "auto"),
    )
    ceilings = measure_ceilings(1e8, precision=settings.precision)
    spec = make_spec(settings.length, continuous=False)
    updates = Updates(make_config(settings), spec, work["lengths"], device=case.get("device", "cpu"))
    first_s = updates.update_ms() / 1e3
    for _ in range(max(2, len(work["lengths"]))):
        updates.update_ms()

    def measure(seconds: float) -> dict[str, Any]:
        count, began = 0, time.perf_counter()
        while count < 2 or time.perf_counter() - began < seconds:
            updates.update_ms()
            count += 1
        return {"value": (time.perf_counter() - began) / count * 1e3, "updates": count}

    facts = {
        "parameters": updates.num_parameters,
        "torch": torch.__version__,
        "matmul_precision": torch.get_float32_matmul_precision(),
        "threads": torch.get_num_threads(),
        "first_update_s": first_s,
        "ceilings": asdict(ceilings),
    }
    yield facts, measure


def main() -> None:
    """Be a side of the comparison."""
    case = json.loads(sys.argv[2])
    serve(lambda: {"acting": acting, "learning": learning}[sys.argv[1]](case))


if __name__ == "__main__":
    main()
