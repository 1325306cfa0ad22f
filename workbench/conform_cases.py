"""Conformance cases: files of requests with the answer Cedar gives, read row by row.

One rule: what Cedar sees is the text of the file. A case is turned into values for the engines only where those
values say exactly what the text says; where they do not (a member twice, a float, an integer beyond 64 bits, a lone
surrogate), it is left as text and asked alone.

Reading is bounded by `WINDOW_ROWS` and `WINDOW_CHARS`; cases further apart than that do not share a frame.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from difflib import get_close_matches
from functools import cached_property, lru_cache
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from runtime.entities import Entity, EntityUid, Slice
from runtime.policy import Case
from workbench.errors import CasesUnreadable

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path

    from runtime.canonical import Json

TEXTS = ("policies", "entities_json", "principal", "action", "resource", "context_json")
"""Columns that hold text in every row."""
COLUMNS = (
    *TEXTS,
    "schema_text",
    "validate_request",
    "expected_decision",
    "expected_reason",
    "expected_errors",
)
WORDS: dict[str, Literal["Allow", "Deny"]] = {"allow": "Allow", "deny": "Deny"}
"""What `expected_decision` may say, in any case."""
WINDOW_ROWS = 65_536
WINDOW_CHARS = 128_000_000
_BATCH_ROWS = 2_048
_INT64 = range(-(2**63), 2**63)


class FileEntity(Entity):
    """An entity of a file.

    Its text is canonical, but not that of RFC 8785, which has no form for an integer beyond 2**53 beside a member
    name that is not ASCII; Cedar's own test files hold such entities.
    """

    @cached_property
    def content(self) -> str:
        """Equal values give equal text."""
        return json.dumps(self.json(), ensure_ascii=False, sort_keys=True, separators=(",", ":"))


class Expected(NamedTuple):
    """What the file says Cedar answers; None: it does not say."""

    decision: Literal["Allow", "Deny"] | None
    reasons: tuple[str, ...] | None
    """Ids of the determining policies, sorted."""
    errors: tuple[str, ...] | None
    """Ids of the policies that erred, sorted."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FileCase:
    """One row of a file of cases."""

    row: int
    """Counted from 1."""
    policies: str
    schema_text: str | None
    """None: authorise without a schema."""
    principal: EntityUid
    action: EntityUid
    resource: EntityUid
    context_json: str
    entities_json: str
    expected: Expected
    case: Case | None
    """The same as values; None: values cannot say exactly what the text says."""

    @property
    def frame_key(self) -> tuple[str, str | None]:
        """Cases with equal keys are decided in one frame."""
        return self.policies, self.schema_text


def read_windows(path: Path) -> Iterator[list[FileCase]]:
    """Yield the cases of a file, as many at a time as memory is allowed for.

    Raises:
        CasesUnreadable: no such file, neither Parquet nor JSONL, a column is missing, or a value is not what its
            column holds; names file, row (from 1) and column.
    """
    window: list[FileCase] = []
    chars = 0
    for number, row in enumerate(_rows(path), 1):
        case = _case(f"{path}: row {number}", number, row)
        window.append(case)
        texts = case.policies, case.entities_json, case.context_json, case.schema_text or ""
        chars += sum(map(len, texts))
        if len(window) >= WINDOW_ROWS or chars >= WINDOW_CHARS:
            yield window
            window, chars = [], 0
    if window:
        yield window


def count_rows(path: Path) -> int | None:
    """Return the number of rows where the file says it without being read; for progress."""
    if path.suffix != ".parquet" or not path.is_file():
        return None
    import pyarrow.parquet as pq  # noqa: PLC0415 - heavy

    try:
        return int(pq.ParquetFile(path).metadata.num_rows)
    except ValueError:
        return None


