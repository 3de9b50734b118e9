"""`ShardTable`: which process is which replay shard, where, and what was left behind on nodes that are gone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from amago_ray.errors import CheckpointError
from amago_ray.replay.reports import ShardCounts


@dataclass(frozen=True)
class ShardEntry:
    """A replay shard as it is now.

    host, node_id: of its process. incarnation: of its process, above that of any before. actor: its handle. epoch:
    names its files, on whatever node they are; None before there were any. files_host: where they were opened last.
    is_open: whether the process has opened its files, so that `epoch` names those that it goes on with.
    """

    number: int
    host: str = ""
    node_id: str = ""
    incarnation: int = -1
    actor: Any = None
    epoch: int | None = None
    files_host: str = ""
    is_open: bool = False


@dataclass(frozen=True)
class LeftBehind:
    """Files of a replay shard on a node that is gone, and what they held when they were heard of last.

    is_back: whether they were found again, and handed over to the shard.
    """

    number: int
    epoch: int
    host: str
    counts: ShardCounts
    is_back: bool = False


@dataclass(frozen=True)
class ShardTable:
    """The shards by number. The driver alone changes it: who has an older version asks the processes in a newer one."""

    version: int = 0
    entries: Mapping[int, ShardEntry] = field(default_factory=dict)
    left_behind: Sequence[LeftBehind] = ()

    @property
    def actors(self) -> list[Any]:
        """Handles of all shards, in the order of their numbers."""
        return [self.entries[number].actor for number in sorted(self.entries)]

    @property
    def hosts(self) -> Mapping[int, str]:
        """Where the files of each shard are."""
        return {number: entry.files_host for number, entry in self.entries.items()}

    def started(self, number: int, host: str, node_id: str, incarnation: int, actor: Any) -> ShardTable:
        """A process is being started for a shard."""
        before = self.entries.get(number, ShardEntry(number))
        entry = replace(before, host=host, node_id=node_id, incarnation=incarnation, actor=actor, is_open=False)
        return self._with(entry)

    def opened(self, number: int, epoch: int, last: ShardCounts | None) -> ShardTable:
        """A shard's process has opened files of this epoch.

        last: what its former files held when they were heard of last. If these are others, they are left behind.
        """
        entry = self.entries[number]
        left = [each for each in self.left_behind if (each.number, each.epoch) != (number, epoch)]
        if entry.epoch is not None and entry.epoch != epoch:
            left.append(LeftBehind(number, entry.epoch, entry.files_host, last or ShardCounts()))
        changed = self._with(replace(entry, epoch=epoch, files_host=entry.host, is_open=True))
        return replace(changed, left_behind=tuple(left))

    def returned(self, number: int, epoch: int) -> ShardTable:
        """Files that were left behind have been handed over."""
        left = tuple(
            replace(each, is_back=True) if (each.number, each.epoch) == (number, epoch) else each
            for each in self.left_behind
        )
        return replace(self, version=self.version + 1, left_behind=left)

    def _with(self, entry: ShardEntry) -> ShardTable:
        return replace(self, version=self.version + 1, entries={**self.entries, entry.number: entry})

    def plain(self, counts: Mapping[int, ShardCounts]) -> dict[str, Any]:
        """What a checkpoint keeps of it, ready for JSON. counts: what each shard holds, as last reported."""
        return {
            "shards": [
                {
                    "number": number,
                    "epoch": entry.epoch,
                    "host": entry.files_host,
                    "counts": counts.get(number, ShardCounts())._asdict(),
                }
                for number, entry in sorted(self.entries.items())
            ],
            "left_behind": [
                {
                    "number": each.number,
                    "epoch": each.epoch,
                    "host": each.host,
                    "counts": each.counts._asdict(),
                    "is_back": each.is_back,
                }
                for each in self.left_behind
            ],
        }


def read_table(state: Mapping[str, Any], num_shards: int) -> tuple[ShardTable, dict[int, ShardCounts]]:
    """The table of a checkpoint's run, for so many shards, and what each held; from its `state`.

    Raises:
        CheckpointError: it says something else.
    """
    try:
        # Earlier versions knew hosts alone.
        entries = {
            int(number): ShardEntry(int(number), files_host=str(host))
            for number, host in state.get("shard_hosts", {}).items()
        }
        table, counts = state.get("shard_table", {}), {}
        for shard in table.get("shards", ()):
            number, epoch = int(shard["number"]), shard["epoch"]
            entries[number] = ShardEntry(
                number, epoch=None if epoch is None else int(epoch), files_host=str(shard["host"])
            )
            counts[number] = ShardCounts(**shard["counts"])
        left_behind = tuple(
            LeftBehind(
                int(each["number"]),
                int(each["epoch"]),
                str(each["host"]),
                ShardCounts(**each["counts"]),
                bool(each["is_back"]),
            )
            for each in table.get("left_behind", ())
        )
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise CheckpointError(f"expected the table of replay shards in a checkpoint's state, got {error!r}") from error
    kept = {number: entry for number, entry in entries.items() if number < num_shards}
    return ShardTable(0, kept, left_behind), counts
