"""The same calls asked of Cedar, `cedarpy.is_authorized_batch`: what the kernel is timed against and held to.

One rule: both sides see the same rows. Requests and entities are made before the clock starts; handles are parsed.
"""

from __future__ import annotations

import json
import time
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import cedarpy
import polars as pl

from runtime.cedar import faults
from workbench.columnar.masks import WORD
from workbench.errors import OracleMismatch

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from runtime.bundle import Bundle
    from workbench.bench.desk import DeskFrame

_ARGS: Mapping[str, tuple[str, ...]] = {
    "lookup_order": ("order_id",),
    "issue_refund": ("order_id", "amount_cents", "reason"),
    "change_address": ("order_id",),
    "reply_ticket": ("ticket_id", "body", "internal"),
    "close_ticket": ("ticket_id", "resolution"),
}


@dataclass(frozen=True, slots=True)
class Asked:
    """Cedar's answers to the calls, in order."""

    seconds: float
    results: list[cedarpy.AuthzResult]


def ask(frame: DeskFrame, rows: pl.DataFrame, bundle: Bundle, policies: cedarpy.PolicySet) -> Asked:
    """Ask Cedar for these rows of the frame, in one batch over one entity store."""
    requests = [_request(row) for row in rows.iter_rows(named=True)]
    entities = cedarpy.Entities.from_json_str(json.dumps(_entities(frame, rows)), bundle.cedar_schema)
    started = time.perf_counter()
    results = cedarpy.is_authorized_batch(requests, policies, entities, bundle.cedar_schema)
    return Asked(time.perf_counter() - started, results)


def _request(row: Mapping[str, Any]) -> dict[str, Any]:
    args = {name: row[name] for name in _ARGS[row["tool"]]}
    if row["tool"] == "change_address":
        args["address"] = {"street": row["street"], "city": row["city"], "country": row["to_country"]}
    context = {
        "args": args,
        "now": _datetime(row["at"]),
        "tenant": row["tenant"],
        "scopes": row["scopes"],
        "session": {"calls": row["calls"], "refunded_cents": row["refunded_cents"]},
        "on_behalf_of": {"__entity": {"type": "Customer", "id": row["customer"]}},
    }
    if row["country"] is not None:
        context["customer"] = {"tier": row["tier"], "country": row["country"]}
    return {
        "principal": {"type": "Agent", "id": row["agent"]},
        "action": {"type": "Action", "id": row["tool"]},
        "resource": {"type": row["resource_type"], "id": row["resource"]},
        "context": json.dumps(context),
    }


def _datetime(milliseconds: int) -> dict[str, Any]:
    moment = datetime.fromtimestamp(milliseconds / 1_000, UTC).isoformat(timespec="milliseconds")
    return {"__extn": {"fn": "datetime", "arg": moment.replace("+00:00", "Z")}}


def _reference(kind: str, ident: str) -> dict[str, Any]:
    return {"__entity": {"type": kind, "id": ident}}


def _entities(frame: DeskFrame, rows: pl.DataFrame) -> list[dict[str, Any]]:
    """The entities that the rows name and a table has."""
    tables = frame.tables
    return [
        *(_agent(row) for row in _named(tables.agents, "agent_id", rows["agent"])),
        *(_order(row) for row in _named(tables.orders, "order_id", rows["order_id"])),
        *(_ticket(row) for row in _named(tables.tickets, "ticket_id", rows["ticket_id"])),
    ]


def _named(table: pl.DataFrame, key: str, ids: pl.Series) -> Iterable[dict[str, Any]]:
    return table.filter(pl.col(key).is_in(ids.unique().drop_nulls().implode())).iter_rows(named=True)


def _entity(kind: str, ident: str, attrs: dict[str, Any], *parents: tuple[str, str]) -> dict[str, Any]:
    above = [{"type": parent, "id": name} for parent, name in parents]
    return {"uid": {"type": kind, "id": ident}, "attrs": attrs, "parents": above}


def _agent(row: Mapping[str, Any]) -> dict[str, Any]:
    attrs = {"tenant": row["tenant"], "level": row["level"]}
    return _entity("Agent", row["agent_id"], attrs, *(("Team", team) for team in row["teams"]))


def _order(row: Mapping[str, Any]) -> dict[str, Any]:
    attrs = {name: row[name] for name in ("tenant", "status", "refundable_cents")}
    attrs |= {"owner": _reference("Customer", row["owner"]), "placed_at": _datetime(row["placed_at"])}
    return _entity("Order", row["order_id"], attrs)


def _ticket(row: Mapping[str, Any]) -> dict[str, Any]:
    attrs = {name: row[name] for name in ("tenant", "priority")}
    attrs |= {"assignee": _reference("Agent", row["assignee"]), "team": _reference("Team", row["team"])}
    return _entity("Ticket", row["ticket_id"], attrs, ("Queue", row["queue"]))


def hold(found: pl.DataFrame, asked: Asked, effects: Mapping[str, str]) -> None:
    """Hold masks to Cedar's answers: decision, determining policies and errors of every row.

    Args:
        found: masks of the same rows, in the same order.
        asked: what Cedar said.
        effects: `permit` or `forbid` by policy id, in the order of the bits.

    Raises:
        OracleMismatch: a row differs; it is named.
    """
    for row, (masks, result) in enumerate(zip(found.iter_rows(named=True), asked.results, strict=True)):
        satisfied, errored = (set(_ids(masks, title, effects)) for title in ("satisfied", "errored"))
        forbids = {each for each in satisfied if effects[each] == "forbid"}
        allowed = bool(satisfied) and not forbids
        ours = (allowed, satisfied if allowed else forbids, errored)
        errors = {fault.policy for fault in faults(result.diagnostics.errors, effects)}
        theirs = (result.allowed, set(result.diagnostics.reasons), errors)
        if ours != theirs:
            raise OracleMismatch(f"row {row}: the kernel says {ours}, Cedar says {theirs}", case=row)


def _ids(masks: Mapping[str, int], title: str, effects: Mapping[str, str]) -> Iterable[str]:
    return (each for n, each in enumerate(effects) if masks[f"{title}_{n // WORD}"] >> n % WORD & 1)
