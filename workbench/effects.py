"""Effects: what then ran against what would run now.

One rule: the table of DESIGN section 6 is data, total over its vocabularies; with `quarantined`, the effects of a
replay sum to its rows.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, get_args

if TYPE_CHECKING:
    from collections.abc import Mapping

Then = Literal["ran", "did_not_run", "waiting", "in_doubt"]
"""What the trace says became of the call: `ran` it ran, or failed while running; `did_not_run` blocked, denied,
expired or aborted; `waiting` for an approval; `in_doubt` let run, and no outcome says whether it did."""

Now = Literal["same_action", "another_action", "waits", "does_not_run", "undecidable"]
"""What would become of it: runs with the same enforced action, with another, waits, does not run, cannot be told."""

Effect = Literal[
    "same", "altered", "held", "prevented", "released", "escalated", "unknown", "undecided", "quarantined"
]
"""`held` it would wait; `prevented` it would not run; `altered` it would run otherwise; `released` it would run and
did not; `escalated` it would wait and did not run; `unknown` it may have run; `undecided` the record cannot tell."""

EFFECTS: Mapping[tuple[Then, Now], Effect] = {
    ("ran", "same_action"): "same",
    ("ran", "another_action"): "altered",
    ("ran", "waits"): "held",
    ("ran", "does_not_run"): "prevented",
    ("ran", "undecidable"): "undecided",
    ("did_not_run", "same_action"): "released",
    ("did_not_run", "another_action"): "released",
    ("did_not_run", "waits"): "escalated",
    ("did_not_run", "does_not_run"): "same",
    ("did_not_run", "undecidable"): "undecided",
    ("waiting", "same_action"): "released",
    ("waiting", "another_action"): "released",
    ("waiting", "waits"): "same",
    ("waiting", "does_not_run"): "same",
    ("waiting", "undecidable"): "undecided",
    ("in_doubt", "same_action"): "same",
    ("in_doubt", "another_action"): "unknown",
    ("in_doubt", "waits"): "unknown",
    ("in_doubt", "does_not_run"): "unknown",
    ("in_doubt", "undecidable"): "undecided",
}
"""Effect by (then, now)."""

ALL_EFFECTS: tuple[Effect, ...] = get_args(Effect)
STOPPED: tuple[Effect, ...] = ("prevented", "held", "altered")
"""Effects by which something that ran would not have run as it did."""

_RAN = frozenset({"succeeded", "failed"})
_NOT_RUN = frozenset({"aborted", "expired", "denied"})


def then_of(verdict: str, kind: str, status: str | None) -> Then:
    """Return what became of a recorded decision.

    Args:
        verdict: recorded verdict.
        kind: recorded kind; a `duplicate` never runs, it returns what its original returned.
        status: status of its last execution outcome; None: none was recorded.
    """
    if kind == "duplicate" or verdict == "block" or status in _NOT_RUN:
        return "did_not_run"
    if status in _RAN:
        return "ran"
    return "waiting" if verdict == "approve" and status is None else "in_doubt"


def now_of(verdict: str | None, *, kind: str, same_action: bool) -> Now:
    """Return what would become of a decision under the candidate.

    Args:
        verdict: replayed verdict; None: undecided.
        kind: recorded kind; a duplicate that is permitted again still does not run.
        same_action: whether the enforced action equals the recorded one.
    """
    match verdict:
        case None:
            return "undecidable"
        case "block":
            return "does_not_run"
        case "approve":
            return "waits"
        case _ if kind == "duplicate":
            return "does_not_run"
        case _:
            return "same_action" if same_action else "another_action"
