"""What coverage counts, as tables that add up.

One rule: counting a log in pieces and adding the pieces up is counting the whole log. A row is a key with how many
decisions had it (`n`) and the first of them (`examples`); two rows of one key become one.

Values that are too many to keep are folded by what they are, not by when they came: numbers beyond `EXACT` distinct
ones are kept to three significant digits, texts beyond `SMALL` distinct ones are only counted. More rows never undo
that, so the order of adding does not matter.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import polars as pl

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

EXAMPLES = 3
"""Decisions kept as examples of a key."""
EXACT = 20_000
"""Distinct numbers of one path that are kept as they are."""
SMALL = 40
"""Distinct texts of one path that are kept."""

_S, _I = pl.String(), pl.Int64()

KEYS: Mapping[str, Mapping[str, pl.DataType]] = {
    "decisions": dict.fromkeys(("tool", "status", "cause", "verdict", "decided_by", "reason_code"), _S),
    "asked": dict.fromkeys(("bundle", "tool", "asked"), _S),
    "policies": dict.fromkeys(("bundle", "policy", "outcome"), _S),
    "clauses": {"bundle": _S, "clause": _I, "truth": _S},
    "boundaries": {"bundle": _S, "boundary": _I, "side": _S},
    "contexts": dict.fromkeys(("tool", "principal", "resource", "on_behalf_of", "facts"), _S),
    "arguments": dict.fromkeys(("tool", "given"), _S),
    "values": {**dict.fromkeys(("tool", "path", "kind", "form", "text"), _S), "number": _I},
}
"""Tables and their keys.

`decisions`: every decision, once, and what became of it. `asked`: every decision whose policies are known, once,
by whether its clauses were evaluated (`ASKED`). `policies`: `satisfied`, `errored` (as evaluated), `unknown`,
`decisive` (among those that determined the verdict). `clauses`: truth of each clause where evaluated. `boundaries`:
on which side of a literal the value it is compared with was. `contexts`, `arguments`: shapes. `values`: `form` is
`value`, `rounded` (a number to three digits), `many` (texts, only counted), or `absent`.
"""

ASKED: Mapping[str, str] = {
    "evaluated": "decided by policies",
    "before": "refused before policies were asked",
    "partly": "undecided, and evaluated as far as the record says",
    "undecided": "undecided, for limits hang on what the record does not say",
    "quarantined": "quarantined, for they do not reproduce themselves",
    "handed over": "left out, for columns do not take them",
}

_RANGE = ("low", "high")


def schema_of(table: str) -> dict[str, pl.DataType]:
    """Return the columns of a table."""
    more = dict.fromkeys(_RANGE, _I) if table == "values" else {}
    return {**KEYS[table], "n": _I, "examples": pl.List(pl.String), **more}


@dataclass(frozen=True, slots=True)
class Counts:
    """All tables. `a + b` counts what both counted; examples are those of `a` first."""

    tables: Mapping[str, pl.DataFrame]

    @classmethod
    def none(cls) -> Counts:
        """Nothing counted."""
        return cls({name: pl.DataFrame(schema=schema_of(name)) for name in KEYS})

    def __add__(self, other: Counts) -> Counts:
        return Counts({name: added(name, [self.tables[name], other.tables[name]]) for name in KEYS})

    def __getitem__(self, table: str) -> pl.DataFrame:
        return self.tables[table]


def added(table: str, frames: Iterable[pl.DataFrame]) -> pl.DataFrame:
    """Add frames of a table up: one row a key, in order of first appearance."""
    empty = pl.DataFrame(schema=schema_of(table))
    whole = pl.concat([empty, *(frame.select(empty.columns).cast(empty.schema) for frame in frames)])
    found = _summed(table, whole)
    return _folded(found) if table == "values" else found


def _summed(table: str, rows: pl.DataFrame) -> pl.DataFrame:
    sums = [pl.col("n").sum(), pl.col("examples").explode().drop_nulls().head(EXAMPLES)]
    if table == "values":
        sums += [pl.col("low").min(), pl.col("high").max()]
    return rows.group_by(list(KEYS[table]), maintain_order=True).agg(sums)


def _folded(rows: pl.DataFrame) -> pl.DataFrame:
    """Round the numbers of paths that have too many, and count the texts of such."""
    path = ("tool", "path", "kind")
    number, text = pl.col("number").is_not_null(), pl.col("text").is_not_null()
    blurred = (number.sum() > EXACT) | (pl.col("form") == "rounded").any()
    crowded = (text.sum() > SMALL) | (pl.col("form") == "many").any()
    marks = rows.select(blurred=blurred.over(path) & number, crowded=crowded.over(path) & text)
    if not (marks["blurred"].any() or marks["crowded"].any()):
        return rows
    form = (
        pl.when(marks["blurred"])
        .then(pl.lit("rounded"))
        .when(marks["crowded"])
        .then(pl.lit("many"))
        .otherwise("form")
    )
    changed = rows.with_columns(
        form=form,
        number=pl.when(marks["blurred"]).then(rounded(pl.col("number"))).otherwise("number"),
        text=pl.when(~marks["crowded"]).then("text"),
    )
    return _summed("values", changed)


def rounded(number: pl.Expr) -> pl.Expr:
    """A whole number to three significant digits, towards zero, so that nothing overflows."""
    size = number.clip(lower_bound=1 - 2**63).abs()
    digits = size.cast(pl.Float64).log10().floor().cast(pl.Int64, strict=False).fill_null(0)
    step = pl.lit(10, pl.Int64).pow(pl.max_horizontal(digits - 2, pl.lit(0)).cast(pl.UInt32))
    return (number.sign() * (size - size % step)).cast(pl.Int64)


def counted(frame: pl.DataFrame, keys: Iterable[str], ids: pl.Series) -> pl.DataFrame:
    """Count the rows of a frame by keys.

    Args:
        frame: the keys, a row a decision.
        keys: names of columns.
        ids: of the decisions.

    Returns:
        The keys, `n` and `examples`.
    """
    found = (
        frame.select(*keys)
        .with_row_index("_at")
        .group_by(list(keys), maintain_order=True)
        .agg(pl.len().cast(pl.Int64).alias("n"), pl.col("_at").head(EXAMPLES))
    )
    return found.with_columns(examples=examples_at(found["_at"], ids)).drop("_at")


def examples_at(rows: pl.Series, ids: pl.Series) -> pl.Series:
    """Lists of row numbers as lists of decision ids."""
    frame = pl.DataFrame({"at": rows}).with_row_index("key").explode("at", empty_as_null=True)
    told = frame.with_columns(ids.gather(frame["at"]).alias("id"))
    lists = told.group_by("key", maintain_order=True).agg(pl.col("id").drop_nulls())
    return lists["id"].alias("examples")
