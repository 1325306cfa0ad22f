"""Policy sets as the compiler takes them: syntax trees, links filled in, and what they name.

One rule: every policy that decides is here under its own id, in the order of the set; templates alone decide nothing.

Cedar's syntax tree has no node for a call with the wrong number of arguments, though Cedar parses one (it is an error
when reached). In a text such a call is replaced by an expression that is an error when reached, too. It also stops at
100 levels, where Cedar does not: chains of `&&` and `||` are bracketed anew, which changes no answer.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, fields, is_dataclass, replace
from typing import TYPE_CHECKING, Any

import cedarpy
from cedarpy import pst

from runtime.chains import balanced, operands
from workbench.columnar.decoding import Ref
from workbench.errors import UnsupportedPolicy

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

_ARGUMENTS: Mapping[str, int] = {
    **dict.fromkeys(("decimal", "ip", "datetime", "duration"), 1),
    **dict.fromkeys(("isIpv4", "isIpv6", "isLoopback", "isMulticast", "toDate", "toTime"), 1),
    **dict.fromkeys(("toMilliseconds", "toSeconds", "toMinutes", "toHours", "toDays"), 1),
    **dict.fromkeys(("isInRange", "offset", "durationSince", "lessThan", "lessThanOrEqual"), 2),
    **dict.fromkeys(("greaterThan", "greaterThanOrEqual"), 2),
}
_ERROR = {"!": {"arg": {"Value": "a function with the wrong number of arguments"}}}


@dataclass(frozen=True, slots=True)
class Policy:
    """One policy that decides."""

    id: str
    template: pst.Template
    slots: Mapping[pst.SlotName, pst.EntityUid]


@dataclass(frozen=True, slots=True)
class Policies:
    """A policy set, and what it names."""

    every: tuple[Policy, ...]
    names: frozenset[str]
    """Attributes that some policy gets or asks for."""
    literals: frozenset[Ref]
    """Entities that some policy names."""
    whole_context: bool
    """Whether some policy uses `context` otherwise than by naming a member."""


def policy_tree(text: str) -> pst.PolicySet:
    """Parse policy text, ids by position as Cedar gives them.

    Raises:
        ValueError: the text does not parse, or it nests deeper than the syntax tree goes.
    """
    return document_tree(json.loads(cedarpy.policies_to_json_str(text)))


def document_tree(document: Mapping[str, Any]) -> pst.PolicySet:
    """Read Cedar's JSON policy set, ids as they are there.

    Raises:
        ValueError: Cedar does not take it, or it nests deeper than the syntax tree goes (100 levels).
    """
    return cedarpy.PolicySet.from_json_str(json.dumps(_repaired(document))).to_pst()


def filled(template: pst.Template, values: Mapping[pst.SlotName, pst.EntityUid]) -> pst.Template:
    """A template with its slots filled in, as its link decides; the same of a policy without slots."""
    return replace(
        template, principal=_fill(template.principal, values), resource=_fill(template.resource, values)
    )


def never(policy: Policy) -> Policy:
    """A policy that applies to nothing, in another's place."""
    nothing = (pst.When(pst.BoolLit(value=False)),)
    return replace(policy, template=replace(policy.template, clauses=nothing))


def _fill(
    scope: pst.PrincipalOrResourceConstraint, values: Mapping[pst.SlotName, pst.EntityUid]
) -> pst.PrincipalOrResourceConstraint:
    match scope:
        case pst.ScopeEq(pst.Slot(name)):
            return pst.ScopeEq(values[name])
        case pst.ScopeIn(pst.Slot(name)):
            return pst.ScopeIn(values[name])
        case pst.ScopeIsIn(kind, pst.Slot(name)):
            return pst.ScopeIsIn(kind, values[name])
        case _:
            return scope


def _repaired(node: Any) -> Any:
    match node:
        case {"&&": _} | {"||": _} if len(node) == 1:
            op = next(iter(node))
            return balanced(op, [_repaired(each) for each in operands(op, node)])
        case {"Value": _} if len(node) == 1:
            return node
        case {"Record": dict(members)} if len(node) == 1:
            return {"Record": {name: _repaired(each) for name, each in members.items()}}
        case dict():
            name = next(iter(node), "")
            arguments = node.get(name)
            if (
                len(node) == 1
                and isinstance(arguments, list)
                and len(arguments) != _ARGUMENTS.get(name, len(arguments))
            ):
                return _ERROR
            return {key: _repaired(each) for key, each in node.items()}
        case list():
            return [_repaired(each) for each in node]
        case _:
            return node


def read_policies(policies: cedarpy.PolicySet | pst.PolicySet) -> Policies:
    """Read a policy set.

    Raises:
        UnsupportedPolicy: it holds a call with the wrong number of arguments; parse it with `policy_tree`.
    """
    try:
        tree = policies.to_pst() if isinstance(policies, cedarpy.PolicySet) else policies
    except ValueError as exc:
        message = f"{exc}; parse its text with `policy_tree`"
        raise UnsupportedPolicy(message, policy_id="?", node="call") from exc
    every = tuple(_linked(tree))
    nodes = [node for policy in every for node in _walk(policy.template)]
    slots = [uid for policy in every for uid in policy.slots.values()]
    uids = [node for node in nodes if isinstance(node, pst.EntityUid)] + slots
    return Policies(
        every,
        frozenset(name for node in nodes for name in _names(node)),
        frozenset(Ref(str(uid.type), uid.id) for uid in uids),
        _context_uses(nodes) > sum(_of_context(node) for node in nodes),
    )


def _linked(tree: pst.PolicySet) -> Iterator[Policy]:
    for ident, template in tree.static_policies.items():
        yield Policy(ident, template, {})
    for link in tree.template_links:
        yield Policy(link.new_id, tree.templates[link.template_id], link.values)


def _walk(root: object) -> Iterator[object]:
    stack = [root]
    while stack:
        node = stack.pop()
        if isinstance(node, tuple):
            stack.extend(node)
        elif isinstance(node, dict):
            stack.extend(node.values())
        elif is_dataclass(node):
            yield node
            stack.extend(getattr(node, each.name) for each in fields(node))


def _names(node: object) -> tuple[str, ...]:
    match node:
        case pst.GetAttr(_, name):
            return (name,)
        case pst.HasAttr(_, names):
            return names
        case _:
            return ()


def _context_uses(nodes: list[object]) -> int:
    return sum(node == pst.Var("context") for node in nodes)


def _of_context(node: object) -> bool:
    return isinstance(node, pst.GetAttr | pst.HasAttr) and node.base == pst.Var("context")
