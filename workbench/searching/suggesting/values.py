"""What a policy could read of recorded decisions: one column for every scalar that the schema declares.

One rule: a value is what Cedar would see, read from the columns that policies are decided over; null where the
attribute is absent. Decisions that columns do not take are left out, and counted.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple

import polars as pl

from runtime.schema import SCHEMA_FILE, EntityRef, Extension, Primitive, Record
from runtime.spec import RESERVED
from workbench.history.caching import contexts_of
from workbench.history.chunk import type_chunk
from workbench.history.deciding import grouped
from workbench.history.recompiling import Again
from workbench.history.records import Records
from workbench.history.run import joined

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from runtime.bundle import Bundle
    from runtime.schema import Attribute, CedarSchema
    from workbench.asked import Asked
    from workbench.history.groups import PolicyGroup
    from workbench.lake import Lake

DEPTH = 4
"""Records in records that are looked into."""
_ARGS, _SESSION = "args", "session"


class Path(NamedTuple):
    """Where a value stands."""

    root: str
    """`context`, `principal` or `resource`."""
    names: tuple[str, ...]
    optional: frozenset[int]
    """Places in `names` that may be absent."""

    @property
    def text(self) -> str:
        """As Cedar writes it."""
        return ".".join((self.root, *self.names))

    @property
    def guard(self) -> str:
        """What must hold for the value to be there; empty: it always is."""
        steps = [
            f"{'.'.join((self.root, *self.names[:at]))} has {self.names[at]}" for at in sorted(self.optional)
        ]
        return " && ".join(steps)


@dataclass(frozen=True, slots=True, kw_only=True)
class Values:
    """What can be read of decisions of one tool by one type of principal on one type of resource."""

    tool: str
    principal_type: str
    resource_type: str
    kinds: Mapping[Path, str]
    """`long`, `bool`, `string`, `decimal`, `datetime`, `duration`, or `entity T`, by path."""
    frame: pl.DataFrame
    """One row a decision: `decision_id`, and a column for each path, named by its text; null: absent."""


@dataclass(slots=True)
class Reading:
    """Values being read from a history."""

    lake: Lake
    asked: Asked
    wanted: pl.Series
    """Ids of the decisions to read (String)."""
    left_out: int = 0
    """Decisions that columns do not take."""
    _found: dict[tuple[str, str, str], list[pl.DataFrame]] = field(default_factory=dict)
    _kinds: dict[tuple[str, str, str], dict[Path, str]] = field(default_factory=dict)

    def read(self) -> list[Values]:
        """Read all; one for each combination of tool, principal type and resource type, the largest first."""
        contexts = contexts_of(self.lake)
        for chunk in Records(self.lake).chunks():
            rows = joined(chunk, contexts)
            mine = rows.filter(rows["decision_id"].is_in(self.wanted.implode()))
            for (version,), of_bundle in mine.partition_by("bundle_version", as_dict=True).items():
                own = self.lake.find_bundle(str(version))
                if own is not None:
                    self._of(of_bundle, own)
        read = sum(frame.height for frames in self._found.values() for frame in frames)
        self.left_out = self.wanted.len() - read
        found = [
            Values(
                tool=key[0],
                principal_type=key[1],
                resource_type=key[2],
                kinds=self._kinds[key],
                frame=pl.concat(frames, how="diagonal"),
            )
            for key, frames in self._found.items()
        ]
        return sorted(found, key=lambda values: (-values.frame.height, values.tool))

    def _of(self, rows: pl.DataFrame, own: Bundle) -> None:
        """Read decisions of one recorded bundle, under the policies asked about."""
        contexts = contexts_of(self.lake)
        base = self.asked.policy or own
        again = self.asked.recompiler(self.lake)
        if again is not None:
            rows, contexts = Again(again, self.lake).compiled(rows, own.spec)
            rows = rows.filter(pl.col("cause").is_null())
        alike = base.files[SCHEMA_FILE] == own.files[SCHEMA_FILE]
        same = again is not None or base.policy_hash == own.policy_hash
        typed = type_chunk(rows, contexts, base.schema, own=alike or again is not None)
        for part in typed.parts:
            for group in grouped(part, typed, contexts, base, own=same).groups:
                self._take(group, base.schema)

    def _take(self, group: PolicyGroup, schema: CedarSchema) -> None:
        key = group.compiled.part.key
        name = (key.tool, key.principal_type, str(key.resource_type))
        kinds = self._kinds.setdefault(name, {})
        ids = group.compiled.part.rows["decision_id"].gather(group.rows)
        columns = [ids.alias("decision_id")]
        for path in paths_of(schema, *name):
            found = group.value(path.root, path.names)
            if found is not None and found[0].null_count() < found[0].len():
                kinds[path] = found[1]
                columns.append(found[0].alias(path.text))
        self._found.setdefault(name, []).append(pl.DataFrame(columns))


def paths_of(schema: CedarSchema, tool: str, principal_type: str, resource_type: str) -> Iterator[Path]:
    """Yield every scalar that a policy about these may read, arguments first."""
    context = schema.actions[tool].context.attrs
    roots: list[tuple[str, Mapping[str, Attribute]]] = [
        ("context", {name: attr for name, attr in context.items() if name == _ARGS}),
        (
            "context",
            {name: attr for name, attr in context.items() if name == _SESSION or name not in RESERVED},
        ),
    ]
    for root, kind in (("resource", resource_type), ("principal", principal_type)):
        declared = schema.entity_types.get(kind)
        if declared is not None:
            roots.append((root, declared.attrs.attrs))
    for root, attrs in roots:
        yield from _below(root, (), frozenset(), attrs)


def _below(
    root: str, names: tuple[str, ...], optional: frozenset[int], attrs: Mapping[str, Attribute]
) -> Iterator[Path]:
    for name, attr in attrs.items():
        path = (*names, name)
        missing = optional if attr.required else optional | {len(names)}
        match attr.type:
            case Record(inner) if len(path) < DEPTH:
                yield from _below(root, path, missing, inner)
            case Primitive() | Extension() | EntityRef():
                yield Path(root, path, missing)
            case _:
                pass
