"""One pass over a history, call by call: which calls would run, by what verdicts before them have left.

One rule: a row is judged by what stands before it, and moves what stands after it, as the runtime's meters do; three
answers, `NO`, `YES` and `UNSURE`, and what is unsure moves bounds and never a value.

A pass cannot be cut across rows: whom a budget of a tenant lets run hangs on every call before. It is Python a row,
some microseconds each, over integers that columns made; policies are not evaluated here.
"""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING

from runtime.limits import AFTER, ARGS
from workbench.closed_loop.entries import (
    NO,
    NO_EFFECT,
    UNSURE,
    YES,
    Calls,
    Charge,
    End,
    Open,
    Run,
    Session,
    Told,
)
from workbench.closed_loop.tracks import Ever, Guard, Sliding, Track, Used
from workbench.closed_loop.wording import numbers_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from runtime.limits import Breaker, Budget, Meter
    from workbench.closed_loop.entries import Refusal
    from workbench.closed_loop.rules import Ruleset
    from workbench.closed_loop.tracks import Nexts


class Pass:
    """A pass under way."""

    def __init__(
        self,
        calls: Calls,
        rulesets: Sequence[Ruleset],
        whole: Sequence[bool],
        *,
        denied: bool,
        worded: bool = False,
    ) -> None:
        """Begin one; `denied`: no approval was given; `worded`: note refusals that are sure by what refuses."""
        self.calls, self.rulesets, self.whole, self.denied = calls, rulesets, whole, denied
        self.worded = worded
        self._shown: set[tuple[int, ...]] = set()
        self._nexts: defaultdict[str, Nexts] = defaultdict(dict)
        size = len(calls.free)
        self.found = Run(bytearray(size), {})
        self._waits = bytearray(size)
        self._tracks: defaultdict[str, dict[int, Track]] = defaultdict(dict)
        """By meter, and scope."""
        self._guards: defaultdict[str, dict[int, Guard]] = defaultdict(dict)
        """By breaker, and scope."""
        self._sessions: dict[int, Session] = {}
        self._open: dict[int, Open] = {}
        self._done: set[int] = set()
        self._held: dict[int, tuple[int, int]] = {}
        """By key: whether it is held, and by which row."""
        self._held_then: set[int] = set()
        self._clock: dict[int, int] = {}
        self._began: dict[int, int] = {}

    # -- a decision ------------------------------------------------------------------------------------------------

    def decide(self, row: int) -> None:
        """Take the next decision."""
        calls, free = self.calls, self.calls.free[row]
        rules = self.rulesets[calls.rules[row]] if calls.rules[row] >= 0 else None
        self._began.setdefault(calls.ledger[row], calls.at[row])
        waits = calls.asks[row]
        if rules is not None and not calls.early[row]:
            said = self._judge(row, rules)
            if said == YES:
                free = waits = NO
            elif said == UNSURE:
                free, waits = free and UNSURE, waits and UNSURE
        self._waits[row] = waits
        runs = self._stands(row, free)
        self.found.runs[row] = runs
        self._count(row, runs)
        if rules is not None:
            if runs:
                self._begin(row, rules, runs)
            elif calls.at[row] < self._clock.get(calls.ledger[row], calls.at[row]):
                self._rewind(row, rules)
        self._clock[calls.ledger[row]] = max(calls.at[row], self._clock.get(calls.ledger[row], 0))

    def _stands(self, row: int, free: int) -> int:
        """Whether a call runs that is free to, by what it refers to: an approval, or an idempotency key."""
        calls = self.calls
        if calls.resumes[row] >= 0:
            free = self._resumed(row, free)
        if calls.key[row] >= 0:
            free = self._keyed(row, free)
        return free

    def _resumed(self, row: int, free: int) -> int:
        asker = self.calls.resumes[row]
        ran, waits = self.found.runs[asker], self._waits[asker]
        if ran == YES or asker in self._done:
            self._done.add(row)  # it ran where it was asked for
            return NO
        if self.denied or (waits == NO and ran == NO):
            self.found.unasked.append(row)
            self._waits[row] = NO
            return NO
        if UNSURE in (waits, ran) and free:
            self.found.unsure.append(row)
            return UNSURE
        return free

    def _keyed(self, row: int, free: int) -> int:
        calls, key = self.calls, self.calls.key[row]
        if calls.ran[row] and key in self._held_then:
            self._held.pop(key, None)  # it was free again then: its time was over
        if calls.ran[row]:
            self._held_then.add(key)
        held, holder = self._held.get(key, (NO, row))
        if held == YES:
            return self._repeated(row, holder, free)
        if calls.conflict[row] or (held == UNSURE and free):
            self.found.unsure.append(row)
            free = UNSURE
        elif held == UNSURE and self._waits[row] and calls.args[row] != calls.args[holder]:
            self.found.unsure.append(row)  # it waits, or is refused as another call
            self._waits[row] = UNSURE
        elif free and calls.repeat[row]:
            self.found.fresh.append(row)
        if free and held != YES:
            self._held[key] = free, row
        return free

    def _repeated(self, row: int, holder: int, free: int) -> int:
        """A call under a key that another holds: it never runs, and is refused if it is another call."""
        calls = self.calls
        if calls.args[row] != calls.args[holder]:
            if not calls.conflict[row]:
                self.found.conflicts[row] = "idempotency_conflict", holder
        elif calls.conflict[row]:
            self.found.unsure.append(row)
        elif free == YES and calls.action[row] != calls.action[holder]:
            self.found.conflicts[row] = "duplicate_differs", holder
        elif free == YES and not calls.repeat[row]:
            self.found.repeats.append(row)
        return NO

    # -- limits ----------------------------------------------------------------------------------------------------

    def _judge(self, row: int, rules: Ruleset) -> int:
        """Whether limits refuse a call; a refusal that is sure goes before what is not known."""
        said, now = NO, self.calls.at[row]
        for breaker in rules.breakers:
            found = self._guard(row, breaker).at(now)
            if found is None:
                said = said or UNSURE
            elif found.state != "closed" and not found.lets_through(breaker):
                said = YES
        used = [self._used(row, meter, now) for meter in rules.read]
        for budget, place in rules.judged if said != YES else ():
            over = self._over(row, budget, used[place])
            if over == YES:
                said = YES
                break
            said = said or over
        if said == NO:
            return NO
        by = self._refusal(row, rules, used) if said == YES and self.worded else None
        if by is not None:
            self.found.refused[by].append(row)
            if by[:2] in self._shown:
                return said
            self._shown.add(by[:2])
        guards = [self._guard(row, breaker).seen(now) for breaker in rules.breakers]
        told = Told(said == YES, rules, used, guards, self._unknown(row, rules, used, said))
        (self.found.told if by is None else self.found.examples)[row] = told
        return said

    def _refusal(self, row: int, rules: Ruleset, used: Sequence[Used]) -> Refusal | None:
        """By which limit a call is refused as it was asked for; None: what was used is in doubt, or a patch asks."""
        calls, place, number = self.calls, self.calls.rules[row], 0
        if not calls.plain[row] or any(low != high for low, high in used):
            return None
        for breaker in rules.breakers:
            found = self._guard(row, breaker).at(calls.at[row])
            if found is not None and not found.lets_through(breaker):
                return place, number, *numbers_of(found, breaker)
            number += 1
        for budget, at in rules.judged:
            measure, spent = budget.meter.measure, used[at].low
            asked = calls.asked[measure][row] if measure.startswith(ARGS) else int(measure == "calls")
            if asked < 0:
                return place, number, None, asked, 0
            if budget.exceeded(spent, asked):
                return place, number, spent, asked, 0
            number += 1
        return None

    def _over(self, row: int, budget: Budget, used: Used) -> int:
        measure = budget.meter.measure
        if measure == "calls":
            return _exceeded(budget, used, 1)
        if not measure.startswith(ARGS):
            return _exceeded(budget, used, 0)
        said = NO
        for asked in (self.calls.asked[measure][row], self.calls.taken[measure][row]):
            over = YES if asked < 0 else _exceeded(budget, used, asked)
            if over == YES:
                return YES
            said = said or over
        return said

    def _used(self, row: int, meter: Meter, now: int) -> Used:
        if not meter.of_session:
            return self._track(row, meter).used(now)
        low, high, names = 0, 0, AFTER.get(meter.measure, (meter.measure,))
        moved = self._sessions.get(self.calls.per["session"][row])
        for name in names:
            then = self.calls.then[name][row]
            if then is None:
                return Used(0, None)
            low += then + (0 if moved is None else moved.low.get(name, 0))
            high += then + (0 if moved is None else moved.high.get(name, 0))
        unbounded = moved is not None and moved.is_open and meter.is_after
        return Used(low, None if unbounded else high)

    def _unknown(self, row: int, rules: Ruleset, used: Sequence[Used], said: int) -> list[str]:
        """What is not known and it hangs on; nothing where it is refused for sure."""
        if said == YES:
            return []
        now = self.calls.at[row]
        guards = [f"limits.{b.key}" for b in rules.breakers if self._guard(row, b).at(now) is None]
        return guards + [
            f"limits.{budget.meter.name}"
            for budget, place in rules.judged
            if self._over(row, budget, used[place]) == UNSURE
        ]

    # -- what a call moves -----------------------------------------------------------------------------------------

    def _count(self, row: int, runs: int) -> None:
        """Move the session's counter of calls, and note that what it cost has no bound."""
        ran = int(self.calls.ran[row])
        low, high = int(runs == YES) - ran, int(runs != NO) - ran
        unknown = runs != NO and not self._ends_as_then(row)
        if low or high or unknown:
            session = self._session(row)
            session.low["calls"] = session.low.get("calls", 0) + low
            session.high["calls"] = session.high.get("calls", 0) + high
            session.is_open |= unknown

    def _ends_as_then(self, row: int) -> bool:
        return self.calls.known[row] or self.calls.heir[row] >= 0

    def _begin(self, row: int, rules: Ruleset, runs: int) -> None:
        now, begun = self.calls.at[row], Open()
        known = self._ends_as_then(row)
        for meter in rules.meters:
            track = self._track(row, meter)
            if meter.is_after:
                begun.after.append((track, meter))
                if not known:
                    track.open()
                continue
            high = 1 if meter.measure == "calls" else self._amount(row, meter.measure, runs)
            low = high if runs == YES else 0
            if high:
                place = track.add(low, high, now)
                begun.before.append(Charge(track, meter.measure == "calls", low, high, place))
        for breaker in rules.breakers:
            guard = self._guard(row, breaker)
            guard.passes(str(row), now)
            if known and runs == YES:
                begun.guards.append(guard)
            else:
                guard.may_fail(str(row), now)
        if begun.before or begun.after or begun.guards:
            self._open[row] = begun

    def _amount(self, row: int, measure: str, runs: int) -> int:
        """The most a call takes; what it asks for, where it is not known what it would run with."""
        taken = self.calls.taken[measure][row]
        if runs == UNSURE and not self.calls.plain[row]:
            taken = max(taken, self.calls.asked[measure][row])
        return max(0, taken)

    def _rewind(self, row: int, rules: Ruleset) -> None:
        for meter in rules.meters:
            self._track(row, meter).rewind(self.calls.at[row])
        for breaker in rules.breakers:
            self._guard(row, breaker).rewind(self.calls.at[row])

    # -- an outcome ------------------------------------------------------------------------------------------------

    def end(self, end: End) -> None:
        """Take the next outcome: of the call it is of, or of the call that asked for it and now ran at once."""
        owner = self._owner(end.row)
        runs = NO if owner is None else self.found.runs[owner]
        self._session_ended(end, runs)
        begun = None if owner is None else self._open.get(owner)
        if begun is None or owner is None:
            return
        for track, meter in begun.after:
            amount = 0 if end.used is None else sum(end.used[name] for name in AFTER[meter.measure])
            if amount:
                track.add(amount if runs == YES else 0, amount, end.at)
        if end.status in NO_EFFECT:
            for charge in begun.before:
                if not (charge.calls and end.started):  # a call that was begun was made
                    charge.track.give_back(charge.low, charge.high, charge.place)
        for guard in begun.guards:
            guard.ended(str(owner), "failed" if end.broken else end.status, end.at)
        if end.status == "in_doubt":
            begun.guards = []
        else:
            del self._open[owner]

    def _owner(self, row: int) -> int | None:
        """The row that begins the call now whose outcome this is; None: none does, or it would end otherwise."""
        if self.found.runs[row] != NO:
            return row if self.calls.known[row] else None
        asker = self.calls.resumes[row]
        return (
            asker if asker >= 0 and self.calls.heir[asker] == row and self.found.runs[asker] != NO else None
        )

    def _session_ended(self, end: End, runs: int) -> None:
        if runs == YES or end.used is None or not any(end.used.values()):
            return
        session = self._session(end.row)
        for name, used in end.used.items():
            session.low[name] = session.low.get(name, 0) - used
            session.high[name] = session.high.get(name, 0) - (used if runs == NO else 0)

    # -- what stands -----------------------------------------------------------------------------------------------

    def _session(self, row: int) -> Session:
        return self._sessions.setdefault(self.calls.per["session"][row], Session({}, {}))

    def _track(self, row: int, meter: Meter) -> Track:
        tracks, scope = self._tracks[meter.name], self.calls.per[meter.per][row]
        found = tracks.get(scope)
        if found is None:
            ledger = self.calls.ledger[row]
            whole = self.whole[ledger]
            if meter.window_ms is None:
                found = Ever(whole=whole)
            else:
                found = Sliding(meter.window_ms, known_from=None if whole else self._began[ledger])
            tracks[scope] = found
        return found

    def _guard(self, row: int, breaker: Breaker) -> Guard:
        guards, scope = self._guards[breaker.key], self.calls.per[breaker.per][row]
        found = guards.get(scope)
        if found is None:
            whole, nexts = self.whole[self.calls.ledger[row]], self._nexts[breaker.key]
            found = guards[scope] = Guard(breaker, whole=whole, nexts=nexts)
        return found


def _exceeded(budget: Budget, used: Used, asked: int) -> int:
    if budget.exceeded(used.low, asked):
        return YES
    return UNSURE if used.high is None or budget.exceeded(used.high, asked) else NO
