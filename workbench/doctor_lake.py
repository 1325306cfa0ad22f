"""Whether a lake is sound: its tables, its hash chains, and that everything its rows refer to is there.

One rule: it only looks. What its ledger says that a drain has still to bring is a note; whatever else is missing,
changed or doubled is a fault.
"""

from __future__ import annotations

from itertools import islice
from typing import TYPE_CHECKING, Any, NamedTuple

import polars as pl

from runtime import trace
from runtime.evidence import broken_links, check_address
from workbench.doctor import Finding
from workbench.lake import open_lake
from workbench.texts import count

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator

    from runtime.evidence import BrokenLink
    from runtime.lake import LakeStore
    from runtime.trace import Table
    from workbench.lake import Lake

CHECKED_ROWS = 1_000_000
"""Up to here the hash chains and the addresses of contents are checked, at about 10 µs and 3 KiB a row."""
SHOWN = 20
"""Faults of one kind that are told one by one."""

_CHAINED = (trace.DECISIONS, trace.OUTCOMES)


class _Reference(NamedTuple):
    """A column whose values are keys of another table."""

    table: Table
    column: str
    target: Table
    key: str
    where: pl.Expr | None = None
    """Which rows have it; None: all."""


_REFERENCES = (
    _Reference(trace.DECISIONS, "context_hash", trace.CONTEXTS, "context_hash"),
    _Reference(trace.DECISIONS, "enforced_context_hash", trace.CONTEXTS, "context_hash"),
    _Reference(trace.DECISIONS, "slice_hash", trace.SLICES, "slice_hash"),
    _Reference(trace.DECISIONS, "enforced_slice_hash", trace.SLICES, "slice_hash"),
    _Reference(trace.DECISIONS, "bundle_version", trace.POLICIES, "bundle_version"),
    _Reference(trace.DECISIONS, "linked_to", trace.DECISIONS, "decision_id"),
    _Reference(trace.OUTCOMES, "decision_id", trace.DECISIONS, "decision_id"),
    _Reference(
        trace.OUTCOMES, "result_hash", trace.BLOBS, "blob_hash",
        (pl.col("result_storage") == "full") & (pl.col("result_bytes") > pl.col("result").str.len_bytes()),
    ),
    _Reference(trace.SLICES, "entity_hashes", trace.ENTITIES, "entity_hash"),
)  # fmt: skip


def lake_findings(uri: str, undrained: Collection[str] = ()) -> Iterator[Finding]:
    """Report each table of a lake, whether its hash chains hold, and what its rows refer to and is lost or changed.

    Args:
        uri: the lake.
        undrained: ids of ledgers that hold outcomes which are not in the lake yet: a drain brings decisions first,
            and a gap at the end of their chain is no fault.

    Raises:
        LakeError: there is no lake, or it cannot be read.

    Cost: O(rows): reads and hashes in memory; of a table above `CHECKED_ROWS` rows it looks at the keys only.
    """
    lake = open_lake(uri)
    yield Finding("lake", "ok", str(lake.uri))
    rows = {}
    for table in trace.TABLES:
        rows[table], found = _table(table, lake.store)
        yield found
    chained = sum(rows[table] for table in _CHAINED)
    if chained > CHECKED_ROWS:
        yield Finding("chain", "note", f"not checked: {chained:,} rows, more than {CHECKED_ROWS:,}")
    else:
        yield from _chains(lake.store, chained, undrained)
    for reference in _REFERENCES:
        yield from _lost(lake, reference)
    for table in trace.DRAINED:
        if table.content_addressed and rows[table] <= CHECKED_ROWS:
            yield from _misplaced(lake, table)
    yield from _bundles(lake)


def _table(table: Table, store: LakeStore) -> tuple[int, Finding]:
    handle = store.table(table)
    if handle is None:
        return 0, Finding(table.name, "note", "not written yet")
    rows, behind = handle.count(), store.behind(table)
    text = f"{rows:,} rows, Delta version {handle.version()}"
    if behind is None:
        return rows, Finding(table.name, "ok", text)
    older = f"{text}, schema version {behind.version}; the next drain, or `redecide upgrade`, brings it up"
    return rows, Finding(table.name, "ok", older)


