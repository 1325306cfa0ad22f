"""The table of column operations: how each becomes Polars, and what it gives for constants.

One rule: an operation never decides by the type Polars sees; its operands are of one Cedar type, checked before.

Polars wraps 64-bit arithmetic, so each checked operation has a partner that says where it overflowed.
"""

from __future__ import annotations

import operator
import re
from dataclasses import dataclass
from functools import reduce
from typing import TYPE_CHECKING, Any, Literal

import polars as pl

from workbench.columnar.reading import number, numbers, payload_text, payload_texts

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable, Mapping

MIN, MAX = -(2**63), 2**63 - 1
DAY = 86_400_000

# Where the parts of an address text begin and how long they are (see `extension_text.ip_text`).
_FAMILY, _START, _END = (0, 1), (36, 32), (68, 32)


@dataclass(frozen=True, slots=True)
class Operation:
    """One operation."""

    lower: Callable[..., pl.Expr]
    """From the parameter and the arguments' expressions."""
    dtype: Literal["bool", "long", "text", "code", "list"]
    fold: Callable[..., Any] | None = None
    """From the parameter and the arguments' constants; null: not folded."""


def _wrap(value: int) -> int:
    return (value - MIN) % 2**64 + MIN


def _both(function: Callable[[Any, Any], Any], *, dtype: Literal["bool", "long"] = "bool") -> Operation:
    def call(_: Hashable, left: Any, right: Any) -> Any:
        return function(left, right)

    def fold(_: Hashable, left: Any, right: Any) -> Any:
        found = function(left, right)
        return found if dtype == "bool" else _wrap(found)

    return Operation(call, dtype, fold)


def _outside(function: Callable[[Any, Any], Any]) -> Operation:
    """Whether the exact result leaves 64 bits."""

    def lower(_: Hashable, left: pl.Expr, right: pl.Expr) -> pl.Expr:
        exact = function(left.cast(pl.Int128), right.cast(pl.Int128))
        found: pl.Expr = (exact < pl.lit(MIN, pl.Int128)) | (exact > pl.lit(MAX, pl.Int128))
        return found

    def fold(_: Hashable, left: int, right: int) -> bool:
        return not MIN <= function(left, right) <= MAX

    return Operation(lower, "bool", fold)


