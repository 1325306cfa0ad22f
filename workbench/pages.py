"""A lake, a replay and a comparison as pages: what `--markdown` and `--html` write, and what notebook cells show.

One rule: no number is computed here. A comparison's own HTML report (`workbench.report`) shows more than its page.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from workbench import certainty
from workbench.faces import Bar, Bars, Item, Listing, Page, Table
from workbench.metrics import STATES
from workbench.overview import MOST, condition
from workbench.replay import CAUSES, RECORDED
from workbench.texts import count, shorten, visible
from workbench.tracking import shown
from workbench.words import headline, matrix, tenant_table

if TYPE_CHECKING:
    from collections.abc import Iterator

    from workbench.compare import Diff
    from workbench.lake import Lake
    from workbench.overview import Overview
    from workbench.replay import Replay

MAX_POLICIES = 20


def lake_page(lake: Lake) -> Page:
    """What a lake holds at its pin."""
    view = lake.overview
    span = (
        f", {view.first:%Y-%m-%d %H:%M} to {view.last:%Y-%m-%d %H:%M} UTC" if view.first and view.last else ""
    )
    where = f"{count(view.sessions, 'session')} of {count(view.tenants, 'tenant')}"
    lines = [f"{count(view.decisions, 'decision')} in {where}{span}"]
    if lake.chosen is not None:
        lines.append(f"Narrowed to decisions where `{condition(lake)}`.")
    return Page(
        kind="lake" if lake.chosen is None else "lake, narrowed",
        title=shown(lake.uri),
        lines=lines,
        parts=(_at_a_glance(view), _bundles(view), _labels(view), _pinned(lake)),
        next=("lake.decisions", "lake.sessions", "lake.replay()", "wb.explore(lake)"),
    )


def _at_a_glance(view: Overview) -> Bars:
    ended = {name.replace("_", " "): number for name, number in view.endings.items()}
    endings = [*ended.items(), ("none yet", view.open)]
    verdicts = sorted(view.verdicts.items(), key=lambda item: [*STATES, item[0]].index(item[0]))
    return Bars(bars=(Bar("verdicts", verdicts[:MOST]), Bar("how calls ended", endings[:MOST])))


def _bundles(view: Overview) -> Table:
    rows = [(each["name"], each["version"][:12], each["decisions"]) for each in view.bundles[:MOST]]
    more = len(view.bundles) - len(rows)
    note = f"{more:,} more in `lake.bundles`." if more else ""
    return Table(
        title="Bundles", note=note, heads=("name", "version", "decisions"), rows=rows, code=frozenset({1})
    )


def _labels(view: Overview) -> Listing:
    items = [Item(name, number) for name, number in list(view.labels.items())[:MOST]]
    more = len(view.labels) - len(items)
    note = "" if items else "No outcome is labelled: nothing says which calls were harm and which good work."
    return Listing(title="Labels", note=f"{more:,} more in `lake.labels`." if more else note, items=items)


def _pinned(lake: Lake) -> Table:
    """The first ledgers; most lakes have one."""
    pins = sorted(lake.pins.ledgers.items())
    rows = [(writer, position, lake.held_back.get(writer, 0)) for writer, position in pins[:MOST]]
    note = f"{len(pins) - MOST:,} more in `lake.pins`." if len(pins) > MOST else ""
    heads = ("ledger", "last position", "beyond the pin")
    return Table(title="Pinned", note=note, heads=heads, rows=rows, code=frozenset({0}))


def replay_page(replay: Replay) -> Page:
    """What a replay says: its headline, every count that is not zero, and what causes mean."""
    counts = {name: number for name, number in replay.counts().items() if number}
    rows = [(name.replace("_", " "), number, _meaning(name)) for name, number in counts.items()]
    table = Table(title="Counts", heads=("", "decisions", "what it means"), rows=rows)
    name, version = replay.policy
    return Page(
        kind=f"replay, contexts {shorten(replay.context, 60)}",
        title=f"Replay under {name}" if version != RECORDED else "Replay as recorded",
        lines=[f"{replay.headline}."],
        parts=[_verdicts(replay), table],
        next=("replay.frame", "wb.compare(lake.replay(), replay)", "wb.save(replay)"),
        pins={"policy": version, "contexts": replay.context, "engine": replay.engine, **_ledgers(replay)},
    )


_MEANINGS = {
    "decisions": "recorded decisions, shadow decisions left out",
    "decisions_decided": "decided again, under this replay",
    "decisions_undecided": "something they depend on was not recorded",
    "decisions_quarantined": "the record does not reproduce itself",
    "decidable": "the recorded policies give again what was recorded",
    "recompilable": "their contexts were compiled again, to the same bytes",
    "not_recompilable": "their contexts could not be compiled again",
}


def _meaning(name: str) -> str:
    return _MEANINGS.get(name) or CAUSES.get(name.removeprefix("cause_"), "")


def _verdicts(replay: Replay) -> Bars:
    """What was recorded, and what this replay says, of the same decisions."""
    then: dict[str, int] = dict.fromkeys(STATES, 0)
    now = dict(then)
    for recorded, state, number in replay.transitions.iter_rows():
        then[recorded] = then.get(recorded, 0) + number
        now[state] = now.get(state, 0) + number
    return Bars(bars=(Bar("as recorded", [*then.items()]), Bar(f"under {replay.policy[0]}", [*now.items()])))


def diff_page(diff: Diff) -> Page:
    """What a comparison says, but for lists of decisions."""
    names = [visible(name) for name in (diff.base.policy[0], diff.cand.policy[0])]
    found = certainty.table(diff)
    tables = [_transitions(diff), _tenants(diff), *([] if found is None else [found]), _policies(diff)]
    if diff.outcome is not None:
        tables += [part for part in diff.outcome.page().parts if isinstance(part, Table)]
    return Page(
        kind="comparison",
        title="{} → {}, contexts {}".format(*names, visible(diff.cand.context)),
        lines=[*headline(diff), *certainty.lines(diff)],
        parts=tables,
        next=("diff.changed", "diff.why('…')", "diff.worth", "diff.estimates", "diff.divergence"),
        pins={"base": diff.base.policy[1], "candidate": diff.cand.policy[1]},
    )


def _ledgers(replay: Replay) -> dict[str, str]:
    return {f"ledger {name}": f"{position:,}" for name, position in sorted(replay.lake.pins.ledgers.items())}


def _transitions(diff: Diff) -> Table:
    found = matrix(diff)
    rows: list[tuple[str | int, ...]] = [(start, *cells, total) for start, cells, total in found.rows]
    rows.append(("all", *found.all, found.total))
    return Table(title="Transitions", heads=("", *STATES, "all"), rows=rows)


def _tenants(diff: Diff) -> Table:
    table = tenant_table(diff)
    heads = [f"{column.group.removesuffix(' calls')} {column.text}" for column in table.columns]
    note = f"{table.left_out:,} smaller tenants are in the last line only." if table.left_out else ""
    return Table(
        title="By tenant", note=note, heads=("tenant", *heads), rows=[(n, *v) for n, v in table.rows]
    )


def _policies(diff: Diff) -> Table:
    columns = ("attack_calls_stopped", "honest_calls_disturbed", "unlabelled_calls_stopped", "alone")
    rows = diff.policies.collect()
    shown = list(_named(rows.head(MAX_POLICIES).iter_rows(named=True), columns))
    note = f"{rows.height - len(shown):,} more in `diff.policies`." if rows.height > len(shown) else ""
    heads = ("policy", "verdict", "attack stopped", "honest disturbed", "unlabelled stopped", "by it alone")
    return Table(title="Which policies did it", note=note, heads=heads, rows=shown, code=frozenset({0}))


def _named(rows: Iterator[dict[str, object]], columns: tuple[str, ...]) -> Iterator[tuple[str | int, ...]]:
    for row in rows:
        yield (str(row["policy"]), str(row["verdict"]), *(int(str(row[name])) for name in columns))
