"""Rows that fit their tables, for tests of what stores, reads or checks them.

One rule: a sample is made from the table's own columns, so that it fits whatever version of `runtime.trace` it
meets; a test names only the columns it is about.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final

from runtime.canonical import Json, canonical, new_id, sha256
from runtime.entities import EntityUid
from runtime.evidence import CHAIN_COLUMNS
from runtime.request import Request, ResourceTemplate
from runtime.trace import BLOBS, CONTEXTS, DECISIONS, ENTITIES, OUTCOMES, SLICES, Table

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

MOMENT: Final = 1_795_000_000_000_000
"""A moment in November 2026, microseconds."""


def _filler(dtype: str, name: str) -> Json:
    match dtype:
        case "string":
            return name
        case "bool":
            return True
        case "float64":
            return 0.5
        case "timestamp":
            return MOMENT
        case "int32" | "int64":
            return 1
    return []


def sample(table: Table, **given: Any) -> dict[str, Any]:
    """Return a row of `table` without chain columns: required columns filled, then `given`; a fresh key."""
    row = {
        column.name: _filler(column.dtype, column.name)
        for column in table.columns
        if column.required and column.name not in CHAIN_COLUMNS
    }
    return row | {table.key: new_id()} | given


def decision(**given: Any) -> dict[str, Any]:
    """Return a decision that let its call run, unless `given` says otherwise."""
    return sample(DECISIONS, kind="call", verdict="allow", decided_by="policy") | given


def execution(of: Mapping[str, Any], **given: Any) -> dict[str, Any]:
    """Return the outcome of a decision whose call succeeded, unless `given` says otherwise."""
    same = {name: of[name] for name in ("decision_id", "session_id", "tenant")}
    return sample(OUTCOMES, kind="execution", status="succeeded", **same) | given


def request(**given: Any) -> Request:
    """Return a request of `send_money` by a bot of `acme` at noon, unless `given` says otherwise."""
    usual: dict[str, Any] = {
        "decision_id": "d",
        "session_id": "s-1",
        "step": 0,
        "tenant": "acme",
        "principal": EntityUid("Agent", "bot"),
        "on_behalf_of": None,
        "scopes": (),
        "tool": "send_money",
        "resource": ResourceTemplate.parse("Account::{recipient}"),
        "required_scopes": (),
        "args": {},
        "idempotency_key": None,
        "at": datetime(2026, 11, 22, 12, tzinfo=UTC),
        "session_state": {"calls": 0},
    }
    return Request(**usual | given)


def context(text: str) -> tuple[Table, dict[str, Any]]:
    """Return a row of `contexts` at its address."""
    return CONTEXTS, {"context_hash": sha256(text), "context": text}


def entity(ident: str) -> tuple[Table, dict[str, Any]]:
    """Return a row of `entities` at its address."""
    text = canonical({"uid": {"type": "User", "id": ident}, "attrs": {}, "parents": []})
    return ENTITIES, {"entity_hash": sha256(text), "uid_type": "User", "uid_id": ident, "entity": text}


def entity_slice(hashes: Sequence[str]) -> tuple[Table, dict[str, Any]]:
    """Return a row of `slices` at its address."""
    members: list[Json] = [*sorted(hashes)]
    return SLICES, {"slice_hash": sha256(canonical(members)), "entity_hashes": members}


def blob(data: str) -> tuple[Table, dict[str, Any]]:
    """Return a row of `blobs` at its address."""
    return BLOBS, {"blob_hash": sha256(data), "bytes": len(data.encode()), "data": data}