def _rows(path: Path) -> Iterator[dict[str, Any]]:
    if not path.is_file():
        raise CasesUnreadable(f"{path}: no such file of cases")
    match path.suffix:
        case ".parquet":
            return _parquet(path)
        case ".jsonl" | ".ndjson":
            return _jsonl(path)
        case _:
            raise CasesUnreadable(f"{path}: a file of cases is `.parquet` or `.jsonl`, got `{path.suffix}`")


def _parquet(path: Path) -> Iterator[dict[str, Any]]:
    import pyarrow.parquet as pq  # noqa: PLC0415 - heavy

    try:
        with pq.ParquetFile(path) as file:
            _need_columns(str(path), file.schema_arrow.names)
            for batch in file.iter_batches(batch_size=_BATCH_ROWS, columns=list(COLUMNS)):
                yield from batch.to_pylist()
    except CasesUnreadable:
        raise
    except (ValueError, OSError) as exc:  # pyarrow's `ArrowInvalid` is a ValueError
        raise CasesUnreadable(f"{path}: not a Parquet file that can be read: {exc}") from exc


def _jsonl(path: Path) -> Iterator[dict[str, Any]]:
    number = 0
    with path.open("rb") as lines:
        for line in lines:
            if not line.strip():
                continue
            number += 1
            where = f"{path}: row {number}"
            try:
                row = json.loads(line)
            except (ValueError, RecursionError) as exc:
                raise CasesUnreadable(f"{where}: the line is not JSON: {exc}") from exc
            if not isinstance(row, dict):
                raise CasesUnreadable(f"{where}: the line must be one JSON object, got {_shown(row)}")
            _need_columns(where, row)
            yield row


def _need_columns(where: str, found: Iterable[str]) -> None:
    found = list(found)
    for name in COLUMNS:
        if name not in found:
            close = get_close_matches(name, [each for each in found if each not in COLUMNS], n=1)
            hint = f"is it `{close[0]}`?" if close else f"cases have {', '.join(COLUMNS)}"
            raise CasesUnreadable(f"{where}: no column `{name}`; {hint}")


def _case(where: str, number: int, row: dict[str, Any]) -> FileCase:
    for name in TEXTS:
        if not isinstance(row[name], str):
            raise CasesUnreadable(f"{where}: column `{name}` must be text, got {_shown(row[name])}")
    uids = [_uid(where, name, row[name]) for name in ("principal", "action", "resource")]
    context, exact = _json(where, "context_json", row["context_json"])
    store = _slice(where, row["entities_json"])
    case = None
    if exact and store is not None and isinstance(context, dict) and all(map(_encodes, uids)):
        case = Case(uids[0], uids[1], uids[2], context, store)
    return FileCase(
        row=number,
        policies=row["policies"],
        schema_text=_schema(where, row),
        principal=uids[0],
        action=uids[1],
        resource=uids[2],
        context_json=row["context_json"],
        entities_json=row["entities_json"],
        expected=Expected(
            _word(where, row["expected_decision"]),
            _ids(where, "expected_reason", row["expected_reason"]),
            _ids(where, "expected_errors", row["expected_errors"]),
        ),
        case=case,
    )


def _schema(where: str, row: dict[str, Any]) -> str | None:
    text, validate = row["schema_text"], row["validate_request"]
    if text is not None and not isinstance(text, str):
        raise CasesUnreadable(f"{where}: column `schema_text` must be text or null, got {_shown(text)}")
    if not isinstance(validate, bool):
        raise CasesUnreadable(
            f"{where}: column `validate_request` must be true or false, got {_shown(validate)}"
        )
    return text if validate else None


def _word(where: str, value: object) -> Literal["Allow", "Deny"] | None:
    if value is None:
        return None
    word = WORDS.get(value.lower()) if isinstance(value, str) else None
    if word is None:
        raise CasesUnreadable(
            f"{where}: column `expected_decision` must be `allow`, `deny` or null, got {_shown(value)}"
        )
    return word


