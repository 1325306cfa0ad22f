"""The narrow columns of a lake's decisions, in memory: filters, counts and orders without reading the lake again.

One rule: the index has the lake's decisions at its pin, each once, by time; what is shown of an argument is read from
the lake when it is looked at.

Trade-off accepted: about 150 bytes a decision stay in memory, so ten million take 1.5 GB; arguments, contexts and
reasons, which are most of a lake, do not.
"""

from __future__ import annotations

import secrets
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import cached_property
from typing import TYPE_CHECKING, NamedTuple

import polars as pl

from workbench.exploring.filters import FACETS, PRINCIPAL, FacetName, Filter
from workbench.texts import visible

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from workbench.lake import Lake

MAX_VALUES = 50
"""Values of a facet that are shown."""
BINS = 120
"""Bars of the picture of decisions over time, at most."""

_SETS = "policies"


class Value(NamedTuple):
    """One value of a facet."""

    code: int
    """Names the value to the browser."""
    value: str
    n: int
    """Decisions that have it, of those that the other parts of the filter leave."""
    is_chosen: bool


class Facet(NamedTuple):
    """The values of a facet, most frequent first."""

    name: FacetName
    values: Sequence[Value]
    left_out: int
    """Values that fit the search and are not in `values`."""
    distinct: int
    """Values there are, whatever the filter."""


class Bins(NamedTuple):
    """How many decisions at which time: of those shown, in equal stretches over the whole lake."""

    start: datetime
    end: datetime
    width: timedelta
    """Of one stretch."""
    counts: Sequence[int]

    def edges(self) -> list[datetime]:
        """Return where stretches begin and end: one more than there are."""
        return [self.start + place * self.width for place in range(len(self.counts) + 1)]


class Found(NamedTuple):
    """What a filter leaves."""

    order: pl.Series
    """Places of the rows, UInt32, ascending."""
    facets: Sequence[Facet]
    bins: Bins | None
    """None: there is no decision."""


