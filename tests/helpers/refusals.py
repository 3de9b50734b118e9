"""What is refused is told in one line, and changes nothing."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from helpers.one_line import one_line

from amago_ray.errors import AmagoRayError


def contents(folder: Path) -> dict[str, bytes]:
    """Everything below a folder; of a folder nothing, and nothing of the marks of who opened a shard last."""
    return {
        str(path.relative_to(folder)): path.read_bytes() if path.is_file() and path.name != "owner.json" else b""
        for path in sorted(folder.rglob("*"))
    }


@contextmanager
def refusal(folder: Path, kind: type[AmagoRayError] = AmagoRayError, words: str | None = None) -> Iterator[list[str]]:
    """Holds the one line, which matches `words`, of the error that the code within raises.

    Whatever is below `folder` stays as it was, and nothing comes to it.
    """
    before = contents(folder)
    line: list[str] = []
    with pytest.raises(kind, match=words) as error:
        yield line
    line.append(one_line(error))
    after = contents(folder)
    assert after == before, f"other files: {sorted(after.keys() ^ before.keys())}"
