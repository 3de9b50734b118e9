"""A Ray cluster of several nodes on this machine."""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from types import MappingProxyType
from typing import Any

import ray
from helpers.processes import descendants
from ray.cluster_utils import Cluster

from amago_ray.runtime.cluster.ray_connection import NAMESPACE

Node = Any
"""Ray's."""


class NodeCluster:
    """Nodes with ports of their own, and files in a folder of their own that goes with them; this process joins.

    All nodes are one host to Ray, and share its disk.
    """

    launcher: Sequence[str] = ()
    """What starts a driver of the cluster's."""
    environment: Mapping[str, str] = MappingProxyType({})
    """What a driver needs."""

    def __init__(self, *num_cpus: float, system_config: Mapping[str, Any] | None = None) -> None:
        """num_cpus: of each node, the first being the head, to which drivers of this machine connect."""
        # Short: Ray keeps sockets there.
        self._directory = Path(tempfile.mkdtemp(prefix="art_", dir="/tmp"))
        self._cluster = Cluster(
            initialize_head=True,
            head_node_args={
                "num_cpus": num_cpus[0],
                "include_dashboard": False,
                "temp_dir": str(self._directory),
                "_system_config": dict(system_config or {}),
            },
        )
        try:
            self.address: str = self._cluster.address
            self.nodes: list[Node] = [self._cluster.head_node]
            for each in num_cpus[1:]:
                self.add(each)
            ray.init(address=self.address, namespace=NAMESPACE, log_to_driver=False, logging_level="ERROR")
        except BaseException:
            self.close()
            raise

    def add(self, num_cpus: float, labels: Mapping[str, str] | None = None) -> Node:
        """Start one more node."""
        node = self._cluster.add_node(num_cpus=num_cpus, labels=dict(labels or {}))
        self.nodes.append(node)
        return node

    def remove(self, node: Node) -> None:
        """A node is gone at once, with all its processes."""
        self._cluster.remove_node(node, allow_graceful=False)
        self.nodes.remove(node)

    def drain(self, node: Node, time_s: float = 60) -> None:
        """Announce that a node will be taken away, as a spot market does; when it is, is up to the caller."""
        command = [sys.executable, "-m", "ray.scripts.scripts", "drain-node", "--address", self.address]
        reason = ["--reason", "DRAIN_NODE_REASON_PREEMPTION", "--reason-message", "spot"]
        deadline = ["--deadline-remaining-seconds", str(round(time_s))]
        subprocess.run([*command, "--node-id", node.node_id, *reason, *deadline], check=True, timeout=60)

    def node_of(self, pid: int) -> Node:
        """The node on which a process runs."""
        return next(node for node in self.nodes if pid in descendants(_raylet(node)))

    def named_actors(self) -> list[str]:
        """Names of the actors of all runs that the cluster knows."""
        return [each["name"] for each in ray.util.list_named_actors(all_namespaces=True)]

    def close(self) -> None:
        """End all processes, and remove their files."""
        ray.shutdown()
        self._cluster.shutdown()
        with suppress(FileNotFoundError):
            shutil.rmtree(self._directory)


def _raylet(node: Node) -> int:
    """The process that starts a node's others."""
    ((raylet, *_),) = [processes for kind, processes in node.all_processes.items() if kind == "raylet"]
    return int(raylet.process.pid)
