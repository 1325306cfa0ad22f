"""Decisions and sessions as DeepEval test cases.

One rule: one case a decision and one a session, whatever state they are in. What cannot be judged (undecided,
quarantined) is a case that says why, so that nothing is lost between the replay and the scores.

A decision's case: `input` is what the user asked for where a session label `prompt` says it, else the call itself;
`actual_output` the verdict; `expected_output` the verdict its label `origin` asks for; `tools_called` the call if it
would run; `expected_tools` the call if it is the user's; everything else is in `metadata`. A session's case has the
calls of the whole session. `hash` covers all of it but the ids: equal content, equal hash.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import msgspec

from runtime.canonical import Json, content_hash
from workbench.scoring.offline import deepeval

deepeval()  # before the import below: it would load it with its telemetry on

from deepeval.test_case import LLMTestCase, ToolCall  # noqa: E402

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

EXPECTED = {"user": "allow", "attack": "block"}
"""Verdict that a label `origin` asks for."""

RUNS = ("allow", "modify")
"""Verdicts under which a call runs, unless it is a duplicate."""

COLUMNS = (
    "decision_id", "session_id", "step", "tenant", "principal", "tool", "resource", "args", "kind",
    "recorded_verdict", "status", "cause", "missing", "verdict", "decided_by", "reason_code", "reason", "determining",
    "then", "effect", "verdict_changed",
)  # fmt: skip
"""Columns of a replay's frame that a case is made from."""

_IDS = frozenset({"decision_id", "session_id", "step"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """One thing to score."""

    level: Literal["decision", "session"]
    session_id: str
    decision_id: str | None
    """None: the case is the session."""
    hash: str
    blank: str | None
    """Why no metric can judge it, None where they can."""
    test: LLMTestCase


def decision_cases(
    rows: Iterable[Mapping[str, Any]], prompts: Mapping[tuple[str, str], str]
) -> Iterator[Case]:
    """Yield one case a decision.

    Args:
        rows: `COLUMNS` of a replay, and `origin` (`user`, `attack`, None: no label).
        prompts: what the user asked for, by (tenant, session_id).

    Cost: some 100 µs a row, most of it DeepEval's validation.
    """
    for row in rows:
        prompt = prompts.get((row["tenant"], row["session_id"]))
        yield _case("decision", row["decision_id"], [row], prompt, _blank([row]), {**_details(row)})


def session_cases(
    rows: Iterable[Mapping[str, Any]], prompts: Mapping[tuple[str, str], str]
) -> Iterator[Case]:
    """Yield one case a session, in the order in which they first occur. Arguments as for `decision_cases`."""
    sessions: dict[tuple[str, str], list[Mapping[str, Any]]] = defaultdict(list)
    for row in rows:
        sessions[row["tenant"], row["session_id"]].append(row)
    for (tenant, session_id), calls in sessions.items():
        details = {"tenant": tenant, "session_id": session_id, "decisions": len(calls)}
        yield _case("session", None, calls, prompts.get((tenant, session_id)), _blank(calls), details)


LEVELS: Mapping[str, Callable[..., Iterator[Case]]] = {"decision": decision_cases, "session": session_cases}
"""How cases are made, by what a metric is measured once for."""


def _case(
    level: Literal["decision", "session"],
    decision_id: str | None,
    rows: Sequence[Mapping[str, Any]],
    prompt: str | None,
    blank: str | None,
    metadata: dict[str, Any],
) -> Case:
    labelled = all(row["origin"] in EXPECTED for row in rows)
    called = [row for row in rows if row["verdict"] in RUNS and row["kind"] != "duplicate"]
    expected = [row for row in rows if row["origin"] == "user"] if labelled else None
    texts = {
        "input": inert(prompt or _call_texts(rows)),
        "actual_output": "\n".join(row["verdict"] or row["status"] for row in rows),
        "expected_output": "\n".join(EXPECTED[row["origin"]] for row in rows) if labelled else None,
    }
    content: Json = {
        **texts,
        "level": level,
        "called": _call_texts(called),
        "expected": None if expected is None else _call_texts(expected),
        "metadata": {name: value for name, value in metadata.items() if name not in _IDS},
    }
    test = LLMTestCase(
        **texts,
        tools_called=_tool_calls(called),
        expected_tools=None if expected is None else _tool_calls(expected),
        metadata=metadata,
    )
    address = content_hash(content)
    return Case(
        level=level,
        session_id=rows[0]["session_id"],
        decision_id=decision_id,
        hash=address,
        blank=blank,
        test=test,
    )


def _blank(rows: Sequence[Mapping[str, Any]]) -> str | None:
    """Why rows cannot be judged: of a session, any doubt is enough."""
    doubts = [
        ": ".join(filter(None, (row["status"], row["cause"], ", ".join(row["missing"] or ()))))
        for row in rows
        if row["status"] != "decided"
    ]
    if not doubts:
        return None
    return doubts[0] if len(rows) == 1 else f"{len(doubts)} of {len(rows)} decisions, first {doubts[0]}"


def _details(row: Mapping[str, Any]) -> dict[str, Any]:
    return {name: row[name] for name in (*COLUMNS, "origin")}


def _call_texts(rows: Sequence[Mapping[str, Any]]) -> str:
    return "\n".join(f"{row['tool']} {row['args']}" for row in rows)


def _tool_calls(rows: Sequence[Mapping[str, Any]]) -> list[ToolCall]:
    return [ToolCall(name=row["tool"], input_parameters=_parameters(row["args"])) for row in rows]


def _parameters(args: str) -> dict[str, Json]:
    """The arguments; of a damaged row (it is quarantined, and still a case) their text."""
    try:
        return msgspec.json.decode(args, type=dict)
    except msgspec.DecodeError:
        return {"unreadable": args}


def inert(text: str) -> str:
    """Return text in which DeepEval finds no instruction to load something.

    DeepEval reads `[DEEPEVAL:IMAGE:path]` in a case's text as *open that file or address*. Recorded text is written
    by users and attackers, and must not be able to say that.

    Example:
        >>> inert("see [DEEPEVAL:IMAGE:/etc/passwd]")
        'see (DEEPEVAL:IMAGE:/etc/passwd]'
    """
    return text.replace("[DEEPEVAL:", "(DEEPEVAL:")
