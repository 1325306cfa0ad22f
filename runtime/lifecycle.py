"""The life of an action, as data: every state it can be in, and every step it can take.

One rule: everything that moves an action between states goes through `TRANSITIONS`; what is not in it is refused.

An action begins in the transaction that decides that it may run, and ends with an execution outcome. Its state is
what a crash leaves behind, so each says what is then known of the effect, and `RECOVERY` what follows from it.

```
read, idempotent   started ─────────────────────────────▶ succeeded | failed | cancelled
compensable        started ──┬──────────────────────────▶ succeeded | failed | cancelled
                             └▶ undoing ────────────────▶ compensated
staged             preparing ──▶ staged ──▶ committing ─▶ succeeded
                       └────────────┴───────────┴▶ aborting ─▶ aborted
doubt              started | committing | undoing ──▶ in_doubt ──▶ whatever its tool, or a person, says
```

Coming into `aborting` already records the outcome `aborted`: that nothing takes effect is known from then on. The
action leaves it when its tool has been told.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, Literal, NamedTuple, assert_never

if TYPE_CHECKING:
    from collections.abc import Mapping

    from runtime.trace import ExecutionStatus

Effect = Literal["read", "idempotent", "staged", "compensable"]
"""What a tool does to the world. `read` nothing; `idempotent` once per idempotency key, by its own promise; `staged`
nothing before its commit; `compensable` at once, and can be undone."""

State = Literal["started", "preparing", "staged", "committing", "aborting", "undoing", "in_doubt"]
"""`started` the tool may be running; `preparing` it may be preparing, and nothing is committed; `staged` prepared,
guards judge; `committing` the commit may have been sent; `aborting` nothing was committed, `aborted` is recorded, and
the tool may have still to be told; `undoing` the undo may have been sent; `in_doubt` nobody knows whether it took
effect."""

FIRST: Final[Mapping[Effect | None, State]] = {
    None: "started", "read": "started", "idempotent": "started", "compensable": "started",
    "staged": "preparing",
}  # fmt: skip
"""The state an action begins in; null: its tool declares no effect."""

TRANSITIONS: Final[Mapping[State, frozenset[State | ExecutionStatus]]] = {
    "started": frozenset({"undoing", "in_doubt", "succeeded", "failed", "cancelled", "aborted"}),
    "preparing": frozenset({"staged", "aborting"}),
    "staged": frozenset({"committing", "aborting"}),
    "committing": frozenset({"in_doubt", "succeeded", "aborting"}),
    "aborting": frozenset({"aborted"}),
    "undoing": frozenset({"in_doubt", "compensated"}),
    "in_doubt": frozenset({"succeeded", "failed", "aborting", "compensated", "cancelled"}),
}
"""From each state, the states and the endings it may go to. An ending is final: nothing follows it."""

BROKEN: Final = frozenset({"raised", "timeout", "memory", "crashed"})
"""Of `ENDINGS`: reasons that say that a tool did not work, whatever became of its effect."""

RESOLUTIONS: Final[frozenset[ExecutionStatus]] = frozenset(
    {"succeeded", "failed", "aborted", "compensated", "cancelled"}
)
"""What a person may say became of an action in doubt."""


def after(state: State, status: ExecutionStatus) -> State | ExecutionStatus:
    """Return where an execution outcome takes an action: to its end, or to the state in which more is owed.

    Raises:
        KeyError: `TRANSITIONS` does not have that step.
    """
    following = TRANSITIONS[state]
    found: State | ExecutionStatus = "aborting" if status == "aborted" and "aborting" in following else status
    if found not in following or (state == "aborting"):
        raise KeyError(status)
    return found


class Conclusion(NamedTuple):
    """What is recorded of an action whose run was cut off."""

    status: ExecutionStatus
    ask: bool
    """Whether its tool may still know better."""


def concluded(state: State, effect: Effect | None) -> Conclusion | None:
    """Return what follows for an action that nobody runs any more; None: its outcome is recorded already.

    It is aborted where nothing was committed, and cancelled where it could only read. Anything else may have had its
    effect: it is in doubt, its tool is asked by `effect_id`, and it is never retried.
    """
    match state:
        case "preparing" | "staged":
            return Conclusion("aborted", ask=False)
        case "started" if effect == "read":
            return Conclusion("cancelled", ask=False)
        case "started" | "committing" | "undoing":
            return Conclusion("in_doubt", ask=True)
        case "aborting" | "in_doubt":
            return None
    assert_never(state)


ENDINGS: Final[Mapping[str, str]] = {
    "returned": "the tool returned",
    "raised": "the tool raised",
    "timeout": "it did not return within its time",
    "memory": "it needed more memory than it may",
    "crashed": "its process ended without a result",
    "cancelled": "the caller was interrupted",
    "given_up": "the caller was gone before the tool started",
    "guard_rejected": "an output guard said no: nothing was committed, it was undone, or its result was withheld",
    "guard_failed": "an output guard raised, or did not answer in time; same consequence",
    "recovered": "its process was gone; the next one to open the ledger concluded so",
    "asked": "its process was gone; the tool was asked, and said so",
    "resolved": "it was in doubt; a person said so",
    "denied": "an approver denied it",
    "expired": "nobody granted it in time",
}
"""Closed vocabulary of `outcomes.reason_code`, with its meaning."""
