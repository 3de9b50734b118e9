"""`kept_torch_settings`: environments may use torch too, and set what the whole process shares."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Self

if TYPE_CHECKING:
    import torch


class kept_torch_settings:  # noqa: N801  (a context manager, as those of contextlib)
    """Leaves torch's default dtype and device, its gradient mode, threads and determinism as they were.

    Its global random stream needs no care: whatever draws here has a generator of its own, or seeds that stream anew.
    A process that has not imported torch need not do so for this; what does it inside finds all as imported, but for
    the number of threads.
    """

    def __enter__(self) -> Self:
        self._before = _settings() if "torch" in sys.modules else None
        return self

    def __exit__(self, *_: object) -> None:
        if "torch" not in sys.modules:
            return
        import torch

        now = _settings()
        before = self._before or (torch.float32, torch.device("cpu"), True, now[3], False, False)
        if now == before:
            return
        dtype, device, has_gradients, num_threads, is_deterministic, only_warns = before
        torch.set_default_dtype(dtype)
        if now[1] != device:
            torch.set_default_device(device)
        torch.set_grad_enabled(has_gradients)
        torch.set_num_threads(num_threads)
        torch.use_deterministic_algorithms(is_deterministic, warn_only=only_warns)


def _settings() -> tuple[torch.dtype, torch.device, bool, int, bool, bool]:
    import torch

    return (
        torch.get_default_dtype(),
        # Ten times as quick as asking for it.
        torch.empty(0).device,
        torch.is_grad_enabled(),
        torch.get_num_threads(),
        torch.are_deterministic_algorithms_enabled(),
        torch.is_deterministic_algorithms_warn_only_enabled(),
    )
