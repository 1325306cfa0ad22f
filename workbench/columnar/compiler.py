"""The compiler: Cedar's syntax tree to pairs (value, error) of column operations.

One rule: it is exactly Cedar, or it is `Unsupported`. Lazy evaluation is kept: an error counts only where Cedar would
have got there. Types are those that may occur in the columns; no value of a request is looked at.

Source of the semantics: the Cedar language specification, and `cedarpy` as the oracle of every test. The pair and its
four equations: DESIGN section 6; `value ⇒ not error` holds for every condition.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, assert_never

from cedarpy import pst

from workbench.columnar import calls
from workbench.columnar.canon import contains, overlap, same, subset
from workbench.columnar.decoding import Ref
from workbench.columnar.hierarchy import in_entity, within
from workbench.columnar.nodes import (
    FALSE,
    TRUE,
    Node,
    and_,
    apply,
    boolean,
    column,
    equal,
    literal,
    not_,
    or_,
)
from workbench.columnar.values import (
    Alternative,
    Data,
    EntityData,
    Member,
    MembersData,
    Pair,
    RecordData,
    Value,
    choose,
    expect,
    guarded,
    is_set,
    normal,
    scalar,
    split,
    total,
    truth,
)

if TYPE_CHECKING:
    from collections.abc import Mapping

    from workbench.columnar.world import World

_DECIMAL_ORDER: Mapping[str, str] = {
    "decimal_less_than": "less",
    "decimal_less_eq": "less_eq",
    "decimal_greater": "greater",
    "decimal_greater_eq": "greater_eq",
}


@dataclass(frozen=True, slots=True)
class Compiler:
    """Compiles the policies of one group of rows."""

    world: World
    variables: Mapping[pst.VarName, Value]
    slots: Mapping[pst.SlotName, pst.EntityUid] = field(default_factory=dict)

    def policy(self, policy: pst.Template) -> tuple[Node, Node]:
        """Return where a policy is satisfied and where it is in error.

        Raises:
            Unsupported: a construct is not taken.
        """
        value, error = self.scope(policy), FALSE
        for clause in policy.clauses:
            if value is FALSE:
                break
            found, wrong = truth(self.expr(clause.expr))
            holds = found if isinstance(clause, pst.When) else and_(not_(found), not_(wrong))
            error = or_(error, and_(value, wrong))
            value = and_(value, holds)
        return value, error

    def scope(self, policy: pst.Template) -> Node:
        """Return where a policy's scope holds; it has no errors."""
        return and_(
            self._action(policy.action),
            self._constraint("principal", policy.principal),
            self._constraint("resource", policy.resource),
        )

    def _variable(self, name: pst.VarName) -> EntityData:
        data = self.variables[name][0].data
        assert isinstance(data, EntityData)  # noqa: S101 - of principal, action, resource
        return data

    def _constraint(self, name: pst.VarName, scope: pst.PrincipalOrResourceConstraint) -> Node:
        entity = self._variable(name)
        match scope:
            case pst.ScopeAny():
                return TRUE
            case pst.ScopeEq(target):
                other = self._entity(target)
                return equal(entity.uid, other.uid) if entity.type == other.type else FALSE
            case pst.ScopeIn(target):
                return in_entity(entity, self._entity(target), self.world)
            case pst.ScopeIs(kind):
                return boolean(entity.type == str(kind))
            case pst.ScopeIsIn(kind, target):
                below = in_entity(entity, self._entity(target), self.world)
                return below if entity.type == str(kind) else FALSE
            case _:
                assert_never(scope)

    def _action(self, scope: pst.ActionConstraint) -> Node:
        entity = self._variable("action")
        match scope:
            case pst.ScopeAny():
                return TRUE
            case pst.ActionEq(target):
                other = self._entity(target)
                return equal(entity.uid, other.uid) if entity.type == other.type else FALSE
            case pst.ActionIn(targets):
                return or_(*(in_entity(entity, self._entity(each), self.world) for each in targets))
            case _:
                assert_never(scope)

    def _entity(self, target: pst.EntityOrSlot) -> EntityData:
        uid = self.slots[target.name] if isinstance(target, pst.Slot) else target
        ref = Ref(str(uid.type), uid.id)
        index = column(literal_column(ref), "code", nullable=False)
        return EntityData(ref.type, index, literal(self.world.code(ref), "code"))

    def expr(self, node: pst.Expr) -> Pair:  # noqa: C901, PLR0911, PLR0912 - a case a node
        """Compile an expression."""
        match node:
            case pst.BoolLit(value):
                return scalar("bool", boolean(value))
            case pst.LongLit(number):
                return scalar("long", literal(number, "long"))
            case pst.StringLit(text):
                return scalar("string", literal(text, "text"))
            case pst.EntityLit(uid):
                return Pair(total(self._entity(uid)))
            case pst.Slot():
                return Pair(total(self._entity(node)))
            case pst.Var(name):
                return Pair(self.variables[name])
            case pst.UnaryOp(op, arg):
                return self._unary(op, arg)
            case pst.BinaryOp():
                return self._binary(node)
            case pst.GetAttr(base, attr):
                return self._get(self.expr(base), attr)
            case pst.HasAttr(base, attrs):
                return self._has(self.expr(base), attrs)
            case pst.Like(base, pattern):
                return calls.like(self.expr(base), pattern)
            case pst.Is():
                return self._is(node)
            case pst.IfThenElse():
                return self._if(node)
            case pst.Set(elements):
                members = [self.expr(each) for each in elements]
                error = or_(*(each.error for each in members))
                return Pair(total(MembersData(tuple(each.value for each in members))), error)
            case pst.Record(fields):
                return self._record({name: self.expr(each) for name, each in fields.items()})
            case _:
                assert_never(node)

    def _record(self, fields: Mapping[str, Pair]) -> Pair:
        members = {name: Member(TRUE, each.value) for name, each in fields.items()}
        return Pair(total(RecordData(members)), or_(*(each.error for each in fields.values())))

    def _unary(self, op: pst.UnaryOpName, arg: pst.Expr) -> Pair:
        inner = self.expr(arg)
        match op:
            case "not":
                value, error = truth(inner)
                return scalar("bool", and_(not_(value), not_(error)), error)
            case "neg":
                return calls.negated(inner)
            case "is_empty":
                sets = split(inner, is_set)
                found = (and_(each.guard, _empty(each.data)) for each in sets.value)
                return scalar("bool", or_(*found), sets.error)
            case "datetime" | "decimal" | "duration" | "ip":
                return calls.constructed(op, inner)
            case _:
                return calls.method(op, inner)

    def _binary(self, node: pst.BinaryOp) -> Pair:  # noqa: C901, PLR0911, PLR0912 - a case an operator
        if node.op == "and" or node.op == "or":  # noqa: PLR1714 - narrows the type for `mypy`
            return self._lazy(node)
        left, right = self.expr(node.left), self.expr(node.right)
        match node.op:
            case "eq" | "not_eq" as op:
                found, error = same(left.value, right.value), or_(left.error, right.error)
                return scalar("bool", found if op == "eq" else not_(found), error)
            case "less" | "less_eq" | "greater" | "greater_eq" as op:
                return calls.compared(op, left, right)
            case "add" | "sub" | "mul" as op:
                return calls.arithmetic(op, left, right)
            case "in":
                return within(left, right, self.world)
            case "contains":
                return _contains(left, right)
            case "contains_all" | "contains_any" as op:
                return _compare_sets(op, left, right)
            case "get_tag":
                return self._get_tag(left, right)
            case "has_tag":
                return self._has_tag(left, right)
            case "is_in_range":
                return calls.in_range(left, right)
            case "offset":
                return calls.offset(left, right)
            case "duration_since":
                return calls.duration_since(left, right)
            case op:
                return calls.decimals_compared(_DECIMAL_ORDER[op], left, right)

    def _lazy(self, node: pst.BinaryOp) -> Pair:
        """`&&` and `||`: the right-hand side counts only where Cedar gets there."""
        left, error = truth(self.expr(node.left))
        reached = left if node.op == "and" else and_(not_(left), not_(error))
        if reached is FALSE:
            return scalar("bool", left, error)
        right, wrong = truth(self.expr(node.right))
        error = or_(error, and_(reached, wrong))
        if node.op == "and":
            return scalar("bool", and_(left, right), error)
        return scalar("bool", or_(left, and_(reached, right)), error)

    def _if(self, node: pst.IfThenElse) -> Pair:
        condition, error = truth(self.expr(node.cond))
        otherwise = and_(not_(condition), not_(error))
        nothing = Pair(())
        then = nothing if condition is FALSE else self.expr(node.then_expr)
        other = nothing if otherwise is FALSE else self.expr(node.else_expr)
        wrong = or_(error, and_(condition, then.error), and_(otherwise, other.error))
        return Pair(choose(condition, then.value, other.value), wrong)

    def _is(self, node: pst.Is) -> Pair:
        base = self.expr(node.base)
        entities = split(base, lambda data: isinstance(data, EntityData))
        kind = str(node.entity_type)
        found = or_(
            *(e.guard for e in entities.value if isinstance(e.data, EntityData) and e.data.type == kind)
        )
        value = and_(found, not_(entities.error))
        if node.in_expr is None or value is FALSE:
            return scalar("bool", value, entities.error)
        below, wrong = truth(within(base, self.expr(node.in_expr), self.world))
        return scalar("bool", and_(value, below), or_(entities.error, and_(value, wrong)))

    def _member(self, data: Data, name: str) -> Member | None:
        match data:
            case RecordData(members):
                return members.get(name)
            case EntityData():
                return self.world.attribute(data, name)
            case _:
                raise AssertionError(data)  # asked of records and entities only

    def _get(self, base: Pair, name: str) -> Pair:
        bases = split(base, _has_members)
        return _got([(each.guard, self._member(each.data, name)) for each in bases.value], bases.error)

    def _has(self, base: Pair, names: tuple[str, ...]) -> Pair:
        """`base has a.b`: `base has a && base.a has b`."""
        bases = split(base, _has_members)
        members = [(each.guard, self._member(each.data, names[0])) for each in bases.value]
        here = or_(*(and_(guard, member.present) for guard, member in members if member))
        value = and_(here, not_(bases.error))
        if len(names) == 1 or value is FALSE:
            return scalar("bool", value, bases.error)
        inner, wrong = truth(self._has(_got(members, bases.error), names[1:]))
        return scalar("bool", and_(value, inner), or_(bases.error, and_(value, wrong)))

    def _tags(self, left: Pair, right: Pair) -> tuple[list[tuple[Node, Member | None]], Node]:
        """The tags that may be meant, each with the rows in which it is."""
        entities = split(left, lambda data: isinstance(data, EntityData))
        key, key_error = expect(right, "string")
        error = or_(entities.error, key_error)
        if key is None:
            return [], TRUE
        found: list[tuple[Node, Member | None]] = []
        for each in entities.value:
            assert isinstance(each.data, EntityData)  # noqa: S101 - asked for
            for name in self.world.tags(each.data):
                meant = apply("equal", key, literal(name, "text"))
                found.append((and_(each.guard, meant), self.world.tag(each.data, name)))
        return [each for each in found if each[0] is not FALSE], error

    def _has_tag(self, left: Pair, right: Pair) -> Pair:
        tags, error = self._tags(left, right)
        return scalar("bool", or_(*(and_(guard, tag.present) for guard, tag in tags if tag)), error)

    def _get_tag(self, left: Pair, right: Pair) -> Pair:
        tags, error = self._tags(left, right)
        there = or_(*(and_(guard, tag.present) for guard, tag in tags if tag))
        found = _got(tags, error)
        return Pair(found.value, or_(error, not_(there)))


