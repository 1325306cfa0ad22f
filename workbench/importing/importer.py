"""Import a table of tool calls as a lake: read, infer, decide, write.

One rule: the lake is whole or not there. It is written beside its place and moved there at the end; rows that cannot
be mapped lie in a Parquet file next to it, with their cause.

Cost: about 0.1 ms of processor time a call. The file may be larger than memory: what stays there is some 250 bytes a
call (its order, addresses of contents), a KiB a session, and the rows kept aside. While it runs, calls lie in a file
without a name beside the lake (of a dry run: where temporary files are), about twice what they take as JSON.
"""

from __future__ import annotations

import os
import shutil
from collections import Counter
from contextlib import closing
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import polars as pl
from pyarrow.parquet import ParquetWriter

from runtime import trace
from runtime.errors import LedgerError
from runtime.lake import LakeStore
from workbench.errors import LakeError, MappingInvalid
from workbench.importing.baseline import ToolType, baseline
from workbench.importing.calls import parsed_template, template_of
from workbench.importing.causes import CAUSES
from workbench.importing.imported import EXAMPLES, Imported
from workbench.importing.mapping import Mapping, Tool
from workbench.importing.mapping_file import mapping_of, read_mapping
from workbench.importing.moments import zone_of
from workbench.importing.reading import Reading
from workbench.importing.records import BLOCK, read_records
from workbench.importing.rows import Refused, Rows
from workbench.importing.sessions import SessionLabels
from workbench.importing.spooling import Spool
from workbench.masking import leaving
from workbench.progress import progress
from workbench.texts import count

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence
    from collections.abc import Mapping as Table

    from runtime.bundle import Bundle
    from runtime.record import Row
    from runtime.trace import Table as TraceTable
    from workbench.importing.calls import Call, Rejected, SessionKey
    from workbench.importing.records import Calls, Record, Records
    from workbench.progress import Advance

FLUSH: Final = 40_000
"""Rows of one table that make a commit: so many are held as Python objects."""


def import_calls(
    calls: Calls,
    mapping: Mapping | Table[str, Any] | str | Path,
    out: str | Path | None,
    *,
    runs: Calls | None = None,
    bundle_folder: str | Path | None = None,
    told: Advance | None = None,
) -> Imported:
    """Make a lake of a table of tool calls: every row a decision of a baseline that lets everything run.

    Args:
        calls: a file (Parquet, JSON lines) or a frame; one row a call.
        mapping: which columns hold what: a TOML file, what it says as a dict, or a `Mapping`.
        out: folder of the lake, which must not be there yet; None: nothing is written, and what would be is told.
        runs: a second file or frame, one row a session, joined by the mapping's `runs.session`.
        bundle_folder: where to write the baseline, too, to start a policy from; must not be there yet.
        told: told how many rows were done (each is read, then written); None: a progress bar.

    Returns:
        What became of the rows; counts sum to the file's.

    Raises:
        MappingInvalid: the mapping does not fit, a file cannot be read, or no row could be mapped.
        LakeError: something is at `out` already, or it is no local folder.

    Durability: the lake is moved to its place when all of it is written; Delta syncs nothing on a local disk.
    """
    mapping = _mapping(mapping)
    place = None if out is None else _free(out)
    folder = None if bundle_folder is None else _free(bundle_folder)
    zone_of(mapping.time.zone)
    for name, tool in mapping.tools.items():
        for text in (*([tool.resource] if tool.resource else []), *(tool.writes or ())):
            parsed_template(name, text)
    with progress(None, "reading calls", told):
        records = read_records(calls, mapping.missing)
        second = None if runs is None else read_records(runs, {})
    mapping.check_columns(records.columns, None if second is None else second.columns)
    with (
        progress(2 * len(records), "importing calls", told, unit="row") as advance,
        closing(Spool(None if place is None else _existing(place))) as spool,
    ):
        reading = Reading(mapping, spool)
        reading.read(records, advance)
        if not len(reading):
            raise MappingInvalid(f"no row could be mapped, nothing was written: {_why(reading)}")
        made = _bundle(reading)
        while True:
            try:
                return _Import(reading, records, second, made).run(place, folder, advance)
            except Refused as exc:  # never met; what Cedar refuses goes aside, and the rest is made again
                reading.keep_aside(exc.refused)


