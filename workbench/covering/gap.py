"""What one coverage has and another lacks: production met it, the evaluation set never did.

One rule: worst first, by the decisions of production that met it; each with examples to look at, to replay, and to
make a test of. A tool that was never tested is told once: everything about its calls is new, and not listed again.

Clauses and boundaries are known by their policy and text, so that two versions of a policy can be compared; what the
other's policies do not have at all says so.

All counts are exact on the two logs. Ranges of more than `counts.EXACT` numbers are kept to three digits: then as
many decisions lie beyond as told, or a few more.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import polars as pl

from workbench.covering import frames
from workbench.covering.counts import EXAMPLES
from workbench.covering.words import KIND_WORDS, value_text
from workbench.faces import Faces, Page, Table
from workbench.masking import leaving
from workbench.texts import count, share

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from runtime.canonical import Json
    from workbench.covering.result import Coverage
    from workbench.covering.views import BoundaryCount, Views

FRAME: Mapping[str, pl.DataType] = {
    "kind": pl.String(), "tool": pl.String(), "policy": pl.String(), "what": pl.String(), "decisions": pl.Int64(),
    "of": pl.Int64(), "known": pl.Boolean(), "examples": pl.List(pl.String),
}  # fmt: skip
"""Columns of `CoverageGap.frame`. `kind` is of `KIND_WORDS`; `decisions` are those of production that met it, `of`
all of the tool, or of the tools the policy is about; `known` is false where the other's policies do not have the
clause; `examples` are decision ids of production."""

MAX_ROWS = 40
"""Rows of the table on a page; `frame` has all."""

_Row = tuple[str, str | None, str | None, str, int, int, bool, list[str]]


@dataclass(frozen=True, eq=False, repr=False)
class CoverageGap(Faces):
    """What one coverage exercises that another does not. Made by `Coverage.against`."""

    production: Coverage
    evaluation: Coverage
    rows: pl.DataFrame
    """Columns as in `FRAME`, most decisions first."""

    @classmethod
    def of(cls, production: Coverage, evaluation: Coverage) -> CoverageGap:
        """Compare two coverages."""
        new = _new_tools(production.views, evaluation.views)
        found = [row for part in _PARTS for row in part(production.views, evaluation.views)]
        kept = [row for row in found if row[0] == "tool" or row[1] not in new]
        rows = pl.DataFrame(kept, schema=dict(FRAME), orient="row")
        return cls(
            production, evaluation, rows.sort("decisions", "kind", "what", descending=[True, False, False])
        )

    @property
    def frame(self) -> pl.LazyFrame:
        """One row a thing that production met and the evaluation never did; columns as in `FRAME`."""
        return self.rows.lazy()

    @cached_property
    def unseen_contexts(self) -> int:
        """Production decisions whose tool, or whose shape of context, the evaluation never had."""
        return int(self.rows.filter(pl.col("kind").is_in(["tool", "context"]))["decisions"].sum())

    def page(self) -> Page:
        """What it says, for all faces."""
        shown = self.rows.head(MAX_ROWS)
        cells = [
            (
                KIND_WORDS[row["kind"]], row["tool"] or row["policy"] or "", row["what"], row["decisions"],
                share(row["decisions"], row["of"]), (row["examples"] or [""])[0],
            )
            for row in shown.iter_rows(named=True)
        ]  # fmt: skip
        left = self.rows.height - shown.height
        table = Table(
            title="Met in production, never in the evaluation",
            note=f"{left:,} more in `gap.frame`." if left else "",
            heads=("what", "of", "never seen", "decisions", "share", "example"),
            rows=cells,
            code=frozenset({1, 2, 5}),
        )
        return Page(
            kind="coverage gap",
            title="What production exercises that the evaluation does not",
            lines=list(self._lines()),
            parts=[table] if cells else [],
            next=("gap.frame", "gap.production.boundaries", "gap.evaluation.facts"),
            pins={"production": self.production.lake, "evaluation": self.evaluation.lake},
        )

    def _lines(self) -> Iterator[str]:
        total, tested = self.production.views.decisions, self.evaluation.views.decisions
        met, never = (
            f"production ({count(total, 'decision')})",
            f"the evaluation ({count(tested, 'decision')})",
        )
        if self.rows.is_empty():
            yield f"{never[0].upper()}{never[1:]} exercised everything that {met} did."
            return
        yield (
            f"{met[0].upper()}{met[1:]} met {count(self.rows.height, 'thing')} that {never} never did; "
            f"{count(self.unseen_contexts, 'decision')} had a tool or a shape of context that was never tested."
        )
        sums = dict(self.rows.group_by("kind").len().iter_rows())
        yield (
            "Of each kind: "
            + "; ".join(f"{words} {sums[kind]:,}" for kind, words in KIND_WORDS.items() if kind in sums)
            + "."
        )
        if set(self.production.bundles) != set(self.evaluation.bundles):
            yield "The two were decided by different policies; clauses are compared by policy and text."
        yield "Exact on the two logs. A decision that met several of these is counted in each."

    def as_dict(self) -> Mapping[str, Json]:
        """Return all of it as JSON: `production`, `evaluation` (lake and decisions), `gaps` (rows of `frame`)."""
        sides: dict[str, Json] = {
            name: {"lake": side.lake, "policy": side.policy[0], "decisions": side.views.decisions}
            for name, side in (("production", self.production), ("evaluation", self.evaluation))
        }
        found: dict[str, Any] = {
            **sides,
            "unseen_contexts": self.unseen_contexts,
            "gaps": self.rows.to_dicts(),
        }
        return dict(leaving(found))  # type: ignore[arg-type]  # what was JSON stays JSON


def _new_tools(mine: Views, theirs: Views) -> frozenset[str]:
    return frozenset(tool for tool, n in mine.tools.items() if n and not theirs.tools.get(tool))


def _tools(mine: Views, theirs: Views) -> Iterator[_Row]:
    examples = dict(
        mine.counts["decisions"].group_by("tool").agg(pl.col("examples").explode().head(EXAMPLES)).iter_rows()
    )
    for tool in sorted(_new_tools(mine, theirs)):
        n = mine.tools[tool]
        yield "tool", tool, None, "was never called", n, n, tool in theirs.tools, examples[tool]


def _endings(mine: Views, theirs: Views) -> Iterator[_Row]:
    keys = ["tool", "status", "cause", "decided_by", "reason_code"]
    for tool, status, cause, stage, code, n, examples in _only(mine, theirs, "decisions", keys):
        what = f"{stage}: {code}" if status == "decided" else f"{status}: {cause}"
        yield "ending", tool, None, what, n, mine.tools[tool], True, examples


def _only(mine: Views, theirs: Views, table: str, keys: list[str]) -> Iterator[tuple[Any, ...]]:
    """Keys that one has and the other lacks, with `n` and `examples`."""
    sums = [pl.col("n").sum(), pl.col("examples").explode().head(EXAMPLES)]
    found = mine.counts[table].group_by(keys, maintain_order=True).agg(sums).filter(pl.col("n") > 0)
    there = theirs.counts[table].filter(pl.col("n") > 0)
    yield from found.join(there, on=keys, how="anti", nulls_equal=True, maintain_order="left").iter_rows()


def _policies(mine: Views, theirs: Views) -> Iterator[_Row]:
    known = {each.policy for each in theirs.policies}
    decisions: dict[str, int] = {}
    for each in mine.policies:
        decisions[each.policy] = decisions.get(each.policy, 0) + each.decisions
    for policy, outcome, n, examples in _only(mine, theirs, "policies", ["policy", "outcome"]):
        if outcome != "unknown":
            what = {"satisfied": "was satisfied", "decisive": "decided", "errored": "was in error"}[outcome]
            yield "policy", None, policy, what, n, decisions[policy], policy in known, examples


_Key = tuple[str, ...]


def _clauses(mine: Views, theirs: Views) -> Iterator[_Row]:
    tested = {key for key, truth, n, _ in _clause_counts(theirs) if n for key in [(*key, truth)]}
    known = {key for key, *_ in _clause_counts(theirs)}
    told: dict[_Key, tuple[int, list[str]]] = {}
    decisions: dict[_Key, int] = {}
    for each in mine.clauses:
        key = _clause_key(each.policy, each.clause.text)
        decisions[key] = decisions.get(key, 0) + each.decisions
    for key, truth, n, examples in _clause_counts(mine):
        before = told.get((*key, truth), (0, []))
        told[*key, truth] = (before[0] + n, [*before[1], *examples][:EXAMPLES])
    for (policy, text, truth), (n, examples) in told.items():
        if n and (policy, text, truth) not in tested:
            what = f"{text} is {'in error' if truth == 'error' else truth}"
            key = (policy, text)
            yield "clause", None, policy, what, n, decisions[key], key in known, examples


def _clause_key(policy: str, text: str) -> _Key:
    return policy, text


def _clause_counts(views: Views) -> Iterator[tuple[_Key, str, int, list[str]]]:
    """Each clause that can go both ways, by policy and text, with each truth it may have."""
    rows = views.counts["clauses"].select("bundle", "clause", "truth", "n", "examples").iter_rows()
    counts = {(bundle, clause, truth): (n, examples) for bundle, clause, truth, n, examples in rows}
    numbers: dict[str, int] = {}
    for each in views.clauses:
        number = numbers[each.bundle] = numbers.get(each.bundle, -1) + 1
        for truth in (*each.sides.names, "error") if len(each.sides.names) > 1 else ():
            n, examples = counts.get((each.bundle, number, truth), (0, []))
            yield _clause_key(each.policy, each.clause.text), truth, n, examples


def _boundaries(mine: Views, theirs: Views) -> Iterator[_Row]:
    def key_of(each: BoundaryCount) -> tuple[str, str, str]:
        boundary = each.boundary
        return boundary.policy, boundary.value, boundary.literal

    tested = {(*key_of(each), side) for each in theirs.boundaries for side, n in each.sides.items() if n}
    known = {key_of(each) for each in theirs.boundaries}
    rows = mine.counts["boundaries"].select("bundle", "boundary", "side", "examples").iter_rows()
    examples = {(bundle, number, side): found for bundle, number, side, found in rows}
    for each in mine.boundaries:
        for side, n in each.sides.items():
            if n and (*key_of(each), side) not in tested:
                found = examples[each.bundle, each.boundary.number, side]
                words = {"other": "is not", "at": "is"}.get(side, f"is {side}")
                what = f"{each.boundary.value} {words} {each.boundary.literal}"
                known_ = key_of(each) in known
                yield "boundary", None, each.boundary.policy, what, n, each.decisions, known_, found


def _contexts(mine: Views, theirs: Views) -> Iterator[_Row]:
    keys = ["tool", "principal", "resource", "on_behalf_of", "facts"]
    for tool, principal, resource, behalf, facts, n, examples in _only(mine, theirs, "contexts", keys):
        what = f"{principal} on {resource} for {behalf}: {facts}"
        yield "context", tool, None, what, n, mine.tools[tool], True, examples


def _facts(mine: Views, theirs: Views) -> Iterator[_Row]:
    tested = frames.facts(theirs).filter(pl.col("decisions") > 0)
    keys = ["tool", "fact", "status"]
    found = frames.facts(mine).filter(pl.col("decisions") > 0).join(tested, on=keys, how="anti")
    for tool, fact, status, n in found.sort(keys).collect().iter_rows():
        shape = pl.col("facts").str.contains(rf"(?:^|, ){fact} {status}(?:,|$)")
        rows = mine.counts["contexts"].filter(pl.col("tool") == tool, shape)
        examples = rows["examples"].explode().head(EXAMPLES).to_list()
        yield "fact", tool, None, f"{fact} {status}", n, mine.tools[tool], True, examples


def _arguments(mine: Views, theirs: Views) -> Iterator[_Row]:
    for tool, given, n, examples in _only(mine, theirs, "arguments", ["tool", "given"]):
        yield "arguments", tool, None, given, n, mine.tools[tool], True, examples


def _values(mine: Views, theirs: Views) -> Iterator[_Row]:
    """Texts the other never had, absences, and numbers beyond the other's range."""
    path = ["tool", "path", "kind"]
    number = pl.col("number").is_not_null()
    tested = theirs.counts["values"].group_by(path).agg(
        floor=pl.col("low").min(),
        ceiling=pl.col("high").max(),
        texts=pl.col("text").drop_nulls(),
        many=(pl.col("form") == "many").any(),
        gone=(pl.col("form") == "absent").any(),
        there=(pl.col("form") != "absent").any(),
    )  # fmt: skip
    rows = mine.counts["values"].join(tested, on=path, how="inner", maintain_order="left")
    beyond = (
        pl.when(pl.col("low") > pl.col("ceiling"))
        .then(pl.lit("above"))
        .when(pl.col("high") < pl.col("floor"))
    )
    fresh = pl.col("text").is_not_null() & ~pl.col("many") & pl.col("there")
    new_text = fresh & ~pl.col("text").is_in(pl.col("texts"))
    new_form = (
        pl.when(number).then(beyond.then(pl.lit("below")))
        .when(new_text).then(pl.lit("text"))
        .when((pl.col("form") == "absent") & ~pl.col("gone")).then(pl.lit("absent"))
        .when((pl.col("form") != "absent") & ~pl.col("there")).then(pl.lit("there"))
    )  # fmt: skip
    ends = pl.when(new_form == "above").then("ceiling").when(new_form == "below").then("floor")
    found = (
        rows.with_columns(new=new_form, end=ends)
        .drop_nulls("new")
        .group_by(*path, "new", "end", pl.col("text"), maintain_order=True)
        .agg(pl.col("n").sum(), pl.col("examples").explode().head(EXAMPLES))
    )
    absent: dict[tuple[str, int, tuple[str, ...]], list[str]] = {}
    for tool, name, kind, new, end, text, n, examples in found.iter_rows():
        if new == "absent":
            absent.setdefault((tool, n, tuple(examples)), []).append(name)
        else:
            yield (
                "value",
                tool,
                None,
                f"{name} {_new_value(kind, new, end, text)}",
                n,
                mine.tools[tool],
                True,
                examples,
            )
    for (tool, n, those), names in absent.items():  # what goes with one fact is absent with it, and told once
        what = f"{', '.join(names)} {'is' if len(names) == 1 else 'are'} absent"
        yield "value", tool, None, what, n, mine.tools[tool], True, list(those)


def _new_value(kind: str, new: str, end: int | None, text: str | None) -> str:
    match new:
        case "above" | "below" if end is not None:
            return f"is {new} {value_text(kind, end)}"
        case "text":
            return f"is {value_text(kind, text)}"
        case _:
            return "is there"


_PARTS = (_tools, _endings, _policies, _clauses, _boundaries, _contexts, _facts, _arguments, _values)
