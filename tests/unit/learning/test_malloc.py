import ctypes

import pytest

from amago_ray.learning.malloc import keep_freed_memory


def test_glibc_is_told_to_keep_large_blocks_and_to_free_small_ones_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    told = {}

    class Libc:
        def __init__(self, name: str) -> None:
            assert name == "libc.so.6"

        def mallopt(self, parameter: int, value: int) -> None:
            told[parameter] = value

    monkeypatch.setattr(ctypes, "CDLL", Libc)
    keep_freed_memory()
    # M_MXFAST, M_TRIM_THRESHOLD, M_TOP_PAD, M_MMAP_THRESHOLD of malloc.h; the last is limited to 32 MiB.
    assert told == {1: 0, -1: 1024 * 2**20, -2: 16 * 2**20, -3: 32 * 2**20}


@pytest.mark.parametrize("error", [OSError("no such library"), AttributeError("no mallopt")])
def test_without_glibc_nothing_happens(monkeypatch: pytest.MonkeyPatch, error: Exception) -> None:
    def fail(_: str) -> None:
        raise error

    monkeypatch.setattr(ctypes, "CDLL", fail)
    keep_freed_memory()
