"""The same pass over a history, with what is sure of a row taken at once.

One rule: what is done here is what `workbench.closed_loop.sequence.Pass` does, on its own tracks, guards and
sessions; a row or outcome of which anything is in doubt, or that refers to another, is left to it.

A row is taken here where every breaker is closed for sure, and the most that may have been used leaves room in every
budget; its outcome, where the call runs for sure, ends as it ended, and there is nothing to give back.

Accepted: one long function. A pass takes one call after the other, and calling a function costs more than a step.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from workbench.closed_loop.entries import NO, NO_EFFECT, UNSURE, YES, End
from workbench.closed_loop.sequence import Pass

if TYPE_CHECKING:
    from collections.abc import Sequence

    from workbench.closed_loop.entries import Calls
    from workbench.closed_loop.rules import Ruleset
    from workbench.closed_loop.tracks import Guard, Track


class _Room(NamedTuple):
    """A budget."""

    number: int
    """Of the limit, among those of the rules; breakers first."""
    max: int
    scopes: Sequence[int]
    """By row."""
    tracks: dict[int, Track] | None
    """By scope; None: the session's own counter of calls."""
    asked: Sequence[int] | None
    """By row; None: one call, or where its use shows later one unit."""
    taken: Sequence[int] | None
    tells: int
    """What a reason says that a call asks for, where arguments do not say it."""
    place: int
    """Of its meter, among those that the rules read."""


class _Taking(NamedTuple):
    """A meter that a call is charged to before it runs."""

    scopes: Sequence[int]
    tracks: dict[int, Track]
    taken: Sequence[int] | None
    """By row; None: one each."""


class _Rules(NamedTuple):
    """A `Ruleset`, with what it looks at at hand."""

    rules: Ruleset
    guards: tuple[tuple[Sequence[int], dict[int, Guard]], ...]
    rooms: tuple[_Room, ...]
    takings: tuple[_Taking, ...]
    by_hand: bool
    """Whether budgets look at what the session's calls cost."""
    later: bool
    """Whether something is charged that shows when a call has ended."""
    windows: bool
    """Whether something is counted that a clock which goes back moves."""


