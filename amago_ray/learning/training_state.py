"""The files of a learner's checkpoint: acting weights as safetensors, the rest beside them, and a hash of all."""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import torch
from torch import Tensor

from amago_ray.agent.actor_critic import ACTING_PREFIXES
from amago_ray.agent.weights import snapshot_from_bytes, snapshot_to_bytes, to_arrays, to_tensors
from amago_ray.data.episode import PolicyVersion
from amago_ray.data.files import POLICY_FILE, TRAINING_STATE_FILE
from amago_ray.data.snapshot import Snapshot
from amago_ray.errors import CheckpointError, error_line

_NOT_HASHED = ("incarnation",)


def state_hash(state: Mapping[str, Any]) -> str:
    """SHA-256 over every name, type, shape and value of a learner's state; the incarnation may change on resume."""
    digest = hashlib.sha256()
    for name, value in _leaves({key: value for key, value in state.items() if key not in _NOT_HASHED}):
        digest.update(name.encode())
        if isinstance(value, Tensor):
            host = value.detach().to("cpu").contiguous()
            digest.update(f"{host.dtype}{list(host.shape)}".encode())
            digest.update(host.reshape(-1).view(torch.uint8).numpy().tobytes())
        else:
            digest.update(json.dumps(value).encode())
    return digest.hexdigest()


def state_to_files(state: Mapping[str, Any]) -> dict[str, bytes]:
    """The content of `policy.safetensors` and `training_state.pt` for what `Learner.state_dict` returned."""
    agent: Mapping[str, Tensor] = state["agent"]
    acting = {name: value for name, value in agent.items() if name.startswith(ACTING_PREFIXES)}
    rest = {name: value for name, value in agent.items() if name not in acting}
    snapshot = Snapshot(PolicyVersion(state["incarnation"], state["learner_steps"]), to_arrays(acting))
    buffer = io.BytesIO()
    torch.save({"state": {**state, "agent": rest}, "hash": state_hash(state)}, buffer)
    return {POLICY_FILE: snapshot_to_bytes(snapshot), TRAINING_STATE_FILE: buffer.getvalue()}


def state_from_files(read: Callable[[str], bytes]) -> dict[str, Any]:
    """The state from files that `read(name)` returns. Nothing is unpickled but tensors and plain values.

    Raises:
        CheckpointError: a file is broken, or the files do not belong together.
    """
    snapshot = snapshot_from_bytes(read(POLICY_FILE), POLICY_FILE)
    content = read(TRAINING_STATE_FILE)
    try:
        saved = torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
        state: dict[str, Any] = dict(saved["state"])
        state["agent"] = {**to_tensors(snapshot.arrays), **state["agent"]}
        expected = saved["hash"]
    except Exception as error:
        # What torch raises for a file that is not its own depends on the file.
        raise CheckpointError(f"{TRAINING_STATE_FILE}: expected a training state, got {error_line(error)}") from error
    found = state_hash(state)
    if found != expected:
        raise CheckpointError(f"{TRAINING_STATE_FILE}: expected content with hash {expected}, got {found}")
    return state


def _leaves(value: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Every value that is no mapping, with its path, in sorted order."""
    if not isinstance(value, Mapping):
        yield prefix, value
        return
    for name in sorted(value):
        yield from _leaves(value[name], f"{prefix}/{name}")
