"""Long chains of `&&` and `||`, bracketed so that they are not deep.

One rule: the operands are asked in the same order, and the same ones are asked: both operators are associative,
errors and laziness included.

Cedar's parser takes a chain of any length; the JSON form in which the engine gets its policies nests one level an
operand, and its reader stops at about a hundred levels.
"""

from __future__ import annotations

from typing import Any

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
