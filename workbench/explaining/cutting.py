"""The text of a policy cut into pieces: the parts of its scope, its bodies, and the operands of their chains.

One rule: this module only finds places; whether a piece means what the policy says there is for Cedar to judge (see
`workbench.explaining.clauses`). Strings, comments and brackets hide what is in them.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

from runtime.literals import tokens

if TYPE_CHECKING:
    import re
    from collections.abc import Sequence

_CLOSING = {"(": ")", "[": "]", "{": "}"}
_MARKS = {"and": "&", "or": "|"}


@dataclass(frozen=True, slots=True)
class Piece:
    """A piece of a policy's text: some of its tokens."""

    tokens: tuple[re.Match[str], ...] = field(repr=False)

    @property
    def start(self) -> int:
        """Its first character."""
        return self.tokens[0].start()

    @property
    def end(self) -> int:
        """The one after its last."""
        return self.tokens[-1].end()

    def of(self, text: str) -> str:
        """The piece as written."""
        return text[self.start : self.end]

    @property
    def conjuncts(self) -> list[Piece]:
        """What `&&` joins in it, brackets around chains of `&&` taken off; itself, if nothing."""
        parts = self.operands("and")
        if len(parts) == 1:
            return [Piece(_unwrapped(self.tokens) or self.tokens)]
        return [each for part in parts for each in part.conjuncts]

    def operands(self, op: Literal["and", "or"]) -> list[Piece]:
        """What an operator joins in it; itself, if it is no chain of that operator."""
        inner = _unwrapped(self.tokens)
        if not inner or inner[0][0] == "if":  # what follows an `else` is all of it the `else`'s
            return [self]
        others = _split(inner, "or")
        parts = others if op == "or" or len(others) > 1 else _split(inner, "and")
        if op == "and" and len(others) > 1:
            return [self]
        kept = [_unwrapped(part) for part in parts]
        return [Piece(part) for part in kept] if len(kept) > 1 and all(kept) else [self]


@dataclass(frozen=True, slots=True)
class Pieces:
    """A policy's text, cut."""

    scope: tuple[Piece, ...]
    bodies: tuple[Piece, ...]


def cut(text: str) -> Pieces | None:
    """Cut the text of one policy or template; None: it is not laid out as one."""
    every = tuple(tokens(text))
    place = _head(every)
    end = None if place is None else _closing(every, place)
    if place is None or end is None:
        return None
    scope = tuple(Piece(part) for part in _split_at(every[place + 1 : end], ",") if part)
    bodies = []
    place = end + 1
    while place + 1 < len(every) and every[place][0] in ("when", "unless"):
        end = _closing(every, place + 1)
        if end is None or end == place + 2:  # an empty body is none of Cedar's
            return None
        bodies.append(Piece(every[place + 2 : end]))
        place = end + 1
    return Pieces(scope, tuple(bodies))


def _head(every: Sequence[re.Match[str]]) -> int | None:
    """Where the scope's bracket is: after the effect, annotations passed over."""
    place = 0
    while place < len(every) and every[place][0] == "@":
        place += 2
        if place < len(every) and every[place][0] == "(":
            end = _closing(every, place)
            if end is None:
                return None
            place = end + 1
    return place + 1 if place + 1 < len(every) and every[place + 1][0] == "(" else None


def _closing(every: Sequence[re.Match[str]], place: int) -> int | None:
    """Where the bracket at a place is closed."""
    open_: list[str] = []
    for at in range(place, len(every)):
        mark = every[at][0]
        if mark in _CLOSING:
            open_.append(_CLOSING[mark])
        elif open_ and mark == open_[-1]:
            open_.pop()
            if not open_:
                return at
    return None


def _unwrapped(every: tuple[re.Match[str], ...]) -> tuple[re.Match[str], ...]:
    """Tokens without the brackets around all of them."""
    while every and every[0][0] == "(" and _closing(every, 0) == len(every) - 1:
        every = every[1:-1]
    return every


def _split(every: Sequence[re.Match[str]], op: str) -> list[tuple[re.Match[str], ...]]:
    """Tokens between the `&&` or `||` that stand in no bracket."""
    return _split_at(every, _MARKS[op] * 2)


def _split_at(every: Sequence[re.Match[str]], mark: str) -> list[tuple[re.Match[str], ...]]:
    parts: list[tuple[re.Match[str], ...]] = []
    now: list[re.Match[str]] = []
    depth = at = 0
    while at < len(every):
        token = every[at][0]
        depth += (token in _CLOSING) - (token in _CLOSING.values())
        if depth == 0 and "".join(each[0] for each in every[at : at + len(mark)]) == mark:
            parts.append(tuple(now))
            now = []
            at += len(mark)
            continue
        now.append(every[at])
        at += 1
    return [*parts, tuple(now)]


def one_line(text: str) -> str:
    r"""Return Cedar text on one line, comments left out; strings stay as they are.

    Example:
        >>> one_line('a  &&   // why\n  b == "x  y"')
        'a && b == "x  y"'
    """
    found, before = "", None
    for token in tokens(text):
        gap = before is not None and token.start() > before
        found += (" " if gap else "") + token[0]
        before = token.end()
    return found.replace("\n", "\\n")
