"""Settings of a process that trains."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest

SCRIPT = """
import json, os, sys
from amago_ray.config.learner import LearnerConfig
from amago_ray.learning.process import prepare_process
assert "torch" not in sys.modules, "what torch reads when it loads would come too late"
prepare_process(LearnerConfig(num_threads=json.loads(sys.argv[1]), num_cpus_per_learner=2.5))
import torch
caches = [os.environ[name] for name in ("ONEDNN_PRIMITIVE_CACHE_CAPACITY", "LRU_CACHE_CAPACITY")]
print(json.dumps([torch.get_num_threads(), *caches]))
"""


@pytest.mark.parametrize(("num_threads", "expected"), [(None, 2), (1, 1)])
def test_threads_are_those_set_or_the_learners_cpus(num_threads: int | None, expected: int) -> None:
    ours = ("OMP_", "ONEDNN_", "LRU_CACHE_")
    environment = {name: value for name, value in os.environ.items() if not name.startswith(ours)}
    assert prepared(num_threads, environment) == [expected, "512", "1"]


def test_what_the_user_has_set_stays() -> None:
    set_by_user = {"ONEDNN_PRIMITIVE_CACHE_CAPACITY": "2048", "LRU_CACHE_CAPACITY": "64"}
    assert prepared(1, {**os.environ, **set_by_user}) == [1, "2048", "64"]


def prepared(num_threads: int | None, environment: dict[str, str]) -> list[object]:
    """Threads and the sizes of the two caches in a process of its own."""
    command = [sys.executable, "-c", SCRIPT, json.dumps(num_threads)]
    output = subprocess.run(command, env=environment, capture_output=True, text=True, check=True).stdout
    found: list[object] = json.loads(output)
    return found
