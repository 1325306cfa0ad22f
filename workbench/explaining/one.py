"""One recorded decision, found by its id and decided by some axes: what a replay of the whole lake says of this row.

One rule: it is the replay's own code for a row that decides, so the row here and the row of a replay agree; only its
own row, outcomes and contexts are read. The second level of self-replay is checked only where contexts are compiled
again: it changes nothing else of a decided row.
"""

from __future__ import annotations

from bisect import bisect_left
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Literal

import polars as pl

from runtime.policy import Decision
from runtime.trace import DECISIONS, OUTCOMES
from workbench.asked import AS_RECORDED
from workbench.errors import DecisionNotFound
from workbench.explaining.clauses import clauses_of
from workbench.explaining.truths import truths_of_cases
from workbench.history.records import MORE, NEEDED, STATUS, Records, with_contexts
from workbench.redeciding import Plan, decide_again, own_of, recorded_job, row_of, self_replay
from workbench.redeciding import out_row as out
from workbench.replay import FRAME
from workbench.rows import RowEngine
from workbench.texts import visible

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from runtime.bundle import Bundle
    from runtime.policy import Prepared
    from workbench.asked import Asked
    from workbench.explaining.clauses import Clauses
    from workbench.explaining.truths import Told
    from workbench.lake import Lake

MIN_PREFIX = 4
"""Characters that a shortened id needs."""
_NEAR = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class Evaluation:
    """One evaluation of the policies: the request as it stands, or patched."""

    prepared: Prepared
    told: Told


@dataclass(frozen=True, slots=True, kw_only=True)
class Side:
    """One decision under one version."""

    name: str
    """Of the policies, and how contexts came about where they were compiled again."""
    bundle: Bundle | None
    """What decided: each axis as asked; None: the lake lost it."""
    status: Literal["decided", "undecided", "quarantined"]
    row: Mapping[str, Any] = field(repr=False)
    """Columns of `workbench.replay.FRAME`."""
    decision: Decision | None = field(repr=False)
    """None: not decided."""
    clauses: Clauses | None = field(repr=False)
    first: Evaluation | None = field(repr=False)
    """Of the request as it stands; None: a stage before policy refused, or there is nothing to ask with."""
    patched: Evaluation | None = field(repr=False)
    """Of the patched request; None: there is none, or a stage before policy refused it."""
    facts: Prepared | None = field(repr=False)
    """What the stages before policy made of the request, whether policies were asked or not."""

    @property
    def verdict(self) -> str:
        """`allow`, `modify`, `approve`, `block`; or `undecided`, `quarantined`."""
        return str(self.row["verdict"]) if self.status == "decided" else self.status

    @property
    def missing(self) -> tuple[str, ...]:
        """What the record does not say, as far as it matters to these policies."""
        return tuple(self.row["missing"] or ())


def find(lake: Lake, decision_id: str) -> pl.DataFrame:
    """Return a recorded decision.

    Args:
        lake: the pinned lake.
        decision_id: its id, or the first characters of it where they fit one only.

    Returns:
        One row: what replay reads of `decisions`, with `execution_status` and the texts of its contexts.

    Raises:
        DecisionNotFound: none, or several; names ids that are near.

    Cost: statistics skip most files; one column of `decisions` where it does not help.
    """
    column = pl.col("decision_id")
    decisions = lake.table(DECISIONS).filter(lake.pins.holds)
    wanted = decision_id.strip()
    within = (column >= wanted) & (column < wanted + "\U0010ffff")
    keys = decisions.filter(within).select("decision_id", "kind", "writer", "position").collect()
    exact = keys.filter(column == wanted)
    found = exact if exact.height else keys
    if found.height != 1 or (not exact.height and len(wanted) < MIN_PREFIX):
        raise DecisionNotFound(_not_found(lake, wanted, keys))
    if found["kind"][0] == "shadow":
        raise DecisionNotFound(
            f"decision {found['decision_id'][0]} was made by a shadow bundle and never enforced; replay leaves those "
            "out"
        )
    here = (pl.col("writer") == found["writer"][0]) & (pl.col("position") == found["position"][0])
    rows = decisions.filter(here).select(*NEEDED, *MORE).collect()
    return with_contexts(with_ending(lake, rows), lake)


