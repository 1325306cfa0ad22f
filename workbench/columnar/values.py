"""Cedar values as columns: what an expression may be, each possibility with the rows it holds in.

One rule: a Cedar type is known when a policy is compiled, never found out row by row. Where several types are
possible (`if` over different types, an attribute that is a number here and a text there), a value has several
*alternatives*; exactly one guard is true in each row in which the expression has no error. One alternative needs no
guard, so homogeneous data pays nothing.

The second half of a compiled expression is its error: true where Cedar would raise one.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal, TypeAlias, assert_never

from workbench.columnar.nodes import FALSE, TRUE, Node, and_, is_constant, not_, or_, when

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

ScalarKind: TypeAlias = Literal["long", "bool", "string", "decimal", "datetime", "duration", "ipaddr"]

MOST_ALTERNATIVES = 64
_MOST_CONSTANTS = 8
"""Texts that a choice between constants may have and still be told apart, so that `ip(if …)` can be read."""


class Unsupported(Exception):  # noqa: N818 - becomes `UnsupportedPolicy`, which names the policy
    """The compiler does not take this construct."""

    def __init__(self, message: str, node: str) -> None:
        super().__init__(message)
        self.node = node


@dataclass(frozen=True, slots=True)
class Scalar:
    """A number, a text, a Boolean, or an extension value."""

    kind: ScalarKind
    node: Node


@dataclass(frozen=True, slots=True)
class EntityData:
    """An entity of one type."""

    type: str
    index: Node
    """Row of the type's entity table: this version of the entity."""
    uid: Node
    """Code of its id, one for all versions."""


@dataclass(frozen=True, slots=True)
class Member:
    """A member of a record."""

    present: Node
    value: Value


@dataclass(frozen=True, slots=True)
class RecordData:
    """A record, member by member."""

    members: Mapping[str, Member]


@dataclass(frozen=True, slots=True)
class MembersData:
    """A set written out, `[a, b]`."""

    members: tuple[Value, ...]


@dataclass(frozen=True, slots=True)
class ListedData:
    """A set of one scalar kind or entity type, as a column of sorted lists."""

    kind: str
    """A `ScalarKind`, or `entity T`."""
    node: Node


@dataclass(frozen=True, slots=True)
class TextsData:
    """Any set, as a column of sorted lists of canonical texts (see `workbench.columnar.canon`)."""

    node: Node


Data: TypeAlias = "Scalar | EntityData | RecordData | MembersData | ListedData | TextsData"


@dataclass(frozen=True, slots=True)
class Alternative:
    """One possibility."""

    guard: Node
    data: Data


Value: TypeAlias = "tuple[Alternative, ...]"


@dataclass(frozen=True, slots=True)
class Pair:
    """A compiled expression."""

    value: Value
    error: Node = field(default=FALSE)


def total(data: Data) -> Value:
    """A value with one possibility."""
    return (Alternative(TRUE, data),)


def scalar(kind: ScalarKind, node: Node, error: Node = FALSE) -> Pair:
    """An expression of one scalar kind."""
    return Pair(total(Scalar(kind, node)), error)


def is_set(data: Data) -> bool:
    """Whether a possibility is a set."""
    return isinstance(data, MembersData | ListedData | TextsData)


def guarded(value: Value, guard: Node) -> Value:
    """The value in the rows of `guard` only."""
    if guard is TRUE:
        return value
    found = ((and_(guard, each.guard), each.data) for each in value)
    return tuple(Alternative(g, data) for g, data in found if g is not FALSE)


def normal(value: Sequence[Alternative]) -> Value:
    """Join the alternatives that one column can hold.

    Raises:
        Unsupported: there are too many.
    """
    groups: dict[object, list[Alternative]] = {}
    for position, each in enumerate(value):
        groups.setdefault(_joinable(each.data) or position, []).append(each)
    joined = [part for group in groups.values() for part in _join(group)]
    if len(joined) > MOST_ALTERNATIVES:
        raise Unsupported(f"more than {MOST_ALTERNATIVES} possible types of one expression", "alternatives")
    return (Alternative(TRUE, joined[0].data),) if len(joined) == 1 else tuple(joined)


def _joinable(data: Data) -> object:
    match data:
        case Scalar(kind):
            return (kind,)
        case EntityData(kind):
            return ("entity", kind)
        case ListedData(kind):
            return ("listed", kind)
        case TextsData():
            return ("texts",)
        case RecordData() | MembersData():
            return None
        case _:
            assert_never(data)


def _join(group: list[Alternative]) -> list[Alternative]:
    constants = all(
        isinstance(each.data, Scalar) and each.data.kind == "string" and is_constant(each.data.node)
        for each in group
    )
    if len(group) == 1 or (constants and len(group) <= _MOST_CONSTANTS):
        return group
    data = group[-1].data
    for each in reversed(group[:-1]):
        data = _choose(each.guard, each.data, data)
    return [Alternative(or_(*(each.guard for each in group)), data)]


def _choose(guard: Node, one: Data, two: Data) -> Data:
    match one, two:
        case Scalar(kind, a), Scalar(_, b):
            return Scalar(kind, when(guard, a, b))
        case EntityData(kind, i, u), EntityData(_, j, v):
            return EntityData(kind, when(guard, i, j), when(guard, u, v))
        case ListedData(kind, a), ListedData(_, b):
            return ListedData(kind, when(guard, a, b))
        case TextsData(a), TextsData(b):
            return TextsData(when(guard, a, b))
        case _:
            raise AssertionError(one, two)  # `_joinable` put them into one group


def choose(condition: Node, then: Value, other: Value) -> Value:
    """`if condition then … else …`, of values."""
    return normal((*guarded(then, condition), *guarded(other, not_(condition))))


def split(pair: Pair, wanted: Callable[[Data], bool]) -> Pair:
    """Keep the alternatives that an operation takes; the others are type errors."""
    kept = tuple(each for each in pair.value if wanted(each.data))
    wrong = [each.guard for each in pair.value if not wanted(each.data)]
    return Pair(kept, or_(pair.error, *wrong))


def expect(pair: Pair, kind: ScalarKind) -> tuple[Node | None, Node]:
    """Return the column of an expression that must be of `kind`, and its error; null: it never is."""
    found = split(pair, lambda data: isinstance(data, Scalar) and data.kind == kind)
    node = None
    for each in reversed(found.value):
        assert isinstance(each.data, Scalar)  # noqa: S101 - asked for
        node = each.data.node if node is None else when(each.guard, each.data.node, node)
    return node, (TRUE if node is None else found.error)


def truth(pair: Pair) -> tuple[Node, Node]:
    """Return a condition as (value, error), both never null, with value ⇒ not error."""
    node, error = expect(pair, "bool")
    return (FALSE, TRUE) if node is None else (and_(node, not_(error)), error)
