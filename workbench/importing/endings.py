"""What a file says became of a call, as an execution outcome of the trace.

One rule: `executed` is believed before everything else. A call that another system refused did not run, though the
baseline lets it: it is *aborted* by a guard, as a call is that an output guard of the runtime stops before its
commit. So the lake says truly that it did not run, a self-replay changes nothing, and a candidate that lets it run
meets the same guard again. Where nothing says whether a call ran, it has no outcome and is in doubt.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from runtime.canonical import Json, canonical, parse, sha256
from workbench.importing.causes import Unmappable
from workbench.importing.records import said

if TYPE_CHECKING:
    from runtime.trace import ExecutionStatus
    from workbench.importing.mapping import Mapping, Outcome
    from workbench.importing.records import Record

INLINE_BYTES: Final = 32 * 1024
"""A larger result goes to `blobs`, as the runtime has it."""
HEAD_BYTES: Final = 1024
MOST: Final = 2**63 - 1

_RAISED = re.compile(
    r"(?P<type>[A-Za-z_][\w.]*(?:Error|Exception|Warning|Timeout))(?:: |$)(?P<message>.*)", re.DOTALL
)
_CODES: Final[dict[str, str]] = {
    "succeeded": "returned", "failed": "raised", "denied": "denied", "expired": "expired", "cancelled": "cancelled",
}  # fmt: skip
_BOOLEANS: Final = {"true": True, "false": False, "1": True, "0": False, "yes": True, "no": False}


@dataclass(frozen=True, slots=True, kw_only=True)
class Ending:
    """How a call ended; `status` None: nobody knows."""

    status: ExecutionStatus | None
    columns: dict[str, Json]
    """Columns of `outcomes` beside the status, times and result."""

    @property
    def failed(self) -> bool:
        """Whether the runtime would have counted a failure of its tool."""
        return self.status == "failed" or self.columns.get("reason_code") == "raised"


def ending_of(row: Record, mapping: Mapping) -> Ending:
    """Return how a call ended.

    Raises:
        Unmappable: the columns hold something that the mapping does not name.
    """
    outcome, verdict = mapping.outcome, mapping.verdict
    refused = verdict.column is not None and said(row.get(verdict.column)) in verdict.refused
    error = _error(row, outcome)
    status = _named(row, outcome) or _status(_ran(row, outcome, refused=refused), error)
    if status is None:
        return Ending(status=None, columns=_usage(row, outcome))
    columns: dict[str, Json] = {"reason_code": _code(status, error, refused=refused), **_usage(row, outcome)}
    if refused and status == "aborted":
        columns["guards"] = _guard(row, mapping)
    elif error is not None:
        columns |= _raised(error)
    return Ending(status=status, columns=columns)


def _named(row: Record, outcome: Outcome) -> ExecutionStatus | None:
    if outcome.status is None or (value := said(row.get(outcome.status))) is None:
        return None
    if value not in outcome.statuses:
        known = ", ".join(map(repr, outcome.statuses))
        raise Unmappable(
            "outcome_unreadable", f"`{outcome.status}` is {value!r:.60}; `outcome.statuses` has {known}"
        )
    return outcome.statuses[value]  # type: ignore[return-value]  # checked when the mapping was read


def _ran(row: Record, outcome: Outcome, *, refused: bool) -> bool | None:
    """Whether the tool was called; None: nobody says."""
    if outcome.executed is not None and (value := row.get(outcome.executed)) is not None:
        ran = _BOOLEANS.get((said(value) or "").lower())
        if ran is None:
            raise Unmappable(
                "outcome_unreadable", f"`{outcome.executed}` must be true or false, got {value!r:.60}"
            )
        return ran
    if refused:
        return False
    return True if outcome.otherwise == "ran" else None


def _status(ran: bool | None, error: str | None) -> ExecutionStatus | None:  # noqa: FBT001 - of three values
    if ran is None:
        return None
    if not ran:
        return "aborted"
    return "succeeded" if error is None else "failed"


def _code(status: str, error: str | None, *, refused: bool) -> str | None:
    if status == "aborted":
        if refused:
            return "guard_rejected"
        return "given_up" if error is None else "raised"
    return _CODES.get(status)


def _error(row: Record, outcome: Outcome) -> str | None:
    """The error, in words; None: there was none."""
    value = None if outcome.error is None else row.get(outcome.error)
    if value is None or value is False or value == "":
        return None
    if value is not True:
        return said(value)
    result = None if outcome.result is None else said(row.get(outcome.result))
    return result or "the file says that it failed"


def _raised(error: str) -> dict[str, Json]:
    found = _RAISED.match(error)
    if found is None:
        return {"error_type": "RecordedError", "error_message": error}
    return {"error_type": found["type"], "error_message": found["message"]}


def _guard(row: Record, mapping: Mapping) -> str:
    verdict = mapping.verdict
    reason = None if verdict.reason is None else said(row.get(verdict.reason))
    name = verdict.by.fill(row) or "recorded defence"
    told: list[Json] = [
        {"guard": name, "passed": False, "reason": reason or said(row.get(verdict.column or ""))}
    ]
    return canonical(told)


def _usage(row: Record, outcome: Outcome) -> dict[str, Json]:
    found: dict[str, Json] = {}
    for key, scale in (("cost", 1_000_000), ("input_tokens", 1), ("output_tokens", 1)):
        column = getattr(outcome, key)
        if column is not None and (value := row.get(column)) is not None:
            found["cost_micros" if key == "cost" else key] = amount(value, column, scale)
    return found


def amount(value: Any, column: str, scale: int) -> int:
    """Return a number of 0 or more, scaled and rounded to an integer.

    Raises:
        Unmappable: it is none, or beyond 64 bits.
    """
    try:
        number = round(float(value) * scale) if not isinstance(value, int) else value * scale
    except (TypeError, ValueError, OverflowError):
        number = -1
    if isinstance(value, bool) or not 0 <= number <= MOST:
        raise Unmappable("usage_unreadable", f"`{column}` must be a number of 0 or more, got {value!r:.60}")
    return number


def result_columns(row: Record, outcome: Outcome) -> tuple[dict[str, Json], dict[str, Json] | None]:
    """Return the result's columns of `outcomes`, and the row of `blobs` for a large one."""
    value = None if outcome.result is None else row.get(outcome.result)
    if value is None or outcome.result_storage == "none":
        return {"result_storage": "none"}, None
    text = _result_text(value, outcome)
    data = text.encode()
    columns: dict[str, Json] = {"result_hash": sha256(text), "result_bytes": len(data)}
    if outcome.result_storage == "hash":
        return {**columns, "result_storage": "hash"}, None
    columns["result_storage"] = "full"
    if len(data) <= INLINE_BYTES:
        return {**columns, "result": text}, None
    head = data[:HEAD_BYTES].decode(errors="ignore")
    return {**columns, "result": head}, {"blob_hash": sha256(text), "bytes": len(data), "data": text}


def _result_text(value: Any, outcome: Outcome) -> str:
    """Canonical JSON of a result; a text that is no JSON, or has no canonical form, is a string."""
    if not isinstance(value, str):
        value = said(value) or ""
    if outcome.result_format == "json":
        try:
            return canonical(parse(value))
        except (ValueError, RecursionError):
            return canonical(value)
    return canonical(value)
