from pathlib import Path

import pytest
from helpers.small_run import SmallRun


@pytest.fixture
def small_run(tmp_path: Path) -> SmallRun:
    """A run that has not begun."""
    return SmallRun(tmp_path)
