"""A run over two nodes of one machine: `--address` joins them and spreads runners and shards."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(300)]

ROOT = Path(__file__).parents[2]

RUN = [
    "configs/quickstart.yaml",
    "name=two_nodes",
    "rollout.num_env_runners=2",
    "rollout.num_envs_per_env_runner=4",
    "replay.num_shards=2",
    "model.sequence_model.d_model=16",
    "model.policy_head.hidden_dim=16",
    "model.critic.hidden_dim=16",
    "learner.batch_size=4",
    "evaluation.num_episodes=0",
    "evaluation.film_at_end=false",
    "stop.eval_success_rate=null",
    "report.interval_s=0.5",
    "stop.env_steps=8000",
]


@pytest.fixture
def cluster() -> Iterator[str]:
    """The address of a cluster of two nodes with three CPUs each."""
    from ray.cluster_utils import Cluster

    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 3, "include_dashboard": False})
    try:
        cluster.add_node(num_cpus=3)
        cluster.wait_for_nodes()
        yield cluster.address
    finally:
        cluster.shutdown()


def actors_by_node(address: str) -> dict[str, set[str]]:
    """Names of the run's living actors on each node, asked from a driver of its own."""
    code = (
        f"import json, ray; ray.init({address!r}, logging_level='ERROR', log_to_driver=False)\n"
        "from ray._private.state import actors\n"
        "found = {}\n"
        "for actor in actors().values():\n"
        "    if actor['State'] == 'ALIVE' and actor['Name'].startswith('two_nodes-'):\n"
        "        found.setdefault(actor['Address']['NodeID'], []).append(actor['Name'])\n"
        "print('FOUND' + json.dumps(found))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    found = json.loads(next(line for line in done.stdout.splitlines() if line.startswith("FOUND"))[len("FOUND") :])
    return {node: set(names) for node, names in found.items()}


def reports(metrics: Path) -> list[dict[str, float]]:
    return [json.loads(line) for line in metrics.read_text().splitlines()] if metrics.exists() else []


def test_a_run_joins_a_cluster_and_spreads_over_its_nodes(cluster: str, tmp_path: Path) -> None:
    process = subprocess.Popen(
        [sys.executable, "-m", "amago_ray.cli", "train", *RUN, f"runs_dir={tmp_path}", "--address", cluster],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        cwd=ROOT,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    metrics = tmp_path / "two_nodes" / "metrics.jsonl"
    deadline = time.monotonic() + 90
    while not any(report["learner_steps"] > 20 for report in reports(metrics)):
        assert process.poll() is None, process.communicate()[0]
        assert time.monotonic() < deadline
        time.sleep(0.1)
    by_node = actors_by_node(cluster)
    output, _ = process.communicate(timeout=180)
    assert process.returncode == 0, output

    runners = [sum("env_runner" in name for name in names) for names in by_node.values()]
    shards = [sum("replay_shard" in name for name in names) for names in by_node.values()]
    assert sorted(runners) == [1, 1], by_node
    assert sorted(shards) == [1, 1], by_node
    last = reports(metrics)[-1]
    assert last["env_steps"] >= 8000
    assert last["learner_steps"] > 0
    for shard in range(2):
        assert list((tmp_path / "two_nodes" / "replay" / f"shard_{shard}").glob("segment_*")), "each shard holds data"
