"""Policy files as statements: where each policy begins, what it says, and on which line Cedar stops.

One rule: Cedar judges; this module only finds places. Statements are cut at `;` outside of strings and comments,
and a file counts as understood only if Cedar sees the same number of policies in it.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import cedarpy

from runtime.entities import EntityUid
from runtime.errors import BundleError, PolicySyntaxError
from runtime.schema_parser import unescape

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

_IGNORED = re.compile(r"(?:\s|//[^\n]*)*")
_MARK = re.compile(r'//[^\n]*|"(?:\\.|[^"\\])*"|"|;')
_BRACKET = re.compile(r'//[^\n]*|"(?:\\.|[^"\\])*"|[()\[\]{}]')
MAX_DEPTH = 150
"""Brackets within brackets; cedarpy 4.12 ends the process somewhere above 400."""
_UID = re.compile(r'((?:[A-Za-z_][A-Za-z0-9_]*::)+)("(?:\\.|[^"\\])*")')
_UIDS = re.compile(rf"\s*{_UID.pattern}\s*(?:,\s*{_UID.pattern}\s*)*")


@dataclass(frozen=True, slots=True, kw_only=True)
class Statement:
    """One policy or template of a file."""

    file: str
    line: int
    """Line (from 1) of its first token, annotations included."""
    text: str
    """As written, from that token to the `;`."""
    json: dict[str, Any]
    """Cedar's JSON form."""
    template: bool
    """Has `?principal` or `?resource`."""

    @property
    def annotations(self) -> dict[str, str]:
        """By key; one without a value has the empty string."""
        return {key: value or "" for key, value in self.json.get("annotations", {}).items()}


def read_text(path: Path, file: str) -> str:
    """Return the text of a bundle's file as it stands.

    Raises:
        BundleError: it cannot be read, or is not UTF-8.
    """
    try:
        data = path.read_bytes()
    except OSError as exc:
        raise BundleError(f"cannot be read: {exc.strerror}; check its permissions", file=file) from exc
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError as exc:
        raise BundleError(
            f"not UTF-8: byte 0x{data[exc.start]:02x}; save the file as UTF-8",
            file=file,
            line=data.count(b"\n", 0, exc.start) + 1,
        ) from exc


def canonical_text(text: str) -> str:
    """Return the text that is hashed: without a byte order mark, lines ended by LF."""
    return text.removeprefix("\N{ZERO WIDTH NO-BREAK SPACE}").replace("\r\n", "\n").replace("\r", "\n")


def statements(text: str, file: str) -> list[Statement]:
    """Return the policies and templates of one file, in order.

    Raises:
        PolicySyntaxError: at the first statement that Cedar refuses, with the line.
    """
    found = [_statement(part, line, file) for part, line in statements_of(text)]
    if len(found) != len(_policies(text)):  # cannot happen unless Cedar's grammar grows; then refuse
        raise PolicySyntaxError(
            "cannot tell this file's policies apart; put each into a file of its own", file=file
        )
    return found


def statements_of(text: str) -> Iterator[tuple[str, int]]:
    """Yield each statement with the line it starts on; what follows the last `;` too, unless it is blank."""
    start = _skip(text, 0)
    for mark in _MARK.finditer(text):
        if mark[0] == ";":
            yield text[start : mark.end()], text.count("\n", 0, start) + 1
            start = _skip(text, mark.end())
        elif mark[0] == '"':  # a string that never ends: the rest is one broken statement
            break
    if start < len(text):
        yield text[start:], text.count("\n", 0, start) + 1


def _skip(text: str, position: int) -> int:
    match = _IGNORED.match(text, position)
    return match.end() if match else position


def _policies(text: str) -> list[tuple[bool, dict[str, Any]]]:
    """Cedar's JSON of every policy in `text`, each with whether it is a template.

    Raises:
        ValueError: Cedar refuses the text.
    """
    _refuse_deep(text)
    document = json.loads(cedarpy.policies_to_json_str(text))
    static = [(False, body) for body in document["staticPolicies"].values()]
    return static + [(True, body) for body in document["templates"].values()]


def _refuse_deep(text: str) -> None:
    """Refuse brackets so deep that Cedar's parser would run out of stack, and end the process.

    Raises:
        ValueError: they are.
    """
    depth = 0
    for mark in _BRACKET.finditer(text):
        depth += (mark[0] in "([{") - (mark[0] in ")]}")
        if depth > MAX_DEPTH:
            raise ValueError(f"brackets are nested more than {MAX_DEPTH} deep; split the policy")


def _statement(text: str, line: int, file: str) -> Statement:
    try:
        ((template, body),) = _policies(text)
    except ValueError as exc:
        end = "; a policy ends with `;`" if not text.endswith(";") else ""
        ident = re.search(r'@id\("([^"\\]+)"\)', text)
        raise PolicySyntaxError(
            f"does not parse: {exc}{end}",
            file=file,
            line=line + _offset(text, str(exc)),
            policy=ident and ident[1],
        ) from exc
    return Statement(file=file, line=line, text=text, json=body, template=template)


def _offset(text: str, why: str) -> int:
    """Lines from the statement's start to what Cedar's message is about; 0 where it cannot be told."""
    if "token" not in why:
        return offset_of_name(text, why)
    lines = text.split("\n")
    for count in range(1, len(lines)):
        try:
            cedarpy.policies_to_json_str("\n".join(lines[:count]))
        except ValueError as exc:
            if "end of input" not in str(exc):
                return count - 1
    return len(lines) - 1


def offset_of_name(text: str, why: str) -> int:
    """Lines from the start of `text` to the first name that Cedar's message `why` mentions; 0 for none."""
    quoted = re.findall(r"`([^`]+)`", why) or re.findall(r": @?(\S+)$", why)
    head = None if "annotation" in why else re.search(r"\b(permit|forbid)\s*\(", text)
    for name in (part.rpartition("::")[2].strip('"') for part in quoted):
        place = re.compile(rf"(?<!\w){re.escape(name)}(?!\w)").search(text, head.start() if head else 0)
        if place:
            return text.count("\n", 0, place.start())
    return 0


def parse_uid(text: str) -> EntityUid:
    r"""Parse an entity uid as policies write it: `Type::"id"`, with Cedar's escapes.

    Raises:
        ValueError: it is none.

    Example:
        >>> parse_uid('Shop::Role::"a\\u{e9}"')
        EntityUid(type='Shop::Role', id='aé')
    """
    match = _UID.fullmatch(text.strip())
    if match is None:
        raise ValueError(f'{text!r} is no entity uid; write `Type::"id"`')
    return EntityUid(match[1].removesuffix("::"), unescape(match[2]))


def parse_uids(text: str) -> list[EntityUid]:
    """Parse one entity uid, or several separated by commas.

    Raises:
        ValueError: a part is none.
    """
    if not _UIDS.fullmatch(text):
        return [parse_uid(text)]  # names what is wrong
    return [parse_uid(match[0]) for match in _UID.finditer(text)]