def literal_column(ref: Ref) -> str:
    """Name of the column that holds a literal entity's rows."""
    return f"literal {ref.type} {ref.id}"


def _has_members(data: Data) -> bool:
    return isinstance(data, RecordData | EntityData)


def _got(members: list[tuple[Node, Member | None]], error: Node) -> Pair:
    """The value of a member, of whichever base a row has; an error where it is missing."""
    found: list[Alternative] = []
    missing: list[Node] = []
    for guard, member in members:
        if member is None:
            missing.append(guard)
        else:
            missing.append(and_(guard, not_(member.present)))
            found.extend(guarded(member.value, guard))
    return Pair(normal(found), or_(error, *missing))


def _empty(data: Data) -> Node:
    return subset(_as_set(data), MembersData(()))


def _as_set(data: Data) -> Any:
    assert is_set(data)  # noqa: S101 - asked for
    return data


def _contains(left: Pair, right: Pair) -> Pair:
    sets = split(left, is_set)
    found = (and_(each.guard, contains(_as_set(each.data), right.value)) for each in sets.value)
    return scalar("bool", or_(*found), or_(sets.error, right.error))


def _compare_sets(op: str, left: Pair, right: Pair) -> Pair:
    ones, others = split(left, is_set), split(right, is_set)
    found = []
    for a in ones.value:
        for b in others.value:
            whole, part = _as_set(a.data), _as_set(b.data)
            held = subset(part, whole) if op == "contains_all" else overlap(whole, part)
            found.append(and_(a.guard, b.guard, held))
    return scalar("bool", or_(*found), or_(ones.error, others.error))
