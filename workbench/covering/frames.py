"""Coverage as Polars tables, every one lazy; each row carries the counts that make it up."""

from __future__ import annotations

from typing import TYPE_CHECKING

import polars as pl

from workbench.covering.counts import ASKED, KEYS
from workbench.covering.shapes import NO_FACTS, NOT_COMPILED
from workbench.explaining.truths import TRUTHS

if TYPE_CHECKING:
    from workbench.covering.views import Views

_S, _I, _IDS = pl.String(), pl.Int64(), pl.List(pl.String)
_CLAUSES = {
    **dict.fromkeys(("policy_hash", "policy", "key", "place", "op", "text", "file"), _S),
    **dict.fromkeys(("line", "end_line", "decisions", *TRUTHS), _I),
    "can": _IDS, "state": _S, "lacking": _S,
}  # fmt: skip
_POLICIES = {
    **dict.fromkeys(("policy_hash", "policy", "effect", "file"), _S),
    **dict.fromkeys(("line", "decisions", "evaluated", "satisfied", "decisive", "errored", "unknown"), _I),
}
_BOUNDARIES = {
    **dict.fromkeys(("policy_hash", "policy", "key", "file"), _S), "line": _I,
    **dict.fromkeys(("value", "operator", "literal"), _S),
    **dict.fromkeys(("decisions", "below", "at", "above", "other", "absent", "unread"), _I), "uncovered": _IDS,
}  # fmt: skip
_STATUSES = ("found", "none")
"""What a fact that is asked for may be; `failed` is told where it occurred."""


def clauses(views: Views) -> pl.LazyFrame:
    """Return one row a clause of each policy; the five truths sum to `decisions`."""
    rows = [
        {
            "policy_hash": each.bundle, "policy": each.policy, "key": each.clause.key, "place": each.clause.place,
            "op": each.clause.op, "text": each.clause.text, "file": each.clause.file, "line": each.clause.line,
            "end_line": each.clause.end_line, "decisions": each.decisions, **each.truths,
            "can": list(each.sides.names), "state": each.state, "lacking": each.lacking,
        }
        for each in views.clauses
    ]  # fmt: skip
    return pl.LazyFrame(rows, schema=_CLAUSES)


def policies(views: Views) -> pl.LazyFrame:
    """Return one row a policy; `unknown` counts decisions in which it may hang on what the record did not ask for."""
    rows = [
        {
            "policy_hash": each.bundle, "policy": each.policy, "effect": each.effect, "file": each.file,
            "line": each.line, "decisions": each.decisions, "evaluated": each.evaluated,
            "satisfied": each.satisfied, "decisive": each.decisive, "errored": each.errored,
            "unknown": each.unknown,
        }
        for each in views.policies
    ]  # fmt: skip
    return pl.LazyFrame(rows, schema=_POLICIES)


def boundaries(views: Views) -> pl.LazyFrame:
    """Return one row a literal that a policy compares with; sides, `absent` and `unread` sum to `decisions`.

    A side that the comparison does not have is null; `uncovered` names those nobody was on.
    """
    rows = [
        {
            "policy_hash": each.bundle, "policy": each.boundary.policy, "key": each.boundary.clause.key,
            "file": each.boundary.clause.file, "line": each.boundary.clause.line, "value": each.boundary.value,
            "operator": each.boundary.operator, "literal": each.boundary.literal, "decisions": each.decisions,
            **each.sides, "absent": each.absent, "unread": each.unread, "uncovered": list(each.uncovered),
        }
        for each in views.boundaries
    ]  # fmt: skip
    return pl.LazyFrame(rows, schema=_BOUNDARIES)


def tools(views: Views) -> pl.LazyFrame:
    """Return one row a tool: `decisions`, `declared` by a schema, and decisions by what was asked of policies."""
    declared = {name for bundle in views.bundles.values() for name in bundle.schema.actions}
    asked = views.counts["asked"].lazy().group_by("tool").agg(
        pl.col("n").filter(asked=name).sum().alias(name.replace(" ", "_")) for name in ASKED
    )  # fmt: skip
    found = pl.LazyFrame(
        {
            "tool": list(views.tools),
            "decisions": list(views.tools.values()),
            "declared": [tool in declared for tool in views.tools],
        },
        schema={"tool": pl.String, "decisions": pl.Int64, "declared": pl.Boolean},
    )
    counts = [pl.col(name.replace(" ", "_")).fill_null(0) for name in ASKED]
    return found.join(asked, on="tool", how="left", maintain_order="left").with_columns(counts)


def stages(views: Views) -> pl.LazyFrame:
    """Return one row an ending: `status`, `cause`, `decided_by`, `reason_code`, `verdict`, `decisions`."""
    keys = ("status", "cause", "decided_by", "reason_code", "verdict")
    sums = views.counts["decisions"].lazy().group_by(keys).agg(decisions=pl.col("n").sum())
    return sums.sort("decisions", *keys, descending=[True, *(False for _ in keys)], nulls_last=True)


