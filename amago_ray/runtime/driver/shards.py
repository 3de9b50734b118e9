"""`Shards`: the replay shards of a run, as the driver sees them."""

from __future__ import annotations

import logging
import time
from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

import ray

from amago_ray.config import Config
from amago_ray.errors import TrainingError
from amago_ray.replay.reports import ShardCounts, ShardReport
from amago_ray.runtime.cluster.placement import Node, ShardPlace, roomiest, share_out
from amago_ray.runtime.driver.pulse_watch import PulseWatch
from amago_ray.runtime.driver.run_actors import RunActors
from amago_ray.runtime.driver.supervisor import RestartBudget
from amago_ray.runtime.protocol.actors import ending, get, is_gone, is_unavailable, wait_any
from amago_ray.runtime.protocol.endings import Ending, short_line
from amago_ray.runtime.protocol.shard_table import ShardTable

_log = logging.getLogger(__name__)

_BEGIN_TIMEOUT_S = 60.0
_LONGEST_SILENCE_S = 30.0
_PAUSE_S = 0.5
_NO_NODE_PAUSE_S = 5.0
_LOOK_AT_NODES_S = 5.0
_RETURN_PAUSE_S = 30.0


class Shards:
    """Starts the shards, and again those that die: on their own nodes, or elsewhere where these are gone.

    What changes is in `table`, which everyone else reads. A process that is started again has a higher incarnation, so
    that a former one which lives on can write nothing. Whether it goes on with the same files is known when it has
    opened them; other files mean that the former ones are left behind, and counted as lost.
    """

    def __init__(
        self,
        config: Config,
        actors: RunActors,
        nodes: Callable[[], Sequence[Node]],
        pulses: PulseWatch,
        draining: Callable[[], Collection[str]],
        clock: Callable[[], float] = time.monotonic,
        ending: Callable[[Any], Ending] = ending,
    ) -> None:
        """nodes: those that are up and take shards. pulses: told of who is started. draining: ids of the nodes that are
        to be taken away. clock: seconds. ending: how a call ended that is ready.
        """
        self._config = config
        self._actors = actors
        self._nodes = nodes
        self._pulses = pulses
        self._draining = draining
        self._clock = clock
        self._ending = ending
        self._control: Any = None
        self.table = ShardTable()
        """Who is which shard, now."""
        self.num_restarts = 0
        """How often one died and was started again."""
        self._published = -1
        self._opening: dict[Any, int] = {}
        """References that are ready when a shard has opened its files, with its number."""
        self._running: dict[Any, int] = {}
        """References that are ready when a shard's process ends."""
        self._budgets: dict[int, RestartBudget] = {}
        self._due_at_s: dict[int, float] = {}
        """When to start shards again."""
        self._ask_again_at_s: dict[int, float] = {}
        """When to ask those again that could not be reached, but may live."""
        self._ends: dict[int, Ending] = {}
        """How the former processes of those ended that have not opened their files yet."""
        self._opened: dict[int, int] = {}
        """Epochs of what shards have opened, before `settle`."""
        self._avoided: dict[int, set[str]] = {}
        """Nodes on which a shard could not open its files."""
        self._counts: dict[int, ShardCounts] = {}
        """What each holds, as last reported."""
        self._asked_nodes: set[str] = set()
        """Nodes that were asked for files that were left behind."""
        self._returning: Any = None
        """The answer of a node, which hands over what it has."""
        self._asks_nodes_at_s = 0.0

    def start(
        self, places: Sequence[ShardPlace], control: Any, before: ShardTable, counts: Mapping[int, ShardCounts]
    ) -> None:
        """Create the actors; `unmade` says which are not there yet.

        before: the table of the run that goes on, whose files the shards are expected to find. counts: what they held.
        """
        self._control = control
        self.table, self._counts = before, dict(counts)
        for place in places:
            self._start(place.number, place.host, place.node_id, is_first=True)

    @property
    def watches(self) -> Sequence[Any]:
        """References that are ready when there is news of a shard, for `answer`."""
        returning = [] if self._returning is None else [self._returning]
        return [*self._opening, *self._running, *returning]

    @property
    def unmade(self) -> Mapping[str, Any]:
        """Shards that have not opened their files yet, by name, with the reference to that."""
        return {f"replay shard {number}": reference for reference, number in self._opening.items()}

    @property
    def due(self) -> Collection[int]:
        """Shards that are to be started again."""
        return self._due_at_s.keys()

    def next_due_s(self) -> float:
        """Seconds until the next is to be started or asked again; infinite where none is."""
        due_s = min((*self._due_at_s.values(), *self._ask_again_at_s.values()), default=float("inf"))
        return max(due_s - self._clock(), 0.0)

    def begin(self) -> list[str]:
        """Let all take over their directories; returns warnings.

        Raises:
            AmagoRayError: one cannot write its directory.
        """
        warnings: list[str] = []
        waiting = set(self.table.entries)
        deadline_s = self._clock() + _BEGIN_TIMEOUT_S
        while waiting:
            begun = {self.table.entries[number].actor.begin.remote(): number for number in sorted(waiting)}
            late = ray.wait(list(begun), num_returns=len(begun), timeout=max(deadline_s - self._clock(), 0.0))[1]
            for reference, number in begun.items():
                if reference in late:
                    raise TrainingError(f"the replay shard {number} did not begin within {_BEGIN_TIMEOUT_S:g} s")
                end = self._ending(reference)
                if end.kind == "raised":
                    raise end.failure(f"the replay shard {number} cannot begin")
                if end.kind == "returned":
                    waiting.discard(number)
            if waiting:
                for reference in wait_any(self.watches, _PAUSE_S):
                    warnings.extend(self.answer(reference))
                warnings.extend(self.start_due())
                warnings.extend(self.settle({}))
        return warnings

    def take_over(self, hosts_before: Mapping[int, str]) -> list[str]:
        """Let shards take over what belonged to shards that the run has no longer; returns warnings.

        One that dies on the way leaves the rest for the next resume. hosts_before: where the shards of the run were.

        Raises:
            AmagoRayError: one cannot.
        """
        num_shards, num_before = len(self.table.entries), len(hosts_before)
        actors = self.table.actors
        try:
            shares = share_out([get(shard.surplus.remote(), _BEGIN_TIMEOUT_S) for shard in actors])
        except ray.exceptions.RayError as error:
            if not (is_gone(error) or isinstance(error, ray.exceptions.GetTimeoutError)):
                raise
            return [f"episodes of former replay shards are not taken over: {short_line(error)}"]
        warnings = []
        takings = [shard.adopt.remote(share) for shard, share in zip(actors, shares, strict=True)]
        while ray.wait(takings, num_returns=len(takings), timeout=_LONGEST_SILENCE_S)[1]:
            _log.warning("still taking over the episodes of replay shards that are no longer")
        taken: dict[int, int] = {}
        for number, reference in enumerate(takings):
            end = self._ending(reference)
            if end.kind == "died":
                warnings.append(f"the replay shard {number} died while it took over the episodes of others")
            elif end.kind == "raised":
                raise end.failure(f"the replay shard {number} cannot take over the episodes of others")
            else:
                taken |= end.value
        if num_before and num_before != num_shards:
            each = self._config.replay.capacity_timesteps // num_shards
            warnings.append(
                f"replay.num_shards is {num_shards}, was {num_before}: each shard now holds up to {each:,} transitions"
            )
        for shard, num_episodes in sorted(taken.items()):
            warnings.append(f"{num_episodes:,} episodes of the former replay shard {shard} were taken over")
        for shard, host in sorted(hosts_before.items()):
            if shard >= num_shards and shard not in taken:
                warnings.append(
                    f"the episodes of the former replay shard {shard} on {host} are out of use: no shard is there"
                )
        return warnings

    def report(self) -> None:
        """Let all tell the control actor what they hold."""
        for shard in self.table.actors:
            shard.report.remote()

    def answer(self, reference: Any) -> list[str]:
        """There is news of a shard: it has opened its files, or died; returns warnings.

        Raises:
            AmagoRayError: it cannot be made or kept alive.
        """
        if reference == self._returning:
            return self._take_returned()
        is_opening = reference in self._opening
        # None: a former process, of whose end another reference told.
        number = (self._opening if is_opening else self._running).pop(reference, None)
        if number is None:
            return []
        end = self._ending(reference)
        if end.kind == "returned":
            if is_opening:
                self._opened[number] = end.value
            return []
        if is_unavailable(end.error):
            # Not known to be dead.
            self._ask_again_at_s[number] = self._clock() + _PAUSE_S
            return []
        return self._plan_restart(number, end)

    def start_due(self) -> list[str]:
        """Start those again whose time has come; returns warnings."""
        now_s, warnings = self._clock(), []
        for number in [number for number, at_s in self._ask_again_at_s.items() if at_s <= now_s]:
            del self._ask_again_at_s[number]
            self._ask(number)
        for number in [number for number, at_s in self._due_at_s.items() if at_s <= now_s]:
            del self._due_at_s[number]
            try:
                node = self._node_for(number)
            except TrainingError as error:
                warnings.append(f"the replay shard {number} waits for a node: {error}")
                self._due_at_s[number] = now_s + _NO_NODE_PAUSE_S
            else:
                self._start(number, node.host, node.node_id, is_first=False)
        return warnings

    def settle(self, reports: Mapping[int, ShardReport]) -> list[str]:
        """Take in what shards have opened, and what all hold by now; returns warnings.

        reports: the newest ones that the control actor has; of a shard that was lost, its last.
        """
        self._counts |= {number: ShardCounts.of(report) for number, report in reports.items()}
        warnings = []
        for number, epoch in self._opened.items():
            before = self.table.entries[number]
            self.table = self.table.opened(number, epoch, self._counts.get(number))
            end = self._ends.pop(number, None)
            if before.epoch not in (None, epoch):
                self._asked_nodes.clear()
                lost = self._counts.pop(number, ShardCounts())
                warnings.append(
                    f"the replay shard {number} lost its files on {before.files_host}: {lost.stored_episodes:,} "
                    f"episodes of {lost.stored_transitions:,} transitions; it begins anew on {before.host}"
                )
            elif end is not None:
                is_elsewhere = before.epoch is not None and before.files_host != before.host
                where = f" on {before.host}" if is_elsewhere else ""
                warnings.append(
                    f"the replay shard {number} died and was started again{where}: it goes on from what is on its disk "
                    f"({end.line})"
                )
        self._opened.clear()
        self._ask_nodes()
        self._publish()
        return warnings

    def state(self) -> dict[str, Any]:
        """What a checkpoint keeps, ready for JSON."""
        return self.table.plain(self._counts)

    def close(self) -> list[Any]:
        """Let all close their segments; references that are ready when they have."""
        return [*(shard.close.remote() for shard in self.table.actors), *self._running]

    def _start(self, number: int, host: str, node_id: str, *, is_first: bool) -> None:
        # Who takes another's place reserves no CPUs: it must find room at once, also where env runners fill the nodes.
        num_cpus = self._config.replay.num_cpus_per_shard if is_first else 0.0
        incarnation, actor = self._actors.start_shard(number, node_id, self._control, num_cpus)
        self.table = self.table.started(number, host, node_id, incarnation, actor)
        self._budgets.setdefault(number, RestartBudget()).started(self._clock())
        self._pulses.begin(f"replay shard {number}")
        self._ask(number)
        self._publish()

    def _ask(self, number: int) -> None:
        """Have a shard tell when it has opened its files, unless it has, and when it ends."""
        self._forget(number)
        entry = self.table.entries[number]
        if not entry.is_open and number not in self._opened:
            self._opening[entry.actor.open.remote()] = number
        self._running[entry.actor.watch.remote()] = number

    def _forget(self, number: int) -> None:
        """Hear no more of a shard's process."""
        for references in (self._opening, self._running):
            for reference in [reference for reference, each in references.items() if each == number]:
                del references[reference]

    def _plan_restart(self, number: int, end: Ending) -> list[str]:
        self._forget(number)
        self._ask_again_at_s.pop(number, None)
        self._opened.pop(number, None)
        self.num_restarts += 1
        self._ends[number] = end
        entry = self.table.entries[number]
        name = f"replay shard {number}"
        self._pulses.end(name)
        if end.kind == "raised":
            # What it raises when it opens its files; perhaps it can elsewhere.
            self._avoided.setdefault(number, set()).add(entry.node_id)
            end = Ending("not_made", error=end.error)
        now_s = self._clock()
        self._due_at_s[number] = self._budgets[number].failed(name, end, now_s)
        return [] if end.kind == "died" else [f"the {name} cannot be made on {entry.host}: {end.line}"]

    def _node_for(self, number: int) -> Node:
        """Where to start a shard again: on its node, its host, or where the fewest are.

        Raises:
            TrainingError: there is no node for it.
        """
        entry, nodes = self.table.entries[number], self._nodes()
        avoided = self._avoided.get(number, set())
        nodes = [node for node in nodes if node.node_id not in avoided] or nodes
        shards_on = Counter(each.node_id for each in self.table.entries.values() if each.number != number)
        for candidates in (
            [node for node in nodes if node.node_id == entry.node_id],
            [node for node in nodes if node.host == entry.files_host],
        ):
            if candidates:
                return roomiest(candidates, shards_on, 0.0)
        draining = self._draining()
        nodes = [node for node in nodes if node.node_id not in draining] or nodes
        return roomiest(nodes if self._config.cluster.spread else nodes[:1], shards_on, 0.0)

    def _nodes_now(self) -> Sequence[Node]:
        try:
            return self._nodes()
        except TrainingError:
            return ()

    def _ask_nodes(self) -> None:
        """Ask nodes, one after the other, for files that were left behind: one that comes back may have some."""
        wanted = {
            (left.number, left.epoch): self.table.entries[left.number].actor
            for left in self.table.left_behind
            if not left.is_back and left.number in self.table.entries and self.table.entries[left.number].is_open
        }
        now_s = self._clock()
        if not wanted or self._returning is not None or now_s < self._asks_nodes_at_s:
            return
        self._asks_nodes_at_s = now_s + _LOOK_AT_NODES_S
        # A node that comes back has a new id.
        for node in self._nodes_now():
            if node.node_id not in self._asked_nodes:
                self._asked_nodes.add(node.node_id)
                self._returning = self._actors.return_files(node.node_id, wanted)
                return

    def _take_returned(self) -> list[str]:
        end, self._returning = self._ending(self._returning), None
        self._asks_nodes_at_s = 0.0
        if end.kind != "returned":
            return [f"episodes of replay shards on another node cannot be handed over: {end.line}"]
        warnings = []
        hosts = {(left.number, left.epoch): left.host for left in self.table.left_behind}
        for each in end.value:
            where = hosts.get((each.number, each.epoch))
            if where is None:
                # The shard itself goes on with these files by now.
                continue
            if each.error is not None:
                warnings.append(f"the episodes of the replay shard {each.number} from {where} stay there: {each.error}")
                self._asked_nodes.clear()
                self._asks_nodes_at_s = self._clock() + _RETURN_PAUSE_S
                continue
            self.table = self.table.returned(each.number, each.epoch)
            warnings.append(
                f"the files of the replay shard {each.number} from {where} are back: {each.num_taken:,} of "
                f"{each.num_found:,} episodes were taken from them"
            )
        return warnings

    def _publish(self) -> None:
        """Let the control actor know of a newer table, and shards report whose files it knows now."""
        if self.table.version == self._published:
            return
        self._published = self.table.version
        self._control.set_table.remote(self.table)
        for entry in self.table.entries.values():
            if entry.is_open:
                entry.actor.report.remote()
