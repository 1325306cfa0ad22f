"""Long chains of `&&` and `||`, bracketed so that they are not deep.

One rule: the operands are asked in the same order, and the same ones are asked: both operators are associative,
errors and laziness included.

Cedar's parser takes a chain of any length; the JSON form in which the engine gets its policies nests one level an
operand, and its reader stops at about a hundred levels.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import cedarpy

from runtime.errors import PolicyError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from runtime.bundle import PolicyInfo

OPERATORS = ("&&", "||")


def bracketed(node: Any) -> Any:
    """Return a node of Cedar's JSON policy format with its chains balanced."""
    match node:
        case {"Value": _} if len(node) == 1:
            return node
        case dict() if len(node) == 1 and (op := next(iter(node))) in OPERATORS:
            return balanced(op, [bracketed(each) for each in operands(op, node)])
        case dict():
            return {key: bracketed(each) for key, each in node.items()}
        case list():
            return [bracketed(each) for each in node]
        case _:
            return node


def operands(op: str, node: Any) -> list[Any]:
    """Return the operands of a chain, in order, however it is bracketed."""
    found: list[Any] = []
    stack = [node]
    while stack:
        each = stack.pop()
        if isinstance(each, dict) and len(each) == 1 and op in each:
            stack += [each[op]["right"], each[op]["left"]]
        else:
            found.append(each)
    return found


def balanced(op: str, parts: list[Any]) -> Any:
    """Return a chain of these operands that is as flat as can be."""
    if len(parts) == 1:
        return parts[0]
    half = len(parts) // 2
    return {op: {"left": balanced(op, parts[:half]), "right": balanced(op, parts[half:])}}


def policy_set(
    document: Mapping[str, Any], without: frozenset[str], policies: Mapping[str, PolicyInfo]
) -> cedarpy.PolicySet:
    """Return the engine's handle of a policy set in Cedar's JSON format, its chains balanced.

    Args:
        document: the policy set.
        without: ids of policies to leave out.
        policies: where they stand, by id.

    Raises:
        PolicyError: a condition is nested too deep for the engine; names the policy.
    """
    kept = {
        "staticPolicies": {i: body for i, body in document["staticPolicies"].items() if i not in without},
        "templates": document["templates"],
        "templateLinks": [link for link in document["templateLinks"] if link["newId"] not in without],
    }
    try:
        return cedarpy.PolicySet.from_json_str(json.dumps(bracketed(kept)))
    except ValueError as exc:
        bodies = {**kept["templates"], **kept["staticPolicies"]}
        wrong = [name for name, body in bodies.items() if not _taken(name, body)] or sorted(bodies)[:1]
        place = policies.get(wrong[0])
        raise PolicyError(
            "its condition is nested too deep for Cedar's engine, though its parser takes it; split it into several "
            "policies",
            file=None if place is None else place.file,
            line=None if place is None else place.line,
            policy=wrong[0],
        ) from exc


def _taken(name: str, body: Any) -> bool:
    """Whether the engine takes a policy, or template, by itself."""
    empty: dict[str, Any] = {"staticPolicies": {}, "templates": {}, "templateLinks": []}
    kind = "templates" if "slot" in json.dumps(body) else "staticPolicies"
    try:
        cedarpy.PolicySet.from_json_str(json.dumps(bracketed({**empty, kind: {name: body}})))
    except ValueError:
        return False
    return True