def with_ending(lake: Lake, rows: pl.DataFrame) -> pl.DataFrame:
    """A row with how its call ended."""
    if rows["verdict"][0] == "approve":  # what became of it may be told of the call that was resumed
        position = rows["position"][0]
        return Records(lake)._ended(rows, rows["writer"][0], position, position)  # noqa: SLF001 - the one rule for it
    mine = (pl.col("decision_id") == rows["decision_id"][0]) & (pl.col("kind") == "execution")
    found = (
        lake.table(OUTCOMES).filter(lake.pins.holds, mine).select("writer", "position", "status").collect()
    )
    last = found.sort("writer", "position")["status"].tail(1).to_list()
    return rows.with_columns(pl.lit(last[0] if last else None, pl.String).alias(STATUS))


def _not_found(lake: Lake, wanted: str, fits: pl.DataFrame) -> str:
    shown = visible(repr(wanted))
    if fits.height:
        some = ", ".join(visible(each) for each in fits["decision_id"].sort().head(_NEAR))
        if len(wanted) < MIN_PREFIX:
            return f"{shown} is too short for an id's start: give {MIN_PREFIX} characters or more, such as {some}"
        return f"{fits.height:,} decisions begin with {shown}, such as {some}; give more of the id"
    every = (
        lake.table(DECISIONS).filter(lake.pins.holds).select("decision_id").collect()["decision_id"].sort()
    )
    near = ", ".join(visible(each) for each in _near(every.to_list(), wanted)) or "none"
    return f"no decision {shown} in the lake at the pin; near it are {near}"


def _near(every: Sequence[str], wanted: str) -> Sequence[str]:
    """Ids that hold the text, as one cut at its start does; else those that would stand beside it in order."""
    inside = [each for each in every if wanted and wanted in each][:_NEAR]
    place = bisect_left(every, wanted)
    return inside or every[max(0, place - 1) : place + _NEAR - 1]


def decided(lake: Lake, record: pl.DataFrame, asked: Asked) -> Side:
    """Decide one recorded decision by some axes.

    Args:
        lake: it is from.
        record: as `find` returns it.
        asked: the axes; see `workbench.asked`.

    Raises:
        ReplayFailure: a source of facts is not where it is said to be.
    """
    verify = asked.verifier(lake) if asked.again else None
    plan = Plan(lake, RowEngine(), asked.policy, asked.limits, asked.recompiler(lake), verify)
    (found,) = record.iter_rows(named=True)
    row = row_of(found, plan)
    self_replay([row], plan)
    if plan.again:
        decide_again([row], plan)
    told = dict.fromkeys(FRAME) | out(row, plan)
    bundle = None if row.own is None else plan.bundle_for(own_of(row))
    side = Side(
        name=_name(asked),
        bundle=bundle,
        status=told["status"],  # type: ignore[arg-type]  # a closed vocabulary
        row=told,
        decision=None,
        clauses=None,
        first=None,
        patched=None,
        facts=None,
    )
    if bundle is None or row.cause is not None:
        return side
    job = recorded_job(row, bundle) if plan.recompiler is None else plan.recompiler.job(row.recorded, bundle)
    return _evaluated(side, bundle, row.result, job.prepare(row.recorded.request.args))


def _name(asked: Asked) -> str:
    """What decides, in words."""
    own, contexts = asked.policy is None, replace(asked, limits=None)
    if own and not asked.again and asked.limits is None:
        return AS_RECORDED[0]
    name = "the recorded policies" if own else asked.labels[0][0]
    name += f" with {contexts.context} contexts" if asked.again else ""
    return name + (f" and limits of {asked.limits.name}" if asked.limits else "")


def _evaluated(side: Side, bundle: Bundle, result: object, prepared: Prepared) -> Side:
    """The side with what every clause was."""
    decision = result if isinstance(result, Decision) else None
    asked = decision is None or decision.answer is not None
    patched = None if decision is None else decision.enforced
    second = None if patched is None or patched.refusal is not None else patched
    clauses = clauses_of(bundle)
    ready = [
        each if asked and each is not None and each.case is not None else None for each in (prepared, second)
    ]
    first, again = (_evaluation(each, bundle, clauses) for each in ready)
    return Side(
        name=side.name, bundle=bundle, status=side.status, row=side.row, decision=decision, clauses=clauses,
        first=first, patched=again, facts=prepared,
    )  # fmt: skip


def _evaluation(prepared: Prepared | None, bundle: Bundle, clauses: Clauses) -> Evaluation | None:
    if prepared is None or prepared.case is None:
        return None
    (told,) = truths_of_cases([(prepared.case, prepared.missing)], bundle, clauses)
    return Evaluation(prepared=prepared, told=told)
