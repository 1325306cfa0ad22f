"""Work that a view does not wait for: one thing at a time, the newest of a kind wins.

One rule: a task's result is handed on only if nothing newer of its kind was submitted before it ended, and never
after `close`. There is a thread only while there is work, so none outlives its widget.

Callbacks run on the worker's thread: setting traits and sending messages there reaches the browser (tested in a real
kernel, also while a cell runs), and JupyterLab delivers widget messages on threads of their own anyway. So whoever
has callbacks guards its state with a lock, as `workbench.viewing.view.View` does.

Out of scope: results in order, several at a time, results kept for later.
"""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, TypeVar

from workbench.viewing.messages import said

if TYPE_CHECKING:
    from collections.abc import Callable

T = TypeVar("T")


class Cancelled:
    """Whether a task's result is still wanted; calling it asks."""

    __slots__ = ("_is_set",)

    def __init__(self) -> None:
        self._is_set = False

    def __call__(self) -> bool:
        """Return whether the result is not wanted any more."""
        return self._is_set

    def set(self) -> None:
        """Say that the result is not wanted any more."""
        self._is_set = True


class Worker:
    """Does tasks one after the other on a daemon thread, that exists while there are any.

    Args:
        problem: called with a sentence when a task or its callback raises.
    """

    def __init__(self, problem: Callable[[str], object]) -> None:
        self._problem = problem
        self._changed = threading.Condition()
        self._waiting: dict[str, tuple[Callable[[], object], Cancelled]] = {}
        self._running: tuple[str, Cancelled] | None = None
        self._is_alive = False
        self._is_closed = False

    def submit(
        self,
        task: Callable[[Cancelled], T],
        done: Callable[[T], object] | None = None,
        *,
        slot: str = "",
        failed: Callable[[str], object] | None = None,
    ) -> Cancelled:
        """Do `task` soon, in place of what waits in the slot; what runs of the slot is told that it is not wanted.

        Args:
            task: called with a flag that it may look at now and then, to stop early.
            done: called with the result, unless something newer of the slot came in between.
            slot: the kind of work. Slots take turns in the order of their waiting.
            failed: called with a sentence if the task or `done` raises; None: the worker's `problem`.

        Returns:
            The flag, for the caller to set.
        """
        cancelled = Cancelled()

        def work() -> None:
            try:
                result = task(cancelled)
                if done is not None and not cancelled():
                    done(result)
            # The edge of the thread: said in the view, or it would be lost; an interrupt, too, which Polars raises in
            # whatever thread its query runs.
            except BaseException as exc:  # noqa: BLE001 - as above
                if not cancelled():
                    (failed or self._problem)(said(exc))

        with self._changed:
            if self._is_closed:
                cancelled.set()
                return cancelled
            self._drop(slot)
            self._waiting[slot] = (work, cancelled)
            if not self._is_alive:
                self._is_alive = True
                threading.Thread(target=self._work, name="redecide-view", daemon=True).start()
        return cancelled

    def _drop(self, slot: str) -> None:
        if slot in self._waiting:
            self._waiting.pop(slot)[1].set()
        if self._running is not None and self._running[0] == slot:
            self._running[1].set()

    def cancel(self, slot: str = "") -> None:
        """Drop what waits in the slot, and tell what runs of it that it is not wanted."""
        with self._changed:
            self._drop(slot)

    @property
    def is_busy(self) -> bool:
        """Whether something runs or waits."""
        return self._is_alive

    def wait(self, seconds: float | None = None) -> bool:
        """Wait until there is no work; None: as long as it takes. Returns whether there is none.

        Not to be called by a task or a callback: it would wait for itself.
        """
        with self._changed:
            return self._changed.wait_for(lambda: not self._is_alive, seconds)

    def close(self) -> None:
        """Drop all work. What runs is told to stop, and its result goes nowhere."""
        with self._changed:
            self._is_closed = True
            for slot in [*self._waiting, *([self._running[0]] if self._running else [])]:
                self._drop(slot)

    def _work(self) -> None:
        while (work := self._next()) is not None:
            work()

    def _next(self) -> Callable[[], object] | None:
        with self._changed:
            self._running = None
            if not self._waiting:
                self._is_alive = False
                self._changed.notify_all()
                return None
            slot = next(iter(self._waiting))
            work, cancelled = self._waiting.pop(slot)
            self._running = (slot, cancelled)
            return work
