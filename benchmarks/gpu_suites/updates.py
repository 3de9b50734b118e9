"""Suites `throughput` and `compile`: updates of the learner on batches of the host's memory."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, replace

import torch
from measuring.rows import Case, Row

from gpu_suites.setting import LearnerSize, Setting

ABOUT = (
    "Whole updates, the batch's way from the host's memory included. MFU: the products that an update needs, over the "
    "time and the rate of one large product measured on the same device in the same precision; beside it, over the "
    "vendor's dense bfloat16 rate; products that causality hides do not count, and count in the last one. Peak memory: "
    "of tensors, weights and optimizer included. Target: MFU of 40 % at 768 x 12, context 2,000."
)
ABOUT_COMPILE = (
    "`learner.compile` compiles policy head and critics (torch.compile with dynamic shapes); it makes no CUDA graphs "
    "and the learner has no option for them, so none were measured. The first update includes compiling."
)

DEFAULT = LearnerSize(24, 250, 256, 3)
LARGE = LearnerSize(24, 2000, 768, 12)
SIZES = (
    DEFAULT,
    LARGE,
    replace(DEFAULT, precision="float32"),
    # Memory against context, and where it ends.
    *(replace(DEFAULT, context=context) for context in (500, 1000, 2000, 4000)),
    # Batches.
    *(replace(DEFAULT, batch_size=batch_size) for batch_size in (64, 256)),
    # Widths and layers.
    replace(DEFAULT, width=128),
    replace(DEFAULT, width=512, layers=6),
    replace(DEFAULT, width=768, layers=12),
    LearnerSize(64, 1000, 512, 6),
    replace(LARGE, precision="float32"),
    replace(LARGE, context=4000),
    LearnerSize(256, 1000, 256, 3),
    replace(LARGE, batch_size=256, context=4000),
)
TINY = (LearnerSize(2, 12, 32, 1), LearnerSize(3, 8, 32, 2, "float32"))


def throughput_cases(setting: Setting) -> Iterator[Case]:
    """Every size once."""
    for size in TINY if setting.is_tiny else SIZES:
        yield _case(setting, size)


def compile_cases(setting: Setting) -> Iterator[Case]:
    """The default and the largest size, compiled and not."""
    for size in TINY[:1] if setting.is_tiny else (DEFAULT, LARGE):
        for compiled in (False, True):
            yield _case(setting, replace(size, compile=compiled))


def _case(setting: Setting, size: LearnerSize) -> Case:
    return asdict(size), lambda: measure(setting, size)


def measure(setting: Setting, size: LearnerSize) -> Row:
    """Time, products and memory of updates of that size."""
    device, ceilings = setting.device, setting.ceilings
    if size.compile:
        # What earlier cases compiled counts against the compiler's limit of versions.
        torch.compiler.reset()
    updates = size.updates(device)
    first_s = updates.update_ms() / 1e3
    update_s = device.time_s(updates.update, setting.seconds)
    flops = size.network.update_flops(size.lengths)
    needed = flops - size.network.attention_flops(size.lengths) / 2
    datasheet = ceilings.datasheet_flops_per_s if size.precision == "bfloat16" else None
    return {
        "ms_per_update": update_s.median * 1e3,
        "lowest_ms": update_s.low * 1e3,
        "highest_ms": update_s.high * 1e3,
        "tokens_per_s": updates.num_tokens / update_s.median,
        "tflop": needed / 1e12,
        "mfu": needed / update_s.median / ceilings.flops_per_s(size.precision),
        "mfu_of_datasheet": datasheet and needed / update_s.median / datasheet,
        "mfu_with_hidden_products": flops / update_s.median / ceilings.flops_per_s(size.precision),
        "peak_memory_gib": device.peak_memory_gib,
        "first_update_s": first_s,
        "parameters": updates.num_parameters,
        "nonfinite_updates": updates.learner.metrics()["loss/nonfinite_updates"],
    }
