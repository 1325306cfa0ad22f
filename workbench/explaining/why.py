"""Why a decision comes out as it does under two versions: the clauses that flipped, and the values they saw.

One rule: every sentence is read off an evaluation by Cedar of this very row, clause by clause; nothing is guessed
from the texts. What the record does not say is said to be unknown.

Only the one row is read and decided (see `workbench.explaining.one`), whatever the lake holds.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import polars as pl

from workbench.asked import Asked, asked_of
from workbench.errors import ReplayFailure
from workbench.explaining import changes, words
from workbench.explaining.one import decided, find
from workbench.explaining.pairing import FRAME, rows_of
from workbench.explaining.values_read import cedar
from workbench.faces import Code, Faces, Page, Table
from workbench.masking import leaving
from workbench.replay import RECORDED

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from datetime import datetime
    from os import PathLike

    from runtime.bundle import Bundle
    from runtime.canonical import Json
    from runtime.spec import ContextSpec
    from workbench.compare import Diff
    from workbench.explaining.one import Side
    from workbench.faces import Cell
    from workbench.lake import Lake
    from workbench.replay import Replay

_TOLD = (
    "verdict",
    "decided_by",
    "reason_code",
    "reason",
    "determining",
    "status",
    "cause",
    "missing",
    "effect",
)


@dataclass(frozen=True, eq=False, repr=False)
class Why(Faces):
    """One decision under two versions. Made by `why` and `why_of`."""

    decision_id: str
    base: Side
    """Then: as recorded, or the base of a comparison."""
    cand: Side
    """Now: under the candidate. The same as `base` where no candidate was given."""
    notes: tuple[str, ...] = ()
    """What has to be said besides, such as that a replay took other state."""

    @property
    def frame(self) -> pl.LazyFrame:
        """One row a clause, children after what they belong to.

        Columns as in `workbench.explaining.pairing.FRAME`: `request` (`original`, or `patched`), `version`
        (`both`; `edited`: same place, another text; `base` or `candidate`: in one only), `policy`, `effect`
        (`permit`, `forbid`, `modify`, `approve`), `key`, `place`, `clause`, `base_clause` (of an edited one),
        `file`, `line` (null: not known), `then`, `now` (`true`, `false`, `error`, `not_reached`, `unknown`;
        null: no such clause, or policies were not asked), `changed`, `let_then`, `let_now` (whether it let
        its policy be satisfied: of an `unless`, whether its body did not hold; null: not told),
        `base_values`, `values` (list of `path`, `state`, `value` (Cedar JSON), `source`).
        """
        return self._rows.lazy()

    @cached_property
    def _rows(self) -> pl.DataFrame:
        return pl.DataFrame(list(rows_of(self.base, self.cand)), schema=dict(FRAME), orient="row")

    @property
    def single(self) -> bool:
        """Whether there is one version only."""
        return self.base is self.cand

    @cached_property
    def lines(self) -> tuple[str, ...]:
        """What happened, and why, in sentences."""
        return (*words.told(self.base, self.cand), *self.notes)

    @cached_property
    def changes(self) -> tuple[str, ...]:
        """What would have to be otherwise for the call to be allowed now; nothing if it is."""
        return tuple(changes.changes(self.cand))

    def page(self) -> Page:
        """What it says."""
        return Page(
            kind="why",
            title=f"Decision {self.decision_id}",
            lines=(*self.lines, *(f"To be allowed: {each}" for each in self.changes)),
            parts=tuple(self._parts()),
            next=("why.frame",),
            pins={"base": self.base.name, "candidate": self.cand.name},
        )

    def _parts(self) -> Iterator[Table | Code]:
        yield self._verdicts()
        names = changes.concerned(self.base, self.cand)
        rows = self._rows.filter(
            pl.col("policy").is_in(names), pl.col("then").is_not_null() | pl.col("now").is_not_null()
        )
        if rows.height:
            yield self._clauses(rows)
        for ident in names:
            yield from changes.marked(self.cand, ident, None if self.single else self.base, again=False)
            if not self.single:
                yield from changes.marked(self.base, ident, self.cand, again=True)
        yield from self._facts()
        yield from self._limits()

    def _verdicts(self) -> Table:
        sides = (self.base,) if self.single else (self.base, self.cand)
        rows: list[list[Cell]] = []
        for name in _TOLD:
            cells = [_cell(side.row.get(name)) for side in sides]
            if any(cell not in (None, "") for cell in cells):
                rows.append([name.replace("_", " "), *cells])
        heads = ["", *(side.name for side in sides)]
        return Table(title="What was decided", heads=heads, rows=rows)

    def _clauses(self, rows: pl.DataFrame) -> Table:
        heads = ["policy", "effect", "line", "clause", "then", "now", "values"]
        told: list[list[Cell]] = [
            [
                row["policy"], row["effect"] + ("" if row["request"] == "original" else ", patched request"),
                "" if row["line"] is None else f"{row['file']}:{row['line']}",
                "  " * (row["key"].count(".") - 1) + row["clause"] if "." in row["key"] else row["clause"],
                row["then"], row["now"],
                "; ".join(_value(each) for each in (row["values"] or row["base_values"] or ())),
            ]
            for row in rows.iter_rows(named=True)
        ]  # fmt: skip
        if self.single:
            heads.remove("then")
            told = [[*row[:4], *row[5:]] for row in told]
        note = "Of the policies concerned, in Cedar's order of evaluation; `frame` has them all."
        return Table(title="Clauses", note=note, heads=heads, rows=told, code=frozenset({0, 3}))

    def _facts(self) -> Iterator[Table]:
        prepared = self.cand.facts
        if prepared is None or prepared.compiled is None:
            return
        judged = prepared.inputs.get("context")
        seen = judged.get("facts", {}) if isinstance(judged, dict) else {}
        rows: list[list[Cell]] = []
        for fact in prepared.compiled.facts.values():
            if fact.status != "not_asked":
                told = seen.get(fact.name, {}) if isinstance(seen, dict) else {}
                age, stale = (
                    told.get(name) if isinstance(told, dict) else None for name in ("age_s", "stale")
                )
                key = ", ".join(f"{name} = {cedar(value)}" for name, value in fact.key.items())
                rows.append([fact.name, fact.status, fact.source, fact.version, key, age, stale])  # type: ignore[list-item]  # JSON scalars
        if rows:
            heads = ["fact", "status", "source", "version", "key", "age in seconds", "stale"]
            yield Table(title="Facts", heads=heads, rows=rows, code=frozenset({0, 4}))

    def _limits(self) -> Iterator[Table]:
        """What the limits stage judged by, where it decided under either version."""
        if not any(side.row.get("decided_by") == "limits" for side in (self.base, self.cand)):
            return
        prepared = self.cand.facts or self.base.facts
        inputs = {} if prepared is None else prepared.inputs.get("limits")
        if isinstance(inputs, dict):
            rows: list[list[Cell]] = [[name, cedar(value)] for name, value in sorted(inputs.items())]
            yield Table(
                title="What the limits stage saw", heads=["counter", "value"], rows=rows, code=frozenset({0})
            )

    def as_dict(self) -> dict[str, Json]:
        """All of it, as JSON."""
        rows: list[Json] = [dict(row) for row in self._rows.iter_rows(named=True)]
        told: dict[str, Json] = {
            "decision_id": self.decision_id,
            **{
                name: _json(self.cand.row[name])
                for name in ("session_id", "step", "tenant", "principal", "tool", "resource")
            },
            "args": json.loads(self.cand.row["args"]),
            "then": self.cand.row["then"],
            "base": _side(self.base),
            "candidate": None if self.single else _side(self.cand),
            "lines": [*self.lines],
            "to_be_allowed": [*self.changes],
            "clauses": rows,
        }
        return dict(leaving(told))  # type: ignore[arg-type]  # what was JSON stays JSON


def _side(side: Side) -> dict[str, Json]:
    found: dict[str, Json] = {name: _json(side.row.get(name)) for name in _TOLD}
    version = None if side.bundle is None else side.bundle.version
    return {"name": side.name, "bundle_version": version, **found}


def _json(value: Any) -> Json:
    return value if value is None or isinstance(value, bool | int | str | list) else str(value)


def _cell(value: Any) -> str | None:
    return ", ".join(value) if isinstance(value, list) else None if value is None else str(value)


def _value(each: Mapping[str, Any]) -> str:
    if each["state"] != "value":
        return f"{each['path']} {each['state']}"
    return f"{each['path']} = {cedar(json.loads(each['value']))}"


def why_of(
    lake: Lake,
    decision_id: str,
    policy: str | PathLike[str] | Bundle | None = None,
    *,
    context: str | PathLike[str] | Bundle | ContextSpec = RECORDED,
    limits: str | PathLike[str] | Bundle | None = None,
    sources: Mapping[str, Any] | None = None,
    versions: Mapping[str, int | str] | None = None,
    at: datetime | None = None,
) -> Why:
    """Explain one decision as it was recorded, and under a candidate. Replays nothing but that row.

    Args:
        lake: the pinned lake.
        decision_id: its id, or the first characters of it where they fit one only.
        policy: as `Lake.replay` takes it, like what follows; nothing given: the recorded decision is explained.
        context: `recorded`, or whose spec to compile the row's facts again by.
        limits: a bundle (folder) whose limits to decide with.
        sources: locations of sources by name.
        versions: versions of sources by name.
        at: compile facts as they were at this time.

    Raises:
        DecisionNotFound: none, or several; names ids that are near.
        BundleError, BundleNotFound, ReplayFailure: as `Lake.replay`.

    Cost: a tenth of a second on a million decisions; where contexts are compiled again, the sources are asked, too.
    """
    asked = asked_of(lake, policy, context=context, limits=limits, sources=sources, versions=versions, at=at)
    record = find(lake, decision_id)
    base = decided(lake, record, Asked())
    same = asked.policy is None and asked.limits is None and not asked.again
    return Why(record["decision_id"][0], base, base if same else decided(lake, record, asked))


def why(diff: Diff, decision_id: str) -> Why:
    """Explain one decision of a comparison, under its base and its candidate.

    Args:
        diff: of two replays of a lake.
        decision_id: its id, or the first characters of it where they fit one only.

    Raises:
        DecisionNotFound: none, or several; names ids that are near.
        ReplayFailure: a replay does not keep what it was asked for; says what to call.
    """
    lake = _lake(diff.cand)
    record = find(lake, decision_id)
    ident = record["decision_id"][0]
    base, cand = (decided(lake, record, asked_axes(each)) for each in (diff.base, diff.cand))
    notes = [
        note
        for each, side in ((diff.base, base), (diff.cand, cand))
        if (note := otherwise_said(each, side, ident)) is not None
    ]
    return Why(ident, base, cand, tuple(notes))


def _lake(replay: Any) -> Lake:
    if not hasattr(replay.lake, "table"):
        raise ReplayFailure("this comparison is of no lake that can be read; make it of `lake.replay()`")
    found: Lake = replay.lake
    return found


def asked_axes(replay: Any) -> Asked:
    """The axes of a replay."""
    found = getattr(replay, "asked", None)
    if isinstance(found, Asked):
        return found
    if replay.policy[1] == RECORDED and replay.context == RECORDED:
        return Asked()
    raise ReplayFailure(
        f"replay {replay.id} does not keep what it was asked for; say it again: `why_of(lake, decision_id, policy=…)`"
    )


def otherwise_said(replay: Replay | Any, side: Side, decision_id: str) -> str | None:
    """What the replay says, where the row alone comes out otherwise: it took state that is not recorded."""
    told = replay.frame.filter(pl.col("decision_id") == decision_id).select("status", "verdict").collect()
    said = (
        None
        if not told.height
        else told["verdict"][0]
        if told["status"][0] == "decided"
        else told["status"][0]
    )
    if said is None or said == side.verdict:
        return None
    return (
        f"the replay under {side.name} says {said}: it did not decide over what was recorded (simulated state), "
        "which is what is shown here"
    )
