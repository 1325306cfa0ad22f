r"""Literals of Cedar policies: where one stands in a text, how it is written, and how two compare.

One rule: Cedar judges. A piece of text is a literal if Cedar reads the policy with another literal in its place as
the same policy with that one value changed; so patterns, attribute names, entity ids and comments are none.

Accepted: a quarter of a millisecond for each piece of text that might be the literal looked for.
"""

from __future__ import annotations

import json
import re
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, TypeAlias

import cedarpy

from runtime.schema_parser import unescape

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

Value: TypeAlias = "int | str | bool"
"""A literal: a `Long`, a `String`, a `Bool`, or the text of an extension value."""
Kind = Literal["Long", "String", "Bool", "decimal", "datetime", "duration", "ipaddr"]

_INT64 = range(-(2**63), 2**63)
_CALLS: Mapping[str, Kind] = {
    "decimal": "decimal", "datetime": "datetime", "duration": "duration", "ip": "ipaddr",
}  # fmt: skip
_OF_CALL = {kind: call for call, kind in _CALLS.items()}
_AT_MOST = {
    "decimal": "{}.lessThanOrEqual({})",
    "datetime": "{} <= {}",
    "duration": "{} <= {}",
}
TOKEN = re.compile(
    r'(?P<skip>//[^\n]*|\s+)|(?P<string>"(?:\\.|[^"\\])*")|(?P<int>[0-9]+)|(?P<word>[A-Za-z_]\w*)|(?P<mark>.)',
    re.DOTALL,
)
_ESCAPED = {"\\": "\\\\", '"': '\\"', "\n": "\\n", "\r": "\\r", "\t": "\\t", "\0": "\\0"}
_ANYONE = {"principal": 'T::"a"', "action": 'Action::"a"', "resource": 'T::"a"', "context": {}}


EXTENSIONS = frozenset(_OF_CALL)
ORDERED = frozenset({"Long", *_AT_MOST})
"""Kinds of which one value is no greater than another."""


class Site(NamedTuple):
    """Where a literal stands in a statement's text."""

    start: int
    end: int
    kind: Kind


def plain(value: object) -> Value | None:
    """Return a value as a plain int, str or bool (NumPy's integers are taken, too); None: it is none of these."""
    if isinstance(value, bool):
        return value
    if isinstance(value, str):
        return str(value) if str(value).isascii() or _is_unicode(value) else None
    try:
        number = value.__index__()  # type: ignore[attr-defined]  # what makes an integer of anything
    except (AttributeError, TypeError):
        return None
    return int(number) if number in _INT64 else None


def _is_unicode(text: str) -> bool:
    return not any("\ud800" <= char <= "\udfff" for char in text)


def shown(value: Value) -> str:
    """Write a value as JSON."""
    return json.dumps(value, ensure_ascii=False)


def same(one: Value, other: Value) -> bool:
    """Tell whether two values are the same literal: `true` is not 1."""
    return type(one) is type(other) and one == other


def is_kind(value: Value, kind: Kind) -> bool:
    """Tell whether a value can be written as a literal of a kind."""
    match kind:
        case "Long":
            return type(value) is int
        case "Bool":
            return type(value) is bool
        case "String":
            return type(value) is str
        case _:
            return type(value) is str and _holds(f"{literal(value, kind)} == {literal(value, kind)}")


def at_most(one: Value, other: Value, kind: Kind) -> bool:
    """Tell whether one value is no greater than another. Extension values are compared by Cedar itself."""
    if kind in _AT_MOST:
        return _holds(_AT_MOST[kind].format(literal(one, kind), literal(other, kind)))
    return one <= other  # type: ignore[operator]  # both are of this kind


def _holds(expression: str) -> bool:
    """Tell whether Cedar finds an expression of literals true; false where it is an error."""
    policy = f"permit (principal, action, resource) when {{ {expression} }};"
    return bool(cedarpy.is_authorized(_ANYONE, policy, "[]").allowed)


