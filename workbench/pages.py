"""A replay and a comparison as pages: what `--markdown` and `--html` write, and Markdown in Python.

One rule: no number is computed here. A comparison's own HTML report (`workbench.report`) shows more than its page.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from workbench import certainty
from workbench.faces import Page, Table
from workbench.metrics import STATES
from workbench.replay import CAUSES
from workbench.texts import visible
from workbench.words import headline, matrix, tenant_table

if TYPE_CHECKING:
    from collections.abc import Iterator

    from workbench.compare import Diff
    from workbench.replay import Replay

MAX_POLICIES = 20


def replay_page(replay: Replay) -> Page:
    """What a replay says: its headline, every count that is not zero, and what causes mean."""
    counts = {name: number for name, number in replay.counts().items() if number}
    rows = [
        (name.replace("_", " "), number, CAUSES.get(name.removeprefix("cause_"), ""))
        for name, number in counts.items()
    ]
    table = Table(title="Counts", heads=("", "decisions", "what it means"), rows=rows)
    name, version = replay.policy
    return Page(
        kind="replay",
        title=f"Replay under {name}",
        lines=[f"{replay.headline}."],
        parts=[table],
        next=("replay.frame", "wb.compare(lake.replay(), replay)", "wb.save(replay)"),
        pins={"policy": version, "contexts": replay.context, "engine": replay.engine, **_ledgers(replay)},
    )


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
