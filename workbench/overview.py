"""A lake at a glance: what its repr says."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import polars as pl

from workbench.texts import count, visible
from workbench.tracking import shown

if TYPE_CHECKING:
    from collections.abc import Iterator
    from datetime import datetime

    from workbench.lake import Lake


class Overview(NamedTuple):
    """What a lake's repr says; counts are at the pin."""

    decisions: int
    sessions: int
    tenants: int
    first: datetime | None
    last: datetime | None
    verdicts: dict[str, int]
    bundles: list[dict[str, Any]]
    """`name`, `version`, `decisions`; most decisions first."""
    labels: dict[str, int]
    endings: dict[str, int]
    """How calls ended, by the last outcome's status; most first."""
    open: int
    """Calls that were let run and have no outcome: under way when the lake was drained, or their process died."""


def overview(lake: Lake) -> Overview:
    """Count what is in a lake at its pin: one pass over a few columns of `decisions`, two over `outcomes`."""
    rows = lake.decisions.select(
        "decision_id", "kind", "tenant", "session_id", "decided_at", "verdict", "bundle_version"
    )
    totals = rows.select(
        decisions=pl.len(),
        sessions=pl.struct("tenant", "session_id").n_unique(),
        tenants=pl.col("tenant").n_unique(),
        first=pl.col("decided_at").min(),
        last=pl.col("decided_at").max(),
    )
    verdicts = rows.group_by("verdict").agg(n=pl.len()).sort("n", "verdict", descending=[True, False])
    names = lake.bundles.select("name", "bundle_version")
    bundles = (
        rows.group_by("bundle_version")
        .agg(decisions=pl.len())
        .join(names, on="bundle_version", how="left")
        .select(pl.col("name").fill_null("not in the lake"), "decisions", version="bundle_version")
        .sort("decisions", "name", "version", descending=[True, False, False])
    )
    labels = lake.labels.group_by("label").agg(n=pl.len()).sort("label")
    ended = lake.executions.select("decision_id", "status")
    endings = ended.group_by("status").agg(n=pl.len()).sort("n", "status", descending=[True, False])
    ran = rows.filter(pl.col("verdict").is_in(("allow", "modify")), pl.col("kind").is_in(("call", "resumed")))
    left = ran.join(ended, on="decision_id", how="anti").select(pl.len())
    total, by_verdict, by_bundle, by_label, by_ending, unended = pl.collect_all(
        [totals, verdicts, bundles, labels, endings, left]
    )
    return Overview(
        **total.row(0, named=True),
        verdicts=dict(by_verdict.iter_rows()),
        bundles=by_bundle.to_dicts(),
        labels=dict(by_label.iter_rows()),
        endings=dict(by_ending.iter_rows()),
        open=unended.item(),
    )


def lines(lake: Lake) -> Iterator[str]:
    """Say what a lake holds, for a terminal."""
    view = lake.overview
    span = f", {view.first:%Y-%m-%d %H:%M} to {view.last:%Y-%m-%d %H:%M} UTC" if view.first else ""
    where = f"{count(view.sessions, 'session')} of {count(view.tenants, 'tenant')}"
    yield f"Lake {visible(shown(lake.uri))}"
    yield f"  {count(view.decisions, 'decision')} in {where}{span}"
    yield "  verdicts: " + ", ".join(f"{visible(name)} {n:,}" for name, n in view.verdicts.items())
    ended = [f"{visible(name.replace('_', ' '))} {n:,}" for name, n in view.endings.items()]
    if ended or view.open:
        yield "  outcomes: " + ", ".join([*ended, f"none yet {view.open:,}"] if view.open else ended)
    for each in view.bundles:
        yield f"  bundle {visible(each['name'])} {each['version'][:12]}: {count(each['decisions'], 'decision')}"
    if view.labels:
        yield "  labels: " + ", ".join(f"{visible(name)} {n:,}" for name, n in view.labels.items())
    for writer, position in sorted(lake.pins.ledgers.items()):
        beyond = lake.held_back.get(writer, 0)
        more = f"; {count(beyond, 'position')} beyond the pin" if beyond else ""
        yield f"  pinned: ledger {visible(writer)} at position {position:,}{more}"