def literal(value: Value, kind: Kind) -> str:
    r"""Write a value as Cedar does; an extension value with its call.

    Example:
        >>> literal("1.50", "decimal"), literal('say "hi"', "String"), literal(True, "Bool")
        ('decimal("1.50")', '"say \\"hi\\""', 'true')
    """
    text = quoted(value) if isinstance(value, str) else json.dumps(value)
    return f"{_OF_CALL[kind]}({text})" if kind in _OF_CALL else text


def quoted(text: str) -> str:
    """Write a string as a Cedar literal."""
    return '"' + "".join(_ESCAPED.get(char) or _letter(char) for char in text) + '"'


def _letter(char: str) -> str:
    return char if char.isprintable() else f"\\u{{{ord(char):x}}}"


def tokens(text: str) -> Iterator[re.Match[str]]:
    """Yield a policy's tokens; comments and blanks are none."""
    return (token for token in TOKEN.finditer(text) if token.lastgroup != "skip")


@lru_cache(maxsize=1024, typed=True)
def sites(text: str, value: Value) -> tuple[Site, ...]:
    """Return where `value` stands as a literal in a statement's conditions, in the order of the text. Cached."""
    spans = list(_spans(text, value))
    if not spans:
        return ()
    now = conditions(text)
    found = ((start, end, probe(text, start, end, value)) for start, end in spans)
    return tuple(
        Site(start, end, _CALLS.get(call, _kind(value)))
        for start, end, (body, call) in found
        if body is not None and _alike(body, now)
    )


def occurrences(text: str, value: Value) -> int:
    """Return how many tokens read as `value`: no fewer than there are literals of it."""
    return sum(_reads(token, value) for token in tokens(text))


def _kind(value: Value) -> Kind:
    return "Bool" if type(value) is bool else "Long" if type(value) is int else "String"


def _spans(text: str, value: Value) -> Iterator[tuple[int, int]]:
    """Yield each piece of text that may be this literal: the token, and the token with a minus before it."""
    before = None
    for token in tokens(text):
        if _reads(token, value):
            if before is not None and before[0] == "-" and isinstance(value, int):
                yield before.start(), token.end()
            yield token.span()
        before = token


def _reads(token: re.Match[str], value: Value) -> bool:
    match token.lastgroup:
        case "string":
            return type(value) is str and _text_of(token[0]) == value
        case "int":
            return type(value) is int and int(token[0]) == abs(value)
        case _:
            return type(value) is bool and token[0] == json.dumps(value)


def _text_of(quoted_text: str) -> str | None:
    """What a string stands for; None: a pattern, whose escapes are other ones."""
    try:
        return unescape(quoted_text)
    except ValueError:
        return None


def conditions(text: str) -> Any:
    """Return the conditions of a statement in Cedar's JSON form.

    Raises:
        ValueError: Cedar refuses the text.
    """
    document: dict[str, dict[str, Any]] = json.loads(cedarpy.policies_to_json_str(text))
    bodies = [*document["staticPolicies"].values(), *document["templates"].values()]
    return bodies[0]["conditions"]


def probe(text: str, start: int, end: int, value: Value) -> tuple[Any | None, str]:
    """Say what the conditions would be with `value` for the literal at a place, and the call it is the argument of.

    Returns:
        The conditions, and the name of the call or an empty text; None where no literal stands there.
    """
    mark = "·" * (len(text) + 1)  # longer than any literal of the text
    try:
        found = conditions(f'{text[:start]}"{mark}"{text[end:]}')
    except ValueError:
        return None, ""
    calls = list(_put(found, mark, value))
    return (found, calls[0]) if len(calls) == 1 else (None, "")


def _put(root: Any, mark: str, value: Value) -> Iterator[str]:
    """Put a value wherever the mark stands as a literal; yields the call that each is an argument of."""
    stack: list[tuple[str, Any]] = [("", root)]
    while stack:
        call, node = stack.pop()
        if isinstance(node, list):
            stack.extend((call, item) for item in node)
        elif isinstance(node, dict) and node.get("Value") == mark:
            node["Value"] = value
            yield call
        elif isinstance(node, dict):  # only a call's arguments are a list under its name
            stack.extend((key if isinstance(item, list) else "", item) for key, item in node.items())


def _alike(one: Any, other: Any) -> bool:
    return json.dumps(one, sort_keys=True) == json.dumps(other, sort_keys=True)
