"""Compiled contexts, taken apart: every recorded fact once, and for each context which facts it holds.

One rule: a context is used only if it hashes to its address and reads as a compiled context; else it has a fault, and
so has every row that refers to it.

Ten decisions of a session share a context, and a thousand contexts share a fact: what is decoded, is decoded once a
fact. A fact's record is kept without its provenance (source, version, key); only its age stays, with the context,
because the same value is read at many times.

Accepted: one pass in Python over the distinct contexts, about 150,000 a second; the frame holds codes, not texts.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import msgspec
import polars as pl

from runtime.canonical import sha256
from runtime.facts import CompiledContext
from workbench.erasure import holes_in_context

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

_NULL = b"null"
_NO_PARENTS = b"[]"


class _StoredFact(msgspec.Struct, forbid_unknown_fields=True):
    """The members of `runtime.facts.Fact`; values stay as text."""

    status: str
    into: str
    parents: msgspec.Raw
    source: msgspec.Raw
    kind: msgspec.Raw
    key: msgspec.Raw
    value: msgspec.Raw = msgspec.Raw(_NULL)
    uri: str | None = None
    version: str | None = None
    as_of: int | None = None
    hash: str = ""
    error: dict[str, str | None] | None = None


class _StoredContext(msgspec.Struct):
    facts: dict[str, _StoredFact]
    spec: str


_read = msgspec.json.Decoder(_StoredContext).decode


@dataclass(frozen=True, slots=True)
class FactRecords:
    """The distinct records of one fact, by code."""

    frame: pl.DataFrame
    """`status`, `into` (String), `value` (String: canonical JSON; null: nothing is placed), `parents` (String: JSON
    list of `[type, id]`; null: none), `names` (List[String]: members of a record, sorted; null: no record)."""


@dataclass(frozen=True, slots=True)
class Contexts:
    """Every compiled context of a lake."""

    frame: pl.DataFrame
    """One row a context: `context_hash` (String), `fault` (String: why it cannot be used, a cause of
    `workbench.replay.CAUSES`; null: it can), `shape` (UInt32; null with a fault), and for each fact `fact <name>`
    (UInt32: code of its record; null: the context has no such fact) and `as_of <name>` (Int64, microseconds UTC;
    null: unknown)."""
    facts: Mapping[str, FactRecords]
    shapes: tuple[str, ...]
    """For each shape the text of one context that has it: which facts were asked for, and what they cover."""

    def example(self, shape: int) -> CompiledContext:
        """Return a context of a shape."""
        return CompiledContext.from_content(self.shapes[shape])


@dataclass(slots=True)
class _Fact:
    """The records of one fact, as they are found."""

    codes: dict[tuple[str, str, bytes, bytes, str], int] = field(default_factory=dict)
    shapes: list[tuple[Any, ...]] = field(default_factory=list)
    """What each record covers, values aside."""
    column: list[int | None] = field(default_factory=list)
    ages: list[int | None] = field(default_factory=list)

    def add(self, row: int, found: _StoredFact) -> tuple[Any, ...]:
        """Keep a context's record; returns what it covers."""
        key = (found.status, found.into, bytes(found.value), bytes(found.parents), str(found.error))
        code = self.codes.setdefault(key, len(self.codes))
        if code == len(self.shapes):
            self.shapes.append((found.status, found.into, *_covered(key[2])))
        self.pad(row)
        self.column.append(code)
        self.ages.append(found.as_of)
        return self.shapes[code]

    def pad(self, height: int) -> None:
        """Fill up to a height with nothing."""
        missing = height - len(self.column)
        if missing > 0:
            self.column.extend([None] * missing)
            self.ages.extend([None] * missing)

    def records(self) -> FactRecords:
        keys = list(self.codes)
        return FactRecords(
            pl.DataFrame(
                {
                    "status": [key[0] for key in keys],
                    "into": [key[1] for key in keys],
                    "value": [None if key[2] == _NULL else key[2].decode() for key in keys],
                    "parents": [None if key[3] == _NO_PARENTS else key[3].decode() for key in keys],
                    "names": _repeated([shape[3] if shape[2] == "record" else None for shape in self.shapes]),
                },
                schema={
                    **dict.fromkeys(("status", "into", "value", "parents"), pl.String),
                    "names": pl.List(pl.String),
                },
            )
        )


def _repeated(lists: list[tuple[str, ...] | None]) -> pl.Series:
    """Lists as a column; few are distinct, and each is made once."""
    known = {each: place for place, each in enumerate(dict.fromkeys(lists))}
    values = pl.Series([None if each is None else list(each) for each in known], dtype=pl.List(pl.String))
    return values.gather(pl.Series([known[each] for each in lists], dtype=pl.UInt32))


def _covered(value: bytes) -> tuple[str, tuple[str, ...]]:
    """Kind of a value, and the members of a record or of the first record of a list."""
    match msgspec.json.decode(value):
        case dict() as record:
            return "record", tuple(sorted(record))
        case [dict() as first, *_]:
            return "records", tuple(sorted(first))
        case None:
            return "nothing", ()
        case _:
            return "value", ()


def take_apart(rows: Iterable[tuple[str, str]]) -> Contexts:
    """Take contexts apart.

    Args:
        rows: address and text; an address that comes again is left out.

    Cost: one pass; about 6 µs and 100 bytes a context, a fact's text once.
    """
    facts: dict[str, _Fact] = {}
    shapes: dict[tuple[Any, ...], int] = {}
    examples: list[str] = []
    hashes: dict[str, int] = {}
    shape_of: list[int | None] = []
    faults: dict[int, str] = {}
    for address, text in _once(rows, hashes):
        stored = _stored(address, text)
        row = len(shape_of)
        if isinstance(stored, str):
            faults[row] = stored
            shape_of.append(None)
            continue
        shape = tuple(
            (name, *facts.setdefault(name, _Fact()).add(row, found)) for name, found in stored.facts.items()
        )
        code = shapes.setdefault((stored.spec, shape), len(shapes))
        if code == len(examples):
            examples.append(text)
        shape_of.append(code)
    return Contexts(
        _frame(list(hashes), shape_of, faults, facts),
        {name: found.records() for name, found in facts.items()},
        tuple(examples),
    )


def _once(rows: Iterable[tuple[str, str]], seen: dict[str, int]) -> Iterator[tuple[str, str]]:
    for address, text in rows:
        if address not in seen:
            seen[address] = len(seen)
            yield address, text


def _stored(address: str, text: str) -> _StoredContext | str:
    """The context, or what is wrong with it."""
    if sha256(text) != address:
        holes = holes_in_context(text)
        return "context_corrupt" if holes is None else holes.cause
    try:
        return _read(text)
    except msgspec.DecodeError:
        return "row_unreadable"


def _frame(
    hashes: list[str], shapes: list[int | None], faults: Mapping[int, str], facts: Mapping[str, _Fact]
) -> pl.DataFrame:
    columns = {
        "context_hash": pl.Series(hashes, dtype=pl.String),
        "fault": pl.Series([faults.get(row) for row in range(len(hashes))], dtype=pl.String),
        "shape": pl.Series(shapes, dtype=pl.UInt32),
    }
    for name, found in facts.items():
        found.pad(len(hashes))
        columns[fact_column(name)] = pl.Series(found.column, dtype=pl.UInt32)
        columns[age_column(name)] = pl.Series(found.ages, dtype=pl.Int64)
    return pl.DataFrame(columns)


def fact_column(name: str) -> str:
    """Column of a fact's code."""
    return f"fact {name}"


def age_column(name: str) -> str:
    """Column of the time a fact was true."""
    return f"as_of {name}"
