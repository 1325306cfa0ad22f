"""A lake at a glance: what its repr says."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import polars as pl

from runtime.trace import DECISIONS, OUTCOMES
from workbench.progress import progress
from workbench.texts import count, shorten, visible
from workbench.tracking import shown

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from datetime import datetime

    from workbench.lake import Lake

MOST = 12
"""Bundles, labels and ledgers that are named."""
MAX_NAME = 60
MAX_CONDITION = 400


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
    """Count what is in a lake at its pin: one pass over a few columns of `decisions`, one over `outcomes`."""
    with progress(None, "reading what is in the lake"):
        counted, sessions, calls = _decisions(lake)
        ended = _endings(lake)
        names = lake.bundles.select("name", version="bundle_version").collect()
        labels = _about(lake, lake.labels).group_by("label").agg(n=pl.len()).sort("label").collect()
    by_bundle = counted.group_by(version="bundle_version").agg(decisions=pl.col("n").sum())
    bundles = by_bundle.join(names, on="version", how="left").select(
        pl.col("name").fill_null("not in the lake"), "decisions", "version"
    )
    return Overview(
        decisions=int(counted["n"].sum()),
        sessions=sessions,
        tenants=counted["tenant"].n_unique(),
        first=counted["first"].min(),  # type: ignore[arg-type]  # a column of times
        last=counted["last"].max(),  # type: ignore[arg-type]  # as above
        verdicts=_most_first(counted.group_by("verdict").agg(pl.col("n").sum())),
        bundles=bundles.sort("decisions", "name", "version", descending=[True, False, False]).to_dicts(),
        labels=dict(labels.iter_rows()),
        endings=_most_first(ended.group_by("status").agg(n=pl.len())),
        open=calls.join(ended, on="decision_id", how="anti").height,
    )


def _decisions(lake: Lake) -> tuple[pl.DataFrame, int, pl.DataFrame]:
    """Counts by tenant, verdict and bundle; how many sessions; and ids of the calls that were let run."""
    every = lake.table(DECISIONS).filter(
        lake.pins.holds
    )  # in no order: sorting a million rows takes a second
    rows = every if lake.chosen is None else every.filter(lake.chosen)
    counted = rows.group_by("tenant", "verdict", "bundle_version").agg(
        n=pl.len(), first=pl.col("decided_at").min(), last=pl.col("decided_at").max()
    )
    sessions = rows.group_by("tenant").agg(n=pl.col("session_id").n_unique())
    ran = rows.filter(pl.col("verdict").is_in(("allow", "modify")), pl.col("kind").is_in(("call", "resumed")))
    one, two, three = pl.collect_all([counted, sessions, ran.select("decision_id")])
    return one, int(two["n"].sum()), three


def _endings(lake: Lake) -> pl.DataFrame:
    """How each call ended: `decision_id`, `status`. Only where some have several outcomes is the last looked for."""
    rows = lake.table(OUTCOMES).filter(lake.pins.holds, pl.col("kind") == "execution")
    if lake.chosen is None:
        found = rows.select("decision_id", "status").collect()
        if found["decision_id"].hash().n_unique() == found.height:  # a tenth of what counting the ids takes
            return found
    return lake.executions.select("decision_id", "status").collect()


def _most_first(counted: pl.DataFrame) -> dict[str, int]:
    name, number = counted.columns
    return dict(counted.sort(number, name, descending=[True, False]).iter_rows())


def _about(lake: Lake, labels: pl.LazyFrame) -> pl.LazyFrame:
    """Labels of the decisions the lake is narrowed to, and of their sessions."""
    if lake.chosen is None:
        return labels
    of = lake.history.select("tenant", "session_id", "decision_id")
    one = labels.filter(pl.col("decision_id").is_not_null()).join(of, on="decision_id", how="semi")
    whole = labels.filter(pl.col("decision_id").is_null()).join(of, on=["tenant", "session_id"], how="semi")
    return pl.concat([one, whole])


def lines(lake: Lake) -> Iterator[str]:
    """Say what a lake holds, for a terminal: a few lines, whatever it holds."""
    view = lake.overview
    span = (
        f", {view.first:%Y-%m-%d %H:%M} to {view.last:%Y-%m-%d %H:%M} UTC" if view.first and view.last else ""
    )
    where = f"{count(view.sessions, 'session')} of {count(view.tenants, 'tenant')}"
    yield f"Lake {visible(shown(lake.uri))}"
    yield f"  {count(view.decisions, 'decision')} in {where}{span}"
    if lake.chosen is not None:
        yield f"  narrowed to decisions where {condition(lake)}"
    yield "  verdicts: " + ", ".join(few(view.verdicts))
    ended = list(few({name.replace("_", " "): n for name, n in view.endings.items()}))
    if ended or view.open:
        yield "  outcomes: " + ", ".join([*ended, f"none yet {view.open:,}"] if view.open else ended)
    for each in view.bundles[:MOST]:
        name = visible(shorten(each["name"], MAX_NAME))
        yield f"  bundle {name} {each['version'][:12]}: {count(each['decisions'], 'decision')}"
    if (more := len(view.bundles) - MOST) > 0:
        yield f"  {count(more, 'more bundle')} in `lake.bundles`"
    if view.labels:
        yield "  labels: " + ", ".join(few(view.labels))
    pinned = sorted(lake.pins.ledgers.items())
    for writer, position in pinned[:MOST]:
        beyond = lake.held_back.get(writer, 0)
        more_said = f"; {count(beyond, 'position')} beyond the pin" if beyond else ""
        yield f"  pinned: ledger {visible(writer)} at position {position:,}{more_said}"
    if (more := len(pinned) - MOST) > 0:
        yield f"  {count(more, 'more ledger')} in `lake.pins`"


def condition(lake: Lake) -> str:
    """What the lake is narrowed to, in few characters."""
    return visible(shorten(lake.narrowing.text, MAX_CONDITION))


def few(counted: Mapping[str, int]) -> Iterator[str]:
    """Yield names with their counts, the first of many; how many more there are, last."""
    for name, number in list(counted.items())[:MOST]:
        yield f"{visible(shorten(name, MAX_NAME))} {number:,}"
    if (more := len(counted) - MOST) > 0:
        yield f"and {more:,} more"
