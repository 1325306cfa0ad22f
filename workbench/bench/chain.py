"""Chains of millions of rows: the preimages of `runtime.evidence`, from columns.

One rule: a row's hash is the one `runtime.evidence.row_hash` gives; a test compares them, and checks whole
chains with `broken_links`.

Accepted: hashing goes row by row, because each preimage holds the hash before it: about 2 µs a row of 1.5 KiB.
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Final

import polars as pl

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from runtime.trace import Column, Table

ESCAPED: Final = frozenset({
    "args", "projection", "session_state", "stage_inputs", "enforced_args", "enforced_projection",
})  # fmt: skip
"""Columns whose texts hold quotes. No text of a desk holds a backslash or a control character."""


def preimages(frame: pl.DataFrame, table: Table) -> tuple[pl.Series, pl.Series]:
    """Return the preimage of each row as two halves (Binary), around the value of `prev_hash`.

    Args:
        frame: the table's columns but `hash` and `prev_hash`; one that is left out is null.
        table: whose rows they are.
    """
    columns = {column.name: column for column in table.columns if column.name in frame.columns}
    members = {name: _member(column) for name, column in columns.items()}
    fixed = [name for name in columns if _is_fixed(frame[name])]
    texts = frame.head(1).select(pl.concat_str(_merged(members[name])).alias(name) for name in fixed)
    members |= {name: [texts[name][0]] for name in fixed if texts.height}
    members["table"] = [f'"table":"{table.name}",']
    before = [part for name in sorted(members) if name < "prev_hash" for part in members[name]]
    after = [part for name in sorted(members) if name > "prev_hash" for part in members[name]]
    # Every member brings the comma after it; the last one, `writer`, ends a row and has none.
    halves = frame.select(
        head=pl.concat_str(_merged(["{", *before, '"prev_hash":"'])),
        tail=pl.concat_str(_merged(['",', *after[:-1], str(after[-1]).removesuffix(",") + "}"])),
    )
    return halves["head"].cast(pl.Binary), halves["tail"].cast(pl.Binary)


def _is_fixed(column: pl.Series) -> bool:
    """Whether all rows have one value; lists are taken as they come."""
    return not column.dtype.is_nested() and bool(column.eq_missing(column.first()).all())


def _merged(parts: Sequence[pl.Expr | str]) -> list[pl.Expr]:
    """Parts of a text with neighbouring constants as one."""
    merged: list[pl.Expr | str] = []
    for part in parts:
        if isinstance(part, str) and merged and isinstance(merged[-1], str):
            merged[-1] += part
        else:
            merged.append(part)
    return [pl.lit(part) if isinstance(part, str) else part for part in merged]


def _member(column: Column) -> list[pl.Expr | str]:
    """A member with the comma after it; nothing where it is null."""
    name, value = column.name, pl.col(column.name)
    parts: list[pl.Expr | str]
    match column.dtype:
        case "string":
            text = _escaped(value) if name in ESCAPED else value
            parts = [f'"{name}":"', text, '",']
        case "timestamp":
            parts = [f'"{name}":', value.dt.epoch("us").cast(pl.String), ","]
        case "list<string>":
            parts = [f'"{name}":', _texts(value), ","]
        case "list<policy_error>":
            parts = [f'"{name}":', _faults(value), ","]
        case _:
            parts = [f'"{name}":', value.cast(pl.String), ","]
    if column.required:
        return parts
    return [pl.when(value.is_not_null()).then(pl.concat_str(_merged(parts))).otherwise(pl.lit(""))]


def _escaped(value: pl.Expr) -> pl.Expr:
    return value.str.replace_all('"', '\\"', literal=True)


def _texts(value: pl.Expr) -> pl.Expr:
    filled = pl.concat_str(pl.lit('["'), value.list.join('","'), pl.lit('"]'))
    return pl.when(value.list.len() == 0).then(pl.lit("[]")).otherwise(filled)


def _faults(value: pl.Expr) -> pl.Expr:
    """At most one fault a row."""
    first = value.list.first()
    one = pl.concat_str(
        pl.lit('[{"message":"'), first.struct.field("message"), pl.lit('","policy":"'),
        first.struct.field("policy"), pl.lit('"}]'),
    )  # fmt: skip
    return pl.when(value.list.len() == 0).then(pl.lit("[]")).otherwise(one)


def link(heads: Sequence[bytes], tails: Sequence[bytes], previous: str) -> list[str]:
    """Hash rows in the order of their positions; returns the hash of each."""
    sha256 = hashlib.sha256
    before = previous.encode()
    found: list[str] = []
    for head, tail in zip(heads, tails, strict=True):
        digest = sha256(b"".join((head, before, tail))).hexdigest()
        found.append(digest)
        before = digest.encode()
    return found


def chained(
    frames: Mapping[str, tuple[pl.DataFrame, Table]], previous: str
) -> tuple[dict[str, pl.DataFrame], str]:
    """Chain the rows of several tables in the order of `position`.

    Args:
        frames: by table name; rows of all have `position`, no two the same.
        previous: hash of the row before.

    Returns:
        The frames with `prev_hash` and `hash`, and the last hash.
    """
    parts = []
    for name, (frame, table) in frames.items():
        head, tail = preimages(frame, table)
        parts.append(pl.DataFrame({"position": frame["position"], "of": name, "head": head, "tail": tail}))
    rows = pl.concat(parts).sort("position")
    hashes = link(rows["head"].to_list(), rows["tail"].to_list(), previous)
    order = rows.select("position", "of").with_columns(
        hash=pl.Series(hashes, dtype=pl.String),
        prev_hash=pl.Series([previous, *hashes[:-1]][: len(hashes)], dtype=pl.String),
    )
    out = {
        name: frame.hstack(order.filter(pl.col("of") == name).select("prev_hash", "hash"))
        for name, (frame, _) in frames.items()
    }
    return out, hashes[-1] if hashes else previous
