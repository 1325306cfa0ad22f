"""Clean shutdown: a signal ends the process with every call under way finished or recorded, and the ledger closed.

One rule: nothing new is begun once the process was told to end, and what was begun gets its outcome.

The signal raises `SystemExit` in the main thread: a sync call there is interrupted, an event loop cancels its tasks.
Threads cannot be interrupted: their calls are waited for, then recorded as what is known of them. A second signal
does what it would have done without us: the ledger survives that, too.
"""

from __future__ import annotations

import atexit
import contextlib
import signal
import threading
import time
from typing import TYPE_CHECKING

from runtime.acting import Acting, record_late
from runtime.errors import GovernanceError, InDoubt

if TYPE_CHECKING:
    from types import FrameType

    from runtime.loop import Runtime

_PAUSE = 0.01


def shutdown_on(runtime: Runtime, *signals: int) -> None:
    """Install the handlers; see `Runtime.shutdown_on`."""
    if threading.current_thread() is not threading.main_thread():
        raise GovernanceError("signals are handled in the main thread; call `shutdown_on` there")
    # Drains need a thread pool, and one can no longer be set up when the process is ending.
    import concurrent.futures.thread  # noqa: F401, PLC0415 - 10 ms that only this pays

    before = {number: signal.getsignal(number) for number in signals}

    def stop(number: int, frame: FrameType | None) -> None:
        del frame
        runtime.stopping = True
        for each, handler in before.items():
            signal.signal(each, handler)
        raise SystemExit(128 + number)

    for number in signals:
        signal.signal(number, stop)
    atexit.register(runtime.close)


def finish_calls(runtime: Runtime, grace: float) -> None:
    """Wait for calls of other threads, then record what is known of those that have not ended."""
    atexit.unregister(runtime.close)
    deadline = time.monotonic() + grace
    while _elsewhere(runtime) and time.monotonic() < deadline:
        time.sleep(_PAUSE)
    for acting in list(runtime.running.values()):
        if acting is not None:
            with contextlib.suppress(InDoubt):
                acting.cut_short(None)
    record_late(runtime)


def _elsewhere(runtime: Runtime) -> list[Acting | None]:
    """Calls of other threads; one of this thread would never end while it is waited for."""
    here = threading.get_ident()
    return [acting for acting in list(runtime.running.values()) if acting is None or acting.thread != here]
