"""A small graph of column operations: what the compiler writes, and what becomes Polars expressions.

One rule: equal nodes are one object, so a sub-expression that ten policies share is computed once, and the size of a
graph is linear in the size of the policies (as trees, (value, error) pairs would double at every level).

Constants fold here, by the same table that lowers an operation. Boolean nodes are never null; every other node may be
null where its row has no value there, which `nullable` says.
"""

from __future__ import annotations

import operator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, TypeAlias
from weakref import WeakValueDictionary

from workbench.columnar.operations import OPERATIONS

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable, Iterable, Mapping

DType: TypeAlias = Literal["bool", "long", "text", "code", "list"]
"""What a node's column holds; `code` is an unsigned 32-bit index, `list` says no more than that."""

Constant: TypeAlias = "bool | int | str"


@dataclass(frozen=True, slots=True, eq=False, weakref_slot=True)
class Node:
    """One operation over others. Make it with the functions of this module: equal nodes are identical."""

    op: str
    args: tuple[Node, ...]
    param: Hashable
    dtype: DType
    nullable: bool


_known: WeakValueDictionary[tuple[Hashable, ...], Node] = WeakValueDictionary()


def made(op: str, args: tuple[Node, ...], param: Hashable, dtype: DType, *, nullable: bool) -> Node:
    """An operation as it stands, nothing folded: for what the table of operations does not hold."""
    key = (op, tuple(id(arg) for arg in args), type(param), param, dtype, nullable)
    found = _known.get(key)
    if found is None:
        found = _known[key] = Node(op, args, param, dtype, nullable)
    return found


def column(name: str, dtype: DType, *, nullable: bool) -> Node:
    """A column of the frame."""
    return made("column", (), name, dtype, nullable=nullable)


def gather(table: str, name: str, index: Node, dtype: DType, *, nullable: bool) -> Node:
    """Column `name` of entity table `table` at the rows that `index` gives."""
    return _gathered(table, column(name, dtype, nullable=nullable), index)


def _gathered(table: str, inner: Node, index: Node) -> Node:
    """What `inner` gives over the entity table, at the rows that `index` gives."""
    if is_constant(inner):
        return inner
    if index.op == "gather":  # an entity of an entity: the walk is made once an entity, too
        host, step = gathered(index)
        return _gathered(host, _gathered(table, inner, step), index.args[0])
    nullable = inner.nullable or index.nullable
    return made("gather", (index,), (table, inner), inner.dtype, nullable=nullable)


def gathered(node: Node) -> tuple[str, Node]:
    """The table of a gather, and the node over that table."""
    found: Any = node.param
    return str(found[0]), found[1]


def _inside(build: Callable[[list[Node]], Node], args: Iterable[Node]) -> Node | None:
    """Move an operation into the entity table all its arguments are gathered from; null: they are not.

    So what a policy asks of one entity alone is computed once an entity, not once a row.
    """
    args = list(args)
    hosts = {(gathered(arg)[0], arg.args[0]) for arg in args if arg.op == "gather"}
    if len(hosts) != 1 or not all(arg.op == "gather" or is_constant(arg) for arg in args):
        return None
    ((table, index),) = hosts
    return _gathered(table, build([gathered(a)[1] if a.op == "gather" else a for a in args]), index)


def literal(value: Constant, dtype: DType) -> Node:
    """A constant."""
    return made("literal", (), value, dtype, nullable=False)


TRUE, FALSE = literal(value=True, dtype="bool"), literal(value=False, dtype="bool")


def boolean(value: bool) -> Node:  # noqa: FBT001 - the value is the point
    """A boolean constant."""
    return TRUE if value else FALSE


def is_constant(node: Node) -> bool:
    """Whether the node is a literal."""
    return node.op == "literal"


def value_of(node: Node) -> Any:
    """The constant of a literal."""
    return node.param


def not_(node: Node) -> Node:
    """Negation."""
    if node is TRUE or node is FALSE:
        return boolean(node is FALSE)
    if node.op == "not":
        return node.args[0]
    moved = _inside(lambda inner: not_(*inner), [node])
    return moved or made("not", (node,), None, "bool", nullable=False)


def and_(*nodes: Node) -> Node:
    """Conjunction of any number of nodes; true of none."""
    return _joined("and", nodes, neutral=TRUE, absorbing=FALSE)


def or_(*nodes: Node) -> Node:
    """Disjunction of any number of nodes; false of none."""
    return _joined("or", nodes, neutral=FALSE, absorbing=TRUE)


def _joined(op: str, nodes: Iterable[Node], *, neutral: Node, absorbing: Node) -> Node:
    parts = _by_host(op, tuple(dict.fromkeys(node for node in nodes if node is not neutral)), neutral)
    if absorbing in parts:
        return absorbing
    if len(parts) <= 1:
        return parts[0] if parts else neutral
    known = _known_of(op, parts)
    if any(not_(fact) in known for fact in known):
        return absorbing
    kept = tuple(
        dict.fromkeys(each for part in parts if (each := _needed(op, part, parts, known)) is not None)
    )
    if kept != parts:
        return _joined(op, kept, neutral=neutral, absorbing=absorbing)
    return made(op, parts, None, "bool", nullable=False)


_MOST_KNOWN = 64
"""Facts looked at when a conjunction is simplified, so that compiling stays linear."""