def packed(flags: Mapping[int, pl.Expr]) -> pl.Expr:
    """Flags, never null, as the bits of one UInt64, by number of the bit.

    Byte by byte: eight flags are joined in an eighth of the memory that a whole word takes.
    """
    bytes_: dict[int, pl.Expr] = {}
    for bit, flag in flags.items():
        one = pl.when(flag).then(pl.lit(1 << bit % 8, pl.UInt8)).otherwise(pl.lit(0, pl.UInt8))
        bytes_[bit // 8] = bytes_[bit // 8] | one if bit // 8 in bytes_ else one
    words = [byte.cast(pl.UInt64) * pl.lit(1 << 8 * place, pl.UInt64) for place, byte in bytes_.items()]
    return reduce(operator.or_, words) if words else pl.lit(0, pl.UInt64)


def _add_overflows(_: Hashable, left: pl.Expr, right: pl.Expr) -> pl.Expr:
    # Neither bound wraps where it is used: `MAX - right` of a positive number, `MIN - right` of a negative one.
    over: pl.Expr = (right > 0) & (left > pl.lit(MAX, pl.Int64) - right)
    return over | ((right < 0) & (left < pl.lit(MIN, pl.Int64) - right))


def _sub_overflows(_: Hashable, left: pl.Expr, right: pl.Expr) -> pl.Expr:
    over: pl.Expr = (right < 0) & (left > pl.lit(MAX, pl.Int64) + right)
    return over | ((right > 0) & (left < pl.lit(MIN, pl.Int64) + right))


def _quotient(unit: Any, value: pl.Expr) -> pl.Expr:
    """Division that truncates toward zero; Polars floors."""
    floor: pl.Expr = value // unit
    inexact: pl.Expr = (value < 0) & (value % unit != 0)
    return floor + inexact.cast(pl.Int64)


def _quotient_of(unit: Any, value: int) -> int:
    return -(-value // unit) if value < 0 else int(value // unit)


def pattern_text(parts: tuple[str | None, ...]) -> str:
    """A `like` pattern (null is a wildcard) as a regular expression for Rust's engine and Python's alike."""
    body = "".join(".*" if part is None else _escaped(part) for part in parts)
    return rf"(?s)\A{body}"


def _escaped(text: str) -> str:
    return "".join(c if c.isascii() and c.isalnum() else "\\" + c if c in _PUNCTUATION else c for c in text)


_PUNCTUATION = frozenset("\\.+*?()|[]{}^$#&-~")


def _like(parts: Any, value: pl.Expr) -> pl.Expr:
    match parts:
        case () | (str(),):
            return value == pl.lit("".join(parts))
        case (None,):
            return value.is_not_null()
        case (str(start), None):
            return value.str.starts_with(pl.lit(start))
        case (None, str(end)):
            return value.str.ends_with(pl.lit(end))
        case (None, str(middle), None):
            return value.str.contains(pl.lit(middle), literal=True)
        case _:
            return value.str.contains(pattern_text(parts) + r"\z")


def _like_text(parts: Any, value: str) -> bool:
    return re.compile(pattern_text(parts) + r"\Z").match(value) is not None


def _like_any(needles: Any, value: pl.Expr) -> pl.Expr:
    """Whether a text holds any of these."""
    return value.str.contains("|".join(map(_escaped, needles)))


def _slices(value: Any, part: tuple[int, int]) -> Any:
    start, length = part
    return value[start : start + length] if isinstance(value, str) else value.str.slice(start, length)


def _in_range(inner: Any, outer: Any) -> Any:
    return (
        (_slices(inner, _FAMILY) == _slices(outer, _FAMILY))
        & (_slices(inner, _START) >= _slices(outer, _START))
        & (_slices(inner, _END) <= _slices(outer, _END))
    )


def _texts(_: Hashable, *parts: pl.Expr) -> pl.Expr:
    return pl.concat_str(parts)


def _sized(_: Hashable, text: pl.Expr) -> pl.Expr:
    return pl.concat_str([text.str.len_bytes().cast(pl.String), pl.lit(":"), text])


def _sized_list(_: Hashable, texts: pl.Expr) -> pl.Expr:
    """The canonical texts of a set's members, sorted, as one text."""
    return texts.list.eval(_sized(None, pl.element())).list.join("")


_INNER = {"long": pl.Int64, "text": pl.String, "code": pl.UInt32}


def _listed(dtype: Any, *members: pl.Expr) -> pl.Expr:
    """The members as a set: sorted, each once."""
    inner = _INNER[dtype]
    return pl.concat_list([member.cast(inner) for member in members]).list.unique().list.sort()


def _texts_of(prefix: Any, members: pl.Expr) -> pl.Expr:
    """The canonical texts of a list of one kind, sorted: a list of numbers is not sorted as texts are."""
    element = pl.concat_str([pl.lit(prefix), pl.element().cast(pl.String)])
    return members.list.eval(element).list.sort()


def _text_sized(_: Hashable, text: str) -> str:
    return f"{len(text.encode())}:{text}"


def _bit(place: Any, word: pl.Expr) -> pl.Expr:
    bit, dtype = place
    return (word & pl.lit(1 << bit, dtype)) != pl.lit(0, dtype)


OPERATIONS: Mapping[str, Operation] = {
    "equal": _both(operator.eq),
    "less": _both(lambda left, right: right > left),
    "less_eq": _both(lambda left, right: right >= left),
    "add": _both(operator.add, dtype="long"),
    "sub": _both(operator.sub, dtype="long"),
    "mul": _both(operator.mul, dtype="long"),
    "add_overflows": Operation(_add_overflows, "bool", _outside(operator.add).fold),
    "sub_overflows": Operation(_sub_overflows, "bool", _outside(operator.sub).fold),
    "mul_overflows": _outside(operator.mul),
    "quotient": Operation(_quotient, "long", _quotient_of),
    "remainder": Operation(lambda unit, value: value % unit, "long", lambda unit, value: value % unit),
    "read": Operation(payload_texts, "text", payload_text),
    "number": Operation(lambda _, texts: numbers(texts), "long", lambda _, text: number(text)),
    "like": Operation(_like, "bool", _like_text),
    "like_any": Operation(_like_any, "bool"),
    "in_range": Operation(lambda _, a, b: _in_range(a, b), "bool", lambda _, a, b: bool(_in_range(a, b))),
    "is_family": Operation(
        lambda family, value: _slices(value, _FAMILY) == pl.lit(family),
        "bool",
        lambda family, value: value[0] == family,
    ),
    "text": Operation(lambda _, value: value.cast(pl.String), "text", lambda _, value: str(value)),
    "texts": Operation(_texts, "text", lambda _, *parts: "".join(parts)),
    "sized": Operation(_sized, "text", _text_sized),
    "sized_list": Operation(_sized_list, "text"),
    "listed": Operation(_listed, "list"),
    "texts_of": Operation(_texts_of, "list"),
    "packed": Operation(lambda dtype, *flags: packed(dict(enumerate(flags))).cast(dtype), "code"),
    "bit": Operation(_bit, "bool"),
    "offset": Operation(lambda _, start, step: start + step, "code"),
    "capped": Operation(lambda most, code: code.clip(upper_bound=pl.lit(most, pl.UInt32)), "code"),
    "is_member": Operation(lambda _, values, value: values.list.contains(value), "bool"),
    "is_subset": Operation(lambda _, part, whole: part.list.set_difference(whole).list.len() == 0, "bool"),
    "overlaps": Operation(lambda _, a, b: a.list.set_intersection(b).list.len() > 0, "bool"),
    "is_empty": Operation(lambda _, values: values.list.len() == 0, "bool"),
    "all_start": Operation(
        lambda prefix, texts: texts.list.eval(pl.element().str.starts_with(prefix)).list.all(), "bool"
    ),
}
"""By name."""
