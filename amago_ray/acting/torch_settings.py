"""`kept_torch_settings`: environments may use torch too, and set what the whole process shares."""

from __future__ import annotations

from typing import Self

import torch


class kept_torch_settings:  # noqa: N801  (a context manager, as those of contextlib)
    """Leaves torch's default dtype and device, its gradient mode, threads and determinism as they were.

    Its global random stream needs no care: whatever draws here has a generator of its own, or seeds that stream anew.
    """

    def __enter__(self) -> Self:
        self._before = _settings()
        return self

    def __exit__(self, *_: object) -> None:
        now = _settings()
        if now == self._before:
            return
        dtype, device, has_gradients, num_threads, is_deterministic, only_warns = self._before
        torch.set_default_dtype(dtype)
        if now[1] != device:
            torch.set_default_device(device)
        torch.set_grad_enabled(has_gradients)
        torch.set_num_threads(num_threads)
        torch.use_deterministic_algorithms(is_deterministic, warn_only=only_warns)


def _settings() -> tuple[torch.dtype, torch.device, bool, int, bool, bool]:
    return (
        torch.get_default_dtype(),
        # Ten times as quick as asking for it.
        torch.empty(0).device,
        torch.is_grad_enabled(),
        torch.get_num_threads(),
        torch.are_deterministic_algorithms_enabled(),
        torch.is_deterministic_algorithms_warn_only_enabled(),
    )
