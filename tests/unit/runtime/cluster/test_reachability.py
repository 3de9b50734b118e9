"""What keeps Ray from being started or reached is said in one line, and soon."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from pathlib import Path

import pytest
from helpers.one_line import one_line

from amago_ray.errors import TrainingError
from amago_ray.runtime.cluster.reachability import require_cluster, require_joined, require_temporary_directory


def reason_against(environment: dict[str, str]) -> str:
    with pytest.raises(TrainingError) as caught:
        require_temporary_directory(environment)
    return one_line(caught)


def test_a_directory_that_can_be_made_and_written_is_fine(tmp_path: Path) -> None:
    short = Path("/tmp")
    require_temporary_directory({})
    require_temporary_directory({"RAY_TMPDIR": str(short)})
    require_temporary_directory({"RAY_TMPDIR": str(short), "TMPDIR": "/nowhere/" + "x" * 200})


@pytest.mark.parametrize("name", ["RAY_TMPDIR", "TMPDIR"])
def test_a_temporary_directory_that_ray_cannot_use(tmp_path: Path, name: str) -> None:
    assert f"{name}: /tmp/{'x' * 90}: too long" in reason_against({name: f"/tmp/{'x' * 90}"})
    # Short enough, but nothing can be made in it, by root neither.
    assert f"{name}: /proc/x: Ray cannot write there" in reason_against({name: "/proc/x"})
    assert f"{name}: /etc/hosts: Ray cannot write there" in reason_against({name: "/etc/hosts"})


@pytest.fixture
def silent() -> Iterator[str]:
    """The address of something that takes connections and never answers."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield f"127.0.0.1:{server.getsockname()[1]}"


def reason_at(address: str, timeout_s: float = 5.0) -> str:
    with pytest.raises(TrainingError) as caught:
        require_cluster(address, timeout_s)
    assert address in str(caught.value)
    return one_line(caught)


@pytest.mark.parametrize("address", ["ray://head:10001", "http://head:8265"])
def test_a_proxy_is_no_cluster(address: str) -> None:
    assert "not by a proxy" in reason_at(address)


@pytest.mark.parametrize("address", ["head", "head:", ":6379", "head:port", "head:99999", ""])
def test_what_is_no_address(address: str) -> None:
    assert "expected host:port" in reason_at(address)


def test_where_nothing_listens(silent: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    assert "nothing answers there" in reason_at(f"127.0.0.1:{port}")


def test_a_host_that_does_not_exist() -> None:
    assert "nothing answers there" in reason_at("no-such-host.invalid:6379")


def test_what_listens_and_is_no_ray(silent: str) -> None:
    assert "no Ray cluster answers there within 5 s" in reason_at(silent)


@pytest.mark.parametrize("address", ["auto", "127.0.0.1:6379", "localhost:6379"])
def test_a_cluster_that_was_joined_before_may_be_named_in_several_ways(address: str) -> None:
    require_joined(address, "127.0.0.1:6379")


@pytest.mark.parametrize(
    "address", ["127.0.0.1:6380", "192.0.2.1:6379", "no-such-host.invalid:6379", "ray://127.0.0.1:6379", "nonsense"]
)
def test_another_cluster_than_was_joined_before_is_refused(address: str) -> None:
    with pytest.raises(TrainingError, match=r"has joined Ray at .* already") as error:
        require_joined(address, "127.0.0.1:6379")
    assert address in one_line(error)