def _mapping(given: Mapping | Table[str, Any] | str | Path) -> Mapping:
    match given:
        case Mapping():
            return given
        case str() | Path():
            return read_mapping(given)
        case _:
            return mapping_of(given)


def _free(out: str | Path) -> Path:
    if "://" in str(out):
        raise LakeError(f"{str(out)!r} is no local folder: import into one, then copy it there as it is")
    place = Path(out).expanduser().absolute()
    try:
        LakeStore(place)
    except LedgerError as exc:
        raise LakeError(str(exc)) from exc
    if place.exists():
        raise LakeError(f"{place} is there already; an import writes a lake of its own: give another folder")
    return place


def _existing(place: Path) -> Path:
    """The folder next to which something is to be, or what there is of it: the same disk."""
    return next(folder for folder in place.parents if folder.is_dir())


def _bundle(reading: Reading) -> Bundle:
    mapping, used = reading.mapping, reading.used
    tools = {
        name: ToolType(
            args=reading.types[name], resource=template_of(name, mapping.tools.get(name, Tool())).type
        )
        for name in used
    }
    written = {parsed_template(name, text).type for name in used for text in _writes(mapping, name)}
    behalf = None if mapping.on_behalf_of is None else mapping.on_behalf_of.type
    return baseline(tools, mapping.principal.type, behalf, written)


def _writes(mapping: Mapping, tool: str) -> tuple[str, ...]:
    known = mapping.tools.get(tool)
    return () if known is None or known.writes is None else known.writes


class _Import:
    """One import under way, after its file was read."""

    def __init__(self, reading: Reading, records: Records, runs: Records | None, bundle: Bundle) -> None:
        self.reading, self.records, self.runs, self.bundle = reading, records, runs, bundle
        self.labels = SessionLabels(reading.mapping)
        self.rows = Rows(reading.mapping, bundle, f"import-{reading.digest(bundle)[:16]}")

    def run(self, place: Path | None, folder: Path | None, advance: Advance) -> Imported:
        if place is None:
            for _ in self._made(advance):
                pass
            return self._told(None, None)
        part = place.with_name(f".{place.name}.{os.getpid()}.part")
        place.parent.mkdir(parents=True, exist_ok=True)
        try:
            self._write(part, advance)
            aside = self._keep_aside(place)
            part.rename(place)
        except BaseException:
            shutil.rmtree(part, ignore_errors=True)
            _aside_part(place).unlink(missing_ok=True)
            raise
        if folder is not None:
            for name, text in self.bundle.files.items():
                folder.mkdir(parents=True, exist_ok=True)
                (folder / name).write_text(text, encoding="utf-8")
        return self._told(place, aside)

    def _made(self, advance: Advance) -> Iterator[tuple[TraceTable, Row]]:
        """Yield every row of the trace."""
        ends: dict[SessionKey, int] = {}
        for block in self.reading.blocks(BLOCK):
            for call, record in block:
                self._of_session(call, record)
                ends[call.key] = max(ends.get(call.key, call.at or 0), call.at or 0)
            yield from self.rows.block(*zip(*block, strict=True))
            advance(len(block))
        if self.runs is not None:
            self.labels.join(self.runs, ends)
        yield from self.rows.session_labels(ends, self.labels.agreed())

    def _of_session(self, call: Call, record: Record) -> None:
        self.labels.add(call.key, record)
        if call.derived:
            self.labels.add_derived(call.key)

    def _write(self, part: Path, advance: Advance) -> None:
        store = LakeStore(part, write=True)
        for table in trace.DRAINED:
            if table is not trace.BLOBS:
                store.create(table)
        store.append(trace.POLICIES, self.bundle.row_dicts())
        waiting: dict[str, list[Row]] = {table.name: [] for table in trace.DRAINED}
        for table, row in self._made(advance):
            waiting[table.name].append(row)
            if len(waiting[table.name]) >= FLUSH:
                _flush(store, waiting)
        _flush(store, waiting)

    def _keep_aside(self, place: Path) -> Path | None:
        """Write the rows that could not be mapped next to the lake."""
        path = _aside(place)
        if not self.reading.rejected:
            path.unlink(missing_ok=True)  # of an earlier import to the same place
            return None
        part = _aside_part(place)
        write_rejected(self.reading.rejected, self.records, part)
        part.replace(path)
        return path

    def _told(self, place: Path | None, aside: Path | None) -> Imported:
        reading, rejected = self.reading, self.reading.rejected
        counts = Counter(each.cause for each in rejected)
        tally = self.rows.tally
        ends = {status: n for (kind, status), n in sorted(tally.items()) if kind == "execution"}
        doubt = len(reading) - sum(ends.values())
        return Imported(
            lake=place,
            rejected_file=aside,
            rows=len(self.records),
            mapped=len(reading),
            rejected={cause: counts[cause] for cause in CAUSES if counts[cause]},
            examples=list(_examples(rejected)),
            sessions=len(reading.sessions),
            tenants=len({tenant for tenant, _ in reading.sessions}),
            tools=len(reading.used),
            outcomes={**ends, **({"in doubt: no outcome": doubt} if doubt else {})},
            labels={label: n for (kind, label), n in sorted(tally.items()) if kind == "label"},
            derived_times=int(reading.order.derived.sum()),
            notes=list(self._notes()),
            bundle_version=self.bundle.version,
            schema=self.bundle.files["schema.cedarschema"],
        )

    def _notes(self) -> Iterator[str]:
        labels = self.labels
        for label, n in sorted(labels.differing.items()):
            yield f"Label `{label}` differs within {count(n, 'session')}, which are left without it."
        if labels.runs_without_calls:
            yield f"Runs without an imported call: {labels.runs_without_calls:,} of {labels.runs:,}."
        if labels.runs_unreadable:
            yield f"Runs that cannot be read, or name no session: {labels.runs_unreadable:,} of {labels.runs:,}."


