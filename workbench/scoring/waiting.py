"""Metrics that wait for a model: several cases at once, with patience that ends.

One rule: one case that does not come back holds up no other, and is a row like any other.

A thread a case, not an event loop: `measure` then runs the same in a terminal, a job and a notebook whose loop is
running, and a metric that blocks is only its own loss. A thread cannot be stopped, so a case that takes too long is
given up: its thread ends by itself, its answer is not waited for, and its place goes to another. They are daemons: a
process that ends does not wait for them either.

The clock of `timeout` is an attempt's. It stands while the rate limit or the pause before another attempt is waited
for, since neither is the judge's fault.
"""

from __future__ import annotations

import copy
import math
import queue
import threading
import time
from collections import defaultdict
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

from deepeval.errors import MissingTestCaseParamsError

from workbench.errors import JudgeFailed
from workbench.scoring import measure
from workbench.texts import count

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from deepeval.metrics import BaseMetric
    from tenacity import RetryCallState

    from workbench.scoring.cases import Case, Cases
    from workbench.scoring.measure import Outcome

ASKS = ("generate", "a_generate", "generate_raw_response", "a_generate_raw_response")
"""Methods of a DeepEval model that ask it."""
MAX_PAUSE_S = 60.0
"""Longest pause before another attempt, whatever the judge asks for."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Patience:
    """How to wait for a judge."""

    concurrency: int = 8
    """Cases at once."""
    retries: int = 2
    """Attempts after the first."""
    rate: float | None = None
    """Calls of the model a minute; None: as fast as it goes."""
    timeout: float = 60.0
    """Seconds an attempt may take."""
    pause: float = 0.5
    """Seconds before the second attempt; doubled for each further one."""


class Stopped(Exception):  # noqa: N818 - what happened
    """Nobody waits for the answer any more."""


class _Limit:
    """Evenly spaced turns, for all threads together."""

    def __init__(self, rate: float | None, stop: threading.Event) -> None:
        self._gap = 0.0 if rate is None else 60.0 / rate
        self._next, self._lock, self._stop = -math.inf, threading.Lock(), stop

    @property
    def free(self) -> bool:
        """Whether nobody has to wait."""
        return not self._gap

    def wait(self) -> None:
        """Return when it is one's turn."""
        with self._lock:
            turn = max(self._next, time.monotonic())
            self._next = turn + self._gap
        if self._stop.wait(max(0.0, turn - time.monotonic())):
            raise Stopped


