"""The loss of Ray's control service is said, and ends a run before Ray ends its process."""

from __future__ import annotations

import socket

import pytest

from amago_ray.errors import ClusterError
from amago_ray.runtime.cluster.gcs_watch import GcsWatch, answers


class Scene:
    def __init__(self) -> None:
        self.now_s = 100.0
        self.is_up = True
        self.num_asked = 0
        self.watch = GcsWatch("head:6379", lambda: self.now_s, self.answers)

    def answers(self, address: str) -> bool:
        assert address == "head:6379"
        self.num_asked += 1
        return self.is_up

    def look_for(self, time_s: int) -> list[str]:
        found = []
        for _ in range(time_s):
            self.now_s += 1
            if (warning := self.watch.look()) is not None:
                found.append(warning)
        return found


def test_a_service_that_comes_back_is_a_warning() -> None:
    scene = Scene()
    assert scene.look_for(10) == []
    assert scene.num_asked <= 6, "it is not asked all the time"
    for _ in range(2):
        scene.is_up = False
        assert scene.look_for(28) == ["Ray's control service at head:6379 does not answer"]
        scene.is_up = True
        assert scene.look_for(10) == []


def test_one_that_does_not_ends_the_run() -> None:
    scene = Scene()
    scene.is_up = False
    with pytest.raises(ClusterError, match=r"head:6379 has not answered for 30 s"):
        scene.look_for(60)
    assert 130 <= scene.now_s < 150


def test_who_listens_answers() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = f"127.0.0.1:{server.getsockname()[1]}"
        assert answers(address)
    assert not answers(address)