def _aside(place: Path) -> Path:
    return place.with_name(f"{place.name}-rejected.parquet")


def _aside_part(place: Path) -> Path:
    return place.with_name(f".{_aside(place).name}.{os.getpid()}.part")


def _why(reading: Reading) -> str:
    counts = Counter(each.cause for each in reading.rejected)
    told = (f"{count(n, 'row')} {cause} ({CAUSES[cause]})" for cause, n in counts.items())
    return "; ".join(told) or "there is none"


def _flush(store: LakeStore, waiting: dict[str, list[Row]]) -> None:
    """Append what waits, in the order in which no row refers to a missing one."""
    for table in trace.DRAINED:
        if rows := waiting[table.name]:
            store.append(table, rows)
            rows.clear()


def _examples(rejected: Iterable[Rejected]) -> Iterator[tuple[Any, int, str]]:
    seen: Counter[str] = Counter()
    for each in rejected:
        seen[each.cause] += 1
        if seen[each.cause] <= EXAMPLES:
            yield each.cause, each.number + 1, each.detail


def write_rejected(rejected: Sequence[Rejected], records: Records, path: Path) -> None:
    """Write the rows kept aside: `row` (from 1), `cause`, `detail`, and `record`, the row itself; some at a time."""
    schema = {"row": pl.Int64, "cause": pl.String, "detail": pl.String, "record": pl.String}
    texts = records.texts([each.number for each in rejected])
    with closing(ParquetWriter(path, pl.DataFrame(schema=schema).to_arrow().schema)) as file:
        for begin in range(0, len(rejected), BLOCK):
            block = rejected[begin : begin + BLOCK]
            columns = {
                "row": [each.number + 1 for each in block],
                "cause": [each.cause for each in block],
                "detail": [each.detail for each in block],
                "record": [*islice(texts, len(block))],
            }
            file.write_table(leaving(pl.DataFrame(columns, schema=schema)).to_arrow())
