"""Conditions that a rule may be made of: comparisons of what can be read with constants, and with each other.

One rule: a condition is Cedar text and the rows it holds for, and the two say the same; an absent value makes no
condition hold. Constants come from the decisions that the rule is to catch, and are rounded outwards, so that a
threshold reads as a person would write it and catches no fewer of them.
"""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass
from functools import partial
from itertools import combinations
from typing import TYPE_CHECKING

import polars as pl

from runtime.literals import quoted

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    import numpy as np
    from numpy.typing import NDArray

    from workbench.searching.suggesting.values import Path, Values

VALUES = 8
"""Constants of one attribute that equality is tried with, the most frequent first."""
QUANTILES = (0.0, 0.1, 0.25, 0.5)
"""Of the decisions to catch, where thresholds are put."""
RARE = 0.05
"""Share of the decisions to catch that a constant must at least occur in."""
_WORDS = re.compile(r"[^\w.-]+")
_SHORT, _LONG = 4, 40
"""Letters of a word that patterns are tried with."""
_DIGITS = 2
"""Digits that matter of a threshold."""
_PLAIN = re.compile(r"[A-Za-z0-9_.@ -]+")
_COMPARED = ("string", "long", "bool")
_SCALE = 10_000
"""A `decimal` in columns counts ten-thousandths."""


@dataclass(frozen=True, slots=True, eq=False)
class Condition:
    """One condition."""

    text: str
    """Cedar, guards left out."""
    guards: tuple[str, ...]
    """What must hold before it may be evaluated."""
    size: int
    """How much there is to read: parts of the condition."""
    holds: NDArray[np.bool_]
    """For each row of the values; False where something it reads is absent."""
    roots: frozenset[str]


def conditions_of(values: Values, harm: NDArray[np.bool_]) -> list[Condition]:
    """Return every condition worth trying, each set of rows once, the simplest text first.

    Args:
        values: what can be read.
        harm: for each row, whether it is to be caught.
    """
    found: dict[bytes, Condition] = {}
    for each in sorted(_all(values, harm), key=lambda condition: (condition.size, len(condition.text))):
        caught = each.holds & harm
        if caught.sum() >= max(1, RARE * harm.sum()) and not each.holds.all():
            found.setdefault(each.holds.tobytes(), each)
    return list(found.values())


def _all(values: Values, harm: NDArray[np.bool_]) -> Iterator[Condition]:
    for path, kind in values.kinds.items():
        column = values.frame[path.text]
        yield from _presence(path, column)
        match kind:
            case "bool":
                yield from _booleans(path, column)
            case "long":
                yield from _thresholds(path, column, harm)
            case "decimal":
                yield from _decimals(path, column, harm)
            case "string":
                yield from _equalities(path, column, harm, quoted)
                yield from _patterns(path, column, harm)
            case _ if kind.startswith("entity "):
                yield from _equalities(path, column, harm, partial(_uid, kind.removeprefix("entity ")))
            case _:
                pass
    yield from _pairs(values)


def _uid(kind: str, ident: str) -> str:
    return f"{kind}::{quoted(ident)}"


def _condition(text: str, holds: pl.Series, *paths: Path, size: int = 1) -> Condition:
    guards = tuple(dict.fromkeys(path.guard for path in paths if path.guard))
    mask = holds.fill_null(value=False).to_numpy()
    return Condition(text, guards, size + len(guards), mask, frozenset(path.root for path in paths))


def _presence(path: Path, column: pl.Series) -> Iterator[Condition]:
    if path.guard and column.null_count():
        last = max(path.optional)
        if last == len(path.names) - 1:
            yield Condition(path.guard, (), 1, column.is_not_null().to_numpy(), frozenset({path.root}))
            if len(path.optional) == 1:
                yield Condition(
                    f"!({path.guard})", (), 2, column.is_null().to_numpy(), frozenset({path.root})
                )


def _booleans(path: Path, column: pl.Series) -> Iterator[Condition]:
    yield _condition(path.text, column, path)
    yield _condition(f"!{path.text}", ~column, path)


