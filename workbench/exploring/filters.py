"""What is filtered: values of facets, a time, a text; as an expression and as code that makes it.

One rule: a filter means the same in the view and in Python. `expr()` picks from `lake.decisions` the rows that the
table shows, and `code()` is that expression as text to paste.
"""

from __future__ import annotations

import functools
import operator
from dataclasses import dataclass, fields, replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import polars as pl

if TYPE_CHECKING:
    from collections.abc import Iterator

FacetName = Literal["tenant", "principal", "tool", "verdict", "policy", "kind"]
FACETS: tuple[FacetName, ...] = ("verdict", "tool", "tenant", "principal", "policy", "kind")
"""What can be filtered by value, in the order of the view."""
SEARCHED = ("args", "resource_id", "session_id", "decision_id")
"""Columns that a text is looked for in."""

PRINCIPAL = pl.format('{}::"{}"', "principal_type", "principal_id")
"""A principal as one string."""


class Term(NamedTuple):
    """One condition, and the code that makes it."""

    expr: pl.Expr
    code: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Filter:
    """Which decisions are shown: those that fit every part; of the values of one part, any."""

    tenant: tuple[str, ...] = ()
    principal: tuple[str, ...] = ()
    """As `Type::"id"`."""
    tool: tuple[str, ...] = ()
    verdict: tuple[str, ...] = ()
    policy: tuple[str, ...] = ()
    """Ids of policies that determined the verdict."""
    kind: tuple[str, ...] = ()
    """`call`, `duplicate`, `resumed`, `shadow`."""
    since: datetime | None = None
    """The first moment, UTC; None: from the beginning."""
    until: datetime | None = None
    """The last moment, UTC, included; None: to the end."""
    text: str = ""
    """In the arguments' JSON, the resource's id, the session's or the decision's; ASCII letters of any case."""

    def chosen(self, facet: FacetName) -> tuple[str, ...]:
        """Return the values that are chosen of a facet; none: all of them."""
        values: tuple[str, ...] = getattr(self, facet)
        return values

    def having(self, facet: FacetName, values: tuple[str, ...]) -> Filter:
        """Return this filter with other values of a facet."""
        changed: dict[str, Any] = {facet: values}
        return replace(self, **changed)

    @property
    def is_empty(self) -> bool:
        """Whether nothing is filtered."""
        return all(getattr(self, field.name) == field.default for field in fields(self))

    def expr(self) -> pl.Expr:
        """Return the condition over `lake.decisions`."""
        terms = [term.expr for term in self._terms()]
        return functools.reduce(operator.and_, terms) if terms else pl.lit(True)

    def code(self) -> str:
        """Return the condition as Python; `pl` is Polars, `datetime` and `UTC` come from `datetime`."""
        terms = [term.code for term in self._terms()]
        if not terms:
            return "pl.lit(True)"
        return terms[0] if len(terms) == 1 else " & ".join(f"({term})" for term in terms)

    def _terms(self) -> Iterator[Term]:
        for name in ("tenant", "tool", "verdict", "kind"):
            if values := self.chosen(name):
                yield _among(Term(pl.col(name), f'pl.col("{name}")'), values)
        if self.principal:
            code = 'pl.format(\'{}::"{}"\', "principal_type", "principal_id")'
            yield _among(Term(PRINCIPAL, code), self.principal)
        if self.policy:
            yield _policies(self.policy)
        if self.since is not None:
            yield Term(pl.col("decided_at") >= self.since, f'pl.col("decided_at") >= {_moment(self.since)}')
        if self.until is not None:
            yield Term(pl.col("decided_at") <= self.until, f'pl.col("decided_at") <= {_moment(self.until)}')
        if self.text:
            yield _contains(self.text)


def _among(column: Term, values: tuple[str, ...]) -> Term:
    if len(values) == 1:
        return Term(column.expr == values[0], f"{column.code} == {values[0]!r}")
    return Term(column.expr.is_in(values), f"{column.code}.is_in({list(values)!r})")


def _policies(ids: tuple[str, ...]) -> Term:
    column = pl.col("determining").list
    if len(ids) == 1:
        return Term(column.contains(ids[0]), f'pl.col("determining").list.contains({ids[0]!r})')
    found = column.set_intersection(pl.lit(list(ids))).list.len() > 0
    return Term(found, f'pl.col("determining").list.set_intersection(pl.lit({list(ids)!r})).list.len() > 0')


def _contains(text: str) -> Term:
    code = (
        f"pl.col({', '.join(map(repr, SEARCHED))}).str.contains_any([{text!r}], ascii_case_insensitive=True)"
    )
    return Term(contains(text, SEARCHED), f"pl.any_horizontal({code})")


def contains(text: str, columns: tuple[str, ...]) -> pl.Expr:
    """Return whether one of some columns holds a text, ASCII letters of any case."""
    return pl.any_horizontal(pl.col(*columns).str.contains_any([text], ascii_case_insensitive=True))


def _moment(at: datetime) -> str:
    at = at.astimezone(UTC)
    parts = [at.year, at.month, at.day, at.hour, at.minute, at.second, at.microsecond]
    while len(parts) > 3 and not parts[-1]:  # noqa: PLR2004 - a date has three
        parts.pop()
    return f"datetime({', '.join(map(str, parts))}, tzinfo=UTC)"
