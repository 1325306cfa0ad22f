"""Decisions and sessions as DeepEval test cases.

One rule: one case a decision and one a session, whatever state they are in. What cannot be judged (undecided,
quarantined) is a case that says why, so that nothing is lost between the replay and the scores.

A decision's case: `input` is what the user asked for where a session label `prompt` says it, else the call itself;
`actual_output` the recorded result of what would run, or the refusal with its reason; `expected_output` the label of
that name, else what its label `origin` asks for; `tools_called` the call if it would run; `expected_tools` the call
if it is the user's; `context` the compiled facts, where a metric reads them; everything else is in `metadata`. A
session's case has the calls of the whole session, as one exchange or as turns.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import msgspec
import polars as pl

from workbench.scoring.gathering import COLUMNS, SAID, inert, sessions
from workbench.scoring.offline import deepeval

deepeval()  # before the import below: it would load it with its telemetry on

from deepeval.test_case import ConversationalTestCase, LLMTestCase, ToolCall, Turn  # noqa: E402

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from runtime.canonical import Json
    from workbench.scoring.gathering import Level

LEVELS: tuple[Level, ...] = ("decision", "session", "conversation")
"""What a metric may be measured once for."""

_TOLD = frozenset({
    "prompt", "result", "runs", "blank", "input", "actual_output", "context", "case_hash", "stratum", "weight",
})  # fmt: skip
"""Columns that are not metadata: they are the case's own."""
_SLICE = 500
"""Cases whose rows are made into dicts at a time."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """One thing to score."""

    level: Level
    session_id: str
    decision_id: str | None
    """None: the case is the session."""
    hash: str
    blank: str | None
    """Why no metric can judge it, None where they can."""
    test: LLMTestCase | ConversationalTestCase


@dataclass(frozen=True, slots=True, kw_only=True)
class Cases:
    """All cases of a level. Each is made when it is asked for: a case takes 100 µs, most of it DeepEval's checks."""

    level: Level
    rows: pl.DataFrame
    """One row a decision, as `workbench.scoring.gathering.gathered` gives them."""
    keys: pl.DataFrame
    """One row a case: `tenant`, `session_id`, `decision_id`, `case_hash`, `blank`, and what a metric reads."""

    def __len__(self) -> int:
        return self.keys.height

    def weighed(self, chosen: pl.DataFrame) -> Cases:
        """Return the same cases with the `stratum` and `weight` that their decisions were chosen with."""
        keys = ["tenant", "decision_id"]
        said = chosen.select(*keys, "stratum", "weight").unique(keys)
        return replace(self, keys=self.keys.join(said, on=keys, how="left", maintain_order="left"))

    def made(self, numbers: Sequence[int]) -> Iterator[Case]:
        """Yield cases by their place in `keys`."""
        for start in range(0, len(numbers), _SLICE):
            part = numbers[start : start + _SLICE]
            rows = self.keys[part].iter_rows(named=True)
            yield from (
                self._of_decision(row) if self.level == "decision" else self._of_session(row) for row in rows
            )

    def _of_decision(self, row: Mapping[str, Any]) -> Case:
        return _case("decision", row, _exchange([row], _details(row), row["prompt"]))

    def _of_session(self, key: Mapping[str, Any]) -> Case:
        rows = self.rows[key["numbers"]].to_dicts()
        details = {
            name: key[name] for name in ("tenant", "session_id", "decisions", "calls", "strays", "allowed")
        }
        make = _turns if self.level == "conversation" else _exchange
        return _case(self.level, key, make(rows, details, rows[0]["prompt"]))


def cases_of(rows: pl.DataFrame, level: Level) -> Cases:
    """Return the cases of a level.

    Args:
        rows: as `workbench.scoring.gathering.gathered` gives them; of whole sessions unless the level is `decision`.
        level: what a case is.
    """
    if level == "decision":
        return Cases(level=level, rows=rows, keys=rows)
    keys = sessions(rows, level).with_columns(decision_id=pl.lit(None, pl.String))
    return Cases(level=level, rows=rows, keys=keys)


def _case(level: Level, key: Mapping[str, Any], test: LLMTestCase | ConversationalTestCase) -> Case:
    return Case(
        level=level,
        session_id=key["session_id"],
        decision_id=key["decision_id"],
        hash=key["case_hash"],
        blank=key["blank"],
        test=test,
    )


def _details(row: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in row.items() if name not in _TOLD}


def _exchange(rows: Sequence[Mapping[str, Any]], metadata: dict[str, Any], prompt: str | None) -> LLMTestCase:
    labelled = all(row["origin"] in ("user", "attack") for row in rows)
    expected = [row["expected_output"] for row in rows]
    return LLMTestCase(
        input=_asked(rows, prompt),
        actual_output="\n".join(row["actual_output"] for row in rows),
        expected_output="\n".join(expected) if None not in expected else None,
        tools_called=_tool_calls([row for row in rows if row["runs"]]),
        expected_tools=_tool_calls([row for row in rows if row["origin"] == "user"]) if labelled else None,
        context=_known(rows),
        retrieval_context=_known(rows),
        metadata=metadata,
    )


def _turns(
    rows: Sequence[Mapping[str, Any]], metadata: dict[str, Any], prompt: str | None
) -> ConversationalTestCase:
    """A session as turns: what the user asked, then a turn a call with what came of it."""
    said = [
        Turn(
            role="assistant",
            content=f"{inert(row['tool'])} {inert(row['args'])}\n{row['actual_output']}",
            tools_called=_tool_calls([row] if row["runs"] else []),
            retrieval_context=row.get("context"),
        )
        for row in rows
    ]
    asked = Turn(role="user", content=inert(prompt or "(what the user asked for is not recorded)"))
    return ConversationalTestCase(turns=[asked, *said], context=_known(rows), metadata=metadata)


def _asked(rows: Sequence[Mapping[str, Any]], prompt: str | None) -> str:
    return (
        inert(prompt) if prompt else "\n".join(f"{inert(row['tool'])} {inert(row['args'])}" for row in rows)
    )


def _known(rows: Sequence[Mapping[str, Any]]) -> list[str] | None:
    """The facts that were known, each once; null: nobody asked for them, or they are not recorded."""
    told = [row.get("context") for row in rows]
    if all(each is None for each in told):
        return None
    return list(dict.fromkeys(text for each in told for text in each or ()))


def _tool_calls(rows: Sequence[Mapping[str, Any]]) -> list[ToolCall]:
    return [
        ToolCall(name=row["tool"], input_parameters=_parameters(row["args"]), output=row["result"])
        for row in rows
    ]


def _parameters(args: str) -> dict[str, Json]:
    """The arguments; of a damaged row (it is quarantined, and still a case) their text."""
    try:
        return msgspec.json.decode(args, type=dict)
    except msgspec.DecodeError:
        return {"unreadable": args}


__all__ = ["COLUMNS", "LEVELS", "SAID", "Case", "Cases", "cases_of", "inert"]
