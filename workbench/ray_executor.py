"""Chunks decided by Ray tasks: one machine's processes, or a cluster's.

One rule: a bounded number of tasks is under way, and their answers are taken in the order they were submitted; what
was started here is stopped here, however the replay ends, and nothing else is.

Tasks have no effects, so Ray runs one once more when its worker dies. Each has one core, and Polars' threads are kept
to it, so that as many tasks as cores do not fight over them.

Ray is kept to itself: no usage statistics, no dashboard, and a Ray that is started here listens on the loopback
address only (if `ray` was not imported before; else as Ray itself decides). Its own guard, a token in the home
folder, stays on.
"""

from __future__ import annotations

import logging
import os
import sys
from collections import deque
from contextlib import contextmanager
from dataclasses import dataclass
from pickle import PicklingError
from typing import TYPE_CHECKING, Any

from workbench.errors import ReplayFailure, need
from workbench.executors import CARRIED, LOCAL, RAY, Failure, PlacesWanted
from workbench.progress import progress

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterable, Iterator, Mapping

    import pyarrow as pa

    from workbench.executors import ChunkTask, Executor, Work

AHEAD = 2
"""Tasks under way for each core of the cluster: one runs, one waits with its data there."""
STARTS = 3
"""Times that starting Ray is tried: it gives its own processes 30 s, which a busy machine may not."""
_QUIET: Mapping[str, str] = {"RAY_USAGE_STATS_ENABLED": "0"}
_LOOPBACK: Mapping[str, str] = {"RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0"}
"""Read when `ray` is imported: on those systems Ray's own default is the loopback address."""
_THREADS: Mapping[str, str] = {"POLARS_MAX_THREADS": "1"}


@contextmanager
def connected(executor: Executor, complete: Callable[[Any], Work]) -> Iterator[RayRunner]:
    """Yield what runs work on Ray, connected as asked for.

    Args:
        executor: where; see `workbench.executors.Executor`.
        complete: returns the work, told where sources were.

    Raises:
        MissingExtra: Ray is not installed.
        ReplayFailure: it does not start, or no cluster is at the address.
    """
    with _environment({**_QUIET, **({} if RAY in sys.modules else _LOOPBACK)}):
        ray = need("ray", extra="ray")
    if ray.is_initialized() or not isinstance(executor, str):
        _require_usable(ray, executor)
        yield RayRunner(ray, complete)
        return
    given = os.environ.get("RAY_ADDRESS") if executor == RAY else executor
    with _environment({**_QUIET, **_THREADS}), _quiet(), progress(None, "connecting to Ray"):
        _start(ray, given)
    try:
        yield RayRunner(ray, complete, ours=given is None)
    finally:
        ray.shutdown()


def _require_usable(ray: Any, executor: Executor) -> None:
    """Refuse a Ray that is not connected, or not where it was asked for."""
    if not ray.is_initialized():
        raise ReplayFailure("`ray` is not initialised; call `ray.init(…)` first, or give executor='ray'")
    if isinstance(executor, str) and executor != RAY:
        raise ReplayFailure(
            f"`ray` is connected already, so it cannot connect to {executor!r}; give executor=ray to use what it is "
            "connected to, or call `ray.shutdown()` first"
        )


def _start(ray: Any, given: str | None) -> None:
    """Connect, or start a Ray of our own. Ray raises plain `Exception` where a node does not start."""
    own: dict[str, Any] = {"include_dashboard": False, "_node_ip_address": "127.0.0.1"}
    wanted = {"address": LOCAL, **own} if given is None else {"address": given}
    for left in reversed(range(1 if given else STARTS)):
        try:
            ray.init(log_to_driver=False, configure_logging=False, **wanted)
        except Exception as exc:
            ray.shutdown()
            if not left:
                what = f"cannot connect to Ray at {given!r}" if given else "Ray did not start on this machine"
                way = "is the cluster there?" if given else "executor='local' does without it"
                raise ReplayFailure(f"{what}: {_first_line(exc)}; {way}") from exc
        else:
            return


