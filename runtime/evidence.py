"""Evidence: how a row is hashed, how rows are chained, and how a broken chain is found.

One rule: the hash of a row is the SHA-256 of its *preimage*, and the preimage follows from the row alone: the
canonical JSON (`runtime.canonical`) of the row's non-null columns except `hash`, with the table's name as one
more member, `table`. `prev_hash` is among the columns, so a row also fixes every row before it.

Everything here is pure. What a hash proves, and what it does not: a changed, removed, reordered or inserted row
is found by whoever holds a later hash; somebody who can rewrite the whole chain and every copy of its head is
not. Signed checkpoints and the full `verify` build on this module.

Rows are checked against `runtime.trace` before they are chained: a row of the wrong type would be refused by the
lake later, when nobody can correct it any more. Check and text both come from one msgspec model a table, made of
the table's columns: 4 µs a decision, where a walk in Python takes 15.
"""

from __future__ import annotations

import hashlib
import re
from typing import TYPE_CHECKING, Annotated, Any, Final, NamedTuple

import msgspec

from runtime.canonical import Json, NotCanonical, canonical, sha256
from runtime.trace import BLOBS, CONTEXTS, ENTITIES, GENESIS, SCHEMA_VERSION, SLICES, TABLES, Column, Table

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

CHAIN_COLUMNS: Final = ("schema_version", "writer", "position", "prev_hash", "hash")
"""Columns that `chain` fills; a row that is not chained yet has none of them."""

MAX_PARTITION_BYTES: Final = 240
"""Longest partition value, percent-encoded: it becomes a folder name of the lake, and those end at 255 bytes."""

_encoder = msgspec.json.Encoder()
_HIVE_NULL: Final = "__HIVE_DEFAULT_PARTITION__"
_ESCAPED: Final = re.compile(rb"[^A-Za-z0-9_.-]")


class _Fault(msgspec.Struct, gc=False, forbid_unknown_fields=True):
    """`policy_error` of `runtime.trace`; members in canonical order."""

    message: str
    policy: str


_Int64: Final = Annotated[int, msgspec.Meta(ge=-(2**63), le=2**63 - 1)]
_TYPES: Final[Mapping[str, Any]] = {
    "string": str,
    "int64": _Int64,
    "int32": Annotated[int, msgspec.Meta(ge=-(2**31), le=2**31 - 1)],
    "bool": bool,
    "float64": float,
    "timestamp": _Int64,
    "list<string>": list[str],
    "list<policy_error>": list[_Fault],
}


def _field(column: Column) -> tuple[Any, ...]:
    if column.required and column.name not in CHAIN_COLUMNS:
        return (column.name, _TYPES[column.dtype])
    return (column.name, _TYPES[column.dtype] | None, None)


def _model(table: Table) -> type[msgspec.Struct]:
    """Build the model of a table's rows: members in canonical order, null ones left out of the text."""
    fields = [*map(_field, table.columns), ("table", str, "")]
    model = msgspec.defstruct(
        table.name,
        sorted(fields, key=lambda field: str(field[0])),
        kw_only=True,
        gc=False,  # a row refers to no other
        omit_defaults=True,
        forbid_unknown_fields=True,
    )
    # msgspec 0.22 resolves a struct's types at its first use, and two threads that come first at once crash the
    # process (signal 11 in 18 of 300 that began with four threads, none with this). A decoder resolves them now.
    msgspec.json.Decoder(model)
    return model


_MODELS: Final = {
    table.name: _model(table)
    for table in TABLES
    # Floats have RFC 8785's own number format: such tables take the slow path.
    if not any(column.dtype == "float64" for column in table.columns)
}


def row_hash(table: str, row: Mapping[str, Json]) -> str:
    """Return the hash of a row of `table`: 64 lower-case hex digits. `row["hash"]` is ignored.

    Raises:
        NotCanonical: if a value has no canonical form.
    """
    return sha256(preimage(table, row))


def preimage(table: str, row: Mapping[str, Json]) -> str:
    """Return the canonical text that `row_hash` hashes, and that the ledger stores.

    A row that does not fit its table has a preimage like any other: a changed row must be shown, not crash.

    Raises:
        NotCanonical: if a value has no canonical form.
    """
    try:
        model: Any = msgspec.convert(row, _MODELS[table])
    except (msgspec.ValidationError, KeyError):
        body: dict[str, Json] = {n: value for n, value in row.items() if value is not None and n != "hash"}
        body["table"] = table
        return canonical(body)
    if "hash" in row:
        model.hash = None
    return _text(table, model).decode()


def content_preimage(table: Table, checked: msgspec.Struct) -> str:
    """Return the preimage of a row of a content-addressed table; `checked` is what `check_row` made of it."""
    return _text(table.name, checked).decode()


def chain(
    table: Table, row: Mapping[str, Json], writer: str, position: int, prev_hash: str
) -> dict[str, Json]:
    """Return `row` as a link of the chain: with schema version, writer, position, previous hash and hash.

    Raises:
        ValueError: the row does not fit the table (`check_row`).
    """
    return seal(table, row, check_row(table, row), writer, position, prev_hash)[0]


def seal(
    table: Table, row: Mapping[str, Json], checked: msgspec.Struct, writer: str, position: int, prev_hash: str
) -> tuple[dict[str, Json], str]:
    """Return the chained row and its preimage; `checked` is what `check_row` made of `row`, and is used up.

    Raises:
        NotCanonical: a string holds a lone surrogate.
    """
    model: Any = checked
    model.schema_version, model.writer = SCHEMA_VERSION, writer
    model.position, model.prev_hash, model.hash = position, prev_hash, None
    text = _text(table.name, model)
    link = dict(row)
    link.update(schema_version=SCHEMA_VERSION, writer=writer, position=position, prev_hash=prev_hash)
    link["hash"] = hashlib.sha256(text).hexdigest()
    return link, text.decode()


