"""Settings of the Ray cluster."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated

from amago_ray.config.ranges import COUNT, NOT_EMPTY, POSITIVE_INTEGER, Range

# As Kubernetes has them: a name or value of up to 63 characters, before a name perhaps a domain.
_WORD = r"[a-zA-Z0-9]([a-zA-Z0-9_.-]{0,61}[a-zA-Z0-9])?"
_KEY = re.compile(rf"([a-zA-Z0-9][a-zA-Z0-9.-]{{0,251}}/)?{_WORD}")
_SELECTOR = re.compile(rf"(?P<not>!)?(in\((?P<several>{_WORD}(, ?{_WORD})*)\)|(?P<one>{_WORD}))")

Labels = Mapping[str, str]


def _are_labels(labels: Labels) -> bool:
    return all(_KEY.fullmatch(key) and _SELECTOR.fullmatch(value) for key, value in labels.items())


LABELS = Range('labels of nodes by key, with values such as "spot", "!spot" or "in(a100, h100)"', _are_labels)


def matches(labels: Labels, wanted: Labels) -> bool:
    """Whether a node with these labels is one that a setting of labels asks for, as Ray decides it."""
    return all(_is_met(labels.get(key), selector) for key, selector in wanted.items())


def _is_met(value: str | None, selector: str) -> bool:
    found = _SELECTOR.fullmatch(selector)
    assert found is not None
    values = [found["one"]] if found["one"] else re.split(", ?", found["several"])
    return (value in values) != bool(found["not"])


@dataclass(frozen=True, kw_only=True)
class LabelsConfig:
    """Which nodes take which processes, by labels that they were started with (`ray start --labels`)."""

    env_runner: Annotated[dict[str, str], LABELS] = field(default_factory=dict)
    """Nodes for env runners, such as `{market: spot}`; `{}` takes any. Values are as Ray has them: "spot", "!spot",
    "in(a100, h100)"."""
    replay_shard: Annotated[dict[str, str], LABELS] = field(default_factory=dict)
    """Nodes for replay shards."""
    learner: Annotated[dict[str, str], LABELS] = field(default_factory=dict)
    """Nodes for learners."""


@dataclass(frozen=True, kw_only=True)
class ClusterConfig:
    """How the run uses Ray."""

    address: Annotated[str, NOT_EMPTY] | None = None
    """Address of a running cluster ("auto" finds a local one); None starts Ray on this machine for the run."""
    num_cpus: Annotated[int, POSITIVE_INTEGER] | None = None
    """Logical CPUs of the embedded local Ray; None takes the machine's."""
    dashboard: bool = True
    """Start the Ray dashboard with an embedded Ray."""
    task_events: bool = False
    """Let Ray keep an event of every call of the run's actors: its dashboard then lists them as tasks, and the head's
    memory grows by about 20 MB a minute."""
    spread: bool = True
    """Spread env runners and replay shards over nodes; without, shards start on the command's node and Ray packs the
    runners."""
    relays_above: Annotated[int, COUNT] = 256
    """Env runners beyond which each node gets a relay, which gathers what they tell the control actor."""
    labels: LabelsConfig = field(default_factory=LabelsConfig)
