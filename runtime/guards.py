"""Output guards: what judges an effect after its tool has run, and before it counts.

One rule: only a plain yes lets an effect through. A guard that says no, raises, does not answer in time, or answers
with anything else rejects it.

A guard is any callable that takes a `Proposal` and returns a bool, or (bool, reason); a coroutine function too. Where
it stands says what a no means: before the commit of a staged effect, nothing is committed; after a compensable one,
it is undone; after any other, the effect is what it is, and its result is withheld from the agent.
"""

from __future__ import annotations

import inspect
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

from runtime.canonical import canonical
from runtime.errors import RegistrationError
from runtime.foreign import message_of, repr_of, well_formed

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from runtime.canonical import Json
    from runtime.identity import Identity

REASON_CHARS = 2048
"""Longest reason of a guard that is recorded."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Proposal:
    """What a guard judges: an effect that was allowed, has been run or prepared, and does not count yet."""

    tool: str
    args: Mapping[str, Json]
    """As enforced: exactly what the tool was called with. Each guard gets its own copy."""
    result: Any
    """What the tool returned: of a staged one the handle its prepare returned."""
    decision_id: str
    effect_id: str
    """The action's stable id: one for all attempts under one idempotency key."""
    identity: Identity
    """Who acts, for whom, in which tenant."""


@dataclass(frozen=True, slots=True)
class Guard:
    """A guard as declared: give it to `Runtime.tool(guards=…)` to name it or bound its time."""

    fn: Callable[[Proposal], Any]
    name: str = ""
    """In the trace; default the function's name."""
    timeout: float | None = None
    """Seconds until it has rejected; None: however long it takes."""

    @property
    def is_async(self) -> bool:
        """Whether calling it only makes a coroutine."""
        return inspect.iscoroutinefunction(self.fn) or inspect.iscoroutinefunction(type(self.fn).__call__)


class Verdict(NamedTuple):
    """What one guard said."""

    guard: str
    passed: bool
    reason: str
    failed: bool = False
    """It raised, did not answer in time, or not with a verdict."""


def guards_of(declared: object, tool: str) -> tuple[Guard, ...]:
    """Check the guards a tool declares.

    Raises:
        RegistrationError: no list of callables, or a time that is none.
    """
    if isinstance(declared, str) or not hasattr(declared, "__iter__"):
        raise RegistrationError(
            f"tool {tool!r}: `guards` is a list of callables, got {repr_of(declared):.80}"
        )
    return tuple(_guard(each, tool) for each in declared)


def _guard(given: Any, tool: str) -> Guard:
    guard = given if isinstance(given, Guard) else Guard(given)
    if not callable(guard.fn):
        raise RegistrationError(f"tool {tool!r}: a guard is a callable, got {repr_of(guard.fn):.80}")
    check_seconds(guard.timeout, "a guard's `timeout`", tool)
    name = guard.name or getattr(guard.fn, "__name__", type(guard.fn).__name__)
    return Guard(guard.fn, well_formed(str(name)), guard.timeout)


def check_seconds(value: object, what: str, tool: str) -> None:
    """Refuse what is no time span.

    Raises:
        RegistrationError: it is neither None nor a positive, finite number.
    """
    if value is None:
        return
    number = isinstance(value, int | float) and not isinstance(value, bool)
    if not number or not math.isfinite(value) or value <= 0:  # type: ignore[arg-type,operator]  # a number
        raise RegistrationError(f"tool {tool!r}: {what} is a number of seconds above 0, got {value!r:.40}")


def verdict_of(guard: Guard, answer: object) -> Verdict:
    """Read a guard's answer: `True`, `False`, or either with a reason."""
    passed, reason = answer if isinstance(answer, tuple) and len(answer) == 2 else (answer, "")  # noqa: PLR2004 - a pair
    if not isinstance(passed, bool):
        return Verdict(
            guard.name,
            passed=False,
            reason=f"returned {repr_of(answer):.200}; a guard returns True or False, or (bool, reason)",
            failed=True,
        )
    text = "" if reason is None else reason if isinstance(reason, str) else repr_of(reason)
    return Verdict(guard.name, passed, well_formed(text)[:REASON_CHARS])


def failure_of(guard: Guard, error: BaseException) -> Verdict:
    """Return the rejection of a guard that did not answer."""
    text = f"{type(error).__name__}: {message_of(error)}"
    return Verdict(guard.name, passed=False, reason=text[:REASON_CHARS], failed=True)


def recorded(verdicts: Sequence[Verdict]) -> str | None:
    """Return the column `outcomes.guards`; None: there were none."""
    if not verdicts:
        return None
    said: list[Json] = [{"guard": v.guard, "passed": v.passed, "reason": v.reason} for v in verdicts]
    return canonical(said)


def rejection(verdicts: Iterable[Verdict]) -> Verdict | None:
    """Return the first rejection."""
    for verdict in verdicts:  # nearly always none
        if not verdict.passed:
            return verdict
    return None


def code_of(rejected: Verdict | None) -> str:
    """Return the `outcomes.reason_code` of what guards judged."""
    if rejected is None:
        return "returned"
    return "guard_failed" if rejected.failed else "guard_rejected"
