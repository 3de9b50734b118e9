"""Whether finished runs ever took an action that its mask forbade: every step of every episode in their replay.

    python benchmarks/check_masks.py runs/masked_maze --out benchmarks/results/masked_maze_actions.json

The steps are those that training collected, by the policy's samples and by exploration's noise.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np

from amago_ray.data.arrow_codec import decode_episodes


def count(run: Path) -> dict[str, Any]:
    """Steps of a run's replay, those with something forbidden, and those that took a forbidden action."""
    counts = {"episodes": 0, "steps": 0, "actions_forbidden": 0, "forbidden_actions_taken": 0}
    expected = 0.0
    for segment in sorted(run.glob("replay/shard_*/*.arrows")):
        for episode in decode_episodes(segment.read_bytes()):
            assert episode.action_mask is not None
            mask = np.asarray(episode.action_mask)[: len(episode.actions)]
            allowed = mask[np.arange(len(mask)), np.asarray(episode.actions)]
            counts["episodes"] += 1
            counts["steps"] += len(mask)
            counts["actions_forbidden"] += int((~mask).sum())
            counts["forbidden_actions_taken"] += int((~allowed).sum())
            expected += float((~mask).mean(1).sum())
    return {**counts, "forbidden_actions_expected_of_uniform_choice": round(expected)}


def main() -> None:
    """Count, print and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", type=Path, nargs="+", help="run directories of an environment with discrete actions")
    parser.add_argument("--out", type=Path, help="path of the result as JSON")
    arguments = parser.parse_args()
    result = {run.name: count(run) for run in arguments.runs}
    text = json.dumps(result, indent=1)
    print(text)
    if arguments.out:
        arguments.out.write_text(text + "\n")


if __name__ == "__main__":
    main()
