"""`EpisodeSchema`: which columns episodes have, and how they are written in Arrow."""

from __future__ import annotations

import json
import math
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from amago_ray.data.episode import Episode
from amago_ray.data.goal_rule import GoalRule
from amago_ray.data.specs import EnvSpec
from amago_ray.errors import DamagedError, DataError

SCHEMA_VERSION = 3
"""Raised whenever columns or metadata change their meaning."""
OLDEST_SCHEMA_VERSION = 2
"""Versions from this one on are read. In version 2 stacks of frames were no images, and a run's name was its seed."""

_SCHEMA_KEY = b"amago_ray.schema"
_GOAL_RULE_KEY = b"amago_ray.goal_rule"
_OBSERVATION_PREFIX = "observations/"


class Column(NamedTuple):
    """One column: a row has `shape` and NumPy dtype `dtype`. For achieved goals: one goal of the row's list."""

    name: str
    shape: tuple[int, ...]
    dtype: str

    def __str__(self) -> str:
        return f"{self.dtype}{list(self.shape)}"


REWARD = Column("reward", (), "float32")


@dataclass(frozen=True)
class EpisodeSchema:
    """The columns of an episode; leaves are sorted by name, so that no part depends on the order of a dict.

    In Arrow: a row for each of the episode's; fixed-size lists for arrays (flattened, the shape is in the metadata), a
    list of fixed-size lists for achieved goals, no nulls; booleans as uint8, as NumPy cannot view bits.
    """

    observations: tuple[Column, ...]
    action: Column
    achieved_goals: Column | None = None
    action_mask: Column | None = None

    @classmethod
    def from_episode(cls, episode: Episode) -> EpisodeSchema:
        """The schema of a valid episode."""
        achieved, mask = episode.achieved_goals, episode.action_mask
        return cls(
            tuple(_column(_OBSERVATION_PREFIX + name, leaf) for name, leaf in sorted(episode.observations.items())),
            _column("action", episode.actions),
            None if achieved is None else _column("achieved_goals", achieved.values),
            None if mask is None else _column("action_mask", mask),
        )

    @classmethod
    def from_spec(cls, spec: EnvSpec) -> EpisodeSchema:
        """The schema of the episodes of an environment."""
        return cls(
            tuple(
                Column(_OBSERVATION_PREFIX + name, tuple(leaf.shape), np.dtype(leaf.dtype).name)
                for name, leaf in sorted(spec.observations.items())
            ),
            Column("action", tuple(spec.action.shape), spec.action.dtype),
            Column("achieved_goals", (spec.goal_dim,), np.dtype(spec.goal_dtype).name) if spec.goal_dim else None,
            Column("action_mask", (spec.action.mask_size,), "bool") if spec.has_action_mask else None,
        )

    @classmethod
    def from_arrow(cls, schema: pa.Schema, where: str) -> EpisodeSchema:
        """The schema that was written into an Arrow schema's metadata.

        Raises:
            DamagedError: columns do not fit what the metadata says of them.
            DataError: this is no schema of episodes, or one of another version.
        """
        raw = (schema.metadata or {}).get(_SCHEMA_KEY)
        if raw is None:
            raise DataError(f"{where}: expected episodes of schema version {SCHEMA_VERSION}, got other Arrow data")
        try:
            fields = json.loads(raw)
            version = fields.get("version")
            if version not in range(OLDEST_SCHEMA_VERSION, SCHEMA_VERSION + 1):
                raise DataError(f"{where}: expected episodes of schema version {SCHEMA_VERSION}, got version {version}")
            columns = [Column(name, tuple(shape), dtype) for name, shape, dtype in fields["columns"]]
            by_name = {column.name: column for column in columns}
            found_schema = cls(
                tuple(column for column in columns if column.name.startswith(_OBSERVATION_PREFIX)),
                by_name["action"],
                by_name.get("achieved_goals"),
                by_name.get("action_mask"),
            )
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            raise DamagedError(f"{where}: expected metadata of schema version {SCHEMA_VERSION} ({error!r})") from error
        if not found_schema.to_arrow().equals(schema, check_metadata=False):
            raise DamagedError(f"{where}: columns do not fit schema version {version} of their own metadata")
        return found_schema

    def to_arrow(self, goal_rule: GoalRule | None = None) -> pa.Schema:
        """As Arrow, with version, names, shapes and dtypes (and the goal rule) in the metadata."""
        fields = [
            pa.field(column.name, arrow_type, nullable=False)
            for column, arrow_type in zip(self.columns, self.arrow_types, strict=True)
        ]
        metadata = {_SCHEMA_KEY: json.dumps({"version": SCHEMA_VERSION, "columns": self.columns}).encode()}
        if goal_rule is not None:
            metadata[_GOAL_RULE_KEY] = json.dumps(asdict(goal_rule)).encode()
        return pa.schema(fields, metadata=metadata)

    @cached_property
    def columns(self) -> tuple[Column, ...]:
        """All columns in the order in which they are written."""
        optional = (column for column in (self.achieved_goals, self.action_mask) if column is not None)
        return (*self.observations, self.action, REWARD, *optional)

    @cached_property
    def arrow_types(self) -> tuple[pa.DataType, ...]:
        """The Arrow type of each column.

        Raises:
            DataError: Arrow has no fixed-width type for a dtype.
        """
        return tuple(
            pa.list_(_item(_row_type(column))) if column is self.achieved_goals else _row_type(column)
            for column in self.columns
        )

    @cached_property
    def leaf_names(self) -> tuple[str, ...]:
        """Sorted names of the observation leaves."""
        return tuple(column.name.removeprefix(_OBSERVATION_PREFIX) for column in self.observations)

    def fits(self, episode: Episode) -> bool:
        """Whether an episode is of this schema; `require` says what differs."""
        achieved, mask = episode.achieved_goals, episode.action_mask
        return (
            len(self.observations) == len(episode.observations)
            and all(_fits(column, episode.observations.get(name)) for name, column in self._named_leaves)
            and _fits(self.action, episode.actions)
            and _fits(self.achieved_goals, None if achieved is None else achieved.values)
            and _fits(self.action_mask, mask)
        )

    @cached_property
    def _named_leaves(self) -> tuple[tuple[str, Column], ...]:
        return tuple(zip(self.leaf_names, self.observations, strict=True))

    def require(self, found: EpisodeSchema, where: str) -> None:
        """Check that data of schema `found` belongs here.

        Raises:
            DataError: it differs; the message names the first column that does.
        """
        if found == self:
            return
        expected_columns = {column.name: column for column in self.columns}
        found_columns = {column.name: column for column in found.columns}
        for name in sorted(expected_columns.keys() | found_columns.keys()):
            expected_column, found_column = expected_columns.get(name), found_columns.get(name)
            if expected_column != found_column:
                raise DataError(
                    f"{where}: column {name!r} (schema version {SCHEMA_VERSION}): "
                    f"expected {expected_column or 'none'}, got {found_column or 'none'}"
                )


def storage_dtype(dtype: str) -> np.dtype[Any]:
    """The dtype of stored bytes: booleans are kept as uint8, which a NumPy view turns back for free."""
    return np.dtype(np.uint8) if dtype == "bool" else np.dtype(dtype)


def _column(name: str, values: npt.NDArray[Any]) -> Column:
    return Column(name, values.shape[1:], values.dtype.name)


def _fits(column: Column | None, values: npt.NDArray[Any] | None) -> bool:
    if column is None or values is None:
        return column is None and values is None
    return values.shape[1:] == column.shape and values.dtype == column.dtype


def _row_type(column: Column) -> pa.DataType:
    dtype = storage_dtype(column.dtype)
    try:
        value_type = pa.from_numpy_dtype(dtype)
    except (pa.ArrowNotImplementedError, TypeError) as error:
        raise DataError(f"column {column.name!r}: expected a number or bool dtype, got {column.dtype}") from error
    return pa.list_(_item(value_type), math.prod(column.shape)) if column.shape else value_type


def _item(value_type: pa.DataType) -> pa.Field:
    return pa.field("item", value_type, nullable=False)
