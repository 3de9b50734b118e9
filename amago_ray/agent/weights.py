"""Snapshots of weights: from tensors and back, and as safetensors files."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from safetensors import SafetensorError
from safetensors.torch import load as deserialize
from safetensors.torch import save as serialize
from torch import Tensor

from amago_ray.data.episode import PolicyVersion
from amago_ray.data.files import write_atomically
from amago_ray.data.snapshot import BFLOAT16, Snapshot
from amago_ray.errors import CheckpointError


def to_arrays(tensors: Mapping[str, Tensor]) -> dict[str, npt.NDArray[np.generic]]:
    """Copies on the host, dtype-exact."""
    arrays: dict[str, npt.NDArray[np.generic]] = {}
    for name, tensor in tensors.items():
        host = tensor.detach().to("cpu", copy=True)
        arrays[name] = host.view(torch.uint16).numpy().view(BFLOAT16) if host.dtype == torch.bfloat16 else host.numpy()
    return arrays


def to_tensors(arrays: Mapping[str, npt.NDArray[np.generic]]) -> dict[str, Tensor]:
    """Copies as tensors on the host, dtype-exact."""
    tensors: dict[str, Tensor] = {}
    for name, array in arrays.items():
        if array.dtype == BFLOAT16:
            tensors[name] = torch.from_numpy(np.array(array.view(np.uint16))).view(torch.bfloat16)
        else:
            tensors[name] = torch.from_numpy(np.array(array))
    return tensors


def save_snapshot(path: str | Path, snapshot: Snapshot) -> None:
    """Write a safetensors file that readers never see half of: temporary name, fsync, rename."""
    write_atomically(Path(path), snapshot_to_bytes(snapshot))


def snapshot_to_bytes(snapshot: Snapshot) -> bytes:
    """The content of a snapshot's safetensors file."""
    metadata = {"version": json.dumps(list(snapshot.version))}
    tensors = {name: tensor.contiguous() for name, tensor in to_tensors(snapshot.arrays).items()}
    return serialize(tensors, metadata)


def load_snapshot(path: str | Path) -> Snapshot:
    """Read a file written by `save_snapshot`.

    Raises:
        CheckpointError: the file is missing or not such a file.
    """
    try:
        content = Path(path).read_bytes()
    except OSError as error:
        raise CheckpointError(f"{path}: expected policy weights, got {error.strerror}") from error
    return snapshot_from_bytes(content, str(path))


def snapshot_from_bytes(content: bytes, name: str) -> Snapshot:
    """The snapshot in a safetensors file's content; `name` says in errors which file that is.

    Raises:
        CheckpointError: the content is broken or of another kind.
    """
    try:
        tensors = deserialize(content)
        header = json.loads(content[8 : 8 + int.from_bytes(content[:8], "little")])
        version = PolicyVersion(*json.loads(header["__metadata__"]["version"]))
    except (SafetensorError, KeyError, ValueError, TypeError) as error:
        raise CheckpointError(f"{name}: expected policy weights in safetensors format, got {error}") from error
    return Snapshot(version, to_arrays(tensors))
