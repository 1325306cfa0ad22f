"""A lake, opened for reading: its tables as Polars LazyFrames, at a pin.

One rule: read-only, and always the same rows. `decisions` and `outcomes` are filtered by the pin and sorted as they
became durable; content-addressed tables give one row a key, whatever doubles two hosts wrote.

Accepted trade-offs: each access reads the newest Delta log (milliseconds; a round trip on an object store), so that
a lake stays readable after compaction and vacuum, though not a frame taken before; content-addressed tables are not
cut at the pin, because what is beyond it is never referred to below it.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import polars as pl

from runtime import trace
from runtime.arrow import arrow_schema
from runtime.errors import BundleError
from runtime.lake import LEDGER_FILE, LakeStore
from workbench.derived import executions_of, labels_of, sessions_of
from workbench.errors import BundleNotFound, LakeEmpty, LakeNotFound
from workbench.narrowing import Narrowing, all_of
from workbench.opening import no_tables, nothing_decided, require_folder, store_of, table_of
from workbench.overview import Overview, lines, overview
from workbench.pins import Pins, heads, pinned, require_reachable
from workbench.recorded_bundles import rebuilt, whole_version
from workbench.replayable import Replayable
from workbench.scan import scan
from workbench.shelf import Shelf
from workbench.tracking import shown

if TYPE_CHECKING:
    from collections.abc import Mapping
    from os import PathLike

    from runtime.bundle import Bundle
    from runtime.trace import Table
    from workbench.replay import Replay
    from workbench.viewing.decision import Decision


def open_lake(
    path: str | PathLike[str],
    storage_options: Mapping[str, str] | None = None,
    *,
    at: Pins | Mapping[str, Any] | None = None,
) -> Lake:
    """Open a lake for reading, pinned at what it holds now.

    Args:
        path: the folder or URL whose children are the Delta tables.
        storage_options: as delta-rs takes them, for object stores. Never shown.
        at: an earlier pin (`lake.pins`, `replay.pins`, or ledger id to position); None: all that is complete now.

    Raises:
        LakeNotFound: nothing is there, or it is no lake.
        LakeEmpty: no decision was drained yet.
        PinUnreachable: `at` names rows that the lake does not hold.
        SchemaMismatch: a table was written by a newer redecide.
        LakeError: the store cannot be read.

    Cost: reads the Delta logs, and two columns of `decisions` and `outcomes`.
    """
    uri = str(path) if "://" in str(path) else str(Path(path).expanduser().absolute())
    if "://" not in uri:
        require_folder(Path(uri))
    store = store_of(uri, storage_options)
    tables = {table.name: found for table in trace.TABLES if (found := table_of(store, table)) is not None}
    if not tables and not (Path(uri) / LEDGER_FILE).exists():
        raise LakeNotFound(no_tables(uri))
    if trace.DECISIONS.name not in tables:
        raise LakeEmpty(nothing_decided(uri))
    lake = Lake(uri, Pins({}, {name: found.version() for name, found in tables.items()}), store)
    return lake.at(at)


@dataclass(frozen=True, eq=False, repr=False)
class Lake(Replayable):
    """A lake at a pin. Made by `open_lake`; every table is a LazyFrame with the columns of `runtime.trace`."""

    uri: str
    """Absolute path or URL."""
    pins: Pins
    store: LakeStore
    held_back: Mapping[str, int] = field(default_factory=dict)
    """Ledger id to the positions that are in the lake beyond the pin."""
    narrowing: Narrowing = field(default_factory=Narrowing)
    """Which decisions it was narrowed to (`where`, `since`)."""
    _bundles: dict[str, Bundle | None] = field(default_factory=dict)
    shelf: Shelf = field(default_factory=Shelf, init=False)  # not another lake's: it hangs on the pin

    @property
    def chosen(self) -> pl.Expr | None:
        """Whether a decision is one of those; None: all at the pin are."""
        return self.narrowing.condition

    @property
    def decisions(self) -> pl.LazyFrame:
        """One row a decision, at the pin, in (writer, position) order; shadow decisions included."""
        return self._narrowed(self._pinned(trace.DECISIONS))

    @property
    def history(self) -> pl.LazyFrame:
        """What a replay decides again: one row a decision, at the pin, shadow decisions left out; in no order."""
        rows = self.table(trace.DECISIONS).filter(self.pins.holds, pl.col("kind") != "shadow")
        return self._narrowed(rows)

    @property
    def outcomes(self) -> pl.LazyFrame:
        """One row an event, at the pin, in (writer, position) order; `kind` says which.

        `execution` how a call ended: `status`, `reason_code`, result, cost; of several the last holds (`executions`).
        `approval` who granted or denied it: `details`. `label` what was said of it later (`labels`).
        """
        return self._pinned(trace.OUTCOMES)

    @property
    def policies(self) -> pl.LazyFrame:
        """One row a file of a bundle version."""
        return self.table(trace.POLICIES)

    @property
    def contexts(self) -> pl.LazyFrame:
        """One row a compiled context."""
        return self.table(trace.CONTEXTS)

    @property
    def entities(self) -> pl.LazyFrame:
        """One row an entity's content."""
        return self.table(trace.ENTITIES)

    @property
    def slices(self) -> pl.LazyFrame:
        """One row a set of entities that decisions were made with."""
        return self.table(trace.SLICES)

    @property
    def blobs(self) -> pl.LazyFrame:
        """One row an argument or result above 32 KiB."""
        return self.table(trace.BLOBS)

    @property
    def aliases(self) -> pl.LazyFrame:
        """The log of names for bundle versions."""
        return self.table(trace.ALIASES)

    @property
    def scores(self) -> pl.LazyFrame:
        """One row a (replay, decision, metric)."""
        return self.table(trace.SCORES)

    @property
    def replays(self) -> pl.LazyFrame:
        """One row a saved replay."""
        return self.table(trace.REPLAYS)

    @property
    def bundles(self) -> pl.LazyFrame:
        """One row a bundle version, by name: `bundle_version`, the three hashes, `name`, `files` (list, sorted)."""
        keys = ("bundle_version", "policy_hash", "context_spec_hash", "limits_hash")
        rows = self.policies.group_by(keys).agg(pl.col("name").min(), files=pl.col("file").sort())
        return rows.sort("name", "bundle_version")

    @property
    def labels(self) -> pl.LazyFrame:
        """The labels in force: of several that say the same thing of the same, the last.

        Returns:
            `tenant`, `session_id`, `decision_id` (null: of the whole session), `label`, `value`, `source`,
            `recorded_at`, `writer`, `position`; one row for each of the first four, in order of `recorded_at`.
        """
        return labels_of(self.outcomes)

    @property
    def executions(self) -> pl.LazyFrame:
        """How each call ended, one row a decision that has an execution outcome: the last of them, by position.

        A call let run that is not here has no outcome at the pin: it was under way, or its process died.
        """
        found = executions_of(self.outcomes)
        return found if self.chosen is None else found.join(self._ids, on="decision_id", how="semi")

    @property
    def sessions(self) -> pl.LazyFrame:
        """One row a session, in order of its start.

        Returns:
            `tenant`, `session_id`, `principal`, `started_at`, `ended_at` (of its first and last decision),
            `decisions`, one count a verdict (`allow`, `modify`, `approve`, `block`), `tools` (list, sorted). Shadow
            decisions are left out.
        """
        return sessions_of(self.decisions)

    def table(self, table: Table, where: pl.Expr | None = None) -> pl.LazyFrame:
        """Return a table as it is now: declared columns, older schemas filled with nulls, one row a key.

        Content-addressed tables come sorted by key. A table that was never written has no rows. `where` picks rows.
        """
        empty = _empty(table)
        found = table_of(self.store, table)
        if found is None:
            return empty.lazy()
        frame = scan(found)
        known = frame.collect_schema().names()
        columns = [
            pl.col(name) if name in known else pl.lit(None, dtype).alias(name)
            for name, dtype in empty.schema.items()
        ]
        # Delta has no empty partition value: it comes back as null.
        blank = [pl.col(name).fill_null("") for name in table.partition_by]
        frame = frame.select(columns).with_columns(blank)
        frame = frame if where is None else frame.filter(where)
        return frame.unique(table.key, keep="any").sort(table.key) if table.content_addressed else frame

    def at(self, pins: Pins | Mapping[str, Any] | None = None) -> Lake:
        """Return this lake at another pin; None: at all that is complete now.

        Raises:
            PinUnreachable: the lake does not hold those rows.
            LakeEmpty: there is no decision at all.
        """
        rows = [self.table(table).select("writer", "position") for table in (trace.DECISIONS, trace.OUTCOMES)]
        found = heads(pl.concat(rows))
        if not found:
            raise LakeEmpty(nothing_decided(self.uri))
        wanted = {writer: end for writer, (end, _) in found.items()} if pins is None else pinned(pins)
        require_reachable(wanted, found, shown(self.uri))
        beyond = {writer: last - wanted.get(writer, 0) for writer, (_, last) in found.items()}
        held_back = {writer: number for writer, number in beyond.items() if number > 0}
        pin = Pins(wanted, self.pins.delta)
        return Lake(self.uri, pin, self.store, held_back, self.narrowing, self._bundles)

    def where(self, *conditions: pl.Expr) -> Lake:
        """Return this lake narrowed to some of its decisions: what is shown, replayed, swept and counted.

        Decisions of which a condition is null are not among them. What decisions refer to (contexts, entities,
        policies, labels, outcomes) is there as before. `chosen` and every replay's pins say the condition.

        Args:
            conditions: over the columns of `decisions`, each of a row by itself; all must hold, beside what it was
                narrowed to before. What looks at other rows (a mean, a rank) sees all at the pin.

        Raises:
            ColumnUnknown: a condition names another column.
            ValueError: a condition is not true or false.

        Example:
            >>> import polars as pl, workbench as wb
            >>> lake = wb.open("lake/").where(pl.col("tenant") == "acme")  # doctest: +SKIP
        """
        where = all_of(conditions, _empty(trace.DECISIONS), earlier=self.narrowing.where)
        return replace(self, narrowing=replace(self.narrowing, where=where))

    def since(self, after: Pins | Mapping[str, Any]) -> Lake:
        """Return this lake narrowed to decisions that came after a pin: a window, named so in the pins of replays.

        Args:
            after: a pin (`lake.pins`, `replay.pins`, or ledger id to position); other ledgers are in it as a whole.
        """
        return replace(self, narrowing=replace(self.narrowing, after=pinned(after)))

    def decision(self, decision_id: str, *, replay: Replay | None = None) -> Decision:
        """Show one decision in full; see `workbench.viewing.decision.decision`."""
        from workbench.viewing.decision import decision  # noqa: PLC0415 - it imports us

        return decision(self, decision_id, replay=replay)

    def bundle(self, version: str) -> Bundle:
        """Return a recorded bundle, built from the texts in `policies`.

        Args:
            version: `bundle_version`, or its first digits where they fit one only.

        Raises:
            BundleNotFound: no version begins so, or several do; or the texts do not give that version.
            BundleError: the texts are no bundle that this release reads.
        """
        return rebuilt(self.policies, whole_version(self.policies, version, shown(self.uri)), shown(self.uri))

    def find_bundle(self, version: str) -> Bundle | None:
        """Return the bundle of exactly this version; None if the lake lost it or its texts give another. Cached."""
        if version not in self._bundles:
            try:
                self._bundles[version] = rebuilt(self.policies, version, shown(self.uri))
            except (BundleNotFound, BundleError):
                self._bundles[version] = None
        return self._bundles[version]

    @cached_property
    def overview(self) -> Overview:
        """What the repr says. One pass over a few columns, once."""
        return overview(self)

    def __repr__(self) -> str:
        return "\n".join(lines(self))

    def _repr_html_(self) -> str:
        from workbench.faces import cell  # noqa: PLC0415 - what it draws with takes a second to load
        from workbench.pages import lake_page  # noqa: PLC0415 - it imports us

        return cell(lake_page(self))

    def _narrowed(self, decisions: pl.LazyFrame) -> pl.LazyFrame:
        return decisions if self.chosen is None else decisions.filter(self.chosen)

    @property
    def _ids(self) -> pl.LazyFrame:
        return self.history.select("decision_id")

    def _pinned(self, table: Table) -> pl.LazyFrame:
        return self.table(table).filter(self.pins.holds).sort("writer", "position")


def _empty(table: Table) -> pl.DataFrame:
    return pl.DataFrame(arrow_schema(table).empty_table())
