"""A pinned decision as a value and as a file: readable, in one fixed writing, with a version.

One rule: `read(text_of(pinned)) == pinned`, and equal pins are equal bytes. A key that is not known is an error, not
ignored: a misspelt expectation would never fail.

The file is JSON: members in the order of the classes below, members of values sorted, ASCII only (nothing hides in
it), and what is at its default is left out. It is meant to be edited: take a key out of `expected`, and it is no
longer compared.
"""

from __future__ import annotations

import json
from dataclasses import MISSING, dataclass, field, fields, is_dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import msgspec

from runtime.canonical import without_doubles
from runtime.entities import EntityUid
from runtime.request import ResourceTemplate
from workbench.errors import PinInvalid
from workbench.faces import written
from workbench.masking import leaving
from workbench.texts import visible
from workbench.weighing.stakes import closest

if TYPE_CHECKING:
    from collections.abc import Iterator
    from os import PathLike

VERSION = 1
"""Of the file's shape. Readers refuse newer ones by name."""

Verdict = Literal["allow", "modify", "approve", "block"]
Stage = Literal["request", "tenant", "context", "limits", "policy", "approval"]
Truth = Literal["true", "false", "error", "not_reached", "unknown"]


@dataclass(frozen=True, slots=True, kw_only=True)
class PinnedRequest:
    """What was asked, as far as policies and limits read it."""

    tool: str
    principal: str
    """`Type::"id"`."""
    on_behalf_of: str | None = None
    tenant: str
    resource: str
    """As the tool declares it: `Order::{order_id}`."""
    args: dict[str, Any]
    scopes: list[str] = field(default_factory=list)
    """That the session holds."""
    required_scopes: list[str] = field(default_factory=list)
    """That the tool declares."""
    at: datetime
    """Evaluation time, UTC: `context.now`."""
    session: dict[str, Any] = field(default_factory=dict)
    """`context.session`."""
    limits: dict[str, Any] = field(default_factory=dict)
    """What the limits stage judged by besides."""
    max_skew_us: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class PinnedFact:
    """One fact that was asked for."""

    status: Literal["found", "none", "failed"]
    into: Literal["context", "resource", "principal"]
    value: Any = None
    parents: list[list[str]] = field(default_factory=list)
    """Direct parents it gives its entity: `[type, id]`."""
    key: dict[str, Any] = field(default_factory=dict)
    """What it was asked by, by column."""
    source: str
    kind: Literal["delta", "sql", "callable"]
    as_of: datetime | None = None
    """When it was true, UTC."""
    code: str | None = None
    """Why it failed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PinnedPatch:
    """The patched request, where other facts were compiled for it."""

    args: dict[str, Any]
    facts: dict[str, PinnedFact]


@dataclass(frozen=True, slots=True, kw_only=True)
class PinnedGrants:
    """What the approval stage of a resumed call judged by."""

    lifted: list[str]
    """Policies that people granted."""
    approval: Any = None
    """`context.approval`."""
    action_hash: str | None = None
    """Of the action that people approved, in the pin's own values; null: none of them."""
    refusal: str | None = None
    """Why the approval could not be used."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Recording:
    """What happened, and under which policies; never compared."""

    verdict: Verdict
    stage: Stage
    reason_code: str
    bundle: str
    """Name of the bundle."""
    version: str
    policy_hash: str
    spec_hash: str


@dataclass(frozen=True, slots=True, kw_only=True)
class DecidingClause:
    """A clause that the verdict rested on, as it was written."""

    policy: str
    clause: str
    was: Truth


@dataclass(frozen=True, slots=True, kw_only=True)
class Expected:
    """What a check compares. What is left out is not compared."""

    verdict: Verdict
    stage: Stage | None = None
    determining: list[str] | None = None
    """Policies that must be among those that determine the verdict; of `approve`, exactly these; of `allow`, told."""
    change: Any = None
    """Of `modify`: the arguments' change, an RFC 7396 merge patch."""
    clauses: list[DecidingClause] = field(default_factory=list)
    """What it rested on. Told where a check fails, not compared: a clause may be written otherwise."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Hidden:
    """What the record has and the pin has not, as policies name it; none of it is taken for a value."""

    left_out: list[str] = field(default_factory=list)
    """No policy that applies read it."""
    blanked: list[str] = field(default_factory=list)
    """As `left_out`, but the schema asks for some value: it is 0 or false here."""
    replaced: list[str] = field(default_factory=list)
    """Texts and ids that policies compare among each other only: equal ones have equal placeholders."""
    cut: list[str] = field(default_factory=list)
    """Texts of which only what policies look for is left."""
    settled: list[str] = field(default_factory=list)
    """Clauses that compare a replaced or cut text with a literal, and say of it what they said of the original."""
    not_asked: list[str] = field(default_factory=list)
    """Facts that were not asked for when it was recorded."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PinFile:
    """Everything a pin holds, in the order of the file."""

    redecide_pin: int = VERSION
    decision_id: str
    note: str | None = None
    expected: Expected
    request: PinnedRequest
    facts: dict[str, PinnedFact] = field(default_factory=dict)
    """By name; one that is not here was not asked for, or is in `hidden`."""
    patched: PinnedPatch | None = None
    grants: PinnedGrants | None = None
    clear: list[str] = field(default_factory=list)
    """What is here as it was recorded, as policies name it: what a reviewer has to look at."""
    kept: list[str] = field(default_factory=list)
    """Of those, what was asked for by name."""
    hidden: Hidden = field(default_factory=Hidden)
    recorded: Recording
    clauses: dict[str, dict[str, Truth]] = field(default_factory=dict)
    """By policy that applies: what each of its clauses was, in their order."""


