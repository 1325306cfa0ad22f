"""Coverage in words: the sentences and tables that every face shows.

One rule: no number is computed here but sums of what the tables hold.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import polars as pl

from workbench.covering.counts import ASKED
from workbench.covering.lines import listing
from workbench.covering.words import value_text
from workbench.faces import Code, Page, Table
from workbench.texts import count, share

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from workbench.covering.result import Coverage
    from workbench.faces import Cell

MAX_ROWS = 25
"""Rows of one table on a page; the tables of `Coverage` have all."""
MAX_VALUES = 6
KEY = "! never   ~ one way only   ? not known; then true and false (policies: satisfied and decisive), line, text"


def page_of(coverage: Coverage) -> Page:
    """Return what a coverage says."""
    tables = (files_table, policies_table, boundaries_table, facts_table, shapes_table, ranges_table)
    parts = [table for make in tables if (table := make(coverage)).rows]
    listings = [
        Code(title=f"{file.shown}: {KEY}", text=listing(file), language="cedar") for file in coverage.files
    ]
    return Page(
        kind="coverage",
        title=title(coverage),
        lines=list(lines(coverage)),
        parts=[*parts, *listings],
        next=("coverage.clauses", "coverage.ranges", "coverage.against(other)"),
        pins=pins(coverage),
    )


def title(coverage: Coverage) -> str:
    """Whose policies, by how many decisions."""
    name, version = coverage.policy
    own = version == "recorded"
    whose = "the recorded policies" if own else f"{name} {version[:8]}"
    return f"Coverage of {whose} by {count(coverage.views.decisions, 'decision')}"


def pins(coverage: Coverage) -> dict[str, str]:
    """What it rests on."""
    ledgers = {f"ledger {name}": f"up to position {end}" for name, end in coverage.ledgers.items()}
    versions = {f"policies of {bundle.name}": key for key, bundle in coverage.bundles.items()}
    return {"lake": coverage.lake, "contexts": coverage.context, **versions, **ledgers}


def lines(coverage: Coverage) -> Iterator[str]:
    """Yield the sentences, the most important first."""
    files, views = coverage.files, coverage.views
    branches, taken = sum(file.branches for file in files), sum(file.taken for file in files)
    clauses = sum(len(file.clauses) for file in files)
    policies = [policy for file in files for policy in file.policies]
    satisfied = sum(policy.satisfied > 0 for policy in policies)
    decisive = sum(policy.decisive > 0 for policy in policies)
    yield (
        f"{share(taken, branches)} of the {branches:,} ways that {count(clauses, 'clause')} can go were taken; "
        f"of {count(len(policies), 'policy', 'policies')} {count(satisfied, 'was', 'were')} satisfied, "
        f"and {decisive:,} decided something."
    )
    asked = views.counts["asked"].group_by("asked").agg(pl.col("n").sum())
    told = dict(asked.iter_rows())
    unread = views.decisions - sum(told.values())
    ends = [f"{told[name]:,} {what}" for name, what in ASKED.items() if told.get(name)]
    ends += [f"{unread:,} made under policies that the lake lost"] if unread else []
    yield f"Of {count(views.decisions, 'decision')}: {'; '.join(ends)}."
    never = [tool for tool, n in views.tools.items() if not n]
    if never:
        yield f"Never called: {', '.join(never)}."
    sides = sum(len(each.boundary.expected) for each in views.boundaries)
    lacking = sum(len(each.uncovered) for each in views.boundaries)
    if lacking:
        compared = count(len(views.boundaries), "literal")
        yield f"On {lacking:,} of the {sides:,} sides of {compared} that policies compare with, nobody ever was."
    yield "Exact on this log. What was not covered was not tested by it; that does not make it wrong."


def files_table(coverage: Coverage) -> Table:
    """One row a policy file, as coverage tools have it."""
    rows: list[Sequence[Cell]] = []
    for file in coverage.files:
        true = sum(each.truths["true"] > 0 for each in file.clauses)
        false = sum(each.truths["false"] > 0 for each in file.clauses)
        decisive = sum(policy.decisive > 0 for policy in file.policies)
        policies = f"{decisive} of {len(file.policies)}"
        rows.append((file.shown, len(file.clauses), true, false, policies, file.share, file.missing))
    heads = ("policy file", "clauses", "true", "false", "decisive", "cover", "missing")
    note = "Clauses that were ever true and ever false, and policies that ever decided."
    return Table(title="Policies", note=note, heads=heads, rows=rows, code=frozenset({0}))


def policies_table(coverage: Coverage) -> Table:
    """Policies that were never satisfied, never decided, or were in error."""
    rows: list[Sequence[Cell]] = []
    for each in coverage.views.policies:
        said = [
            *(["never asked"] if not each.evaluated else []),
            *(["never satisfied"] if each.evaluated and not each.satisfied and not each.unknown else []),
            *(["not known whether satisfied"] if not each.satisfied and each.unknown else []),
            *(["never decisive"] if each.satisfied and not each.decisive else []),
            *(["in error"] if each.errored else []),
        ]
        if said:
            rows.append(
                (each.policy, each.evaluated, each.satisfied, each.decisive, each.errored, ", ".join(said))
            )
    heads = ("policy", "asked", "satisfied", "decisive", "in error", "what")
    return _cut("Policies to look at", "", heads, rows, frozenset({0}))


def boundaries_table(coverage: Coverage) -> Table:
    """Literals, those with a side nobody was on first."""
    rows: list[Sequence[Cell]] = []
    for each in sorted(
        coverage.views.boundaries, key=lambda each: (not each.uncovered, each.boundary.number)
    ):
        boundary, sides = each.boundary, each.sides
        rest = sides.get("other")
        text = f"{boundary.value} {boundary.operator} {boundary.literal}"
        counts = (sides.get("below"), sides["at"], sides.get("above"), rest, each.absent, each.unread)
        rows.append((boundary.policy, text, *counts, ", ".join(each.uncovered)))
    heads = ("policy", "comparison", "below", "at", "above", "other", "absent", "not asked", "nobody was")
    note = "Decisions on each side of what policies compare with, whether or not Cedar got that far."
    return _cut("Sides of literals", note, heads, rows, frozenset({0, 1}))


def facts_table(coverage: Coverage) -> Table:
    """What facts and optional arguments never were."""
    never = coverage.facts.filter(pl.col("decisions") == 0).collect()
    called = {tool for tool, n in coverage.views.tools.items() if n}
    rows: list[Sequence[Cell]] = [
        (tool, f"{fact} {status}") for tool, fact, status, _ in never.iter_rows() if tool in called
    ]
    for tool, argument, given, omitted in coverage.optional.collect().iter_rows():
        if not (given and omitted):
            rows.append((tool, f"`{argument}` {'omitted' if given else 'given'}"))
    note = "Facts that a tool asks for are found or none; optional arguments are given or omitted."
    return _cut("Contexts that never occurred", note, ("tool", "never"), rows, frozenset({0, 1}))


def shapes_table(coverage: Coverage) -> Table:
    """Shapes of contexts that occurred."""
    found = coverage.contexts.collect()
    rows: list[Sequence[Cell]] = [
        (row["tool"], f"{row['principal']} on {row['resource']}", row["facts"], row["decisions"])
        for row in found.iter_rows(named=True)
    ]
    return _cut("Shapes of contexts", "", ("tool", "who on what", "facts", "decisions"), rows, frozenset({0}))


def ranges_table(coverage: Coverage) -> Table:
    """Where values lay."""
    rows: list[Sequence[Cell]] = []
    for row in coverage.ranges.filter(pl.col("read") > 0).collect().iter_rows(named=True):
        kind = row["kind"]
        if row["low"] is not None:
            told = " … ".join(value_text(kind, row[name]) for name in ("low", "p50", "high"))
        elif row["values"]:
            told = ", ".join(value_text(kind, value) for value in row["values"][:MAX_VALUES])
            told += ", …" if len(row["values"]) > MAX_VALUES else ""
        else:
            told = "many"
        counts = (row["read"], row["absent"], row["unread"], row["distinct"])
        rows.append((row["tool"], row["path"], *counts, told))
    heads = ("tool", "value", "read", "absent", "not read", "distinct", "least … median … most, or values")
    return _cut("Values", "", heads, rows, frozenset({0, 1}))


def _cut(
    title: str, note: str, heads: Sequence[str], rows: Sequence[Sequence[Cell]], code: frozenset[int]
) -> Table:
    left = len(rows) - MAX_ROWS
    said = f"{note} {left:,} more.".strip() if left > 0 else note
    return Table(title=title, note=said, heads=heads, rows=rows[:MAX_ROWS], code=code)