@dataclass(frozen=True, eq=False)
class Index:
    """The narrow columns."""

    frame: pl.DataFrame
    """One row a decision: `decision_id`, `writer`, `position`, `tenant`, `session_id`, `step`, `decided_at`, `kind`,
    `principal`, `tool`, `resource`, `verdict`, `reason_code`, `policies` (codes of `sets`)."""
    sets: pl.DataFrame
    """One row a set of determining policies: `policies` (its code), `ids`."""

    @cached_property
    def span(self) -> tuple[datetime, datetime] | None:
        """The first and the last moment; None: there is no decision."""
        ends = self.frame.select(start=pl.col("decided_at").min(), end=pl.col("decided_at").max()).row(0)
        return None if ends[0] is None else ends

    @cached_property
    def names(self) -> Mapping[FacetName, pl.DataFrame]:
        """Of each facet, its values: `code` and `value`, by value."""
        return {name: self._names(name) for name in FACETS}

    def _names(self, facet: FacetName) -> pl.DataFrame:
        if facet == "policy":
            ids = self.sets.select(value=pl.col("ids").explode()).drop_nulls().unique().sort("value")
            return ids.with_row_index("code")
        found = self.frame[facet].unique()
        pairs = pl.DataFrame({"code": found.to_physical(), "value": found.cast(pl.String)})
        return pairs.drop_nulls().sort("value")

    def value(self, facet: FacetName, code: int) -> str | None:
        """Return the value that a code names; None: none does."""
        names = self.names[facet]
        found = names.filter(pl.col("code") == code)["value"]
        return str(found[0]) if found.len() else None

    def find(self, chosen: Filter, hits: pl.Series | None, looked: Mapping[FacetName, str]) -> Found:
        """Filter and count.

        Args:
            chosen: the filter; its text is answered by `hits`.
            hits: whether each row has the text; None: no text is asked for, or it is not known yet.
            looked: what the reader searches for among the values of a facet.

        Cost: O(decisions) for each part of the filter and each facet; a tenth of a second a million.
        """
        parts = self._parts(chosen)
        whole = [] if hits is None else [hits]
        mask = _all([*whole, *parts.values()])
        order = self._places(mask)
        facets = [
            self._facet(
                name, chosen, looked.get(name, ""),
                mask if name not in parts else _all([*whole, *(part for key, part in parts.items() if key != name)]),
            )
            for name in FACETS
        ]  # fmt: skip
        return Found(order, facets, self._bins(mask))

    def _places(self, mask: pl.Series | None) -> pl.Series:
        if mask is None:
            return pl.int_range(self.frame.height, dtype=pl.UInt32, eager=True)
        return mask.arg_true().cast(pl.UInt32)

    def _parts(self, chosen: Filter) -> dict[str, pl.Series]:
        """Which rows fit each part that filters, by name of the part."""
        exprs: dict[str, pl.Expr] = {}
        for name in FACETS:
            if values := chosen.chosen(name):
                exprs[name] = self._among(name, values)
        if chosen.since is not None:
            exprs["since"] = pl.col("decided_at") >= chosen.since
        if chosen.until is not None:
            exprs["until"] = pl.col("decided_at") <= chosen.until
        found = self.frame.select(**exprs)
        return {name: found[name] for name in exprs}

    def _among(self, facet: FacetName, values: Sequence[str]) -> pl.Expr:
        if facet == "policy":
            wanted = self.sets.filter(pl.col("ids").list.eval(pl.element().is_in(values)).list.any())
            return pl.col(_SETS).is_in(wanted[_SETS].implode())
        names = self.names[facet]
        codes = names.filter(pl.col("value").is_in(values))["code"]
        return pl.col(facet).to_physical().is_in(codes.implode())

    def _facet(self, name: FacetName, chosen: Filter, looked: str, mask: pl.Series | None) -> Facet:
        names, picked = self.names[name], chosen.chosen(name)
        counted = names.join(self._counts(name, mask), on="code", how="left").with_columns(
            pl.col("n").fill_null(0), chosen=pl.col("value").is_in(picked)
        )
        fits = pl.col("chosen")
        if looked:
            fits = fits | pl.col("value").str.contains_any([looked], ascii_case_insensitive=True)
        else:
            fits = fits | (pl.col("n") > 0)
        left = counted.filter(fits).sort("chosen", "n", "value", descending=[True, True, False])
        shown = left.head(MAX_VALUES).sort("n", "value", descending=[True, False])
        values = [Value(*row) for row in shown.select("code", "value", "n", "chosen").iter_rows()]
        return Facet(name, values, left.height - shown.height, names.height)

    def _counts(self, name: FacetName, mask: pl.Series | None) -> pl.DataFrame:
        column = self.frame[_SETS if name == "policy" else name].to_physical()
        counts = (column if mask is None else column.filter(mask)).value_counts(name="n")
        counts.columns = ["code", "n"]
        if name != "policy":
            return counts
        ids = self.sets.join(counts, left_on=_SETS, right_on="code").explode("ids").drop_nulls("ids")
        by_id = ids.group_by(value="ids").agg(pl.col("n").sum())
        return self.names["policy"].join(by_id, on="value").select("code", "n")

    @cached_property
    def _stretches(self) -> tuple[timedelta, pl.Series]:
        """How long a bar's stretch is, and which one each decision is in."""
        assert self.span is not None  # noqa: S101 - asked of a lake with decisions
        start, end = self.span
        width = (end - start) // BINS + timedelta(microseconds=1)
        places = (self.frame["decided_at"] - start).dt.total_microseconds() // (
            width // timedelta(microseconds=1)
        )
        return width, places.cast(pl.UInt8)

    def _bins(self, mask: pl.Series | None) -> Bins | None:
        if self.span is None:
            return None
        width, places = self._stretches
        counts = dict((places if mask is None else places.filter(mask)).value_counts(name="n").iter_rows())
        last = (self.span[1] - self.span[0]) // width
        return Bins(*self.span, width, [counts.get(place, 0) for place in range(last + 1)])

    def session(self, decision_id: str) -> pl.DataFrame:
        """Return the rows of the session that a decision is of, by time; no rows: there is no such decision."""
        own = self.frame.filter(pl.col("decision_id") == decision_id)
        if not own.height:
            return own
        same = (pl.col("tenant") == own["tenant"][0]) & (pl.col("session_id") == own["session_id"][0])
        return self.frame.filter(same).sort("decided_at", "position")

    def policies(self, code: int) -> str:
        """Return the ids of a set of policies, as text."""
        ids = self.sets.filter(pl.col(_SETS) == code)["ids"]
        return ", ".join(map(visible, ids[0])) if ids.len() else ""


def _all(masks: Sequence[pl.Series]) -> pl.Series | None:
    """Rows that are in all; None: of none given, so all rows."""
    found: pl.Series | None = None
    for mask in masks:
        found = mask if found is None else found & mask
    return found


def read(lake: Lake, where: pl.Expr | None = None) -> Index:
    """Read the narrow columns of a lake's decisions; of those that `where` picks, if it is given.

    Cost: one pass over fourteen columns, a second a million rows.
    """
    between = secrets.token_hex(8)  # nobody can have put it into an id
    rows = lake.decisions if where is None else lake.decisions.filter(where)
    frame = rows.select(
        "decision_id", _code("writer"), "position", _code("tenant"), "session_id", "step", "decided_at",
        _code("kind"), _category(PRINCIPAL).alias("principal"), _code("tool"),
        pl.format('{}::"{}"', "resource_type", "resource_id").alias("resource"), _code("verdict"),
        _code("reason_code"), _category(pl.col("determining").list.join(between)).alias(_SETS),
    ).sort("decided_at", "position").collect()  # fmt: skip
    kinds = frame[_SETS].unique()
    texts = kinds.cast(pl.String).to_frame("ids")
    ids = texts.select(pl.when(pl.col("ids") != "").then(pl.col("ids").str.split(between)).otherwise([]))
    sets = ids.with_columns(kinds.to_physical().alias(_SETS))
    return Index(frame.with_columns(pl.col(_SETS).to_physical()), sets)


def _code(name: str) -> pl.Expr:
    return _category(pl.col(name))


def _category(values: pl.Expr) -> pl.Expr:
    # Categories of their own: the global ones are shared by the process, so a lake's names would outlive the lake.
    return values.cast(pl.Categorical(pl.Categories.random()))