def text_of(pin: PinFile) -> str:
    """Return the file's text, masked as all that leaves the lake."""
    return json.dumps(_masked(_plain(pin)), indent=2, ensure_ascii=True, allow_nan=False) + "\n"


def write(pin: PinFile, path: str | PathLike[str]) -> Path:
    """Write the file, whole or not at all, making its folder. Returns the path."""
    return written(text_of(pin), Path(path))


def _plain(value: Any, *, in_order: bool = False) -> Any:
    """A dataclass as JSON without what is at its default; members of dictionaries sorted, but where order tells."""
    match value:
        case datetime():
            return value.astimezone(UTC).isoformat().replace("+00:00", "Z")
        case dict():
            names = value if in_order else sorted(value)
            return {name: _plain(value[name], in_order=in_order) for name in names}
        case list():
            return [_plain(each) for each in value]
        case _ if is_dataclass(value):
            every = {each.name: each for each in fields(value)}
            found = {name: getattr(value, name) for name in every}
            return {
                name: _plain(each, in_order=name == "clauses")
                for name, each in found.items()
                if name == "redecide_pin" or each != _default(every[name])
            }
        case _:
            return value


def _default(each: Any) -> Any:
    return each.default_factory() if each.default_factory is not MISSING else each.default


def _masked(value: Any) -> Any:
    """What may leave: members of marked names are masked, at any depth."""
    if isinstance(value, dict):
        return {name: _masked(each) for name, each in leaving(value).items()}
    return [_masked(each) for each in value] if isinstance(value, list) else value


def read(text: str, where: str = "pin") -> PinFile:
    """Read a file's text.

    Args:
        text: JSON.
        where: the file, for messages.

    Raises:
        PinInvalid: not a pin, of a newer version, or a key or value that cannot be; names file and key.
    """
    try:
        raw = json.loads(text, object_pairs_hook=without_doubles)
    except (ValueError, RecursionError) as exc:
        raise PinInvalid(f"{where}: not JSON: {visible(str(exc))}") from exc
    if not isinstance(raw, dict) or type(raw.get("redecide_pin")) is not int:
        raise PinInvalid(f"{where}: no pinned decision: it has no whole number `redecide_pin`")
    if raw["redecide_pin"] != VERSION:
        raise PinInvalid(
            f"{where}: a pin of version {raw['redecide_pin']}; this release reads version {VERSION}: install "
            "another, or pin the decision again"
        )
    if wrong := next(_unknown(raw, PinFile, ""), None):
        raise PinInvalid(f"{where}: {wrong}")
    try:
        found = msgspec.convert(raw, PinFile, strict=True)
        _check(found)
    except (msgspec.ValidationError, ValueError) as exc:
        raise PinInvalid(f"{where}: {visible(str(exc))}") from exc
    return found


def _check(pin: PinFile) -> None:
    """What the types do not say."""
    for uid in (pin.request.principal, pin.request.on_behalf_of):
        if uid is not None:
            EntityUid.parse(uid)
    ResourceTemplate.parse(pin.request.resource)
    for fact in (*pin.facts.values(), *(pin.patched.facts.values() if pin.patched else ())):
        if any(len(pair) != 2 for pair in fact.parents):  # noqa: PLR2004 - a type and an id
            raise ValueError("`parents` of a fact are pairs of a type and an id")
        if fact.as_of is not None and fact.as_of.tzinfo is None:
            raise ValueError("`as_of` of a fact needs its zone, such as `Z`")
    if pin.request.at.tzinfo is None:
        raise ValueError("`request.at` needs its zone, such as `Z`")


_INSIDE: dict[str, Any] = {
    "expected": Expected, "request": PinnedRequest, "patched": PinnedPatch, "grants": PinnedGrants,
    "hidden": Hidden, "recorded": Recording,
}  # fmt: skip


def _unknown(raw: dict[str, Any], shape: Any, under: str) -> Iterator[str]:
    """Keys that are not known, with the closest that is."""
    known = {each.name for each in fields(shape)}
    for name in raw.keys() - known:
        yield f"no key `{under}{visible(name)}`; {closest(name, known)}"
    for name, inner in _INSIDE.items():
        if shape is PinFile and isinstance(raw.get(name), dict):
            yield from _unknown(raw[name], inner, f"{name}.")
    facts = raw.get("facts") if shape in (PinFile, PinnedPatch) else None
    for name, each in facts.items() if isinstance(facts, dict) else ():
        if isinstance(each, dict):
            yield from _unknown(each, PinnedFact, f"{under}facts.{visible(name)}.")
    if shape is Expected and isinstance(raw.get("clauses"), list):
        for each in raw["clauses"]:
            if isinstance(each, dict):
                yield from _unknown(each, DecidingClause, "expected.clauses.")


def read_file(path: str | PathLike[str]) -> PinFile:
    """Read a pin's file.

    Raises:
        PinInvalid: as `read`, or it cannot be opened.
    """
    try:
        text = Path(path).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as exc:
        raise PinInvalid(f"{path}: cannot be read: {exc}") from exc
    return read(text, str(path))
