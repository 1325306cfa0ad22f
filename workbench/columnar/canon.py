"""Equality, and canonical texts: how values of any type and depth are compared and put into sets.

One rule: two values are equal in Cedar exactly if their canonical texts are. A text begins with the letter of its
kind; the members of sets (sorted, each once) and records (by name) stand with their length before them, so no text
can be mistaken for another.

Texts are used only where columns of one kind do not do: sets of mixed kinds, of records, of sets. Values that come
from data get theirs in `canonical_text`, computed ones in `canon`; both write the same.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, assert_never

from workbench.columnar.nodes import FALSE, TRUE, Node, and_, apply, equal, literal, not_, or_, when
from workbench.columnar.values import (
    Alternative,
    Data,
    EntityData,
    ListedData,
    Member,
    MembersData,
    RecordData,
    Scalar,
    TextsData,
    Unsupported,
    Value,
)

if TYPE_CHECKING:
    from collections.abc import Mapping

LETTERS: Mapping[str, str] = {
    "long": "l",
    "bool": "b",
    "string": "s",
    "decimal": "d",
    "datetime": "t",
    "duration": "u",
    "ipaddr": "i",
}
"""First letter of a canonical text by scalar kind; entities have `e`, sets `S`, records `R`."""

_MOST_PAIRS = 400


def prefix_of(kind: str) -> str:
    """What the canonical texts of a kind begin with: `entity T` or a scalar kind."""
    return f"e{kind.removeprefix('entity ')};" if kind.startswith("entity ") else LETTERS[kind]


def constant(text: str) -> Node:
    """A text as a node."""
    return literal(text, "text")


def same(left: Value, right: Value) -> Node:
    """`left == right`; meaningless in rows in which either has an error."""
    return or_(*(and_(a.guard, b.guard, _same(a.data, b.data)) for a in left for b in right))


def _same(left: Data, right: Data) -> Node:
    match left, right:
        case Scalar(kind, a), Scalar(other, b):
            return equal(a, b) if kind == other else FALSE
        case EntityData(type=kind, uid=a), EntityData(type=other, uid=b):
            return equal(a, b) if kind == other else FALSE
        case RecordData(a), RecordData(b):
            return and_(*(_same_member(a, b, name) for name in dict.fromkeys((*a, *b))))
        case ((MembersData() | ListedData() | TextsData()), (MembersData() | ListedData() | TextsData())):
            return and_(subset(left, right), subset(right, left))
        case _:
            return FALSE


def _same_member(left: Mapping[str, Member], right: Mapping[str, Member], name: str) -> Node:
    a, b = left.get(name), right.get(name)
    if a is None or b is None:
        return not_(here.present) if (here := a or b) else TRUE
    return and_(equal(a.present, b.present), or_(not_(a.present), same(a.value, b.value)))


SetData = MembersData | ListedData | TextsData


def contains(whole: SetData, value: Value) -> Node:
    """`whole.contains(value)`."""
    match whole:
        case MembersData(members):
            return or_(*(same(member, value) for member in members))
        case ListedData(kind, node):
            return or_(*(and_(e.guard, apply("is_member", node, c)) for e in value if (c := _code(e, kind))))
        case TextsData(node):
            return apply("is_member", node, canon(value))
        case _:
            assert_never(whole)


def _code(each: Alternative, kind: str) -> Node | None:
    """The column that lists of `kind` hold for this alternative; null: it is of another kind."""
    match each.data:
        case Scalar(own, node) if own == kind:
            return node
        case EntityData(type=own, uid=uid) if f"entity {own}" == kind:
            return uid
        case _:
            return None


def subset(part: SetData, whole: SetData) -> Node:
    """`whole.containsAll(part)`."""
    match part, whole:
        case MembersData(members), MembersData(others) if len(members) * len(others) > _MOST_PAIRS:
            return apply("is_subset", texts(part), texts(whole))
        case MembersData(()), _:
            return TRUE
        case MembersData(members), _:
            return and_(*(contains(whole, member) for member in members))
        case ListedData(node=node) | TextsData(node), MembersData(()):
            return apply("is_empty", node)
        case ListedData(kind, a), ListedData(other, b) if kind == other:
            return apply("is_subset", a, b)
        case _:
            return apply("is_subset", texts(part), texts(whole))


def overlap(one: SetData, two: SetData) -> Node:
    """`one.containsAny(two)`."""
    match one, two:
        case _, MembersData(members):
            return or_(*(contains(one, member) for member in members))
        case MembersData(members), _:
            return or_(*(contains(two, member) for member in members))
        case ListedData(kind, a), ListedData(other, b) if kind == other:
            return apply("overlaps", a, b)
        case _:
            return apply("overlaps", texts(one), texts(two))


def texts(data: SetData) -> Node:
    """The set as a column of sorted lists of canonical texts."""
    match data:
        case TextsData(node):
            return node
        case ListedData(kind, node):
            return apply("texts_of", node, param=prefix_of(kind))
        case MembersData(members) if members:
            return apply("listed", *map(canon, members), param="text")
        case MembersData():
            raise Unsupported("an empty set among sets of mixed kinds", "set")
        case _:
            assert_never(data)


def canon(value: Value) -> Node:
    """The canonical text of a value."""
    parts = [(each.guard, _canon(each.data)) for each in value]
    if not parts:
        return constant("")
    node = parts[-1][1]
    for guard, text in reversed(parts[:-1]):
        node = when(guard, text, node)
    return node


def _canon(data: Data) -> Node:
    match data:
        case Scalar("bool", node):
            return when(node, constant("b1"), constant("b0"))
        case Scalar("string" | "ipaddr" as kind, node):
            return apply("texts", constant(LETTERS[kind]), node)
        case Scalar(kind, node):
            return apply("texts", constant(LETTERS[kind]), apply("text", node))
        case EntityData(type=kind, uid=uid):
            return apply("texts", constant(prefix_of(f"entity {kind}")), apply("text", uid))
        case RecordData(members):
            parts = (
                _canon_member(name, members[name].present, members[name].value) for name in sorted(members)
            )
            return apply("texts", constant("R"), *parts)
        case MembersData(()):
            return constant("S")
        case MembersData() | ListedData() | TextsData():
            return apply("texts", constant("S"), apply("sized_list", texts(data)))
        case _:
            assert_never(data)


def _canon_member(name: str, present: Node, value: Value) -> Node:
    written = apply("texts", constant(sized(name)), apply("sized", canon(value)))
    return when(present, written, constant(""))


def sized(text: str) -> str:
    """The text with its length in bytes before it."""
    return f"{len(text.encode())}:{text}"
