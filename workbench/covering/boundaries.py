"""Literals that policies compare with: on which side of each the decisions were.

One rule: a side nobody was ever on is a boundary nobody tested, whatever the clause as a whole gave. So a comparison
is asked of every decision of the tools its policy is about, also where Cedar stops before it; where the value is not
there, the decision counts as `absent`.

A comparison is an operator between something that hangs on the request and something that does not. Numbers, dates
and durations have the sides `below`, `at` and `above`; whatever else is compared by `==` and `!=` is `at` or `other`.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import cedarpy

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from runtime.canonical import Json
    from workbench.explaining.clauses import Clause, Clauses

_COMPARISONS: Mapping[str, str] = {
    **dict.fromkeys(("<", "<=", ">", ">="), "<"),
    **dict.fromkeys(("lessThan", "lessThanOrEqual", "greaterThan", "greaterThanOrEqual"), "lessThan"),
    **dict.fromkeys(("==", "!="), "=="),
}
"""Operator to the family it is asked by."""
_OPERATORS: Mapping[str, Mapping[str, str]] = {
    "<": {"below": "<", "at": "==", "above": ">"},
    "lessThan": {"below": "lessThan", "at": "==", "above": "greaterThan"},
    "==": {"at": "==", "other": "!="},
}
_METHODS = frozenset({"lessThan", "greaterThan"})
_TIMES = frozenset({"datetime", "duration"})

SIDES: Mapping[str, tuple[str, ...]] = {family: tuple(sides) for family, sides in _OPERATORS.items()}


@dataclass(frozen=True, slots=True, kw_only=True)
class Boundary:
    """One literal that one policy compares something with."""

    number: int
    """From 0, over all policies of the bundle."""
    policy: str
    clause: Clause
    """The clause it is in; one without children."""
    value: str
    """What is compared, Cedar text."""
    literal: str
    """What with, Cedar text."""
    operator: str
    """As it is written, seen from `value`: `>`, `lessThan`."""
    sides: tuple[str, ...]
    asked: Mapping[str, Json]
    """For each side, the condition (Cedar's JSON) that holds there."""
    is_time: bool
    """Whether the literal is a time or a duration."""

    @property
    def expected(self) -> tuple[str, ...]:
        """Sides that a test should be on: to meet a time to the millisecond is no one's aim."""
        return tuple(side for side in self.sides if side != "at") if self.is_time else self.sides


def boundaries_of(clauses: Clauses) -> tuple[Boundary, ...]:
    """Return the boundaries of a bundle's policies, each comparison of a clause once."""
    found: list[Boundary] = []
    for policy, clause in clauses.places:
        if clause.children or clause.is_scope:
            continue
        seen: set[str] = set()
        for node in _comparisons(clause.body):
            key = json.dumps(node, sort_keys=True)
            if key not in seen:
                seen.add(key)
                found.append(_boundary(len(found), policy, clause, node))
    return tuple(found)


def _comparisons(node: Any) -> Iterator[dict[str, Any]]:
    match node:
        case {"Value": _} if len(node) == 1:
            return
        case dict():
            operator = next(iter(node), "")
            if len(node) == 1 and operator in _COMPARISONS:
                left, right = _operands(node[operator])
                if _open(left) != _open(right):
                    yield {operator: {"left": left, "right": right}}
            for child in node.values():
                yield from _comparisons(child)
        case list():
            for child in node:
                yield from _comparisons(child)


def _operands(node: Any) -> tuple[Any, Any]:
    """Both sides; of a method, what it is called on and with."""
    if isinstance(node, list):
        return (node[0], node[1]) if len(node) == 2 else (None, None)  # noqa: PLR2004 - two sides
    return node["left"], node["right"]


def _open(node: Any) -> bool:
    """Whether an expression hangs on the request."""
    match node:
        case {"Value": _} if len(node) == 1:
            return False
        case {"Var": _} | {"Slot": _} if len(node) == 1:
            return True
        case dict():
            return any(map(_open, node.values()))
        case list():
            return any(map(_open, node))
        case _:
            return False


_MIRRORED = {
    "<": ">", "<=": ">=", ">": "<", ">=": "<=",
    "lessThan": "greaterThan", "lessThanOrEqual": "greaterThanOrEqual",
    "greaterThan": "lessThan", "greaterThanOrEqual": "lessThanOrEqual",
}  # fmt: skip


def _boundary(number: int, policy: str, clause: Clause, node: dict[str, Any]) -> Boundary:
    operator, sides = next(iter(node.items()))
    value, literal = sides["left"], sides["right"]
    if _open(literal):
        value, literal, operator = literal, value, _MIRRORED.get(operator, operator)
    family = _family(operator, literal)
    asked = {side: _asked(op, value, literal) for side, op in _OPERATORS[family].items()}
    return Boundary(
        number=number,
        policy=policy,
        clause=clause,
        value=text_of(value),
        literal=text_of(literal),
        operator=operator,
        sides=SIDES[family],
        asked=asked,
        is_time=isinstance(literal, dict) and next(iter(literal), "") in _TIMES,
    )


def _family(operator: str, literal: Any) -> str:
    """How sides are asked: an `==` with a number has a below and an above, too."""
    family = _COMPARISONS[operator]
    if family != "==":
        return family
    match literal:
        case {"Value": bool()}:
            return family
        case {"Value": int()}:
            return "<"
        case {"decimal": _}:
            return "lessThan"
        case dict() if next(iter(literal), "") in _TIMES:
            return "<"
        case _:
            return family


def _asked(operator: str, left: Json, right: Json) -> Json:
    return {operator: [left, right]} if operator in _METHODS else {operator: {"left": left, "right": right}}


def condition_of(body: Json) -> dict[str, Any]:
    """A permit that holds where an expression does, in Cedar's JSON."""
    anything = {"op": "All"}
    scope = dict.fromkeys(("principal", "action", "resource"), anything)
    return {"effect": "permit", **scope, "conditions": [{"kind": "when", "body": body}]}


def text_of(body: Json) -> str:
    """Return an expression of Cedar's JSON as Cedar text, on one line."""
    document = {"staticPolicies": {"p": condition_of(body)}, "templates": {}, "templateLinks": []}
    text = cedarpy.policies_from_json_str(json.dumps(document))
    inner = text[text.index("when") :].removeprefix("when").strip().removesuffix(";").strip()
    return _plain(" ".join(inner.removeprefix("{").removesuffix("}").split()))


_BRACKETED = re.compile(r"(?<![\w.])\(([A-Za-z_]\w*(?:\.\w+)*)\)")


def _plain(text: str) -> str:
    """A text without brackets around attribute chains, which Cedar writes."""
    while (shorter := _BRACKETED.sub(r"\1", text)) != text:
        text = shorter
    return text
