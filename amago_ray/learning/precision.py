"""The number format in which a learner's networks run."""

from __future__ import annotations

from typing import Literal

import torch

Precision = Literal["auto", "float32", "bfloat16"]


def network_dtype(precision: Precision, device: torch.device) -> torch.dtype:
    """What `learner.precision` means on this device: "auto" is bfloat16 where the device itself multiplies it."""
    if precision == "auto":
        return torch.bfloat16 if multiplies_bfloat16(device) else torch.float32
    return torch.bfloat16 if precision == "bfloat16" else torch.float32


def multiplies_bfloat16(device: torch.device) -> bool:
    """Whether the device has instructions for products of bfloat16, rather than emulating them.

    On CPUs: AVX-512 BF16, which those with AMX have too.
    """
    if device.type == "cuda":
        return torch.cuda.get_device_capability(device) >= (8, 0)
    return device.type == "cpu" and torch.cpu._is_avx512_bf16_supported()
