"""What a change is worth, in words: sentences and tables for every face.

One rule: no number is computed here; all are those of `Worth`. Strings from the log pass `visible`, by the faces.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import polars as pl

from workbench.faces import Page, Table
from workbench.texts import count, visible
from workbench.weighing.labels import never_said, occurring, undeclared

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from runtime.canonical import Json
    from workbench.faces import Cell
    from workbench.weighing.worth import Bound, Worth

MAX_TOOLS = 20
MAX_VALUES = 5
"""Values of labels that are named."""
_BASIS = {
    "exact": "exact on this log",
    "bounds": "bounds on this log",
    "simulated": "simulated",
    "partial": "without money not known",
}
_FATES = {
    "remains": "would come about",
    "gone": "would be gone",
    "not_known": "not known",
    "neither": "neither then nor now",
}
_WHY = {
    "altered": "would run otherwise",
    "held": "would wait for an approval",
    "escalated": "did not run, and would wait for an approval",
    "released": "did not run, and would",
    "unknown": "may have run: the record is in doubt",
    "same": "may have run: the record is in doubt",
    "undecided": "undecided: the record lacks something",
    "quarantined": "quarantined: the record does not reproduce itself",
    "prevented": "may have been harmful or not",
}
"""Why what becomes of a call is not known, by its effect."""
_BY_TOOL = (
    "harm_avoided",
    "harm_through",
    "good_lost",
    "approvals_added",
    "approvals_saved",
    "harm_money_avoided",
    "money_now",
)
_BY_TOOL_UNLABELLED = (
    "calls_ran",
    "calls_prevented",
    "calls_held",
    "calls_altered",
    "approvals_added",
    "money_then",
    "money_now",
)


def page(worth: Worth) -> Page:
    """Return what it says."""
    names = [visible(name) for name in (worth.diff.base.policy[0], worth.diff.cand.policy[0])]
    return Page(
        kind="worth",
        title="Worth: {} → {}".format(*names),
        lines=list(_lines(worth)),
        parts=[_numbers(worth), _classes(worth), _tools(worth)],
        next=("worth.frame", "worth.by('tool')", "worth.rows", "simulate(diff, {'tool': simulator})"),
        pins={"candidate": worth.diff.cand.id, "base": worth.diff.base.id},
    )


def as_dict(worth: Worth) -> dict[str, Json]:
    """Return all of it as JSON."""
    stakes = worth.stakes
    return {
        "base": visible(worth.diff.base.policy[0]),
        "candidate": visible(worth.diff.cand.policy[0]),
        "lines": list(_lines(worth)),
        "quantities": _cells(worth.frame),
        "classes": _cells(worth.classes.with_columns(pl.col("stake", "fate", "effect").cast(pl.String))),
        "tools": _cells(worth.by("tool")),
        "stakes": {
            "harm": {label: list(values) for label, values in stakes.harm.items()},
            "good": {label: list(values) for label, values in stakes.good.items()},
            "intent": list(stakes.intent),
            "money": {
                tool: {"argument": list(each.argument), "unit": each.unit, "decimals": each.decimals}
                for tool, each in stakes.moneys.items()
            },
            "unlabelled": stakes.unlabelled,
            "conflicts": stakes.conflicts,
        },
        "simulated": None if worth.simulated is None else worth.simulated.as_dict(),
    }


def _cells(rows: pl.LazyFrame) -> list[Json]:
    found = rows.collect().to_dicts()
    return [
        {key: visible(cell) if isinstance(cell, str) else cell for key, cell in row.items()} for row in found
    ]


def _lines(worth: Worth) -> Iterator[str]:
    """The numbers in sentences; then what is not in them."""
    n = worth.numbers
    yield from _of_labelled(n) if worth.has_labels else _of_calls(n)
    yield _of_approvals(n)
    yield from _of_money(worth, n)
    yield from _open(worth)
    yield from _apart(worth)
    yield from _labels(worth)
    yield from _simulated(worth)
    if worth.diff.base.policy[1] != "recorded":
        yield "All of it compares the candidate with what was recorded, not with the base."
    yield _how_known(worth)


def _of_labelled(n: Mapping[str, Bound]) -> Iterator[str]:
    avoided, lost = n["harm_avoided_share"], n["good_lost_share"]
    yield (
        f"Harm: of {_calls(n['harm_ran'], 'harmful action')} that ran, {n['harm_avoided']} would not come about"
        f"{_shares(avoided)}; {n['harm_through']} would{_new(n['harm_new'])}."
    )
    yield (
        f"Good work: of {_calls(n['good_ran'], 'good call')} that ran, {n['good_lost']} would be lost"
        f"{_shares(lost)}; "
        f"{n['good_blocked']} blocked, {n['good_held']} held for an approval, {n['good_altered']} run otherwise."
    )


def _calls(bound: Bound, noun: str) -> str:
    return count(bound.low, noun) if bound.low == bound.high else f"{bound} {noun}s"


def _shares(bound: Bound) -> str:
    return f" ({bound.shares})" if bound.of else ""


def _new(bound: Bound) -> str:
    return f", {bound} of them anew" if bound.high else ""


def _of_calls(n: Mapping[str, Bound]) -> Iterator[str]:
    yield (
        f"Of {_calls(n['calls_ran'], 'call')} that ran, {n['calls_prevented']} would not run, {n['calls_held']} "
        f"would wait for an approval, {n['calls_altered']} would run otherwise. No label says which were harmful."
    )


def _of_approvals(n: Mapping[str, Bound]) -> str:
    return (
        f"Approvals: {n['approvals_added']} more asked, {n['approvals_saved']} saved; "
        f"{n['approvals_then']} asked then, {n['approvals_now']} now."
    )


def _of_money(worth: Worth, n: Mapping[str, Bound]) -> Iterator[str]:
    if not worth.stakes.moneys:
        return
    unit = worth.stakes.unit
    if worth.has_labels:
        yield (
            f"Money, in {unit}: of {n['harm_money_ran']} of harmful actions, {n['harm_money_avoided']} avoided, "
            f"{n['harm_money_through']} let through; "
            f"of {n['good_money_ran']} of good work, {n['good_money_lost']} lost."
        )
    yield f"Money moved, in {unit}: {n['money_then']} then, {n['money_now']} now."
    if missing := n["money_not_known"].high:
        yield f"Not in these sums: {count(missing, 'call')} whose money the arguments do not say exactly."
    if (worth.cells["effect"].is_in(["undecided", "quarantined"])).any():
        yield "Undecided and quarantined calls are taken to move what was asked for, or nothing."


def _open(worth: Worth) -> Iterator[str]:
    """Why bounds are bounds: which labelled decisions are open, by effect."""
    rows = worth.classes.filter(pl.col("fate") == "not_known", pl.col("stake") != "unlabelled")
    found = (
        rows.group_by(pl.col("effect").cast(pl.String))
        .agg(pl.col("n").sum())
        .sort("n", "effect", descending=[True, False])
    )
    parts = [f"{n:,} {_WHY[effect]}" for effect, n in found.collect().iter_rows()]
    if parts:
        yield f"What the log cannot know of labelled calls: {'; '.join(parts)}."


def _apart(worth: Worth) -> Iterator[str]:
    """Decisions without a label, and those with two."""
    rows = worth.cells
    silent, torn = (rows.filter(pl.col("stake") == name) for name in ("unlabelled", "contradictory"))
    if worth.has_labels and silent.height:
        where = (
            "counted apart" if worth.stakes.unlabelled == "apart" else "in the bounds, as harm or good work"
        )
        ran = silent.filter(pl.col("then") == "ran")
        changed = ran.filter(pl.col("effect").is_in(["prevented", "held", "altered"]))
        yield (
            f"Unlabelled: {count(int(silent['n'].sum()), 'decision')}, {where}; {ran['n'].sum():,} ran, and of these "
            f"{changed['n'].sum():,} would be prevented, held or altered."
        )
    if torn.height:
        number = count(int(torn["n"].sum()), "decision is", "decisions are")
        yield f"{number} labelled both harm and good work: in the bounds, as either."


def _labels(worth: Worth) -> Iterator[str]:
    """Values that say nothing, and declared ones that nobody said."""
    there = occurring(worth.diff.labels, worth.stakes)
    for label, value, number in list(undeclared(there, worth.stakes))[:MAX_VALUES]:
        said, times = f"{visible(label)} = {visible(value)!r}", count(number, "time")
        yield f"Label {said} means neither harm nor good work ({times})."
    missing = [f"{visible(label)} = {visible(value)!r}" for label, value in never_said(there, worth.stakes)]
    if missing and worth.has_labels:
        yield f"Nobody said {', '.join(missing[:MAX_VALUES])}."


def _simulated(worth: Worth) -> Iterator[str]:
    if worth.simulated is not None:
        yield from worth.simulated.lines


def _how_known(worth: Worth) -> str:
    kinds = worth.frame.collect()["basis"].to_list()
    told = ", ".join(f"{kinds.count(basis)} {words}" for basis, words in _BASIS.items() if basis in kinds)
    return f"Of {count(len(kinds), 'number')}: {told}. None is an estimate of future traffic."


def _numbers(worth: Worth) -> Table:
    """The totals, each with its share where it has one."""
    n = worth.numbers
    rows: list[list[Cell]] = []
    for row in worth.frame.filter(pl.col("of").is_null()).collect().to_dicts():
        part = n.get(f"{row['quantity']}_share")
        share = "" if part is None else part.shares
        rows.append([row["text"], _span(row["low"], row["high"]), row["unit"], share, _BASIS[row["basis"]]])
    return Table(
        title="The numbers",
        note="From the least to the most that the log allows. Shares are of the calls, harmful actions or good calls "
        "that are known to have run; of approvals, of all decisions.",
        heads=["", "number", "unit", "share", "known how"],
        rows=rows,
    )


def _classes(worth: Worth) -> Table:
    found = worth.classes.group_by("stake", "fate").agg(pl.col("n").sum()).collect()
    cells = {(stake, fate): n for stake, fate, n in found.iter_rows()}
    stakes = [
        stake
        for stake in ("harm", "good", "contradictory", "unlabelled")
        if any(s == stake for s, _ in cells)
    ]
    body = {stake: [cells.get((stake, fate), 0) for fate in _FATES] for stake in stakes}
    rows: list[list[Cell]] = [[stake, *row, sum(row)] for stake, row in body.items()]
    return Table(
        title="Every decision once",
        note="By what its labels say; of unlabelled ones, whether the action that ran would run.",
        heads=["decisions", *_FATES.values(), "all"],
        rows=rows,
    )


def _tools(worth: Worth) -> Table:
    """The tools of which most calls change."""
    names = [
        name for name in (_BY_TOOL if worth.has_labels else _BY_TOOL_UNLABELLED) if name in worth.numbers
    ]
    cells = worth.cells.lazy().with_columns(
        _changed=pl.when(pl.col("effect") != "same").then("n").otherwise(0)
    )
    sums = cells.group_by("tool").agg(
        pl.col("_changed", "n", *(f"{x}_{end}" for x in names for end in ("low", "high"))).sum()
    )
    top = sums.sort("_changed", "n", "tool", descending=[True, True, False])
    found = top.head(MAX_TOOLS).collect()
    left = sums.select(pl.len()).collect().item() - found.height
    rows: list[list[Cell]] = [
        [row["tool"], row["n"], *(_span(row[f"{name}_low"], row[f"{name}_high"]) for name in names)]
        for row in found.to_dicts()
    ]
    return Table(
        title="By tool",
        note=f"{left:,} more in `worth.by('tool')`." if left else "",
        heads=["tool", "decisions", *(name.replace("_", " ") for name in names)],
        rows=rows,
        code=frozenset({0}),
    )


def _span(low: int, high: int) -> Cell:
    return low if low == high else f"{low:,} to {high:,}"