def _chains(store: LakeStore, rows: int, undrained: Collection[str]) -> Iterator[Finding]:
    found = {table: _rows(store, table) for table in _CHAINED}
    last = dict.fromkeys(undrained, 0)
    for row in found[trace.OUTCOMES]:
        if row["writer"] in last:
            last[row["writer"]] = max(last[row["writer"]], row["position"])
    broken = broken_links((table.name, row) for table, mine in found.items() for row in mine)
    late = [link for link in broken if _is_late(link, last)]
    faults = [link for link in broken if link not in late]
    told = [f"ledger {link.writer}, position {link.position}: {link.what}" for link in faults]
    yield from _shown("chain", told)
    for writer in sorted({link.writer for link in late}):
        text = f"ledger {writer}: outcomes after position {last[writer]:,} are not drained yet"
        yield Finding("chain", "note", text)
    if not faults:
        whole = "none changed, missing, doubled or reordered"
        yield Finding("chain", "ok", f"{rows:,} rows, {whole if not late else 'none changed or doubled'}")


def _is_late(link: BrokenLink, last: dict[str, int]) -> bool:
    """Whether a gap is what a drain leaves that has brought decisions and not yet outcomes: nothing but the tail."""
    return link.table is None and link.writer in last and link.position > last[link.writer]


def _rows(store: LakeStore, table: Table) -> list[dict[str, Any]]:
    """Return a table's rows as the ledger hashed them: timestamps as microseconds."""
    import pyarrow as pa  # noqa: PLC0415 - costs 0.3 s to import

    data = store.read(table)
    for index, column in enumerate(data.schema):
        if pa.types.is_timestamp(column.type):
            data = data.set_column(index, column.name, data[column.name].cast(pa.int64()))
    return list(data.to_pylist())


def _lost(lake: Lake, reference: _Reference) -> Iterator[Finding]:
    """Name what rows refer to and is not there."""
    rows = lake.table(reference.table)  # beyond the pin, too: what rows refer to is drained before them
    rows = rows if reference.where is None else rows.filter(reference.where)
    named = rows.select(key=reference.column)
    if reference.table is trace.SLICES:
        named = named.explode("key")
    known = lake.table(reference.target).select(key=reference.key)
    wanted = named.filter(pl.col("key").is_not_null()).group_by("key").len()
    lost = wanted.join(known, on="key", how="anti").sort("key").collect()
    if lost.height:
        which = ", ".join(key[:12] for key in lost["key"].head(3)) + (", …" if lost.height > 3 else "")  # noqa: PLR2004
        of = f"`{reference.column}` of {count(int(lost['len'].sum()), 'row')} of `{reference.table.name}`"
        text = f"{count(lost.height, 'row')} that {of} name is missing: {which}"
        yield Finding(reference.target.name, "bad", text)


def _misplaced(lake: Lake, table: Table) -> Iterator[Finding]:
    """Name contents that do not have their address."""
    told = []
    for row in lake.table(table).collect().iter_rows(named=True):
        try:
            check_address(table, row)
        except ValueError as exc:
            told.append(str(exc))
    yield from _shown(table.name, told)


def _bundles(lake: Lake) -> Iterator[Finding]:
    """Name bundle versions whose texts are not what the version says."""
    versions = (
        lake.table(trace.DECISIONS).select(pl.col("bundle_version").unique().sort()).collect().to_series()
    )
    held = set(lake.policies.select(pl.col("bundle_version").unique()).collect().to_series())
    for version in versions:
        if version in held and lake.find_bundle(version) is None:
            text = f"bundle {version[:12]}: its texts give another version, or none; rows are missing or were changed"
            yield Finding(trace.POLICIES.name, "bad", text)


def _shown(subject: str, told: Iterable[str]) -> Iterator[Finding]:
    told = list(told)
    for text in islice(told, SHOWN):
        yield Finding(subject, "bad", text)
    if len(told) > SHOWN:
        yield Finding(subject, "bad", f"and {len(told) - SHOWN:,} more")
