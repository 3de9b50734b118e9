"""What an environment sets in torch does not last."""

import subprocess
import sys

import torch

from amago_ray.acting.torch_settings import kept_torch_settings


def test_everything_is_as_it_was() -> None:
    threads = torch.get_num_threads()
    with kept_torch_settings():
        torch.set_default_dtype(torch.float64)
        torch.set_default_device("meta")
        torch.set_grad_enabled(False)
        torch.set_num_threads(threads + 1)
        torch.use_deterministic_algorithms(True)
    new = torch.zeros(1)
    assert (new.dtype, new.device) == (torch.float32, torch.device("cpu"))
    assert torch.is_grad_enabled()
    assert torch.get_num_threads() == threads
    assert not torch.are_deterministic_algorithms_enabled()


def test_what_is_first_imported_inside_is_as_imported() -> None:
    code = """
from amago_ray.acting.torch_settings import kept_torch_settings
import sys
with kept_torch_settings():
    assert "torch" not in sys.modules
    import torch
    torch.set_default_dtype(torch.float64)
    torch.set_grad_enabled(False)
print(torch.get_default_dtype(), torch.is_grad_enabled())
"""
    assert subprocess.check_output([sys.executable, "-c", code], text=True).split() == ["torch.float32", "True"]


def test_also_after_an_error_and_under_no_grad() -> None:
    with torch.no_grad():
        try:
            with kept_torch_settings():
                torch.set_grad_enabled(True)
                raise ValueError
        except ValueError:
            assert not torch.is_grad_enabled()
    assert torch.is_grad_enabled()
