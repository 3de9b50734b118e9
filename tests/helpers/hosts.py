"""Hosts on this machine: network namespaces on a bridge, each with a Ray node and a disk of its own."""

from __future__ import annotations

import os
import secrets
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path

import pytest
from helpers.processes import descendants, is_alive

_RAY = [str(Path(sys.executable).with_name("ray")), "start", "--block", "--disable-usage-stats"]


class Host:
    """A network namespace with a Ray node in it, and a folder that only its processes see."""

    def __init__(self, network: Network, number: int, num_cpus: int) -> None:
        self.network = network
        self.number = number
        self.address = f"{network.prefix}.{number}"
        self.namespace = f"{network.name}h{number}"
        self._num_cpus = num_cpus
        self._link = f"{network.name}v{number}"
        self._node: subprocess.Popen[bytes] | None = None
        _ip("netns", "add", self.namespace)
        _ip("link", "add", self._link, "type", "veth", "peer", "name", "eth0", "netns", self.namespace)
        self.heal()
        _ip("link", "set", self._link, "up")
        inside = ("-n", self.namespace)
        _ip(*inside, "address", "add", f"{self.address}/24", "dev", "eth0")
        _ip(*inside, "link", "set", "eth0", "up")
        _ip(*inside, "link", "set", "lo", "up")
        # By which Ray finds its own address.
        _ip(*inside, "route", "add", "default", "via", network.gateway)

    @property
    def root(self) -> int:
        """Below this process all of the node's are found."""
        assert self._node is not None
        return self._node.pid

    @property
    def is_up(self) -> bool:
        """Whether its node runs."""
        return self._node is not None and self._node.poll() is None

    def command(self, argv: Sequence[str]) -> list[str]:
        """What runs a command on this host."""
        return ["ip", "netns", "exec", self.namespace, *argv]

    def start(self, *, has_new_disk: bool = True) -> None:
        """Start the Ray node, and wait until it is there.

        has_new_disk: an empty one, as after a replacement of the machine; otherwise all is there that was.
        """
        network = self.network
        if has_new_disk:
            shutil.rmtree(self.disk, ignore_errors=True)
        self.disk.mkdir(exist_ok=True)
        log_file = network.directory / f"n{self.number}.log"
        log_file.unlink(missing_ok=True)
        temporary = network.directory / f"n{self.number}"
        if self is network.head or network.head is None:
            role = ["--head", f"--port={network.port}", "--include-dashboard=false"]
        else:
            role = [f"--address={network.address}"]
        ray = [*_RAY, *role, f"--node-ip-address={self.address}", f"--num-cpus={self._num_cpus}"]
        ray += [f"--temp-dir={temporary}", "--object-store-memory=150000000"]
        # A disk of the host's own: seen by what is started in this namespace of mounts.
        mount = f'mount --bind {self.disk} {network.disk} && exec "$@"'
        with log_file.open("wb") as log:
            self._node = subprocess.Popen(
                self.command(["unshare", "--mount", "sh", "-c", mount, "sh", *ray]),
                stdout=log,
                stderr=subprocess.STDOUT,
                env={**os.environ, **network.environment},
                start_new_session=True,
            )
        deadline_s = time.monotonic() + 150
        while "Ray runtime started" not in log_file.read_text():
            assert self._node.poll() is None, log_file.read_text()
            assert time.monotonic() < deadline_s, "the node did not start in time"
            time.sleep(0.1)

    @property
    def disk(self) -> Path:
        """The host's own disk, as this process sees it; the host's see it at the network's `disk`."""
        return self.network.directory / f"d{self.number}"

    def cut(self) -> None:
        """From here on nothing reaches the other hosts, or comes from them; nobody is told."""
        _ip("link", "set", self._link, "nomaster")

    def heal(self) -> None:
        """Connect it with the others."""
        _ip("link", "set", self._link, "master", self.network.name)

    def stop(self) -> None:
        """All processes of the host are gone at once, and nobody there reaches its disk."""
        found = subprocess.run(["ip", "netns", "pids", self.namespace], check=True, capture_output=True, text=True)
        pids = [int(pid) for pid in found.stdout.split()]
        for pid in pids:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        if self._node is not None:
            self._node.wait(timeout=30)
        deadline_s = time.monotonic() + 30
        while any(is_alive(pid) for pid in pids):
            assert time.monotonic() < deadline_s
            time.sleep(0.05)

    def restart(self) -> None:
        """Start the node again if it has ended: one that was taken for dead never comes back by itself."""
        if not self.is_up:
            self.stop()
            self.start(has_new_disk=False)


class Network:
    """Hosts that reach each other over a bridge; the first is the head of a Ray cluster. Skips where not permitted."""

    def __init__(self, *num_cpus: int, environment: Mapping[str, str] | None = None) -> None:
        """num_cpus: of each host. environment: of all Ray nodes."""
        token = secrets.token_hex(2)
        self.name = f"art{token}"
        self.prefix = f"10.{77 + secrets.randbelow(50)}.{secrets.randbelow(250)}"
        self.gateway = f"{self.prefix}.254"
        self.port = 6379
        # Said outright: by itself a node does not look whether there is a token. On a busy machine it starts slowly.
        patience = {"RAY_AUTH_MODE": "token", "RAY_raylet_start_wait_time_s": "120"}
        self.environment = {**patience, **(environment or {})}
        self.directory = Path(tempfile.mkdtemp(prefix="art_", dir="/tmp"))
        self.disk = self.directory / "disk"
        """A folder that is another one on every host."""
        self.disk.mkdir()
        self.head: Host | None = None
        self.hosts: list[Host] = []
        try:
            _ip("link", "add", self.name, "type", "bridge")
            _ip("address", "add", f"{self.gateway}/24", "dev", self.name)
            _ip("link", "set", self.name, "up")
        except (OSError, subprocess.CalledProcessError) as error:
            self.close()
            pytest.skip(f"hosts as network namespaces need root and iproute2: {_reason(error)}")
        try:
            for each in num_cpus:
                self.add(each)
        except BaseException:
            self.close()
            raise

    @property
    def launcher(self) -> list[str]:
        """What starts a driver, on the head."""
        return self.hosts[0].command([])

    @property
    def address(self) -> str:
        """Where the cluster is joined, from any host."""
        return f"{self.prefix}.1:{self.port}"

    def add(self, num_cpus: int) -> Host:
        """One more host."""
        host = Host(self, len(self.hosts) + 1, num_cpus)
        self.head = self.head or host
        self.hosts.append(host)
        host.start()
        return host

    def host_of(self, pid: int) -> Host:
        """The host on which a process runs."""
        return next(host for host in self.hosts if pid in descendants(host.root))

    def close(self) -> None:
        """End all processes, and remove everything."""
        for host in reversed(self.hosts):
            host.stop()
        for host in self.hosts:
            _ip("netns", "delete", host.namespace)
        with suppress(OSError, subprocess.CalledProcessError):
            _ip("link", "delete", self.name)
        shutil.rmtree(self.directory, ignore_errors=True)


def _ip(*arguments: str) -> None:
    subprocess.run(["ip", *arguments], check=True, capture_output=True, text=True, timeout=30)


def _reason(error: OSError | subprocess.CalledProcessError) -> str:
    return error.stderr.strip() if isinstance(error, subprocess.CalledProcessError) else str(error)
