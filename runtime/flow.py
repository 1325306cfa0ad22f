"""The life of one governed call, from its decision to its outcome, written once for sync and async drivers.

One rule: a decision that let a call run is followed by one outcome, whatever the tool, the caller or the disk does;
where it cannot be, the call is in doubt.
"""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any

from runtime import actions
from runtime.acting import Acting, record_late
from runtime.broker import Blocking, Step, drive, drive_async
from runtime.errors import InDoubt, LedgerError, ShuttingDown
from runtime.protocol import run
from runtime.riding import fits, ride
from runtime.settling import Handover
from runtime.usage import collecting

if TYPE_CHECKING:
    from collections.abc import Callable, Generator

    from runtime.deciding import Settler
    from runtime.record import Row
    from runtime.settling import Attempt, Settled


class Flow:
    """One call under way."""

    def __init__(
        self,
        settler: Settler,
        attempt: Attempt,
        decided: Callable[[Row], None],
        settle: Callable[[Attempt], Settled] | None = None,
    ) -> None:
        self._settler = settler
        self._runtime = settler.runtime
        self._attempt = attempt
        self._decided = decided
        """Told the decision's row, whatever the verdict."""
        self._settle = settle or settler.settle
        """Makes a decision durable: of a fresh request, or of one that is resumed."""
        self._acting: Acting | None = None
        self._over = False

    def drive(self) -> Any:
        """Run the call in this thread; see `Session.call`."""
        try:
            return drive(self._run())
        except BaseException as exc:
            self._rescue(exc)
            raise

    async def drive_async(self) -> Any:
        """Run the call beside an event loop; see `Session.acall`."""
        try:
            return await (ride if fits(self._attempt.tool) else drive_async)(self._run())
        except BaseException as exc:
            self._rescue(exc)
            raise

    def _run(self) -> Generator[Step, Any, Any]:
        """Decide, run the tool if the verdict allows, record what came of it."""
        if self._runtime.stopping:
            self._over = True
            raise ShuttingDown("the runtime was told to end, or is closed; nothing new is begun")
        handover = Handover()
        self._runtime.at_step("deciding")
        try:
            settled: Settled = yield Blocking(lambda: self._hand_over(handover))
        except BaseException as exc:
            if handover.came_second():
                late, why = handover.settled, exc
                with contextlib.suppress(InDoubt):  # then it stays in doubt, and the interruption goes on
                    yield Blocking(lambda: self._give_up(late, why), finish=True)
            raise
        if settled.instead is None:
            self._acting = self._begun(settled)
        self._over = settled.instead is not None
        self._decided(settled.row)
        self._runtime.at_step("decided")
        if settled.instead is not None:
            return settled.instead()
        assert self._acting is not None  # noqa: S101 - set above
        with collecting(self._acting.reported):
            return (yield from run(self._acting))

    def _begun(self, settled: Settled) -> Acting:
        acting = Acting(
            self._runtime, self._attempt.tool, settled.row, settled.enforced or {}, self._settler.identity
        )
        self._runtime.running[acting.decision_id] = acting
        return acting

    def _hand_over(self, handover: Handover) -> Settled:
        """Settle, and give an outcome to what nobody waits for any more."""
        record_late(self._runtime)
        handover.settled = self._settle(self._attempt)
        if handover.came_second():
            self._give_up(handover.settled, None)
        return handover.settled

    def _give_up(self, settled: Settled | None, error: BaseException | None) -> None:
        """Record that a call was let run and given up before its tool started."""
        if settled is not None and settled.instead is None:
            self._begun(settled).cut_short(error)

    def _rescue(self, error: BaseException) -> None:
        """Record what is known of a call that was cut off between two lines, as a signal can do anywhere."""
        try:
            if self._acting is not None:
                self._acting.cut_short(error)
            elif not self._over and not isinstance(error, Exception):
                self._rescue_unseen(error)
        except (InDoubt, LedgerError) as doubt:
            error.add_note(str(doubt))

    def _rescue_unseen(self, error: BaseException) -> None:
        """Give an outcome to a decision that became durable and was never handed over: its tool has not started."""
        ledger = self._runtime.ledger
        for decision_id in self._attempt.tried:
            row = ledger.decision(decision_id) if actions.find(ledger, decision_id) else None
            if row is not None:
                Acting(self._runtime, self._attempt.tool, row, {}, self._settler.identity).cut_short(error)
