"""What every message to a user must be: one readable line."""

import pytest

from amago_ray.errors import AmagoRayError


def one_line(error: pytest.ExceptionInfo[AmagoRayError]) -> str:
    """The message of a caught error, checked to be one line that names no Python internals."""
    message = str(error.value)
    assert message
    assert "\n" not in message
    assert "Traceback" not in message
    assert "<class" not in message
    return message
