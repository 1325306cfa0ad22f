"""Where the chunks of a replay are decided: in this process, by several threads, or on Ray.

One rule: an executor changes where and when a chunk is decided, never what comes out. Every chunk has one answer,
answers come in the order of the chunks, and an error ends the replay as it would here.

What travels is in this module, and holds no handle of anything: Arrow tables, texts, and the exceptions of ours.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from functools import partial
from queue import SimpleQueue
from threading import Event, Thread
from types import ModuleType
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias, TypeVar

from runtime.errors import GovernanceError
from workbench.ending import ending
from workbench.errors import WorkbenchError

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterable, Iterator, Mapping

    import pyarrow as pa

Executor: TypeAlias = str | ModuleType
"""`local`: this process, the next chunk being read meanwhile. `ray`: the Ray that is initialised here, else the one
at `RAY_ADDRESS`, else one started on this machine for the replay and stopped after it. The address of a Ray cluster
(`host:6379`, `ray://host:10001`, `auto`): connected to, and left after the replay. The module `ray`, initialised:
used, and left as it is."""

LOCAL = "local"
RAY = "ray"

_S = TypeVar("_S")
_T = TypeVar("_T")
_Tasks: TypeAlias = "SimpleQueue[tuple[_S, SimpleQueue[Any]] | None]"
"""Things to work on, and where the answer is wanted; None: a thread is to end."""


@dataclass(frozen=True, slots=True)
class BundleTexts:
    """A bundle as its files, which is how it travels."""

    name: str
    files: Mapping[str, str]
    policy_hash: str
    limits_hash: str


@dataclass(frozen=True, slots=True)
class ChunkTask:
    """Some recorded decisions with all that they refer to: what deciding them reads of the lake."""

    records: pa.Table
    """Columns as `workbench.history.records.Records.chunks` has them with `MORE`."""
    contexts: pa.Table
    """`context_hash`, `context`: those that the records refer to."""
    bundles: Mapping[str, BundleTexts]
    """By version; one that the lake lost is not among them."""


class Work(Protocol):
    """What a replay does with a chunk. Picklable."""

    def decide(self, task: ChunkTask) -> pa.Table:
        """Return one row of `workbench.replay.FRAME` for each record, in order.

        Raises:
            PlacesWanted: it has to be told where sources of facts were.
        """


class PlacesWanted(Exception):  # noqa: N818 - a question, not an error
    """Where the record says that sources were is wanted, and only who has the whole lake can say it."""


@dataclass(frozen=True, slots=True)
class Failure:
    """An exception of ours on its way to another process: several have constructors that `pickle` cannot call."""

    kind: type[Exception]
    args: tuple[Any, ...]
    state: Mapping[str, Any]

    @classmethod
    def of(cls, exc: Exception) -> Failure:
        """Take an exception apart."""
        return cls(type(exc), exc.args, dict(vars(exc)))

    def raised(self) -> Exception:
        """Return the exception again."""
        made = self.kind.__new__(self.kind, *self.args)
        vars(made).update(self.state)
        return made


CARRIED = (WorkbenchError, GovernanceError, PlacesWanted)
"""Exceptions that a worker sends as `Failure`."""


def is_local(executor: Executor) -> bool:
    """Whether chunks are decided here.

    Raises:
        ValueError: it is no executor.

    Example:
        >>> is_local("local"), is_local("ray://cluster:10001")
        (True, False)
    """
    if isinstance(executor, ModuleType):
        known = executor.__name__ == RAY
    else:
        known = executor in (LOCAL, RAY, "auto") or ":" in str(executor)
    if not known:
        raise ValueError(
            "`executor` must be 'local', 'ray', the address of a Ray cluster ('host:6379', 'ray://host:10001', "
            f"'auto') or the module `ray`, initialised; got {executor!r:.80}"
        )
    return executor == LOCAL


def ahead(chunks: Iterator[_T]) -> Generator[_T, None, None]:
    """Yield what an iterator yields, while the next one is made in a thread.

    Cost: one more chunk in memory. When it is closed, it waits for the chunk under way.

    Example:
        >>> list(ahead(iter("abc")))
        ['a', 'b', 'c']
    """
    end = object()
    wanted: SimpleQueue[bool] = SimpleQueue()
    found: SimpleQueue[tuple[Any, BaseException | None]] = SimpleQueue()

    def read() -> None:
        while wanted.get():
            try:
                found.put((next(chunks, end), None))
            except BaseException as exc:  # noqa: BLE001 - raised again, where the chunk is taken
                found.put((None, exc))

    def stop() -> None:
        wanted.put(False)
        if thread.ident is not None:
            thread.join()

    # No pool: its clean-up runs in a weak reference's callback, where an interrupt is lost.
    thread = Thread(target=read, name="redecide-reading", daemon=True)
    with ending(stop):
        thread.start()
        wanted.put(True)
        while True:
            chunk, failure = found.get()
            if failure is not None:
                raise failure
            if chunk is end:
                return
            wanted.put(True)
            yield chunk


class Stopped(Exception):  # noqa: N818 - it never leaves its thread
    """What a thread is at is not wanted any more."""


def in_order(
    work: Callable[[_S, Callable[[], None]], _T], given: Iterable[_S], threads: int
) -> Generator[_T, None, None]:
    """Yield what work makes of each thing that is given, in the order they are given, made by several threads.

    Args:
        work: called in a thread, of several things at a time. It is handed a function to call now and then, which
            raises `Stopped` once nobody wants what it makes.
        given: taken in the caller's thread, as far ahead of what is yielded as there are threads.
        threads: how many, at least one.

    Raises:
        BaseException: whatever work raises, of the first thing of which it does.

    Cost: what is made of so many things, and of one more, is in memory. When it is closed, it waits for those under
        way.

    Example:
        >>> list(in_order(lambda text, _: text.upper(), "abc", threads=2))
        ['A', 'B', 'C']
    """
    wanted: _Tasks[_S] = SimpleQueue()
    over = Event()

    def stop() -> None:
        over.set()
        for _ in workers:
            wanted.put(None)
        for each in workers:
            if each.ident is not None:
                each.join()

    # No pool, as in `ahead`.
    told = (work, wanted, partial(_require_going, over))
    workers = [Thread(target=_work, args=told, name="redecide-deciding", daemon=True) for _ in range(threads)]
    answers: deque[SimpleQueue[Any]] = deque()
    with ending(stop):
        for each in workers:
            each.start()
        for thing in given:
            answers.append(SimpleQueue())
            wanted.put((thing, answers[-1]))
            if len(answers) > threads:
                yield _taken(answers)
        while answers:
            yield _taken(answers)


def _require_going(over: Event) -> None:
    if over.is_set():
        raise Stopped


def _work(
    work: Callable[[_S, Callable[[], None]], _T],
    wanted: _Tasks[_S],
    going: Callable[[], None],
) -> None:
    """What a thread of `in_order` does until it is told to end."""
    while (task := wanted.get()) is not None:
        thing, answer = task
        try:
            going()
            answer.put((work(thing, going), None))
        except BaseException as exc:  # noqa: BLE001 - raised again, where the answer is taken
            answer.put((None, exc))
        del task, thing, answer  # a thread that waits holds nothing


def _taken(answers: deque[SimpleQueue[Any]]) -> Any:
    made, failure = answers.popleft().get()
    if failure is not None:
        raise failure
    return made