def _thresholds(path: Path, column: pl.Series, harm: NDArray[np.bool_]) -> Iterator[Condition]:
    for bound in _bounds(column, harm, up=False):
        yield _condition(f"{path.text} >= {bound}", column >= bound, path)
    for bound in _bounds(column, harm, up=True):
        yield _condition(f"{path.text} <= {bound}", column <= bound, path)


def _decimals(path: Path, column: pl.Series, harm: NDArray[np.bool_]) -> Iterator[Condition]:
    for up, method in ((False, "greaterThanOrEqual"), (True, "lessThanOrEqual")):
        for bound in _bounds(column, harm, up=up):
            text = f'decimal("{_decimal(bound)}")'
            holds = column <= bound if up else column >= bound
            yield _condition(f"{path.text}.{method}({text})", holds, path)


def _decimal(units: int) -> str:
    whole, rest = divmod(abs(units), _SCALE)
    return f"{'-' if units < 0 else ''}{whole}.{rest:04d}"


def _bounds(column: pl.Series, harm: NDArray[np.bool_], *, up: bool) -> list[int]:
    """Thresholds that the decisions to catch, or most of them, are on one side of; rounded away from them."""
    mine = column.filter(pl.Series(harm)).drop_nulls()
    if mine.is_empty():
        return []
    found = []
    for at in QUANTILES:
        edge = mine.quantile(1 - at if up else at, "higher" if up else "lower")
        assert edge is not None  # noqa: S101 - there are values
        found += [_rounded(int(edge), up=up), int(edge)]
    return list(dict.fromkeys(found))


def _rounded(number: int, *, up: bool) -> int:
    """Round to few digits, up or down.

    Example:
        >>> _rounded(4321, up=False), _rounded(4321, up=True), _rounded(-4321, up=False), _rounded(7, up=True)
        (4300, 4400, -4400, 7)
    """
    step: int = 10 ** max(0, len(str(abs(number))) - _DIGITS)
    return -(-number // step) * step if up else number // step * step


def _equalities(
    path: Path, column: pl.Series, harm: NDArray[np.bool_], write: Callable[[str], str]
) -> Iterator[Condition]:
    mine = column.filter(pl.Series(harm)).drop_nulls()
    counts = mine.value_counts().sort("count", column.name, descending=[True, False]).head(VALUES)
    for value, n in counts.iter_rows():
        if n >= RARE * harm.sum():
            text = write(value)
            yield _condition(f"{path.text} == {text}", column == value, path)
            yield _condition(f"{path.text} != {text}", column != value, path, size=2)
    others = (
        column.filter(pl.Series(~harm))
        .drop_nulls()
        .value_counts()
        .sort("count", column.name, descending=[True, False])
    )
    for value, _ in others.head(VALUES).iter_rows():
        yield _condition(f"{path.text} != {write(value)}", column != value, path)


def _patterns(path: Path, column: pl.Series, harm: NDArray[np.bool_]) -> Iterator[Condition]:
    """Words that many of the texts to catch hold."""
    words: Counter[str] = Counter()
    for text, n in column.filter(pl.Series(harm)).drop_nulls().value_counts().iter_rows():
        for word in set(_WORDS.split(text)):
            if _SHORT <= len(word) <= _LONG and _PLAIN.fullmatch(word):
                words[word] += n
    for word, n in sorted(words.items(), key=lambda item: (-item[1], item[0]))[:VALUES]:
        if n >= RARE * harm.sum():
            yield _condition(f'{path.text} like "*{word}*"', column.str.contains(word, literal=True), path)


def _pairs(values: Values) -> Iterator[Condition]:
    """Attributes of one kind, compared with each other."""
    for (one, kind), (two, other) in combinations(values.kinds.items(), 2):
        if kind != other or (one.root, one.names[0]) == (two.root, two.names[0]):
            continue
        left, right = values.frame[one.text], values.frame[two.text]
        if kind == "long":
            yield _condition(f"{one.text} > {two.text}", left > right, one, two)
            yield _condition(f"{one.text} < {two.text}", left < right, one, two)
        elif kind in _COMPARED or kind.startswith("entity "):
            yield _condition(f"{one.text} == {two.text}", left == right, one, two)
            yield _condition(f"{one.text} != {two.text}", left != right, one, two)
