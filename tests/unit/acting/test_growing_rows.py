"""Rows of running episodes take the memory that the episodes hold, and little beside."""

from __future__ import annotations

import tracemalloc

import numpy as np

from amago_ray.acting.growing_rows import GrowingRows

IMAGE = ((64, 64, 3), "uint8")
IMAGE_BYTES = 64 * 64 * 3


def play(rows: GrowingRows, num_steps: int, *, ends: np.ndarray) -> None:
    """So many steps; the environments `ends` begin anew with each."""
    for _ in range(num_steps):
        rows["image"][:] = 1
        rows.advance()
        rows.begin(ends)


def held_bytes(num_envs: int, num_steps: int, *, ends: np.ndarray) -> int:
    """What rows hold more than before the first step."""
    rows = GrowingRows(num_envs, {"image": IMAGE})
    tracemalloc.start()
    play(rows, num_steps, ends=ends)
    held, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    return held


def test_one_long_episode_takes_no_memory_for_the_others() -> None:
    episode = 500 * IMAGE_BYTES
    assert 0.9 * episode < held_bytes(16, 500, ends=np.arange(1, 16)) < 1.1 * episode


def test_episodes_that_end_leave_nothing() -> None:
    assert held_bytes(16, 500, ends=np.arange(16)) < IMAGE_BYTES


def test_a_chunk_is_small_beside_the_environments_it_serves() -> None:
    for shape in ((), (3,), (64, 64, 3), (512, 512, 3)):
        tracemalloc.start()
        rows = GrowingRows(4, {"x": (shape, "float32")})
        held, _ = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        row_bytes = rows["x"].nbytes
        # The rest is a few objects.
        assert 8 * row_bytes < held < min(max(4 * 256 * 1024, 8 * row_bytes), 256 * row_bytes) + 10_000


def test_the_newest_rows_come_from_as_many_chunks_as_they_lie_in() -> None:
    rows = GrowingRows(2, {"x": ((), "int64")})
    for t in range(200):
        rows["x"][:] = (t, -t)
        if t == 90:
            rows.begin(np.array([1]))
        if t < 199:
            rows.advance()
    for count in (1, 7, 8, 9, 64, 65, 130, 200):
        assert rows.newest("x", 0, count).tolist() == list(range(200 - count, 200))
    assert rows.newest("x", 1, 500).tolist() == [-t for t in range(90, 200)], "no more than there is"
    assert rows.episode(1)["x"].tolist() == [-t for t in range(90, 200)]
