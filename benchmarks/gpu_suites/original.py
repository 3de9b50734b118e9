"""Suite `original`: the original AMAGO and ours at the same update on the same device, in turns."""

from __future__ import annotations

import json
import statistics
import sys
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from measuring.protocol import Side
from measuring.rows import Case, NotRunError, Row
from measuring.works import LearningWork, describe

from gpu_suites.setting import Peer, Setting

ABOUT = (
    "Milliseconds of one update, waiting for the device after each; both sides stay set up and are measured in turns. "
    "The original's batch lies on the device already, ours comes from the host's memory. Attention: the original has "
    "vanilla (all scores in memory) and flex (compiled); ours takes SDPA, and what `auto` finds for bfloat16. The "
    "ratio is that of medians. Matmul precision: PyTorch's setting for float32 products; high is TF32, which the "
    "original switches on where it finds flash_attn. Target: 3 x at 256 x 3, 24 x 250."
)
HERE = Path(__file__).parent.parent
WORK = LearningWork("24 x 250, 256 x 3", ((250,) * 24,), 250, 3.0, width=256)
TINY = LearningWork("2 x 8, 32 x 1", ((8, 8),), 8, 3.0, width=32, layers=1)
# Precision, the original's attention, ours.
PAIRS = (
    ("float32", "vanilla", "sdpa"),
    ("float32", "flex", "sdpa"),
    ("bfloat16", "vanilla", "sdpa"),
    ("bfloat16", "flex", "sdpa"),
    ("bfloat16", "flex", "auto"),
)
# Flex attention has no gradients on a CPU.
TINY_PAIRS = tuple(pair for pair in PAIRS if pair[1] == "vanilla")
ROUNDS = 3
TIMEOUT_S = 240.0
"""Of one answer: the original compiles its update first."""


def cases(setting: Setting) -> Iterator[Case]:
    """The original's default size in both precisions."""
    for precision, theirs, mine in TINY_PAIRS if setting.is_tiny else PAIRS:
        yield _case(setting, precision, theirs, mine)


def _case(setting: Setting, precision: str, theirs: str, mine: str) -> Case:
    work = TINY if setting.is_tiny else WORK
    case: Row = {"work": work.name, "precision": precision, "original_attention": theirs, "our_attention": mine}
    return case, lambda: measure(setting, work, precision, theirs, mine)


def measure(setting: Setting, work: LearningWork, precision: str, theirs: str, mine: str) -> Row:
    """Both sides in turns, or ours alone.

    Raises:
        SideError: a side fails.
        NotRunError: there is no checkout of the original.
    """
    shared = {"work": describe(work), "device": setting.device.kind, "precision": precision}
    ours = [sys.executable, str(HERE / "our_side.py"), "learning", json.dumps({**shared, "attention": mine})]
    if setting.peer is None:
        raise NotRunError("it needs --peer and --peer-python")
    original = original_command(setting.peer, {**shared, "attention": theirs})
    with tempfile.TemporaryDirectory() as folder, ExitStack() as sides:
        started = []
        for name, command in (("original", original), ("ours", ours)):
            side = Side(command, log=Path(folder) / f"{name}.log", timeout_s=TIMEOUT_S)
            sides.callback(side.close)
            started.append(side)
        values: list[list[float]] = [[], []]
        for _ in range(ROUNDS):
            for side, mine_so_far in zip(started, values, strict=True):
                mine_so_far.append(side.measure(setting.seconds, timeout_s=TIMEOUT_S)["value"])
        facts = [side.facts for side in started]
    original_ms, our_ms = map(statistics.median, values)
    return {
        "original_ms": original_ms,
        "our_ms": our_ms,
        "ratio": original_ms / our_ms,
        "original_first_update_s": facts[0]["first_update_s"],
        "our_first_update_s": facts[1]["first_update_s"],
        "original_parameters": facts[0]["parameters"],
        "our_parameters": facts[1]["parameters"],
        "original_matmul_precision": facts[0]["matmul_precision"],
        "our_matmul_precision": facts[1]["matmul_precision"],
        "repetitions": json.dumps([[round(value, 2) for value in side] for side in values]),
    }


def original_command(peer: Peer, case: dict[str, Any]) -> list[str]:
    """What starts the original's side."""
    return [str(peer.python), str(HERE / "peer_amago.py"), str(peer.checkout), "learning", json.dumps(case)]
