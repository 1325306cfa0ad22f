"""Parser of the Cedar schema language: text to Cedar's JSON schema, names as written.

One rule: it reads what the published grammar allows; whether the names in it mean something is decided later.

Source: the Cedar documentation, "Grammar specification for Cedar schemas"; beyond it, as the engine does, an
annotation may come without a value (the empty string) and stand on a namespace.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

Kind = Literal["ident", "string", "punct", "end"]

_TOKEN = re.compile(
    r"""(?P<skip>\s+|//[^\n\r]*)
      | (?P<ident>[_a-zA-Z][_a-zA-Z0-9]*)
      | (?P<string>"(?:\\.|[^"\\])*")
      | (?P<punct>::|[,;:{}\[\]<>=?@()])""",
    re.VERBOSE,
)
_ESCAPE = re.compile(r"\\(?:u\{([0-9a-fA-F_]{1,8})\}|x([0-7][0-9a-fA-F])|(.))", re.DOTALL)
_SIMPLE = {"n": "\n", "r": "\r", "t": "\t", "\\": "\\", "0": "\0", "'": "'", '"': '"'}


class SchemaSyntaxError(ValueError):
    """The text does not follow the grammar. `line` counts from 1."""

    def __init__(self, message: str, line: int) -> None:
        super().__init__(message)
        self.line = line


class Token(NamedTuple):
    """One token; `text` as written, quotes included."""

    kind: Kind
    text: str
    line: int


class Declarations(NamedTuple):
    """What a schema text declares."""

    json: dict[str, Any]
    """Cedar JSON schema: declarations by namespace, the empty one for none."""
    lines: dict[tuple[str, str], int]
    """Line (from 1) of each action, by (namespace, id)."""


def unescape(literal: str) -> str:
    r"""Return the string that a quoted Cedar literal stands for.

    Raises:
        ValueError: unknown escape, or one that is no Unicode scalar value.

    Example:
        >>> unescape(r'"a\u{e9}\n\"b\""')
        'aé\n"b"'
    """

    def one(match: re.Match[str]) -> str:
        digits = match[1] or match[2]
        if digits is None and match[3] not in _SIMPLE:
            raise ValueError(f"unknown escape `{match[0]}` in string literal {literal}")
        point = int(digits.replace("_", ""), 16) if digits else ord(_SIMPLE[match[3]])
        if 0xD800 <= point < 0xE000 or point > 0x10FFFF:  # noqa: PLR2004 - the ranges of Unicode
            raise ValueError(f"escape `{match[0]}` in string literal {literal} is no Unicode character")
        return chr(point)

    return _ESCAPE.sub(one, literal[1:-1])


def tokenize(text: str) -> Iterator[Token]:
    """Yield the tokens of a schema, an `end` token last.

    Raises:
        SchemaSyntaxError: at the first character that starts no token.
    """
    position, line = 0, 1
    while position < len(text):
        match = _TOKEN.match(text, position)
        if match is None:
            raise SchemaSyntaxError(f"unexpected character {text[position]!r}", line)
        match match.lastgroup:
            case "ident" | "string" | "punct" as kind:
                yield Token(kind, match[0], line)
        line += match[0].count("\n")
        position = match.end()
    yield Token("end", "end of file", line)


def parse_declarations(text: str) -> Declarations:
    """Parse a schema text.

    Raises:
        SchemaSyntaxError: naming what stands there, what may stand there, and the line.
    """
    return _Parser(text).schema()


class _Parser:
    """Recursive descent, one token ahead (two before `::`); each method reads one construct of the grammar."""

    def __init__(self, text: str) -> None:
        self.tokens = list(tokenize(text))
        self.at = 0
        self.found: dict[str, Any] = {}
        self.lines: dict[tuple[str, str], int] = {}

    # tokens

    @property
    def next(self) -> Token:
        return self.tokens[self.at]

    def take(self) -> Token:
        token = self.next
        self.at = min(self.at + 1, len(self.tokens) - 1)
        return token

    def accept(self, text: str) -> bool:
        if self.next.text != text or self.next.kind == "string":
            return False
        self.take()
        return True

    def expect(self, *texts: str) -> str:
        if self.next.kind == "string" or self.next.text not in texts:
            self.fail(" or ".join(f"`{text}`" for text in texts))
        return self.take().text

    def fail(self, wanted: str) -> None:
        shown = self.next.text if self.next.kind == "end" else f"`{self.next.text}`"
        raise SchemaSyntaxError(f"unexpected {shown}, expected {wanted}", self.next.line)

    def listed(self, item: Callable[[], Any]) -> list[Any]:
        items = [item()]
        while self.accept(","):
            items.append(item())
        return items

    def one_or_list(self, item: Callable[[], Any]) -> list[Any]:
        if not self.accept("["):
            return [item()]
        items = [] if self.next.text == "]" else self.listed(item)
        self.expect("]")
        return items

    # names

    def ident(self) -> str:
        if self.next.kind != "ident":
            self.fail("a name")
        return self.take().text

    def string(self) -> str:
        if self.next.kind != "string":
            self.fail("a string in double quotes")
        token = self.take()
        try:
            return unescape(token.text)
        except ValueError as exc:
            raise SchemaSyntaxError(str(exc), token.line) from exc

    def name(self) -> str:
        return self.string() if self.next.kind == "string" else self.ident()

    def path(self) -> str:
        parts = [self.ident()]
        while self.next.text == "::" and self.tokens[self.at + 1].kind != "string":
            self.take()
            parts.append(self.ident())
        return "::".join(parts)

    def action_ref(self) -> dict[str, str]:
        if self.next.kind == "string":
            return {"id": self.string()}
        head = self.path()
        if self.accept("::"):
            return {"id": self.string(), "type": head}
        if "::" in head:
            self.fail("`::` and the action's id in double quotes")
        return {"id": head}

    # declarations

    def schema(self) -> Declarations:
        while self.next.kind != "end":
            annotations = self.annotations()
            if self.accept("namespace"):
                self.namespace(annotations)
            else:
                self.declaration("", annotations)
        return Declarations(self.found, self.lines)

    def namespace(self, annotations: dict[str, str]) -> None:
        name = self.path()
        self.body(name)["annotations"] = annotations
        self.expect("{")
        while not self.accept("}"):
            self.declaration(name, self.annotations())

    def body(self, namespace: str) -> dict[str, Any]:
        empty: dict[str, Any] = {"commonTypes": {}, "entityTypes": {}, "actions": {}}
        body: dict[str, Any] = self.found.setdefault(namespace, empty)
        return body

    def declaration(self, namespace: str, annotations: dict[str, str]) -> None:
        line = self.next.line
        match self.expect("entity", "action", "type"):
            case "entity":
                names = self.listed(self.ident)
                self.declare(namespace, "entityTypes", names, self.entity() | {"annotations": annotations})
            case "action":
                names = self.listed(self.name)
                self.lines |= {(namespace, name): line for name in names}
                self.declare(namespace, "actions", names, self.action() | {"annotations": annotations})
            case _:
                names = [self.ident()]
                self.expect("=")
                self.declare(namespace, "commonTypes", names, self.type() | {"annotations": annotations})
        self.expect(";")

    def declare(self, namespace: str, section: str, names: list[str], declared: dict[str, Any]) -> None:
        self.body(namespace)[section] |= dict.fromkeys(names, declared)

    def annotations(self) -> dict[str, str]:
        found = {}
        while self.accept("@"):
            key = self.ident()
            found[key] = ""
            if self.accept("("):
                found[key] = self.string()
                self.expect(")")
        return found

    def entity(self) -> dict[str, Any]:
        if self.accept("enum"):
            self.expect("[")
            choices = self.listed(self.string)
            self.expect("]")
            return {"enum": choices}
        found: dict[str, Any] = {}
        if self.accept("in"):
            found["memberOfTypes"] = self.one_or_list(self.path)
        if self.accept("=") or self.next.text == "{":
            found["shape"] = self.record()
        if self.accept("tags"):
            found["tags"] = self.type()
        return found

    def action(self) -> dict[str, Any]:
        found: dict[str, Any] = {}
        if self.accept("in"):
            found["memberOf"] = self.one_or_list(self.action_ref)
        if self.accept("appliesTo"):
            found["appliesTo"] = self.applies_to()
        if self.accept("attributes"):  # allowed by the grammar, always empty
            self.expect("{")
            self.expect("}")
        return found

    def applies_to(self) -> dict[str, Any]:
        found: dict[str, Any] = {}
        self.expect("{")
        while not self.accept("}"):
            key = self.expect("principal", "resource", "context")
            self.expect(":")
            if key == "context":
                found[key] = self.type()
            else:
                found[f"{key}Types"] = self.one_or_list(self.path)
            if not self.accept(","):
                self.expect("}")
                break
        return found

    # types

    def type(self) -> dict[str, Any]:
        if self.next.text == "{":
            return self.record()
        if self.next.text == "Set" and self.tokens[self.at + 1].text == "<":
            self.at += 2
            element = self.type()
            self.expect(">")
            return {"type": "Set", "element": element}
        return {"type": "EntityOrCommon", "name": self.path()}

    def record(self) -> dict[str, Any]:
        attributes: dict[str, Any] = {}
        self.expect("{")
        while not self.accept("}"):
            annotations = self.annotations()
            name, required = self.name(), not self.accept("?")
            self.expect(":")
            attributes[name] = self.type() | {"required": required, "annotations": annotations}
            if not self.accept(","):
                self.expect("}")
                break
        return {"type": "Record", "attributes": attributes}
