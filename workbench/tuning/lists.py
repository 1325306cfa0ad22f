"""The two lists of a tuner: good work that the newest texts newly block, and harm that they newly let through."""

from __future__ import annotations

from typing import TYPE_CHECKING

from workbench.texts import count
from workbench.viewing.rows import Column, FrameRows

if TYPE_CHECKING:
    import polars as pl

    from workbench.live.change import Listed

COLUMNS = (
    Column(name="tool", title="Tool", kind="code", width=118),
    Column(name="from", title="Baseline", kind="state", width=88, help="verdict of the baseline"),
    Column(
        name="to", title="Now", kind="state", width=88, help="verdict of the newest version that was decided"
    ),
    Column(name="determining", title="Decided by", width=176, help="policies that determine it now"),
    Column(name="principal", title="Principal", width=150),
    Column(name="effect", title="Effect", kind="state", width=100, help="against what happened then"),
    Column(name="session_id", title="Session", kind="code", width=130),
    Column(name="step", title="Step", kind="number", width=64),
    Column(name="decided_at", title="Decided (UTC)", kind="time"),
    Column(name="tenant", title="Tenant", width=110),
    Column(name="decision_id", title="Decision", kind="code", width=190),
)
TITLES = {"blocked": "Good work newly held up", "released": "Harm newly let through"}


def rows_of(frame: pl.DataFrame) -> FrameRows:
    """Return one of a change's frames as rows of a table."""
    return FrameRows(frame, columns=COLUMNS)


def label_of(title: str, listed: Listed) -> str:
    """Say what a list holds: all of it is counted, the first rows are listed."""
    if not listed.decisions:
        return f"{title}: none"
    shown = listed.rows.height
    rest = f", {shown:,} of them listed" if shown < listed.decisions else ""
    return f"{title}: {count(listed.decisions, 'decision')} in {count(listed.sessions, 'session')}{rest}"
