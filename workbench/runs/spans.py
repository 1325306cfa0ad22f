"""One decision as the steps of a trace: request, context, what each version says, and what came of it.

One rule: every value in a step is masked (`workbench.masking.leaving`), shows what hides in it
(`workbench.texts.visible`), and is short: a trace is for reading, the lake for the rest.

Times are those of the record. What was not timed (a stage by itself, the candidate's decision) spans the whole
decision: nothing is made up.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import polars as pl

from runtime.canonical import canonical
from workbench.explaining.changes import concerned
from workbench.explaining.values_read import cedar
from workbench.masking import leaving
from workbench.texts import shorten, visible

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from datetime import datetime

    from runtime.canonical import Json
    from runtime.facts import Fact
    from workbench.explaining.one import Side
    from workbench.explaining.why import Why

MAX_TEXT = 1_000
"""Characters of one text in a step."""
MAX_VALUE = 12_000
"""Characters of one input or output, as JSON."""
MAX_ITEMS = 40
"""Members of one list or mapping."""
MAX_CLAUSES = 24
MAX_SEEN = 200
"""Characters of a value beside a clause."""
MAX_DEPTH = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class Told:
    """What is known of one decision."""

    row: Mapping[str, Any]
    """Columns of `Diff.rows`."""
    names: tuple[str, str]
    """Of the base and the candidate."""
    versions: tuple[str, str]
    why: Why | None
    """None: a replay does not keep what it was asked for."""
    execution: Mapping[str, Any] | None
    """The last row of `outcomes` that says how it ended; None: there is none."""
    latency_us: int
    """From request to decision."""
    task: str | None
    """What the user asked for, where a label says it."""


def spans_of(told: Told) -> tuple[Mapping[str, Any], ...]:
    """Return the steps of a decision, the whole first; each has `name`, `type`, `inputs`, `outputs`, `attributes`.

    Times are `start_ns` and `end_ns`, UTC nanoseconds since 1970; `error` says why a step failed (None: it did not).
    """
    end = nanoseconds(told.row["decided_at"])
    start = end - 1000 * max(0, told.latency_us)
    steps = [*_steps(told, start, end)]
    last = max(step["end_ns"] for step in steps)
    return (_span(_whole(told), start, last), *steps)


def nanoseconds(at: datetime) -> int:
    """Return a time as UTC nanoseconds since 1970; whole microseconds, as the record has them."""
    whole = int(at.replace(microsecond=0).timestamp())
    return (whole * 1_000_000 + at.microsecond) * 1000


def _steps(told: Told, start: int, end: int) -> Iterator[dict[str, Any]]:
    yield _span(_request(told), start, start)
    for step in _contexts(told):
        yield _span(step, start, end)
    for place, step in enumerate(_policies(told)):
        yield _span(step, start, end) | {"attributes": {"replayed": bool(place)}}
    yield _outcome(told, end)


def _span(step: Mapping[str, Any], start: int, end: int) -> dict[str, Any]:
    known = {name: value for name, value in step.items() if value is not None}
    return {"attributes": {}, "error": None, **known, "start_ns": start, "end_ns": end}


def _whole(told: Told) -> dict[str, Any]:
    row = told.row
    asked = {"tool": row["tool"], "resource": row["resource"], "args": parsed(row["args"])}
    asked |= {} if told.task is None else {"task": told.task}
    said = {"change": f"{row['from']} → {row['to']}; then: {row['then']}, now: {row['effect']}"}
    if told.why is not None:
        said["why"] = "\n".join(told.why.lines[1:] or told.why.lines)
        said |= {"to be allowed": "\n".join(told.why.changes)} if told.why.changes else {}
    return {"name": str(row["tool"]), "type": "CHAIN", "inputs": clean(asked), "outputs": clean(said)}


def _request(told: Told) -> dict[str, Any]:
    row = told.row
    names = ("principal", "tenant", "session_id", "step", "tool", "resource", "kind")
    inputs = {name: row[name] for name in names} | {"args": parsed(row["args"])}
    return {"name": "request", "type": "PARSER", "inputs": clean(inputs), "outputs": None}


def _contexts(told: Told) -> Iterator[dict[str, Any]]:
    """The facts that were compiled; of the candidate only where they are others."""
    if told.why is None:
        return
    sides = [told.why.base, told.why.cand]
    found = [_facts(side) for side in sides]
    for place, (side, facts) in enumerate(zip(sides, found, strict=True)):
        if facts is not None and (place == 0 or facts != found[0]):
            name = "context" if place == 0 else f"context, {shorten(visible(side.name), 80)}"
            yield {"name": name, "type": "RETRIEVER", "inputs": None, "outputs": clean(facts)}


def _facts(side: Side) -> dict[str, Any] | None:
    compiled = None if side.facts is None else side.facts.compiled
    if compiled is None:
        return None
    return {fact.name: _fact(fact) for fact in compiled.facts.values() if fact.status != "not_asked"}


def _fact(fact: Fact) -> dict[str, Any]:
    said = {
        "status": fact.status,
        "value": fact.value,
        "source": fact.source,
        "version": fact.version,
        "key": fact.key,
        "error": fact.message,
    }
    return {name: value for name, value in said.items() if value not in (None, {})}


def _policies(told: Told) -> Iterator[dict[str, Any]]:
    for place, side in enumerate(("base", "candidate")):
        name = f"policy, {shorten(visible(told.names[place]), 80)}"
        inputs = {"policies": told.names[place], "bundle_version": told.versions[place]}
        said = _said(told, side) | ({"clauses": clauses} if (clauses := _clauses(told, side)) else {})
        yield {"name": name, "type": "GUARDRAIL", "inputs": clean(inputs), "outputs": clean(said)}


def _said(told: Told, side: str) -> dict[str, Any]:
    names = ("verdict", "decided_by", "reason_code", "reason", "determining", "status", "cause", "missing")
    if told.why is None:
        row = told.row
        if side == "base":
            return {"verdict": row["from"], "determining": row["base_determining"]}
        more = {name: row[name] for name in names if name in row}
        return more | {"verdict": row["to"], "enforced_args": parsed(row["enforced_args"])}
    found: Mapping[str, Any] = (told.why.base if side == "base" else told.why.cand).row
    said = {name: found.get(name) for name in names if found.get(name) not in (None, [], "")}
    args = found.get("enforced_args")
    return said | ({"enforced_args": parsed(args)} if args is not None and args != found.get("args") else {})


def _clauses(told: Told, side: str) -> dict[str, dict[str, str]]:
    """By policy that matters: each clause that was reached, with what it was and the values it saw."""
    if told.why is None:
        return {}
    truth, other, values = ("then", "now", "base_values") if side == "base" else ("now", "then", "values")
    names = concerned(told.why.base, told.why.cand)
    found: dict[str, dict[str, str]] = {}
    reached = pl.col("policy").is_in(names) & pl.col(truth).is_not_null() & (pl.col(truth) != "not_reached")
    rows = told.why.frame.filter(reached).head(MAX_CLAUSES).collect()
    for row in rows.iter_rows(named=True):
        policy = found.setdefault(f"{row['policy']} ({row['effect']})", {})
        text = row["base_clause"] if side == "base" and row["base_clause"] else row["clause"]
        mark = "" if not row["changed"] else " (flipped)" if row[other] is not None else " (not in the other)"
        name = text if text not in policy else f"{text} [{row['key']}]"
        policy[name] = "; ".join([f"{row[truth]}{mark}", *map(_value, row[values] or ())])
    return found


def _value(each: Mapping[str, Any]) -> str:
    if each["state"] != "value":
        return f"{each['path']} {each['state']}"
    return f"{each['path']} = {shorten(cedar(json.loads(each['value'])), MAX_SEEN)}"


def _outcome(told: Told, end: int) -> dict[str, Any]:
    """What came of it then, and what would now."""
    row, ran = told.row, told.execution or {}
    said = {name: ran.get(name) for name in ("status", "reason_code") if ran.get(name)}
    if ran.get("result") is not None:
        said["result"] = parsed(ran["result"])
    error = None
    if ran.get("error_type"):
        error = str(clean(f"{ran['error_type']}: {ran.get('error_message') or ''}"))
    times = [nanoseconds(ran[name]) for name in ("started_at", "ended_at") if ran.get(name) is not None]
    begun, ended = (times[0], times[-1]) if times else (end, end)
    said |= {"then": row["then"], "now": row["effect"]}
    args = parsed(row["enforced_args"]) if row["to"] in ("allow", "modify") else None
    step = {"name": "outcome", "type": "TOOL", "inputs": clean({"would_run": args}), "outputs": clean(said)}
    return _span(step, begun, max(begun, ended)) | {"error": error}


def parsed(text: str | None) -> Any:
    """A JSON text as what it says; as a text where it says nothing, or was cut."""
    if text is None:
        return None
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return text


def clean(value: Any) -> Json:
    """Return what may be shown of a value: masked at every level, visible, and short."""
    found = _clean(value, 0)
    text = canonical(found)
    return found if len(text) <= MAX_VALUE else shorten(text, MAX_VALUE)


def _clean(value: Any, depth: int) -> Json:
    match value:
        case None | bool() | int() | float():
            return value
        case dict():
            if depth >= MAX_DEPTH:
                return "…"
            items = list(leaving(value).items())
            more = {"…": f"{len(items) - MAX_ITEMS:,} more"} if len(items) > MAX_ITEMS else {}
            kept = {_line(str(name)): _clean(each, depth + 1) for name, each in items[:MAX_ITEMS]}
            return {**kept, **more}
        case list() | tuple():
            if depth >= MAX_DEPTH:
                return "…"
            rest = [f"… {len(value) - MAX_ITEMS:,} more"] if len(value) > MAX_ITEMS else []
            return [*(_clean(each, depth + 1) for each in value[:MAX_ITEMS]), *rest]
        case _:
            return _line(str(value))


def _line(text: str) -> str:
    """A text with what hides in it written out; line breaks stay."""
    return "\n".join(map(visible, shorten(text, MAX_TEXT).split("\n")))