@dataclass(slots=True)
class RayRunner:
    """Runs a replay's work on a connected Ray."""

    ray: Any
    complete: Callable[[Any], Work]
    """Returns the work, told where sources were."""
    ours: bool = False
    """Started here, with threads as they are to be."""
    _work: Any = None
    """Reference to the work, once it is told."""

    @property
    def most(self) -> int:
        """Tasks under way at most."""
        return AHEAD * max(1, int(self.ray.cluster_resources().get("CPU", 1)))

    def answers(self, work: Work, tasks: Iterable[ChunkTask]) -> Generator[pa.Table, None, None]:
        """Yield what tasks come to, in order; close it to cancel what is under way.

        Raises:
            ReplayFailure: the work cannot be sent, or Ray loses a task for good.
        """
        options = {} if self.ours else {"runtime_env": {"env_vars": dict(_THREADS)}}
        decide = self.ray.remote(num_cpus=1, max_retries=1, **options)(_decide)
        most = self.most
        first = self._put(work)
        under_way: deque[tuple[Any, Any]] = deque()
        try:
            for task in tasks:
                sent = self._put(task)
                under_way.append((sent, decide.remote(first, sent)))
                if len(under_way) >= most:
                    yield self._taken(decide, work, *under_way[0])
                    under_way.popleft()
            while under_way:
                yield self._taken(decide, work, *under_way[0])
                under_way.popleft()
        finally:
            for _, answer in under_way:
                self.ray.cancel(answer)

    def _taken(self, decide: Any, work: Work, task: Any, answer: Any) -> pa.Table:
        import pyarrow as pa  # noqa: PLC0415 - costs 0.3 s to import

        found = self._get(answer)
        if isinstance(found, Failure) and found.kind is PlacesWanted:
            self._work = self._put(self.complete(work)) if self._work is None else self._work
            found = self._get(decide.remote(self._work, task))
        if isinstance(found, Failure):
            raise found.raised()
        return pa.ipc.open_stream(found).read_all()

    def _put(self, value: object) -> Any:
        try:
            return self.ray.put(value)
        except (TypeError, PicklingError) as exc:
            raise ReplayFailure(
                "a source of facts or an engine that was given cannot be sent to Ray's workers; give a source's "
                f"location (a path or URL), or use executor='local': {_first_line(exc)}"
            ) from exc

    def _get(self, answer: Any) -> Any:
        try:
            return self.ray.get(answer)
        except self.ray.exceptions.RayTaskError as exc:
            what = f"{type(exc.cause).__name__}: {_first_line(exc.cause)}"
            raise ReplayFailure(f"deciding a chunk failed on a worker of Ray: {what}") from exc
        except self.ray.exceptions.RayError as exc:
            raise ReplayFailure(
                f"Ray lost a chunk for good: {_first_line(exc)}; is the cluster healthy, and has it the memory? "
                "executor='local' does without it"
            ) from exc


def _decide(work: Work, task: ChunkTask) -> bytes | Failure:
    """What a worker runs. Bytes, not a table: one in Ray's shared memory would stay there as long as it is used."""
    import pyarrow as pa  # noqa: PLC0415 - costs 0.3 s to import

    try:
        table = work.decide(task)
    except CARRIED as exc:
        return Failure.of(exc)
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema) as stream:
        stream.write_table(table)
    found: bytes = sink.getvalue().to_pybytes()
    return found


@contextmanager
def _environment(values: Mapping[str, str]) -> Iterator[None]:
    """Set environment variables for a while; processes that are started meanwhile keep them."""
    before = {name: os.environ.get(name) for name in values}
    os.environ.update(values)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep Ray's greetings off standard error."""
    logger = logging.getLogger(RAY)
    before = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(before)


def _first_line(exc: BaseException) -> str:
    return next(iter(str(exc).strip().splitlines()), type(exc).__name__)[:300]
