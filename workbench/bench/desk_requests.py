"""The support desk's calls as the runtime would decide them: one call at a time, in Python.

One rule: facts are compiled by `runtime.context.compile_context`, from sources that answer as Delta tables at one
version would. Tests hold lakes and kernels against it; it is the slow, plain way.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

from runtime.canonical import parse
from runtime.context import compile_context
from runtime.entities import EntityUid
from runtime.prepare import prepare
from runtime.request import Request, ResourceTemplate
from runtime.sources import Found
from runtime.values import timestamp
from workbench.bench.desk_facts import AS_OF_US, URI, VERSION
from workbench.bench.lake_rows import TEMPLATES
from workbench.rows import Job

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    import polars as pl

    from runtime.bundle import Bundle
    from runtime.canonical import Json
    from runtime.facts import CompiledContext
    from runtime.policy import Prepared
    from workbench.bench.desk import DeskFrame

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def moment(ms: int) -> datetime:
    """The UTC moment of milliseconds since the epoch."""
    return EPOCH + timedelta(milliseconds=ms)


@dataclass(frozen=True, slots=True)
class TableSource:
    """One of the desk's tables as a source of facts; a `runtime.sources.Source`."""

    kind = "delta"
    uri: str
    key: str
    rows: Mapping[Json, dict[str, Json]]

    def lookup(
        self, where: Mapping[str, Json], columns: Sequence[str], *, version: str | None = None
    ) -> Found:
        """Return the row with this key, if the other columns fit, too."""
        del version  # there is one
        row = self.rows.get(where[self.key])
        fits = row is not None and all(row[name] == value for name, value in where.items())
        found = [{name: row[name] for name in columns}] if row is not None and fits else []
        return Found(found, VERSION, AS_OF_US)

    def version_at(self, at_us: int) -> str | None:
        """There is one version."""
        del at_us
        return VERSION


def sources(frame: DeskFrame) -> dict[str, TableSource]:
    """The desk's tables, as `context.toml` names them."""
    tables = {
        "agents": ("agent_id", frame.tables.agents),
        "customers": ("customer_id", frame.tables.customers),
        "orders": ("order_id", frame.tables.orders),
        "tickets": ("ticket_id", frame.tables.tickets),
    }
    return {name: _source(name, key, table) for name, (key, table) in tables.items()}


def _source(name: str, key: str, table: pl.DataFrame) -> TableSource:
    rows = {row[key]: row for row in table.iter_rows(named=True)}
    if name == "orders":
        for row in rows.values():
            row["placed_at"] = timestamp(moment(row["placed_at"]))
    return TableSource(URI.format(name), key, rows)


def requests(frame: DeskFrame) -> Iterator[Request]:
    """Yield the requests, in the order of the rows; decision `d-<row>` of session `s-<session>`."""
    for number, row in enumerate(frame.rows.iter_rows(named=True)):
        yield Request(
            decision_id=f"d-{number}",
            session_id=f"s-{row['session']}",
            step=row["step"],
            tenant=row["tenant"],
            principal=EntityUid("Agent", row["agent"]),
            on_behalf_of=EntityUid("Customer", row["customer"]),
            scopes=tuple(row["scopes"]),
            tool=row["tool"],
            resource=ResourceTemplate.parse(TEMPLATES[row["resource_type"]]),
            required_scopes=(),
            args=_object(row["args"]),
            idempotency_key=None,
            at=moment(row["at"]),
            session_state={"calls": row["calls"], "refunded_cents": row["refunded_cents"]},
        )


def _object(text: str) -> dict[str, Json]:
    value = parse(text)
    assert isinstance(value, dict)  # noqa: S101 - the generator writes objects
    return value


def jobs(frame: DeskFrame, bundle: Bundle) -> list[Job]:
    """The calls, to be decided by an engine of `workbench.rows`."""
    bound = sources(frame)
    return [_job(request, bundle, bound) for request in requests(frame)]


def _job(request: Request, bundle: Bundle, bound: Mapping[str, Any]) -> Job:
    def facts(asked: Request, resource: EntityUid) -> CompiledContext:
        return compile_context(bundle.spec, bound, asked, resource)

    def prepared(args: Mapping[str, Json]) -> Prepared:
        return prepare(request, args, bundle, facts)

    return Job(request, bundle, prepared)