def _known_of(op: str, parts: Iterable[Node]) -> dict[Node, None]:
    """What each part of a conjunction says, the parts of conjunctions among them included (dually for `or`)."""
    dual = "or" if op == "and" else "and"
    known: dict[Node, None] = {}
    for part in parts:
        known[part] = None
        if part.op == op:
            known |= dict.fromkeys(part.args)
        elif part.op == "not" and part.args[0].op == dual:
            known |= dict.fromkeys(map(not_, part.args[0].args[:_MOST_KNOWN]))
        if len(known) > _MOST_KNOWN:
            break
    return known


def _needed(op: str, part: Node, parts: tuple[Node, ...], known: Mapping[Node, None]) -> Node | None:
    """A part of a conjunction, without what the others say already; null: all of it (dually for `or`).

    So `a && (a || b)` is `a`, `a && (!a || b)` is `a && b`, and `a && (a && b)` is `a && b`.
    """
    dual = "or" if op == "and" else "and"
    if part.op == dual:
        if any(arg in known for arg in part.args):
            return None
        rest = [arg for arg in part.args if not_(arg) not in known]
        if len(rest) < len(part.args):
            return or_(*rest) if op == "and" else and_(*rest)
    elif any(other.op == op and other is not part and part in other.args for other in parts):
        return None
    return part


def _by_host(op: str, nodes: tuple[Node, ...], neutral: Node) -> tuple[Node, ...]:
    """Join the nodes that are gathered from one entity, there."""
    groups: dict[object, list[Node]] = {}
    for node in nodes:
        host = (gathered(node)[0], node.args[0]) if node.op == "gather" else node
        groups.setdefault(host, []).append(node)
    join = and_ if op == "and" else or_
    joined = [
        group[0] if len(group) == 1 else _inside(lambda inner: join(*inner), group)
        for group in groups.values()
    ]
    return tuple(dict.fromkeys(node for node in joined if node is not None and node is not neutral))


def when(condition: Node, then: Node, other: Node) -> Node:
    """Choose by row."""
    if condition is TRUE or then is other:
        return then
    if condition is FALSE:
        return other
    if then.dtype == "bool":
        return or_(and_(condition, then), and_(not_(condition), other))
    if moved := _inside(lambda inner: when(*inner), (condition, then, other)):
        return moved
    return made("when", (condition, then, other), None, then.dtype, nullable=then.nullable or other.nullable)


def filled(node: Node) -> Node:
    """A Boolean node that is false where it had no value."""
    if not node.nullable:
        return node
    moved = _inside(lambda inner: filled(*inner), [node]) if _has_rows(node) else None
    return moved or made("filled", (node,), None, "bool", nullable=False)


def present(node: Node) -> Node:
    """Whether a nullable node has a value."""
    if not node.nullable:
        return TRUE
    if node.op == "gather" and not gathered(node)[1].nullable:
        return present(node.args[0])
    moved = _inside(lambda inner: present(*inner), [node]) if _has_rows(node) else None
    return moved or made("present", (node,), None, "bool", nullable=False)


def _has_rows(node: Node) -> bool:
    """Whether a gather finds a row for every index, so that its nulls are those of the table."""
    return node.op == "gather" and not node.args[0].nullable


def apply(op: str, *args: Node, param: Hashable = None) -> Node:
    """An operation of the table; folded if its arguments are constants, and false instead of null if Boolean."""
    operation = OPERATIONS[op]
    dtype: DType = operation.dtype
    if operation.fold and all(map(is_constant, args)):
        folded = operation.fold(param, *(arg.param for arg in args))
        return boolean(folded) if dtype == "bool" else literal(folded, dtype)
    if moved := _inside(lambda inner: apply(op, *inner, param=param), args):
        return filled(moved) if dtype == "bool" else moved
    nullable = any(arg.nullable for arg in args)
    return (
        filled(made(op, args, param, dtype, nullable=nullable))
        if dtype == "bool"
        else (made(op, args, param, dtype, nullable=nullable))
    )


def equal(left: Node, right: Node) -> Node:
    """Equality of two nodes of one type."""
    if left is right:
        return TRUE
    if left.dtype == "bool":
        return or_(and_(left, right), and_(not_(left), not_(right)))
    return apply("equal", left, right)


def rebuilt(node: Node, args: tuple[Node, ...]) -> Node:
    """The same operation over other arguments, simplified again."""
    if all(map(operator.is_, node.args, args)):
        return node
    if node.op == "gather":
        return _gathered(*gathered(node), *args)
    if build := _BUILDERS.get(node.op):
        return build(*args)
    if node.op in OPERATIONS:
        return apply(node.op, *args, param=node.param)
    return made(node.op, args, node.param, node.dtype, nullable=node.nullable)


_BUILDERS: Mapping[str, Callable[..., Node]] = {
    "not": not_,
    "and": and_,
    "or": or_,
    "when": when,
    "filled": filled,
    "present": present,
}


def ordered(roots: Iterable[Node]) -> list[Node]:
    """Every node once, after those it is made of. Without recursion: graphs may be deep."""
    done: dict[Node, None] = {}
    stack = [(root, False) for root in roots]
    while stack:
        node, expanded = stack.pop()
        if node in done:
            continue
        if expanded:
            done[node] = None
        else:
            stack.append((node, True))
            stack.extend((arg, False) for arg in node.args)
    return list(done)


def uses_of(nodes: Iterable[Node], roots: Iterable[Node]) -> dict[Node, int]:
    """How often each node is asked for, by other nodes and as a result."""
    uses = dict.fromkeys(nodes, 0)
    for node in list(uses):
        for arg in node.args:
            uses[arg] += 1
    for root in roots:
        uses[root] += 1
    return uses