def _text(table: str, model: Any) -> bytes:
    model.table = table
    try:
        return _encoder.encode(model)
    except UnicodeEncodeError as exc:
        raise NotCanonical(f"row of `{table}` has no canonical JSON form: {exc}") from exc


def check_row(table: Table, row: Mapping[str, Json]) -> msgspec.Struct:
    """Refuse a row that the lake could not hold; return its checked form, for `seal`.

    Chain columns may be missing: the ledger fills them.

    Raises:
        ValueError: naming the column, what was given and what is allowed.
    """
    try:
        checked = msgspec.convert(row, _MODELS[table.name])
    except msgspec.ValidationError as exc:
        raise ValueError(f"row does not fit table `{table.name}`: {exc}") from exc
    for name in table.partition_by:
        check_partition(f"`{table.name}.{name}`", str(row[name]))
    return checked


def check_partition(what: str, value: str) -> None:
    """Refuse a value that the lake cannot use as a partition, before anything is decided under it.

    Any Unicode text is allowed, the empty one included, except what ends the folder name and what Delta reads
    as null. A row that could never be drained must not be written: the drain would stop at it for ever.

    Raises:
        ValueError: naming `what`, the value and the bound.
    """
    if value == _HIVE_NULL:
        raise ValueError(f"{what} must not be {_HIVE_NULL!r}: Delta tables read it as null")
    if len(value) * 12 <= MAX_PARTITION_BYTES:  # no character takes more than 4 bytes, each escaped as %XX
        return
    raw = value.encode("utf-8", "surrogatepass")
    size = len(raw) + 2 * len(_ESCAPED.findall(raw))
    if size > MAX_PARTITION_BYTES:
        raise ValueError(
            f"{what} must be at most {MAX_PARTITION_BYTES} bytes when percent-encoded, "
            f"got {size} bytes: {value!r:.60}; use a shorter identifier"
        )


class BrokenLink(NamedTuple):
    """One thing that is wrong in a chain."""

    writer: str
    position: int
    """Where: the row's position, or the missing one."""
    table: str | None
    """Table of the row; null where the row is missing."""
    what: str
    """`changed`, `missing`, `doubled`, `reordered` or `malformed`, and why."""


def broken_links(rows: Iterable[tuple[str, Mapping[str, Json]]]) -> list[BrokenLink]:
    """Check chains from their rows alone, in any order, of any number of writers.

    A chain is expected to start at position 1; that it goes on after the last row given cannot be seen here.

    Args:
        rows: pairs of table name and row; timestamps as microseconds, as everywhere between modules.

    Returns:
        What is wrong, by writer and position; empty if nothing is. One finding per row or gap.

    Cost: O(rows) hashing, O(rows) memory.
    """
    chains: dict[str, list[tuple[int, str, Mapping[str, Json]]]] = {}
    broken: list[BrokenLink] = []
    for table, row in rows:
        writer, position = row.get("writer"), row.get("position")
        if not isinstance(writer, str) or type(position) is not int or position < 1:
            broken.append(BrokenLink(str(writer), -1, table, f"malformed: position is {position!r:.40}"))
        else:
            chains.setdefault(writer, []).append((position, table, row))
    for writer in sorted(chains):
        broken.extend(_walk(writer, sorted(chains[writer], key=lambda link: link[0])))
    return broken


def _walk(writer: str, links: list[tuple[int, str, Mapping[str, Json]]]) -> Iterable[BrokenLink]:
    expected, previous = 1, GENESIS
    for position, table, row in links:
        if position < expected:
            yield BrokenLink(writer, position, table, f"doubled: position {position} occurs more than once")
            continue
        if position > expected:
            upto = "" if position == expected + 1 else f" to {position - 1}"
            yield BrokenLink(writer, expected, None, f"missing: position {expected}{upto}")
        actual = _hash_or_reason(table, row)
        if actual != row.get("hash"):
            yield BrokenLink(writer, position, table, f"changed: content hashes to {actual}")
        elif position == expected and row.get("prev_hash") != previous:
            yield BrokenLink(writer, position, table, "reordered: prev_hash is not the hash before it")
        expected, previous = position + 1, str(row.get("hash"))


def _hash_or_reason(table: str, row: Mapping[str, Json]) -> str:
    try:
        return row_hash(table, row)
    except NotCanonical as exc:
        return f"nothing, {exc}"


def _slice_address(row: Mapping[str, Json]) -> str:
    return sha256(canonical(row["entity_hashes"]))


_ADDRESSES: Final[Mapping[str, Callable[[Mapping[str, Json]], str]]] = {
    CONTEXTS.name: lambda row: sha256(str(row["context"])),
    ENTITIES.name: lambda row: sha256(str(row["entity"])),
    SLICES.name: _slice_address,
    BLOBS.name: lambda row: sha256(str(row["data"])),
}


def check_address(table: Table, row: Mapping[str, Json]) -> None:
    """Refuse a content-addressed row that does not stand at its address.

    `policies` rows are named by bundle and file, not by content, and always pass.

    Raises:
        ValueError: naming the address given and the one the content has.
    """
    address = _ADDRESSES.get(table.name)
    if address is not None and (actual := address(row)) != row[table.key]:
        raise ValueError(
            f"row of `{table.name}` is at {row[table.key]!r:.70}, but its content is at {actual!r}"
        )
