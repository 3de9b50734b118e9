"""`ProcessGroup`: the collective of learners that are processes, on one node or several."""

from __future__ import annotations

import fcntl
import os
import socket
import struct
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from amago_ray.errors import error_line
from amago_ray.learning.collective import CollectiveError

JOIN_TIMEOUT_S = 120.0
"""How long the first who join wait for the last."""
SUM_TIMEOUT_S = 300.0
"""How long a sum waits for the slowest learner: what is dead breaks its connections at once, what hangs is late."""
_IOCTL_INTERFACE_ADDRESS = 0x8915


class Rendezvous:
    """Where `size` learners find each other: kept by the first at an address of its node, looked up by the others."""

    def __init__(self, address: str, size: int, *, port: int | None = None, timeout_s: float = JOIN_TIMEOUT_S) -> None:
        """port: the first learner's, for the others; None keeps one at a free port, without waiting for anybody.

        Raises:
            CollectiveError: nobody is there.
        """
        try:
            self.store: Any = dist.TCPStore(  # type: ignore[attr-defined]
                address,
                port or 0,
                size,
                is_master=port is None,
                timeout=timedelta(seconds=timeout_s),
                wait_for_workers=False,
            )
        except RuntimeError as error:
            raise CollectiveError(f"no learners to join at {address}:{port}: {error_line(error)}") from error
        self.port: int = self.store.port


class ProcessGroup:
    """See `Collective`. One at a time in a process. Sums of tensors on the host go by gloo; those on a device by NCCL,
    which wants a GPU for each process alone, or by gloo, too.

    Gloo and NCCL reduce each part of a tensor in one place and hand the result to all, so that all hold the same bits.
    """

    def __init__(
        self, rendezvous: Rendezvous, *, rank: int, size: int, address: str, device: torch.device, shares_device: bool
    ) -> None:
        """Waits for the others. address: of this process's node, among those that the others reach.

        Raises:
            CollectiveError: not all came in time.
        """
        self.rank = rank
        self.size = size
        # By default gloo takes what the host's name means, which on many hosts is the host itself only.
        if (interface := interface_of(address)) is not None:
            os.environ.setdefault("GLOO_SOCKET_IFNAME", interface)
        backend = "gloo"
        if device.type == "cuda" and not shares_device:
            torch.cuda.set_device(device)
            backend = "cpu:gloo,cuda:nccl"
        try:
            dist.init_process_group(
                backend, store=rendezvous.store, rank=rank, world_size=size, timeout=timedelta(seconds=SUM_TIMEOUT_S)
            )
        except RuntimeError as error:
            raise CollectiveError(f"not all of {size} learners came together: {error_line(error)}") from error

    def sum_(self, tensor: Tensor) -> None:
        """See `Collective`."""
        try:
            dist.all_reduce(tensor)
        except RuntimeError as error:
            raise CollectiveError(f"the learners have lost one of them: {error_line(error)}") from error

    def close(self) -> None:
        """Leave: whoever waits for this process learns it at once."""
        if dist.is_initialized():
            dist.destroy_process_group()


def interface_of(address: str) -> str | None:
    """The network interface that has an IPv4 address; None where no one has, or where the system does not say."""
    try:
        wanted = socket.inet_aton(address)
    except OSError:
        return None
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as asked:
        for _, name in socket.if_nameindex():
            request = struct.pack("256s", name.encode()[:15])
            try:
                answer = fcntl.ioctl(asked.fileno(), _IOCTL_INTERFACE_ADDRESS, request)
            except OSError:
                # An interface without such an address.
                continue
            if answer[20:24] == wanted:
                return name
    return None