class QuickPass(Pass):
    """A pass under way; see the module."""

    def __init__(
        self,
        calls: Calls,
        rulesets: Sequence[Ruleset],
        whole: Sequence[bool],
        ends: Sequence[tuple[Any, ...]],
        *,
        denied: bool,
        worded: bool = False,
    ) -> None:
        """Begin one; see `Pass`. `ends`: the outcomes of the log, each as an `End`."""
        super().__init__(calls, rulesets, whole, denied=denied, worded=worded)
        self.ends = ends
        self._plain = bytearray(len(calls.free))
        """Calls under way of which nothing is open but what breakers make of their end."""
        self._kept = bytearray(heir >= 0 for heir in calls.heir)
        """Calls that may have something to give back, or end as another did: what they take is kept."""
        for end in ends:
            if end[1] in NO_EFFECT:
                self._kept[end[0]] = 1
        self._quick = [self._at_hand(rules) for rules in rulesets]
        self._of_sessions = any(meter.of_session for rules in rulesets for meter in rules.read)

    def _at_hand(self, rules: Ruleset) -> _Rules:
        calls, rooms = self.calls, []
        for number, (budget, place) in enumerate(rules.judged, len(rules.breakers)):
            meter = budget.meter
            scopes, tracks = calls.per[meter.per], None if meter.of_session else self._tracks[meter.name]
            asked, taken = calls.asked.get(meter.measure), calls.taken.get(meter.measure)
            rooms.append(
                _Room(number, budget.max, scopes, tracks, asked, taken, int(not meter.is_after), place)
            )
        takings = [
            _Taking(calls.per[meter.per], self._tracks[meter.name], calls.taken.get(meter.measure))
            for meter in rules.meters
            if not meter.is_after
        ]
        return _Rules(
            rules,
            tuple((calls.per[each.per], self._guards[each.key]) for each in rules.breakers),
            tuple(rooms),
            tuple(takings),
            any(meter.of_session and meter.is_after for meter in rules.read),
            any(meter.is_after for meter in rules.meters),
            any(meter.window_ms is not None for meter in rules.meters),
        )

    def through(self, events: Sequence[int]) -> None:  # noqa: C901, PLR0912, PLR0915 - see the module
        """Take some events: rows, and outcomes as -1 - place in `ends`."""
        calls, quick, ends, plain = self.calls, self._quick, self.ends, self._plain
        frees, waitings, earlies, rans, knowns = calls.free, calls.asks, calls.early, calls.ran, calls.known
        places, resumes, keys, ats, ledgers = calls.rules, calls.resumes, calls.key, calls.at, calls.ledger
        runs, waits, kept, of_sessions = self.found.runs, self._waits, self._kept, self._of_sessions
        clock, began, sessions = self._clock, self._began, self._sessions
        then, worded, plains = calls.then.get("calls", ()), self.worded, calls.plain
        refused, shown = self.found.refused, self._shown
        for row in events:
            if row < 0:
                end = ends[-1 - row]
                row = end[0]  # noqa: PLW2901 - it is of that row
                if plain[row]:
                    plain[row] = 0
                    status = "failed" if end[5] else end[1]
                    for scopes, guards in quick[places[row]].guards:
                        guard = guards[scopes[row]]
                        if not guard.counts(status, end[3]):
                            guard.ended(str(row), status, end[3])
                elif runs[row] or resumes[row] >= 0 or end[4] is not None:
                    self.end(End._make(end))
                continue
            if resumes[row] >= 0 or keys[row] >= 0:
                self.decide(row)
                continue
            now, ledger, place, free, waiting = ats[row], ledgers[row], places[row], frees[row], waitings[row]
            if ledger not in began:
                began[ledger] = now
            sure = False
            if place >= 0 and not earlies[row]:
                rule = quick[place]
                sure = not rule.by_hand
                for scopes, guards in rule.guards:
                    guard = guards.get(scopes[row]) or self._guard_of(row, rule, guards)
                    if guard.is_lost or guard.circuit.state != "closed":
                        sure = False
                exact, refusal, said = worded and plains[row], None, -1
                if sure:
                    for number, most, scopes, tracks, asked, taken, tells, at in rule.rooms:
                        scope = scopes[row]
                        if tracks is None:
                            had, session = then[row], sessions.get(scope)
                            if had is None:
                                sure = exact = False
                                break
                            low = high = had
                            if session is not None:
                                low += session.low.get("calls", 0)
                                high += session.high.get("calls", 0)
                        else:
                            used = (tracks.get(scope) or self._track(row, rule.rules.read[at])).used(now)
                            if used.high is None:
                                sure = exact = False
                                break
                            low, high = used.low, used.high
                        if asked is None or taken is None:
                            asks, wants = tells, 1
                        else:
                            asks, wants = asked[row], taken[row]
                            if asks < 0 or wants < 0:
                                sure = exact = False
                                break
                            wants = max(wants, asks)
                        if low != high:
                            exact = False
                        if (
                            high + wants > most or low + wants > most
                        ):  # a clock that goes back may move one alone
                            sure = False
                            if refusal is None and low + (1 if asked is None else asks) > most:
                                refusal = place, number, low, asks, 0
                    if exact and refusal is not None and refusal[:2] in shown:
                        refused[refusal].append(row)
                        said = YES
                if not sure:
                    if said < 0:
                        said = self._judge(row, rule.rules)
                    if said == YES:
                        free = waiting = NO
                    elif said == UNSURE:
                        free, waiting = free and UNSURE, waiting and UNSURE
            waits[row] = waiting
            runs[row] = free
            if of_sessions and (free != rans[row] or (free and not knowns[row])):
                self._count(row, free)
            if place >= 0:
                if free:
                    rule = quick[place]
                    if sure and free == YES and knowns[row] and not kept[row] and not rule.later:
                        for scopes, tracks, taken in rule.takings:
                            amount = 1 if taken is None else taken[row]
                            if amount > 0:
                                tracks[scopes[row]].add(amount, amount, now)
                        plain[row] = 1 if rule.guards else 0
                    else:
                        self._begin(row, rule.rules, free)
                elif now < clock.get(ledger, now):
                    rule = quick[place]
                    behind = rule.windows
                    for scopes, guards in rule.guards:
                        circuit = (guards.get(scopes[row]) or self._guard_of(row, rule, guards)).circuit
                        behind = behind or circuit.since > now or bool(circuit.probes)
                    if behind:
                        self._rewind(row, rule.rules)
            clock[ledger] = max(now, clock.get(ledger, 0))

    def _guard_of(self, row: int, rule: _Rules, guards: dict[int, Guard]) -> Guard:
        """A guard that is not there yet."""
        places = [place for place, (_, mine) in enumerate(rule.guards) if mine is guards]
        return self._guard(row, rule.rules.breakers[places[0]])
