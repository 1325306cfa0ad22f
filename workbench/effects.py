"""Effects: what then ran against what would run now.

One rule: the table of DESIGN section 6 is data, total over its vocabularies; with `quarantined`, the effects of a
replay sum to its rows.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, get_args

if TYPE_CHECKING:
    from collections.abc import Mapping

Then = Literal["ran", "granted", "taken_back", "did_not_run", "not_granted", "waiting", "in_doubt"]
"""What the trace says became of the call: `ran` it ran, or failed while running; `taken_back` it was let run and left
nothing behind: aborted before its commit (an output guard rejected it, its caller or its process was gone), or undone
after (compensated); `granted` it waited, and the call that resumed it ran, or may have; `did_not_run` blocked, or a
duplicate; `not_granted` an approval was denied, or expired, or what it let run was taken back;
`waiting` for an approval; `in_doubt` let run, and no outcome says whether it did.

What came after the verdict is taken as recorded as long as the same action would be decided the same way: the same
guards judge the same effect, the same people are asked. So a self-replay changes nothing: an action that was taken
back would be again, an approval that was denied would be asked for again. What was compensated counts as not having
run: its lasting effect is none, though others may have seen it meanwhile."""

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
    ("granted", "same_action"): "same",
    ("granted", "another_action"): "altered",
    ("granted", "waits"): "same",
    ("granted", "does_not_run"): "prevented",
    ("granted", "undecidable"): "undecided",
    ("taken_back", "same_action"): "same",
    ("taken_back", "another_action"): "released",
    ("taken_back", "waits"): "escalated",
    ("taken_back", "does_not_run"): "same",
    ("taken_back", "undecidable"): "undecided",
    ("did_not_run", "same_action"): "released",
    ("did_not_run", "another_action"): "released",
    ("did_not_run", "waits"): "escalated",
    ("did_not_run", "does_not_run"): "same",
    ("did_not_run", "undecidable"): "undecided",
    ("not_granted", "same_action"): "released",
    ("not_granted", "another_action"): "released",
    ("not_granted", "waits"): "same",
    ("not_granted", "does_not_run"): "same",
    ("not_granted", "undecidable"): "undecided",
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

_BY_STATUS: Mapping[str, Then] = {
    "succeeded": "ran", "failed": "ran", "aborted": "taken_back", "compensated": "taken_back",
    "denied": "not_granted", "expired": "not_granted", "cancelled": "in_doubt", "in_doubt": "in_doubt",
}  # fmt: skip
"""By `runtime.trace.ExecutionStatus`; what was `cancelled` was interrupted: it may have had its effect."""
_WAITED: Mapping[str, Then] = dict.fromkeys(("denied", "expired", "aborted", "compensated"), "not_granted")
"""Of a call that waited, by its own last status, or by that of the call that resumed it; any other: `granted`. A
granted call is two decisions: the one that asked, and the one that ran, which has the outcome and its labels."""


def then_of(verdict: str, kind: str, status: str | None) -> Then:
    """Return what became of a recorded decision.

    Args:
        verdict: recorded verdict.
        kind: recorded kind; a `duplicate` never runs, it returns what its original returned.
        status: of its last execution outcome, or of that of the call that resumed it; None: none was recorded.
    """
    if kind == "duplicate" or verdict == "block":
        return "did_not_run"
    if verdict == "approve":
        return "waiting" if status is None else _WAITED.get(status, "granted")
    return "in_doubt" if status is None else _BY_STATUS.get(status, "in_doubt")


def now_of(verdict: str | None, *, kind: str, same_action: bool) -> Now:
    """Return what would become of a decision under the candidate.

    Args:
        verdict: replayed verdict; None: undecided.
        kind: recorded kind; a duplicate does not run, permitted again or not.
        same_action: whether the enforced action equals the recorded one.
    """
    match verdict:
        case None:
            return "undecidable"
        case "block":
            return "does_not_run"
        case _ if kind == "duplicate":
            return "does_not_run"
        case "approve":
            return "waits"
        case _:
            return "same_action" if same_action else "another_action"
