"""Limits: the stage between context and policy, from `limits.toml`.

One rule: a limit's verdict follows from recorded inputs alone (`Request.limit_inputs`), so that replay can take it
again, under these limits or others. What was counted is recorded by what it measures (`Meter.name`), never by the
name of a limit: other bounds over the same measure are judged from the same record, and a counter that the record
does not have is *missing*, never zero.

In this order: an emergency stop, an open breaker, a loop, then budgets as the file has them. The file's format is
read by `runtime.limits_file`, counters are read and moved by `runtime.metering`. Nothing here reads a clock or a
ledger.

Accepted: what a call costs is known after it, so budgets of cost, tokens and wall time refuse the first call *after*
they are spent; money in arguments is judged as the request stands, before a policy could have cut it down, and again
after a patch.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import lru_cache
from typing import TYPE_CHECKING, Final, Literal, NamedTuple

from runtime.canonical import Json, canonical, sha256
from runtime.context import Refusal

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from runtime.request import Request

Per = Literal["session", "principal", "on_behalf_of", "tenant", "tool"]
"""Whose calls are counted together, always inside one tenant. `on_behalf_of` leaves out calls for nobody."""

AFTER: Final[Mapping[str, tuple[str, ...]]] = {
    "cost_micros": ("cost_micros",),
    "tokens": ("input_tokens", "output_tokens"),
    "wall_ms": ("wall_ms",),
}
"""Measures that are known once a call has ended, and the counters of a session they are made of."""
_TOTALS: Final = {"calls": ("calls",), **AFTER}
EVERY: Final = ("*",)

ARGS: Final = "args."
"""How a measure of money in arguments begins: `args.amount_cents`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Meter:
    """What is counted, and over whom: the identity of a counter."""

    per: Per = "session"
    measure: str = "calls"
    """`calls` let run, `cost_micros`, `tokens`, `wall_ms`, or `args.<path>`, an integer of what policies see."""
    window_ms: int | None = None
    """The last so many milliseconds; None: for ever."""
    actions: tuple[str, ...] = EVERY
    """Tools whose calls are counted, sorted; `*` is all."""
    name: str = field(init=False, compare=False)
    """How it is recorded, and named where it is missing."""

    def __post_init__(self) -> None:
        window = "" if self.window_ms is None else f" in {duration(self.window_ms)}"
        of = "" if self.actions == EVERY else f" of {canonical(list(self.actions))}"
        object.__setattr__(self, "name", f"{self.measure} per {self.per}{window}{of}")

    def counts(self, tool: str) -> bool:
        """Whether calls of `tool` are counted."""
        return self.actions == EVERY or tool in self.actions

    @property
    def of_session(self) -> bool:
        """Whether it is one of the session's own counters, which every decision records."""
        return (
            self.per == "session" and self.window_ms is None and self.counts_all and self.measure in _TOTALS
        )

    @property
    def counts_all(self) -> bool:
        """Whether calls of every tool are counted."""
        return self.actions == EVERY

    @property
    def is_after(self) -> bool:
        """Whether a call's share is known only once it has ended."""
        return self.measure in AFTER

    def scope(self, request: Request) -> str | None:
        """Return whom a request is counted for, inside its tenant; None: for nobody."""
        match self.per:
            case "session":
                return request.session_id
            case "principal":
                return str(request.principal)
            case "on_behalf_of":
                return None if request.on_behalf_of is None else str(request.on_behalf_of)
            case "tool":
                return request.tool
            case "tenant":
                return ""

    def used(self, inputs: Mapping[str, Json]) -> int | None:
        """Return what was used before a call; None: the record does not say."""
        return _total(self.measure, inputs) if self.of_session else _whole(inputs, "meters", self.name)

    def at_most(self, inputs: Mapping[str, Json]) -> int | None:
        """Return what it cannot have been more than: the session's counter of all calls; None: not known."""
        return _total(self.measure, inputs) if self.per == "session" and self.measure in _TOTALS else None

    def asks(self, projection: Json) -> int | None:
        """Return what a call would use up; 0 where that shows afterwards, None: it is no amount.

        Args:
            projection: the arguments as policies see them, so a declared scaled integer is there; absent counts 0.
        """
        if self.measure == "calls":
            return 1
        if self.is_after:
            return 0
        for part in self.measure.removeprefix(ARGS).split("."):
            projection = projection.get(part) if isinstance(projection, dict) else None
        if projection is None:
            return 0
        return projection if type(projection) is int and projection >= 0 else None


def _total(measure: str, inputs: Mapping[str, Json]) -> int | None:
    total = 0
    for name in _TOTALS[measure]:
        value = inputs.get(name)
        if not isinstance(value, int):
            return None
        total += value
    return total


def _whole(inputs: Mapping[str, Json], kind: str, name: str) -> int | None:
    found = inputs.get(kind)
    value = found.get(name) if isinstance(found, dict) else None
    return value if isinstance(value, int) else None


