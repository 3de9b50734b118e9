"""Learners as real processes, over gloo."""

from __future__ import annotations

import socket
import subprocess
import sys
from pathlib import Path

import pytest

from amago_ray.learning.collective import CollectiveError
from amago_ray.learning.process_group import Rendezvous, interface_of

pytestmark = pytest.mark.timeout(240)

MEMBER = """
import sys
import torch
from helpers.batches import make_batch, make_config, make_spec, sequences
from amago_ray.learning.agreement import agree
from amago_ray.learning.collective import CollectiveError
from amago_ray.learning.learner import Learner
from amago_ray.learning.process_group import ProcessGroup, Rendezvous

rank, port, updates = int(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
rendezvous = Rendezvous("127.0.0.1", 2, port=port or None)
if rank == 0:
    print(rendezvous.port, flush=True)
group = ProcessGroup(
    rendezvous, rank=rank, size=2, address="127.0.0.1", device=torch.device("cpu"), shares_device=False
)
learner = Learner(make_config(), make_spec("box"), device="cpu", collective=group)
for number in range(updates):
    batch = sequences(make_batch(make_spec("box"), [6, 1, 9], seed=number), *[(0, 1), (1, 3)][rank])
    try:
        learner.step(batch, agree(group, batch, is_over=False, fingerprint=learner.fingerprint()).counts)
    except CollectiveError as error:
        print("left alone:", error, flush=True)
        break
print(learner.learner_steps, learner.fingerprint(), flush=True)
group.close()
"""


def start(rank: int, port: int, updates: int) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", MEMBER, str(rank), str(port), str(updates)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=Path(__file__).parents[2],
    )


def train(updates: tuple[int, int]) -> list[list[str]]:
    """What two processes printed that make so many updates."""
    first = start(0, 0, updates[0])
    assert first.stdout is not None
    port = int(first.stdout.readline())
    processes = [first, start(1, port, updates[1])]
    outputs = [process.communicate(timeout=180) for process in processes]
    assert [process.returncode for process in processes] == [0, 0], outputs
    return [output.splitlines() for output, _ in outputs]


def test_two_processes_stay_equal_bit_for_bit() -> None:
    first, second = train((5, 5))
    assert first == second
    assert first[0].startswith("5 ")


def test_who_is_left_alone_learns_it_at_once() -> None:
    first, second = train((5, 2))
    assert first[0].startswith("left alone: the learners have lost one of them")
    assert first[1] == second[0]
    assert second[0].startswith("2 ")


def test_without_a_first_learner_there_is_one_line() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        port = taken.getsockname()[1]
    with pytest.raises(CollectiveError, match=rf"^no learners to join at 127\.0\.0\.1:{port}: "):
        Rendezvous("127.0.0.1", 2, port=port, timeout_s=1.0)


def test_the_interface_of_an_address() -> None:
    assert interface_of("127.0.0.1") == "lo"
    assert interface_of("203.0.113.7") is None
    assert interface_of("no address") is None
