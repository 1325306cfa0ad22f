"""A night as JSON: what `--json` prints, what lies in `night.json`, and what a webhook is sent.

One rule: the names and their meaning are a contract, written down in `night.schema.json`. A key is only ever added
within a version; `version` rises when one goes or comes to mean something else, and a newer one is refused by name.

Numbers that are none (NaN, infinity) are null; where they are read back, they are left out. Half a character (a lone
surrogate, which JSON can name and UTF-8 cannot hold) is an escape.
"""

from __future__ import annotations

import json
import math
from dataclasses import asdict, fields
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from workbench.errors import JobStateError
from workbench.masking import leaving
from workbench.regressing.result import Candidate, Drifted, GateLook, Night, Range, Reopened
from workbench.texts import visible
from workbench.tracking import shown

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from runtime.canonical import Json

SCHEMA, VERSION = "redecide.night", 1

_T = TypeVar("_T")


def as_dict(night: Night) -> dict[str, Json]:
    """Return all of a night as JSON values, masked, every number finite or null. No input or output."""
    found: dict[str, Any] = _plain(asdict(night))
    for each in (*found["candidates"], *_some(found["drift"])):
        for rows in ("examples", "rows", "uncovered"):
            if rows in each:
                each[rows] = [leaving(row) for row in each[rows]]
        for window in ("window", "before", "after"):
            if each.get(window) is not None:
                each[window]["watermark"] = sum(each[window]["to"].values())
    head = {"schema": SCHEMA, "version": VERSION, "verdict": night.verdict, "exit_code": night.exit_code}
    return {**head, **found, "lake": shown(night.lake)}


def dumps(night: Night, *, indent: int | None = 2) -> str:
    """Return a night as JSON text; `indent=None` gives one line."""
    separators = (",", ":") if indent is None else None
    text = json.dumps(
        as_dict(night), indent=indent, ensure_ascii=False, allow_nan=False, separators=separators
    )
    return leaving(text)


def night_of(document: Mapping[str, Any]) -> Night:
    """Return the night that a document of `as_dict` tells of.

    Args:
        document: of this version or an older one; keys that are not known are skipped: they were added later.

    Raises:
        JobStateError: it is no night, or of a newer version.
    """
    if document.get("schema") != SCHEMA:
        raise JobStateError(f"this is no night of a regression job: `schema` is not {SCHEMA!r}")
    version = document.get("version")
    if not isinstance(version, int) or version > VERSION:
        raise JobStateError(
            f"a night of version {version!r} was written by a newer redecide; this one reads up to {VERSION}: "
            "pip install --upgrade redecide"
        )
    try:
        given = _known(Night, document)
        given["candidates"] = _each(_candidate, given.get("candidates", ()))
        given["drift"] = None if given.get("drift") is None else _drifted(given["drift"])
        given["problems"] = tuple(given.get("problems", ()))
        return Night(**given)
    except (TypeError, KeyError, AttributeError, ValueError) as exc:
        raise JobStateError(f"this night cannot be read: {exc}") from exc


def read(path: str | Path) -> Night:
    """Return the night of a `night.json`.

    Raises:
        JobStateError: there is no such file, it is no JSON, or no night that this version reads.
    """
    try:
        document = json.loads(Path(path).read_text(encoding="utf-8"))
        return night_of(document if isinstance(document, dict) else {})
    except (OSError, ValueError) as exc:  # JobStateError is an OSError
        raise JobStateError(f"{visible(str(path))}: {exc}") from exc


@cache
def json_schema() -> dict[str, Any]:
    """Return the JSON Schema (draft 2020-12) of the document."""
    found: dict[str, Any] = json.loads(Path(__file__).with_name("night.schema.json").read_text("utf-8"))
    return found


def _plain(value: Any) -> Any:
    match value:
        case None | int():
            return value
        case float():
            return value if math.isfinite(value) else None
        case str():
            return _whole(value)
        case list() | tuple():
            return [_plain(each) for each in value]
    return {_whole(str(key)): _plain(each) for key, each in value.items()}


def _whole(text: str) -> str:
    """The text with halves of a character, which UTF-8 cannot hold, as escapes."""
    return text.encode("utf-8", "backslashreplace").decode("utf-8")


def _some(value: Any) -> Iterable[Any]:
    return () if value is None else (value,)


def _known(kind: type, document: Mapping[str, Any]) -> dict[str, Any]:
    """The document's members that are fields of `kind`."""
    return {each.name: document[each.name] for each in fields(kind) if each.name in document}


def _each(make: Callable[[Mapping[str, Any]], _T], several: Iterable[Mapping[str, Any]]) -> tuple[_T, ...]:
    return tuple(make(each) for each in several)


def _numbers(given: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in given.items() if value is not None}


def _range(document: Mapping[str, Any]) -> Range:
    return Range(**_known(Range, document))


def _reopened(document: Mapping[str, Any]) -> Reopened:
    found = _known(Reopened, document)
    return Reopened(**found | {"measures": _numbers(found["measures"])})


def _gate(document: Mapping[str, Any]) -> GateLook:
    return GateLook(**_known(GateLook, document))


def _candidate(document: Mapping[str, Any]) -> Candidate:
    found = _known(Candidate, document)
    found["window"] = None if found["window"] is None else _range(found["window"])
    found |= {"reopened": _each(_reopened, found["reopened"]), "gates": _each(_gate, found["gates"])}
    found |= {name: _numbers(found[name]) for name in ("numbers", "scores")}
    return Candidate(**found | {name: tuple(found[name]) for name in ("headline", "examples", "notes")})


def _drifted(document: Mapping[str, Any]) -> Drifted:
    found = _known(Drifted, document)
    found |= {"before": _range(found["before"]), "after": _range(found["after"])}
    found |= {"gates": _each(_gate, found["gates"]), "numbers": _numbers(found["numbers"])}
    tuples = ("rows", "uncovered", "headline", "notes")
    return Drifted(**found | {name: tuple(found[name]) for name in tuples})