@dataclass(eq=False, slots=True)
class _Job:
    """One case under way."""

    number: int
    case: Case
    say: Callable[[_Job, Outcome | BaseException | None], None]
    deadline: float = math.inf

    def start(self, seconds: float) -> None:
        self.deadline = time.monotonic() + seconds
        self.say(self, None)

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Let the clock stand."""
        left, self.deadline = self.deadline - time.monotonic(), math.inf
        try:
            yield
        finally:
            self.start(left)


def measured(
    metric: BaseMetric, cases: Cases, numbers: Sequence[int], patience: Patience
) -> Iterator[tuple[int, Outcome]]:
    """Yield an outcome for each case, as they come; cases of equal content are measured once.

    Args:
        metric: one that waits. Its model is used by several threads at once.
        cases: of the metric's level.
        numbers: which of them.
        patience: how to wait.

    Raises:
        BaseException: what is no `Exception` (an interrupt) and was raised by a metric. Answers that came are yielded
            before.
    """
    alike: dict[str, list[int]] = defaultdict(list)
    for number, address in zip(numbers, cases.keys["case_hash"].gather(list(numbers)), strict=True):
        alike[address].append(number)
    first = [each[0] for each in alike.values()]
    for case, outcome in _answers(metric, zip(first, cases.made(first), strict=True), patience):
        for number in alike[case.hash]:
            yield number, outcome


def _answers(
    metric: BaseMetric, cases: Iterator[tuple[int, Case]], patience: Patience
) -> Iterator[tuple[Case, Outcome]]:
    answers: queue.SimpleQueue[tuple[_Job, Outcome | BaseException | None]] = queue.SimpleQueue()
    stop = threading.Event()
    limit, quiet = _Limit(patience.rate, stop), measure.quietly(metric)
    running: set[_Job] = set()

    def begin() -> None:
        while len(running) < patience.concurrency and (found := next(cases, None)) is not None:
            job = _Job(*found, lambda *told: answers.put(told))
            running.add(job)
            work = partial(_attempts, metric, job, patience, limit, stop, quiet)
            threading.Thread(target=_run, args=(job, work), daemon=True, name="redecide-judge").start()

    try:
        begin()
        while running:
            for job in [job for job in running if job.deadline <= time.monotonic()]:
                running.discard(job)
                yield job.case, _late(patience)
            begin()
            job, told = _next(answers, running)
            if told is None or job not in running:
                continue
            running.discard(job)
            if isinstance(told, BaseException):
                raise told
            yield job.case, told
            begin()
    finally:
        stop.set()


def _next(answers: Any, running: set[_Job]) -> tuple[Any, Any]:
    """The next thing that is told; nothing, when the first clock has run out."""
    first = min((job.deadline for job in running), default=-math.inf)
    try:
        left = None if first == math.inf else max(0.0, first - time.monotonic())
        return answers.get(timeout=left)  # type: ignore[no-any-return]  # what `say` put
    except queue.Empty:
        return None, None


def _late(patience: Patience) -> Outcome:
    return "errored", None, None, None, f"JudgeFailed: no answer within {count(patience.timeout, 'second')}"


def _run(job: _Job, work: Callable[[], Outcome]) -> None:
    try:
        job.say(job, work())
    except BaseException as exc:  # noqa: BLE001 - a thread has nobody else to tell
        job.say(job, exc)


def _attempts(
    metric: BaseMetric,
    job: _Job,
    patience: Patience,
    limit: _Limit,
    stop: threading.Event,
    quiet: dict[str, bool],
) -> Outcome:
    """Measure one case, again if it fails for what may pass."""
    import tenacity  # noqa: PLC0415 - for metrics that wait

    def pause(seconds: float) -> None:
        with job.paused():
            if stop.wait(seconds):
                raise Stopped

    def attempt() -> Outcome:
        if stop.is_set():
            raise Stopped
        job.start(patience.timeout)
        return measure.measured(_limited(metric, limit, job), job.case, quiet)

    tries = tenacity.Retrying(
        stop=tenacity.stop_after_attempt(patience.retries + 1),
        retry=tenacity.retry_if_exception(_may_pass),
        wait=lambda state: _pause(state, patience),
        sleep=pause,
        reraise=True,
    )
    try:
        return tries(attempt)
    except Exception as exc:  # noqa: BLE001 - a guard point: whatever a metric raises becomes a row, and is counted
        return measure.failed(exc)


def _may_pass(exc: BaseException) -> bool:
    """Whether another attempt may do better: not where a case lacks something, or a judge has tried enough itself."""
    never = isinstance(exc, MissingTestCaseParamsError | JudgeFailed | Stopped) or not isinstance(
        exc, Exception
    )
    return not never and not getattr(exc, "final", False)


def _pause(state: RetryCallState, patience: Patience) -> float:
    """Seconds before the next attempt: what the judge asks for, else twice as long as before."""
    exc = state.outcome.exception() if state.outcome is not None else None
    asked = getattr(exc, "retry_after", None)
    seconds = patience.pause * 2 ** (state.attempt_number - 1) if asked is None else float(asked)
    return min(max(0.0, seconds), MAX_PAUSE_S)


def _limited(metric: BaseMetric, limit: _Limit, job: _Job) -> BaseMetric:
    """A copy of a metric whose model waits for its turn before it is asked. What it counts stays with the model."""
    given = getattr(metric, "model", None)
    if given is None or limit.free:
        return metric
    own, own.model = copy.copy(metric), copy.copy(given)
    for name in ASKS:
        if (ask := getattr(given, name, None)) is not None:
            setattr(own.model, name, _in_turn(ask, limit, job))
    return own


def _in_turn(ask: Callable[..., Any], limit: _Limit, job: _Job) -> Callable[..., Any]:
    def asked(*args: Any, **kwargs: Any) -> Any:
        with job.paused():
            limit.wait()
        return ask(*args, **kwargs)

    return asked