def _ids(where: str, column: str, value: object) -> tuple[str, ...] | None:
    if value is None:
        return None
    if not isinstance(value, list) or not all(isinstance(each, str) for each in value):
        raise CasesUnreadable(
            f"{where}: column `{column}` must be a list of policy ids or null, got {_shown(value)}"
        )
    return tuple(sorted(set(value)))


def _uid(where: str, column: str, text: str) -> EntityUid:
    value = _json(where, column, text)[0]
    if (found := _reference(value)) is None:
        raise CasesUnreadable(
            f'{where}: column `{column}` must be {{"type": …, "id": …}} as JSON, got {_shown(value)}'
        )
    return found


def _encodes(uid: EntityUid) -> bool:
    return _is_text(uid.type) and _is_text(uid.id)


@lru_cache(maxsize=64)
def _parsed(text: str) -> tuple[Json, bool]:
    """Read JSON, and tell whether the values say exactly what the text says."""
    inexact: list[str] = []

    def members(pairs: list[tuple[str, Json]]) -> dict[str, Json]:
        found = dict(pairs)
        if len(found) != len(pairs) or not all(map(_is_text, found)):
            inexact.append("member")
        return found

    def integer(digits: str) -> int | float:
        if len(digits) > 20 or int(digits) not in _INT64 or digits == "-0":  # noqa: PLR2004 - digits of 2**63
            inexact.append(digits)
            return 0
        return int(digits)

    def number(digits: str) -> float:
        inexact.append(digits)
        return float(digits)

    value = json.loads(
        text, object_pairs_hook=members, parse_int=integer, parse_float=number, parse_constant=number
    )
    return value, not inexact and _texts_encode(value)


def _texts_encode(value: Json) -> bool:
    """Whether every text is Unicode; a lone surrogate is not."""
    match value:
        case str():
            return _is_text(value)
        case dict():
            return all(map(_texts_encode, value.values()))
        case list():
            return all(map(_texts_encode, value))
        case _:
            return True


def _is_text(text: str) -> bool:
    return text.isascii() or not any("\ud800" <= letter <= "\udfff" for letter in text)


def _json(where: str, column: str, text: str) -> tuple[Json, bool]:
    """Read a column's JSON; nesting too deep to read is left to Cedar, as text."""
    try:
        return _parsed(text)
    except RecursionError:
        return None, False
    except ValueError as exc:
        raise CasesUnreadable(f"{where}: column `{column}` is not JSON: {exc}") from exc


def _slice(where: str, text: str) -> Slice | None:
    _json(where, "entities_json", text)
    return _exact_slice(text)


@lru_cache(maxsize=512)
def _exact_slice(text: str) -> Slice | None:
    """Return a store as values, None if they would say anything else. Cached: cases share their stores."""
    try:
        bodies, exact = _parsed(text)
    except RecursionError:
        return None
    if not exact or not isinstance(bodies, list):
        return None
    entities = [_entity(body) for body in bodies]
    found = [entity for entity in entities if entity is not None]
    if len({entity.uid for entity in found}) != len(entities):  # twice, or not in a form we know
        return None
    return Slice.of(found)


def _entity(body: Json) -> Entity | None:
    match body:
        case {"uid": uid, "attrs": dict(attrs), "parents": list(parents), **rest} if set(rest) <= {"tags"}:
            own, above = _reference(uid), [_reference(parent) for parent in parents]
            tags = rest.get("tags", {})
            if own is None or None in above or not isinstance(tags, dict):
                return None
            return FileEntity(own, attrs, tuple(each for each in above if each is not None), tags)
        case _:
            return None


def _reference(value: Json) -> EntityUid | None:
    match value:
        case {"__entity": inner, **rest} if not rest:
            return _reference(inner)
        case {"type": str(kind), "id": str(ident), **rest} if not rest:
            return EntityUid(kind, ident)
        case _:
            return None


def _shown(value: object) -> str:
    return f"{value!r:.60}"