def contexts(views: Views) -> pl.LazyFrame:
    """Return one row a shape of context that occurred: types and facts together."""
    return _shapes(views, "contexts")


def arguments(views: Views) -> pl.LazyFrame:
    """Return one row a set of optional arguments that a tool was given."""
    return _shapes(views, "arguments")


def _shapes(views: Views, table: str) -> pl.LazyFrame:
    rest = [name for name in KEYS[table] if name != "tool"]
    order = ["tool", "decisions", *rest]
    rows = views.counts[table].lazy().rename({"n": "decisions"})
    return rows.sort(order, descending=[name == "decisions" for name in order])


def facts(views: Views) -> pl.LazyFrame:
    """Return one row a tool, fact and status, those that never occurred among them.

    Returns:
        `tool`, `fact`, `status`, `decisions`.
    """
    told = (
        views.counts["contexts"]
        .lazy()
        .filter(~pl.col("facts").is_in([NO_FACTS, NOT_COMPILED]))
        .select("tool", "n", pl.col("facts").str.split(", "))
        .explode("facts")
        .select(
            "tool",
            "n",
            pl.col("facts").str.splitn(" ", 2).struct.rename_fields(["fact", "status"]).alias("_"),
        )
        .unnest("_")
    )
    possible = [
        (tool, fact.name, status, 0)
        for bundle in views.bundles.values()
        for tool, action in bundle.schema.actions.items()
        if action.principals
        for fact in bundle.spec.asked(tool)
        for status in _STATUSES
    ]
    none = pl.LazyFrame(possible, schema={"tool": _S, "fact": _S, "status": _S, "n": _I}, orient="row")
    every = pl.concat([told.select("tool", "fact", "status", "n"), none])
    keys = ("tool", "fact", "status")
    return every.group_by(keys).agg(decisions=pl.col("n").sum()).sort(keys)


def optional(views: Views) -> pl.LazyFrame:
    """Return one row a tool and optional argument: `tool`, `argument`, `given`, `omitted`."""
    told = (
        views.counts["arguments"]
        .lazy()
        .filter(pl.col("given").str.contains(r"^[+-]"))
        .select("tool", "n", pl.col("given").str.split(" "))
        .explode("given")
        .select(
            "tool", "n", argument=pl.col("given").str.slice(1), there=pl.col("given").str.starts_with("+")
        )
    )
    sums = {"given": pl.col("n").filter("there").sum(), "omitted": pl.col("n").filter(~pl.col("there")).sum()}
    return told.group_by("tool", "argument").agg(**sums).sort("tool", "argument")


QUANTILES = {"p05": 0.05, "p50": 0.5, "p95": 0.95}


def ranges(views: Views) -> pl.LazyFrame:
    """Return one row a tool and path.

    Returns:
        `tool`, `path`, `kind`, `decisions` (of the tool), `read`, `absent`, `unread` (they sum to it), `distinct`
        (null: more than are kept), `low`, `high` (exact), `p05`, `p50`, `p95` (the least value that so many are not
        above; to three digits where there are many), `values` (List[String]: those of a small set, most frequent
        first) and `counts` (of them).
    """
    path = ("tool", "path", "kind")
    rows = views.counts["values"].lazy().sort("number", nulls_last=True, maintain_order=True)
    there = pl.col("form") != "absent"
    ordered = pl.col("number").is_not_null()
    running = pl.col("n").filter(ordered).cum_sum()
    total = pl.col("n").filter(ordered).sum()
    quantiles = {
        name: pl.col("number").filter(ordered).filter(running >= part * total).first()
        for name, part in QUANTILES.items()
    }
    texts = pl.col("text").is_not_null()
    by_n = pl.col("n").filter(texts)
    sums = rows.group_by(path, maintain_order=True).agg(
        there=pl.col("n").filter(there).sum(),
        absent=pl.col("n").filter(~there).sum(),
        distinct=pl.when(pl.col("form").is_in(["rounded", "many"]).any()).then(None).otherwise(there.sum()),
        low=pl.col("low").min(),
        high=pl.col("high").max(),
        **quantiles,
        values=pl.col("text").filter(texts).sort_by(by_n, descending=True),
        counts=by_n.sort(descending=True),
    )
    totals = pl.LazyFrame(
        {"tool": list(views.tools), "decisions": list(views.tools.values())},
        schema={"tool": _S, "decisions": _I},
    )
    joined = sums.join(totals, on="tool", how="left", maintain_order="left").rename({"there": "read"})
    unread = pl.col("decisions") - pl.col("read") - pl.col("absent")
    names = (
        *path,
        "decisions",
        "read",
        "absent",
        "unread",
        "distinct",
        "low",
        *QUANTILES,
        "high",
        "values",
        "counts",
    )
    return joined.with_columns(unread=unread).select(names).sort("tool", "path", "kind")
