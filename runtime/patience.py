"""Sources with a timeout: a lookup that takes longer is given up, and the decision that waited for it is refused.

One rule: a source that hangs can hang its own thread, never a decision. A lookup runs on a worker thread that is
used again for the next; one that does not answer in time is abandoned with its worker, and another takes its place.
At `MAX_ABANDONED` such workers a source is not asked at all, so that threads are bounded, until one of them returns.

Accepted: Python cannot end a thread. What an abandoned lookup does at last is thrown away, but it is done; a driver's
own timeout, which ends the work itself, is better where there is one. A lookup in a worker costs about 30 µs more.

Import from `runtime.sources`.
"""

from __future__ import annotations

import os
import threading
from contextvars import copy_context
from queue import SimpleQueue
from typing import TYPE_CHECKING, Any

from runtime.errors import SourceTimeout

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from runtime.canonical import Json
    from runtime.lookup import Found, Source

MAX_ABANDONED = 8
"""Lookups of one source that may hang at a time; with that many, it is refused at once."""
_KEPT_IDLE = 4
"""Workers of one source that wait for work; more than these end when they have done theirs."""


class PatientSource:
    """A source whose lookups take at most so long. Thread-safe, as sources are."""

    def __init__(self, source: Source, name: str, seconds: float) -> None:
        """Wrap a source.

        Args:
            source: the source.
            name: as the spec calls it, for messages.
            seconds: how long a lookup may take.
        """
        self.kind, self.uri = source.kind, source.uri
        self._source, self._seconds = source, seconds
        self._crew = _Crew(name)

    def lookup(
        self, where: Mapping[str, Json], columns: Sequence[str], *, version: str | None = None
    ) -> Found:
        """Look up within the time allowed; see `Source.lookup`.

        Raises:
            SourceTimeout: no answer in time, or too many lookups hang already.
        """
        source, asked = self._source, dict(where)
        found: Found = self._crew.run(lambda: source.lookup(asked, columns, version=version), self._seconds)
        return found

    def version_at(self, at_us: int) -> str | None:
        """See `Source.version_at`; within the time allowed."""
        found: str | None = self._crew.run(lambda: self._source.version_at(at_us), self._seconds)
        return found

    def close(self) -> None:
        """Let idle workers go, and close the source if it can be closed. Hanging workers end with the process."""
        self._crew.dismiss()
        if callable(release := getattr(self._source, "close", None)):
            release()


class _Job:
    """One piece of work, and what came of it."""

    __slots__ = ("done", "error", "given_up", "result", "work")

    def __init__(self, work: Callable[[], Any]) -> None:
        self.work: Callable[[], Any] | None = work
        self.result: Any = None
        self.error: BaseException | None = None
        self.given_up = False
        self.done = threading.Lock()  # a lock is half the price of an event
        self.done.acquire()

    def run(self) -> None:
        work = self.work
        assert work is not None  # noqa: S101 - run once
        try:
            self.result = work()
        except BaseException as exc:  # noqa: BLE001 - raised again where the job was waited for
            self.error = exc
        self.work = None


class _Crew:
    """The workers of one source."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._lock = threading.Lock()
        self._idle: list[SimpleQueue[_Job | None]] = []
        self._abandoned = 0
        self._closed = False
        self._pid = os.getpid()

    def run(self, work: Callable[[], Any], seconds: float) -> Any:
        """Run work on a worker, with this context's variables, and wait for it.

        Raises:
            SourceTimeout: it took longer, or too many others did and are not back.
            BaseException: whatever the work raised.
        """
        context = copy_context()
        job = _Job(lambda: context.run(work))
        self._worker(seconds).put(job)
        try:
            finished = job.done.acquire(timeout=seconds)
        except BaseException:  # an interruption of the one who waits; the worker goes on alone
            self._give_up(job)
            raise
        if not finished and self._give_up(job):
            raise SourceTimeout(f"source `{self._name}` did not answer within {seconds:g} s")
        error = job.error
        if error is None:
            return job.result
        try:
            raise error
        finally:
            del error, job  # the error's traceback holds this frame

    def _worker(self, seconds: float) -> SimpleQueue[_Job | None]:
        with self._lock:
            if self._pid != os.getpid():  # a fork has no threads but its own
                self._pid, self._idle, self._abandoned = os.getpid(), [], 0
            if self._abandoned >= MAX_ABANDONED:
                raise SourceTimeout(
                    f"source `{self._name}` is not asked: {self._abandoned} lookups that did not answer within "
                    f"{seconds:g} s still hang"
                )
            if self._idle:
                return self._idle.pop()
        inbox: SimpleQueue[_Job | None] = SimpleQueue()
        threading.Thread(target=self._work, args=(inbox,), name=f"source {self._name}", daemon=True).start()
        return inbox

    def _work(self, inbox: SimpleQueue[_Job | None]) -> None:
        while (job := inbox.get()) is not None:
            job.run()
            if not self._finish(job, inbox):
                return
            del job

    def _finish(self, job: _Job, inbox: SimpleQueue[_Job | None]) -> bool:
        """Tell who waits, and go back to the idle; False: there are enough of them."""
        with self._lock:
            if job.given_up:
                self._abandoned -= 1
            stays = len(self._idle) < _KEPT_IDLE and not self._closed
            if stays:
                self._idle.append(inbox)
            job.done.release()
        return stays

    def _give_up(self, job: _Job) -> bool:
        """Abandon a job, unless it was finished meanwhile."""
        with self._lock:
            if not job.done.locked():
                return False
            job.given_up = True
            self._abandoned += 1
            return True

    def dismiss(self) -> None:
        """End the idle workers."""
        with self._lock:
            idle, self._idle, self._closed = self._idle, [], True
        for inbox in idle:
            inbox.put(None)
