"""Conditions over the rows of a comparison: what a filter means to Polars, and how one writes it in Python.

One rule: `condition.code`, evaluated where `pl` is Polars, is `condition.expr`: what a view shows under its list
can be pasted and gives the same rows.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import reduce
from operator import and_

import polars as pl


@dataclass(frozen=True, slots=True)
class Is:
    """A column has this value; null: it is null."""

    column: str
    value: str | None

    @property
    def expr(self) -> pl.Expr:
        """To Polars."""
        return pl.col(self.column).is_null() if self.value is None else pl.col(self.column) == self.value

    @property
    def code(self) -> str:
        """In Python."""
        column = f"pl.col({self.column!r})"
        return f"{column}.is_null()" if self.value is None else f"({column} == {self.value!r})"


@dataclass(frozen=True, slots=True)
class IsNot:
    """A column has a value, and not this one."""

    column: str
    value: str

    @property
    def expr(self) -> pl.Expr:
        """To Polars."""
        return pl.col(self.column) != self.value

    @property
    def code(self) -> str:
        """In Python."""
        return f"(pl.col({self.column!r}) != {self.value!r})"


@dataclass(frozen=True, slots=True)
class In:
    """A column has one of these values."""

    column: str
    values: tuple[str, ...]

    @property
    def expr(self) -> pl.Expr:
        """To Polars."""
        return pl.col(self.column).is_in(self.values)

    @property
    def code(self) -> str:
        """In Python."""
        return f"pl.col({self.column!r}).is_in({self.values!r})"


@dataclass(frozen=True, slots=True)
class Flag:
    """A column of truth values is true."""

    column: str

    @property
    def expr(self) -> pl.Expr:
        """To Polars."""
        return pl.col(self.column)

    @property
    def code(self) -> str:
        """In Python."""
        return f"pl.col({self.column!r})"


@dataclass(frozen=True, slots=True)
class Differ:
    """Columns are not all equal to the first."""

    column: str
    others: tuple[str, ...]

    @property
    def expr(self) -> pl.Expr:
        """To Polars."""
        return pl.any_horizontal(pl.col(*self.others) != pl.col(self.column))

    @property
    def code(self) -> str:
        """In Python."""
        others = ", ".join(map(repr, self.others))
        return f"pl.any_horizontal(pl.col({others}) != pl.col({self.column!r}))"


BLAMED: pl.Expr = pl.when(pl.col("to") >= pl.col("from")).then("determining").otherwise("base_determining")
"""The policies a decision came out by: stricter than before, or as strict, the candidate's; looser, those that had
decided before and no longer do."""
_BLAMED = "pl.when(pl.col('to') >= pl.col('from')).then('determining').otherwise('base_determining')"


@dataclass(frozen=True, slots=True)
class Blames:
    """A policy is among `BLAMED`."""

    policy: str

    @property
    def expr(self) -> pl.Expr:
        """To Polars."""
        return BLAMED.list.contains(self.policy)

    @property
    def code(self) -> str:
        """In Python."""
        return f"{_BLAMED}.list.contains({self.policy!r})"


@dataclass(frozen=True, slots=True)
class Nobody:
    """It was decided, and not by a policy: `BLAMED` is empty. What is looser than before was held up by no policy."""

    looser: bool

    @property
    def expr(self) -> pl.Expr:
        """To Polars."""
        way = pl.col("to") < pl.col("from") if self.looser else pl.col("to") >= pl.col("from")
        return (BLAMED.list.len() == 0) & way & (pl.col("status") == "decided")

    @property
    def code(self) -> str:
        """In Python."""
        way = f"(pl.col('to') {'<' if self.looser else '>='} pl.col('from'))"
        return f"(({_BLAMED}.list.len() == 0) & {way} & (pl.col('status') == 'decided'))"


Condition = Is | IsNot | In | Flag | Differ | Blames | Nobody


def expr_of(conditions: tuple[Condition, ...]) -> pl.Expr:
    """Return the expression that all hold; of none: true for every row."""
    return reduce(and_, (each.expr for each in conditions)) if conditions else pl.lit(value=True)


def code_of(conditions: tuple[Condition, ...]) -> str:
    """Return `expr_of` as Python.

    Example:
        >>> print(code_of((Is("from", "allow"), Flag("changed"))))
        (pl.col('from') == 'allow') & pl.col('changed')
        >>> eval(code_of((Is("from", "allow"), Flag("changed")))).meta.eq(
        ...     expr_of((Is("from", "allow"), Flag("changed"))))
        True
    """
    return " & ".join(each.code for each in conditions) if conditions else "pl.lit(value=True)"
