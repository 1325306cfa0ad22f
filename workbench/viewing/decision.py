"""One decision in full: what was asked, by whose authority, what was known, which clause decided, what came of it.

One rule: all of it is read and decided again from the one row and what it refers to (`workbench.explaining.one`), so
it says what a replay says, whatever the lake holds, in the same time.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any

from workbench.asked import Asked
from workbench.errors import DecisionNotFound
from workbench.explaining.one import decided
from workbench.explaining.why import Why
from workbench.explaining.why import asked_axes as asked_by
from workbench.explaining.why import otherwise_said as otherwise
from workbench.faces import Faces, Page, cell
from workbench.masking import leaving
from workbench.parts import HUES
from workbench.viewing import decision_view
from workbench.viewing.decision_evidence import checks
from workbench.viewing.decision_record import read

if TYPE_CHECKING:
    from collections.abc import Mapping

    from runtime.canonical import Json
    from workbench.explaining.one import Side
    from workbench.lake import Lake
    from workbench.parts import Hue
    from workbench.replay import Replay
    from workbench.viewing.decision_evidence import Check
    from workbench.viewing.decision_record import Record


@dataclass(frozen=True, eq=False, repr=False, kw_only=True)
class Decision(Faces):
    """One recorded decision, and what another version says of it. Made by `decision`."""

    record: Record = field(repr=False)
    """What the lake holds of it."""
    base: Side = field(repr=False)
    """As recorded: decided again by its own policies."""
    cand: Side = field(repr=False)
    """Under the replay; the same as `base` where none was given."""
    evidence: tuple[Check, ...] = field(repr=False)
    """What was checked of its evidence, and what was not."""
    notes: tuple[str, ...] = ()

    @property
    def id(self) -> str:
        """Its id."""
        return self.record.id

    @property
    def row(self) -> Mapping[str, Any]:
        """Its row of `decisions`, all columns."""
        return self.record.row

    @property
    def verdict(self) -> str:
        """As recorded: `allow`, `modify`, `approve`, `block`."""
        return str(self.row["verdict"])

    @property
    def replayed(self) -> bool:
        """Whether another version was given."""
        return self.cand is not self.base

    @property
    def bundle_name(self) -> str:
        """Name of the bundle that decided."""
        return "not in the lake:" if self.base.bundle is None else self.base.bundle.name

    @cached_property
    def why(self) -> Why:
        """Clause by clause; see `workbench.explaining.why.Why`."""
        return Why(self.id, self.base, self.cand, self.notes)

    def page(self) -> Page:
        """What it says."""
        row = self.row
        resource = decision_view.uid(row, "resource")
        lines = decision_view.sentences(self.why)
        return Page(
            kind=f"decision {self.id}",
            title=f"{row['tool']}" + (f" on {resource}" if resource else ""),
            lines=lines if self.replayed else lines[1:],
            parts=tuple(decision_view.parts_of(self)),
            next=("decision.why", "decision.as_dict()", "decision.to_html('decision.html')"),
            pins={
                "decision": self.id,
                "bundle": row["bundle_version"],
                "ledger": f"{row['writer']} at {row['position']:,}",
            },
            badges=tuple(self._badges()),
            lead=99,
        )

    def _badges(self) -> list[tuple[str, Hue]]:
        found: list[tuple[str, Hue]] = [(self.verdict, HUES.get(self.verdict, "plain"))]
        if self.replayed:
            now = self.cand.verdict
            found.append((f"now {now}" if now != self.verdict else f"{now} again", HUES.get(now, "note")))
        elif self.base.status != "decided":
            found.append((self.base.status, "note"))
        if self.record.is_shadow:
            found.append(("shadow", "plain"))
        if any(each.result == "broken" for each in self.evidence):
            found.append(("evidence broken", "bad"))
        return found

    def as_dict(self) -> dict[str, Json]:
        """All of it, as JSON, masked as all that leaves: the row, outcomes, links, evidence, and `why`."""
        told: dict[str, Any] = {
            "decision": _plain(self.row),
            "outcomes": [_plain(each) for each in self.record.events],
            "links": [_plain(each) for each in self.record.links],
            "evidence": [each._asdict() for each in self.evidence],
            "why": self.why.as_dict(),
        }
        return dict(leaving(told))  # type: ignore[arg-type]  # what was JSON stays JSON


def _plain(row: Mapping[str, Any]) -> dict[str, Json]:
    """A row as JSON: times as ISO 8601, UTC."""
    kept = leaving(row)
    return {name: _json(value) for name, value in kept.items()}


def _json(value: Any) -> Json:
    return value if value is None or isinstance(value, str | int | float | list | dict) else str(value)


def decision(lake: Lake, decision_id: str, *, replay: Replay | None = None) -> Decision:
    """Show one decision in full.

    Args:
        lake: the pinned lake.
        decision_id: its id, or the first characters of it where they fit one only.
        replay: another version to set beside what was recorded; None: what was recorded.

    Raises:
        DecisionNotFound: none, or several; names ids that are near. Or a shadow decision is asked for with a replay,
            which leaves those out.
        ReplayFailure: the replay does not keep what it was asked for; says what to call.

    Cost: two rounds of reads and one evaluation, whatever the lake holds: 0.3 s on a million decisions.
    """
    record = read(lake, decision_id)
    if replay is not None and record.is_shadow:
        raise DecisionNotFound(f"decision {record.id} was made by a shadow bundle; replay leaves those out")
    base = decided(lake, record.frame, Asked())
    cand = base if replay is None else decided(lake, record.frame, asked_by(replay))
    note = None if replay is None else otherwise(replay, cand, record.id)
    return Decision(
        record=record,
        base=base,
        cand=cand,
        evidence=checks(record, base),
        notes=() if note is None else (note,),
    )


def decision_html(lake: Lake, decision_id: str, *, replay: Replay | None = None) -> str:
    """Return one decision in full as an HTML fragment with its styles, for a notebook cell or a widget.

    Args: as `decision`.

    Raises: as `decision`.

    Cost: as `decision`; the fragment is bounded, whatever the record holds.
    """
    return cell(decision(lake, decision_id, replay=replay).page())


def styles() -> str:
    """Return the styles of all fragments, as one `<style>` element: once a document is enough."""
    from workbench.report import rendered as render  # noqa: PLC0415 - Altair comes with it

    return render("_style.html.j2", {})
