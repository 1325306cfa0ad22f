"""Usage: what a call cost, as its tool reports it while it runs.

One rule: a report belongs to the call it is made in; where there is none under way it is an error, never lost.

A tool calls `report_usage(cost_micros=…, input_tokens=…, output_tokens=…)` as often as it likes; reports add up and
become columns of the call's outcome, from where budgets are charged. The call is found through a `ContextVar`, which
follows `asyncio` tasks and `asyncio.to_thread`; a thread that the tool starts itself has to run in a copy of its
context (`contextvars.copy_context().run`). A tool that calls another governed tool is not charged for it twice: each
call has its own usage.
"""

from __future__ import annotations

import threading
from contextvars import ContextVar
from dataclasses import dataclass
from typing import TYPE_CHECKING

from runtime.errors import GovernanceError

if TYPE_CHECKING:
    from runtime.canonical import Json

_MOST = 2**63 - 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Usage:
    """What a call used; None: not reported, which is not the same as nothing.

    Raises:
        ValueError: a number is negative, no integer, or does not fit 64 bits.
    """

    cost_micros: int | None = None
    """Millionths of the currency that the deployment accounts in."""
    input_tokens: int | None = None
    """As OpenTelemetry's `gen_ai.usage.input_tokens`."""
    output_tokens: int | None = None
    """As `gen_ai.usage.output_tokens`."""

    def __post_init__(self) -> None:
        for name in ("cost_micros", "input_tokens", "output_tokens"):
            value = getattr(self, name)
            if value is not None and (type(value) is not int or not 0 <= value <= _MOST):
                raise ValueError(f"`{name}` must be an integer from 0 to 2^63 - 1, got {value!r}")

    def __add__(self, other: Usage) -> Usage:
        """Return the sum; what neither reports stays not reported. A sum beyond 64 bits stays at their end."""
        return Usage(
            cost_micros=_sum(self.cost_micros, other.cost_micros),
            input_tokens=_sum(self.input_tokens, other.input_tokens),
            output_tokens=_sum(self.output_tokens, other.output_tokens),
        )

    def columns(self) -> dict[str, Json]:
        """Return the columns of the outcome; what was not reported is left out."""
        if self is NOTHING:
            return {}
        named: dict[str, Json] = {
            "cost_micros": self.cost_micros,
            "input_tokens": self.input_tokens,
            "output_tokens": self.output_tokens,
        }
        return {name: value for name, value in named.items() if value is not None}


def _sum(one: int | None, two: int | None) -> int | None:
    if one is None or two is None:
        return two if one is None else one
    return min(one + two, _MOST)


NOTHING = Usage()


class Collector:
    """Adds up what one call reports, from any thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._open = True
        self._reported = NOTHING

    def add(self, usage: Usage) -> None:
        """Add a report.

        Raises:
            GovernanceError: the call has ended, and its last outcome is recorded.
        """
        with self._lock:
            if not self._open:
                raise GovernanceError(
                    f"{usage} is reported after its call has ended; report it before the tool returns"
                )
            self._reported += usage

    def take(self, *, last: bool = True) -> Usage:
        """Return what was reported and not taken before, for an outcome.

        Args:
            last: no further outcome will come; what is reported from now on is an error. Not where the call was given
                up and may be running still.
        """
        with self._lock:
            self._open = self._open and not last
            taken, self._reported = self._reported, NOTHING
            return taken


_collecting: ContextVar[Collector | None] = ContextVar("redecide_usage", default=None)
"""The call under way in this context."""


class collecting:  # noqa: N801 - used as a context manager made by a function is
    """Have `collector` take what is reported in the body, and in tasks and threads that run in copies of its context.

    It may be left in another context than it was entered in: a generator that is closed elsewhere, say.
    """

    __slots__ = ("_before", "_collector")

    def __init__(self, collector: Collector) -> None:
        self._collector = collector
        self._before: Collector | None = None

    def __enter__(self) -> None:
        self._before = _collecting.get()
        _collecting.set(self._collector)

    def __exit__(self, *raised: object) -> None:
        if _collecting.get() is self._collector:
            _collecting.set(self._before)


def report_usage(
    usage: Usage | None = None,
    *,
    cost_micros: int | None = None,
    input_tokens: int | None = None,
    output_tokens: int | None = None,
) -> None:
    """Report what the call under way has used; reports of one call add up.

    Args:
        usage: a report made elsewhere; added to what the other arguments say.
        cost_micros: millionths of the currency.
        input_tokens: tokens sent to a model.
        output_tokens: tokens it answered with.

    Raises:
        GovernanceError: no governed call is under way in this context.
        ValueError: a number is negative or no integer.
    """
    told = Usage(cost_micros=cost_micros, input_tokens=input_tokens, output_tokens=output_tokens)
    collector = _collecting.get()
    if collector is None:
        raise GovernanceError(
            "usage is reported outside of a governed call; report it while the tool runs, and run threads of its own "
            "in `contextvars.copy_context()`"
        )
    collector.add(told if usage is None else told + usage)


__all__ = ["NOTHING", "Collector", "Usage", "collecting", "report_usage"]