class Judgement(NamedTuple):
    """What the limits stage says of one derivation of a request."""

    refusal: Refusal | None = None
    missing: tuple[str, ...] = ()
    """Replay only: counters that the record does not have, and that it hangs on. The runtime reads all it needs."""


FREE: Final = Judgement()


@dataclass(frozen=True, slots=True, kw_only=True)
class Budget:
    """At most `max` of what its meter counts."""

    name: str
    max: int
    """In the measure's unit; the call that would exceed it is blocked by `limits`."""
    actions: tuple[str, ...] = EVERY
    """Tools whose calls are refused when the budget is spent; `*` is all."""
    meter: Meter = Meter()

    def applies(self, tool: str) -> bool:
        """Whether a call of `tool` is refused when the budget is spent."""
        return "*" in self.actions or tool in self.actions

    def judge(self, request: Request, projection: Json) -> Judgement:
        """Say whether a call would exceed it."""
        asked = self.meter.asks(projection)
        if asked is None:
            return Judgement(_refused("amount_invalid", self.no_amount))
        used, inputs = self.meter.used(request.limit_inputs), request.limit_inputs
        if used is None:
            most = self.meter.at_most(inputs)
            sure = most is not None and not self.exceeded(most, asked)
            return FREE if sure else Judgement(missing=(f"limits.{self.meter.name}",))
        if not self.exceeded(used, asked):
            return FREE
        code = "budget_spent" if self.meter.window_ms is None else "rate_exceeded"
        return Judgement(_refused(code, self.message(used, asked)))

    def exceeded(self, used: int, asked: int) -> bool:
        """Whether a call that asks for so much is refused; where its use shows later, whether all is spent."""
        return used >= self.max if self.meter.is_after else used + asked > self.max

    def message(self, used: int | str, asked: int | str) -> str:
        """Return the reason for people; see `exceeded`."""
        meter = self.meter
        over = f" per {meter.per}" + ("" if meter.window_ms is None else f" in {duration(meter.window_ms)}")
        of = "" if meter.counts_all else f" of {', '.join(meter.actions)}"
        allowed = f"budget {self.name!r} allows {self.max}"
        if meter.measure == "calls":
            return f"{allowed} calls{over}{of}, {used} ran"
        if meter.is_after:
            return f"{allowed} {meter.measure}{over}{of}, {used} used"
        return f"{allowed} of `{meter.measure}`{over}{of}, {used} used, and this call asks for {asked}"

    @property
    def no_amount(self) -> str:
        """Return the reason of a call whose amount cannot be counted."""
        return f"budget {self.name!r} needs `{self.meter.measure}` to be an integer of 0 or more"


@dataclass(frozen=True, slots=True, kw_only=True)
class Loop:
    """The same call, or cycle of calls, comes again at most `max_repeats` times in a row in one session.

    Attempts count whatever their verdict. Attempts of other tools than its `actions` are not looked at.
    """

    name: str
    max_repeats: int
    """Of a call: how often it may follow itself. Of A-B-A-B: how often the whole cycle may follow itself."""
    max_period: int = 1
    """Calls in the longest cycle that is looked for; 1: the same call again and again."""
    actions: tuple[str, ...] = EVERY

    @property
    def key(self) -> str:
        """Whose attempts it looks at, as it is recorded."""
        return actions_key(self.actions)

    def applies(self, tool: str) -> bool:
        """Whether it looks at calls of `tool`."""
        return "*" in self.actions or tool in self.actions

    def judge(self, request: Request) -> Judgement:
        """Say whether a call closes one cycle too many."""
        cycles = request.limit_inputs.get("cycles")
        found = cycles.get(self.key) if isinstance(cycles, dict) else None
        if not isinstance(found, list):
            return Judgement(missing=(f"limits.cycles of {self.key}",))
        for period, matched in enumerate(found[: self.max_period], 1):
            repeats = matched // period if isinstance(matched, int) else 0
            if repeats > self.max_repeats:
                return Judgement(_refused("loop_detected", self.message(period, repeats)))
        return FREE

    def message(self, period: int, repeats: int | str) -> str:
        """Return the reason for people."""
        what = "the same call" if period == 1 else f"a cycle of {period} calls"
        return f"loop {self.name!r} allows {self.max_repeats} repeats in a row, of {what} this is number {repeats}"


def actions_key(actions: tuple[str, ...]) -> str:
    """Return how attempts of some tools are recorded together."""
    return "*" if "*" in actions else canonical(list(actions))


