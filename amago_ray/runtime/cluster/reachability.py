"""Whether Ray can be started here, or reached there: said in one line and in bounded time."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path

from amago_ray.errors import TrainingError
from amago_ray.runtime.protocol.endings import short

ANSWER_TIMEOUT_S = 25.0
_CONNECT_TIMEOUT_S = 3.0

# The longest name that Ray gives a socket of this process below its temporary directory, and what the system allows.
_LONGEST_SOCKET = f"ray/session_2000-01-01_00-00-00_000000_{os.getpid()}/sockets/plasma_store"
_LONGEST_SOCKET_PATH = 107

# Joins and leaves. Where nothing answers Ray may wait for minutes, so it does so in a process that can be ended.
_JOIN = """
import sys
import ray
try:
    ray.init(address=sys.argv[1], log_to_driver=False, logging_level="CRITICAL")
except Exception as error:
    sys.exit("REASON " + type(error).__name__ + ": " + " ".join(str(error).split()))
"""


def require_temporary_directory(environment: Mapping[str, str] = os.environ) -> None:
    """See that Ray can keep its files and sockets where the environment tells it to.

    Raises:
        TrainingError: the directory is too long a path, no directory, or cannot be written.
    """
    name = next((name for name in ("RAY_TMPDIR", "TMPDIR") if environment.get(name)), None)
    path = Path("/tmp" if name is None else environment[name])
    where = f"{name or 'temporary directory'}: {path}"
    too_long = len(os.fsencode(path / _LONGEST_SOCKET)) - _LONGEST_SOCKET_PATH
    if too_long > 0:
        raise TrainingError(
            f"{where}: too long for Ray's sockets by {too_long} bytes: set RAY_TMPDIR to a shorter path"
        )
    try:
        directory = path / "ray"
        directory.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=directory):
            pass
    except OSError as error:
        raise TrainingError(f"{where}: Ray cannot write there: {error.strerror}") from error


def require_cluster(address: str, timeout_s: float = ANSWER_TIMEOUT_S) -> None:
    """See that a Ray cluster which this process may join answers at `address`: "auto", or host:port.

    Raises:
        TrainingError: it does not, or cannot be joined, after `timeout_s` at the latest.
    """
    where = f'cluster.address: "{address}"'
    if "://" in address:
        raise TrainingError(f'{where}: expected host:port or "auto"; the run joins the cluster itself, not by a proxy')
    if address != "auto":
        host, _, port = address.rpartition(":")
        if not host or not port.isdigit() or not 0 < int(port) < 2**16:
            raise TrainingError(f'{where}: expected host:port or "auto"')
        try:
            socket.create_connection((host.strip("[]"), int(port)), timeout=_CONNECT_TIMEOUT_S).close()
        except OSError as error:
            raise TrainingError(f"{where}: nothing answers there: {error.strerror or error}") from error
    try:
        joined = subprocess.run(
            [sys.executable, "-c", _JOIN, address],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=timeout_s,
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise TrainingError(f"{where}: no Ray cluster answers there within {timeout_s:g} s") from None
    if joined.returncode:
        _, _, reason = joined.stderr.rpartition("REASON ")
        line = short(reason) or f"exit code {joined.returncode}"
        raise TrainingError(f"{where}: {line}: is it a cluster of this version of Ray, with this process's token?")


def require_joined(address: str, joined: str) -> None:
    """See that the cluster at `joined`, which this process has joined already, is the one asked for at `address`.

    Raises:
        TrainingError: it is another one.
    """
    if address in ("auto", joined):
        return
    (host, _, port), (joined_host, _, joined_port) = address.rpartition(":"), joined.rpartition(":")
    are_here = all(_is_here(each) for each in (host, joined_host))
    if port != joined_port or not (are_here or _numbers(host) & _numbers(joined_host)):
        raise TrainingError(
            f'cluster.address: "{address}": this process has joined Ray at {joined} already; ray.shutdown() leaves it'
        )


def _numbers(host: str) -> set[str]:
    """The numeric addresses of a host; none if it is unknown."""
    try:
        return {str(found[4][0]) for found in socket.getaddrinfo(host.strip("[]"), None)}
    except (OSError, UnicodeError):
        return set()


def _is_here(host: str) -> bool:
    """Whether a host is this machine: only to addresses of its own can a socket be bound."""
    for number in _numbers(host):
        with socket.socket(socket.AF_INET6 if ":" in number else socket.AF_INET, socket.SOCK_DGRAM) as probe:
            try:
                probe.bind((number, 0))
            except OSError:
                continue
            return True
    return False
