"""Operations over scalars: arithmetic, comparison, and the functions of extension types.

One rule: an operation over operands that may be of several types is an error exactly in the rows in which one of
them is of the wrong type, overflows, or cannot be read.

Source of the extension types' arithmetic: the Cedar documentation, "Operators", held against `cedarpy` by tests.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from workbench.columnar.extension_text import CONSTRUCTORS, ip_text
from workbench.columnar.nodes import TRUE, Node, and_, apply, equal, literal, not_, or_
from workbench.columnar.operations import DAY, MIN
from workbench.columnar.reading import UNREADABLE
from workbench.columnar.values import (
    Alternative,
    Pair,
    Scalar,
    ScalarKind,
    expect,
    normal,
    scalar,
    split,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from cedarpy import pst

_ORDERED: tuple[ScalarKind, ...] = ("long", "datetime", "duration")
_FIRST_DAY = -(-MIN // DAY) * DAY
"""The first midnight that fits 64 bits: `toDate` of anything before it overflows."""

NEVER = Pair((), TRUE)
"""An expression that is an error in every row."""


def compared(op: str, left: Pair, right: Pair) -> Pair:
    """`<` and its kin, over two values of one ordered type."""
    found: list[Node] = []
    fits: list[Node] = []
    for a in left.value:
        for b in right.value:
            if not (isinstance(a.data, Scalar) and isinstance(b.data, Scalar)):
                continue
            if a.data.kind == b.data.kind and a.data.kind in _ORDERED:
                both = and_(a.guard, b.guard)
                fits.append(both)
                found.append(and_(both, _order(op, a.data.node, b.data.node)))
    error = or_(left.error, right.error, not_(or_(*fits)))
    return scalar("bool", or_(*found), error)


def _order(op: str, left: Node, right: Node) -> Node:
    match op:
        case "less":
            return apply("less", left, right)
        case "less_eq":
            return apply("less_eq", left, right)
        case "greater":
            return apply("less", right, left)
        case _:
            return apply("less_eq", right, left)


def decimals_compared(op: str, left: Pair, right: Pair) -> Pair:
    """`lessThan` and its kin."""
    return _binary(left, right, ("decimal", "decimal"), lambda a, b: scalar("bool", _order(op, a, b)))


def _binary(
    left: Pair, right: Pair, kinds: tuple[ScalarKind, ScalarKind], function: Callable[[Node, Node], Pair]
) -> Pair:
    (a, left_error), (b, right_error) = expect(left, kinds[0]), expect(right, kinds[1])
    if a is None or b is None:
        return NEVER
    found = function(a, b)
    return Pair(found.value, or_(left_error, right_error, found.error))


def _checked(op: str, result: ScalarKind) -> Callable[[Node, Node], Pair]:
    return lambda a, b: scalar(result, apply(op, a, b), apply(f"{op}_overflows", a, b))


def arithmetic(op: str, left: Pair, right: Pair) -> Pair:
    """`+`, `-` and `*` of numbers, with Cedar's overflow."""
    return _binary(left, right, ("long", "long"), _checked(op, "long"))


def negated(arg: Pair) -> Pair:
    """`-x`."""
    return arithmetic("sub", scalar("long", literal(0, "long")), arg)


def in_range(left: Pair, right: Pair) -> Pair:
    """`isInRange`."""
    return _binary(left, right, ("ipaddr", "ipaddr"), lambda a, b: scalar("bool", apply("in_range", a, b)))


def offset(left: Pair, right: Pair) -> Pair:
    """`datetime.offset(duration)`."""
    return _binary(left, right, ("datetime", "duration"), _checked("add", "datetime"))


def duration_since(left: Pair, right: Pair) -> Pair:
    """`datetime.durationSince(datetime)`."""
    return _binary(left, right, ("datetime", "datetime"), _checked("sub", "duration"))


def _ranges(four: str, six: str) -> Callable[[Node], Pair]:
    def inside(node: Node) -> Pair:
        ranges = (literal(ip_text(text), "text") for text in (four, six))
        return scalar("bool", or_(*(apply("in_range", node, each) for each in ranges)))

    return inside


def _family(family: str) -> Callable[[Node], Pair]:
    return lambda node: scalar("bool", apply("is_family", node, param=family))


def _units(unit: int) -> Callable[[Node], Pair]:
    return lambda node: scalar("long", apply("quotient", node, param=unit) if unit > 1 else node)


def _to_date(node: Node) -> Pair:
    rest = apply("remainder", node, param=DAY)
    return scalar("datetime", apply("sub", node, rest), apply("less", node, literal(_FIRST_DAY, "long")))


def _to_time(node: Node) -> Pair:
    return scalar("duration", apply("remainder", node, param=DAY))


METHODS: Mapping[str, tuple[ScalarKind, Callable[[Node], Pair]]] = {
    "is_ipv4": ("ipaddr", _family("4")),
    "is_ipv6": ("ipaddr", _family("6")),
    "is_loopback": ("ipaddr", _ranges("127.0.0.0/8", "::1/128")),
    "is_multicast": ("ipaddr", _ranges("224.0.0.0/4", "ff00::/8")),
    "to_date": ("datetime", _to_date),
    "to_time": ("datetime", _to_time),
    "to_milliseconds": ("duration", _units(1)),
    "to_seconds": ("duration", _units(1_000)),
    "to_minutes": ("duration", _units(60_000)),
    "to_hours": ("duration", _units(3_600_000)),
    "to_days": ("duration", _units(DAY)),
}
"""Functions of one extension value: the type they take, and what they give."""


def method(op: str, arg: Pair) -> Pair:
    """A function of `METHODS`."""
    kind, function = METHODS[op]
    node, error = expect(arg, kind)
    if node is None:
        return NEVER
    found = function(node)
    return Pair(found.value, or_(error, found.error))


def like(arg: Pair, pattern: tuple[pst.PatternElem, ...]) -> Pair:
    """`like`; `*` stands for any characters, newlines too."""
    node, error = expect(arg, "string")
    if node is None:
        return NEVER
    return scalar("bool", apply("like", node, param=_parts(pattern)), error)


def _parts(pattern: tuple[pst.PatternElem, ...]) -> tuple[str | None, ...]:
    """The pattern as texts with nulls for wildcards between."""
    parts: list[str | None] = []
    for element in pattern:
        text = getattr(element, "value", None)
        if text is None:
            if not parts or parts[-1] is not None:
                parts.append(None)
        elif parts and (last := parts[-1]) is not None:
            parts[-1] = last + text
        else:
            parts.append(text)
    return tuple(parts)


def constructed(op: str, arg: Pair) -> Pair:
    """`decimal("…")`, `ip("…")`, `datetime("…")`, `duration("…")`, of any text; an error where it cannot be read."""
    kind = CONSTRUCTORS[op]
    texts = split(arg, lambda data: isinstance(data, Scalar) and data.kind == "string")
    found: list[Alternative] = []
    wrong: list[Node] = []
    for each in texts.value:
        assert isinstance(each.data, Scalar)  # noqa: S101 - asked for
        text = apply("read", each.data.node, param=kind)
        unreadable = equal(text, literal(UNREADABLE, "text"))
        wrong.append(and_(each.guard, unreadable))
        if unreadable is not TRUE:
            payload = text if kind == "ipaddr" else apply("number", text)
            found.append(Alternative(each.guard, Scalar(kind, payload)))
    return Pair(normal(found), or_(texts.error, *wrong)) if found else NEVER