@dataclass(frozen=True, slots=True, kw_only=True)
class Breaker:
    """Refuses calls while too many of the last ones failed; see `runtime.breakers` for its states."""

    name: str
    per: Per = "tool"
    last: int = 20
    """Outcomes that are looked at."""
    min_calls: int = 5
    """Outcomes below which it does not open."""
    max_error_ppm: int = 500_000
    """Failures in a million that it bears; more of them open it."""
    open_ms: int = 60_000
    """How long it refuses every call, before it lets probes through."""
    probe_ms: int = 60_000
    """How long a probe may take; one that has no outcome by then has failed."""
    probes: int = 1
    """Probes at a time, and successes among them that close it."""
    actions: tuple[str, ...] = EVERY
    key: str = field(init=False, compare=False)
    """Its state's identity: all but its name."""

    def __post_init__(self) -> None:
        of = "" if self.actions == EVERY else f" of {canonical(list(self.actions))}"
        key = (
            f"breaker per {self.per}{of}: more than {self.max_error_ppm} ppm of {self.last}, at least "
            f"{self.min_calls}; open {duration(self.open_ms)}; {self.probes} probes of {duration(self.probe_ms)}"
        )
        object.__setattr__(self, "key", key)

    def applies(self, tool: str) -> bool:
        """Whether it guards calls of `tool`."""
        return "*" in self.actions or tool in self.actions

    def scope(self, request: Request) -> str | None:
        """Return whose outcomes are looked at together; None: nobody's."""
        return Meter(per=self.per).scope(request)

    def judge(self, request: Request) -> Judgement:
        """Say whether it lets a call through."""
        found = request.limit_inputs.get("breakers")
        state = found.get(self.key) if isinstance(found, dict) else None
        match state:
            case {"state": "closed"}:
                return FREE
            case {"state": "open", "until": int(until), "calls": int(calls), "errors": int(errors)}:
                return Judgement(_refused("breaker_open", self.is_open(_moment(until), errors, calls)))
            case {"state": "half_open", "probing": int(probing)}:
                waits = probing >= self.probes
                return Judgement(_refused("breaker_open", self.is_half_open(probing))) if waits else FREE
            case _:
                return Judgement(missing=(f"limits.{self.key}",))

    def is_open(self, until: str, errors: int | str, calls: int | str) -> str:
        """Return the reason for people."""
        return f"breaker {self.name!r} is open until {until}: {errors} of the last {calls} calls failed"

    def is_half_open(self, probing: int | str) -> str:
        """Return the reason for people."""
        return f"breaker {self.name!r} is half open: {probing} probes are under way, others wait for them"


def _refused(code: str, message: str) -> Refusal:
    return Refusal("limits", code, message)


def _moment(millis: int) -> str:
    return (
        datetime.fromtimestamp(millis / 1000, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
    )


@lru_cache(maxsize=256)
def duration(millis: int) -> str:
    """Return a duration in words that `limits.toml` takes, one for each length.

    Example:
        >>> duration(90_000), duration(86_400_000), duration(1_500)
        ('90s', '1d', '1500ms')
    """
    for unit, size in (("d", 86_400_000), ("h", 3_600_000), ("m", 60_000), ("s", 1_000)):
        if millis % size == 0:
            return f"{millis // size}{unit}"
    return f"{millis}ms"


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """A parsed `limits.toml`; an empty file is no limits."""

    text: str
    budgets: tuple[Budget, ...] = ()
    loops: tuple[Loop, ...] = ()
    breakers: tuple[Breaker, ...] = ()
    watched: frozenset[str] = frozenset()
    """Members of `context.session` that the bundle's policies read: a decision holds only while these do."""

    @property
    def hash(self) -> str:
        """Hash of the canonical text."""
        return sha256(self.text)

    def judge(self, request: Request, projection: Json) -> Judgement:
        """Judge one derivation of a request. Pure; a refusal that is sure goes before what is missing.

        Args:
            request: with its recorded inputs.
            projection: the arguments of this derivation, as policies see them.
        """
        if not (self.budgets or self.loops or self.breakers or request.limits.get("stopped") is not None):
            return FREE
        missing: tuple[str, ...] = ()
        for found in self._judgements(request, projection):
            if found.refusal is not None:
                return found
            missing += found.missing
        return Judgement(missing=missing) if missing else FREE

    def _judgements(self, request: Request, projection: Json) -> Iterator[Judgement]:
        if (stop := request.limits.get("stopped")) is not None:
            yield Judgement(_refused("stopped", stop_message(stop)))
        tool = request.tool
        for breaker in self.breakers:
            if breaker.applies(tool) and breaker.scope(request) is not None:
                yield breaker.judge(request)
        for loop in self.loops:
            if loop.applies(tool):
                yield loop.judge(request)
        for budget in self.budgets:
            if budget.applies(tool) and budget.meter.scope(request) is not None:
                yield budget.judge(request, projection)


def stop_message(stop: Json) -> str:
    """Return the reason of a stopped call, for people."""
    told = stop if isinstance(stop, dict) else {}
    return f"emergency stop of {told.get('what')} by {told.get('by')}: {told.get('reason')}"
