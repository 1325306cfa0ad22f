"""Tools in a process of their own: started for one call, bounded, and gone when it ends, with all they started.

One rule: what a call does not declare it does not get: no environment beyond the allow-list, no file descriptor of
the runtime (its ledger and locks among them), no time, memory or file size above the limits; and nothing of it runs
on after the call has ended, or after the runtime itself has died.

A call imports the tool's module in a fresh Python and takes arguments and result as JSON through pipes of their own,
so nothing a tool prints can pass for its result.

Accepted: 25 ms and more for each call, mostly Python's start and the imports of the tool's module. Memory is limited
per process, as address space. On macOS the system does not enforce that, and a tool may outlive its runtime's death;
anywhere it may if the runtime forked while the call ran (`multiprocessing` with `fork`), until that fork ends, too.

Out of scope: hostile code. The child runs as the same user and sees the same files and network; a process that
leaves its session on purpose (`setsid`) is not found again. For that use containers, and a tool that calls into one.
"""

from __future__ import annotations

import functools
import inspect
import math
import os
import sys
import threading
import weakref
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NamedTuple, NoReturn

from runtime.errors import GovernanceError, RegistrationError, ToolCrashed
from runtime.foreign import repr_of

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

LEAST_MEMORY_MB: Final = 64
"""Python itself does not start in less."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Isolation:
    """How a tool is held in a process of its own. What does not fit raises `RegistrationError`."""

    env: tuple[str, ...] = ("PATH",)
    """Names of environment variables the tool may see, with the values the runtime has at the call."""
    seconds: float = 30.0
    """Longest a call may take by the clock, from the start of its process to its end."""
    memory_mb: int = 512
    """Address space of each of its processes, in MiB; libraries, mapped files and stacks of threads count."""
    cwd: str | Path | None = None
    """Folder it runs in; None: the runtime's."""
    cpu_seconds: int | None = None
    """Processor time of each of its processes; None: as much as fits in `seconds`."""
    files_mb: int | None = None
    """Size of the largest file it may write, in MiB; None: no limit of ours. 0: it writes nothing."""
    result_mb: int = 16
    """Size of the largest result as JSON, in MiB."""

    def __post_init__(self) -> None:
        _check_env(self.env)
        _check_number("seconds", self.seconds, least=0.001)
        _check_number("memory_mb", self.memory_mb, least=LEAST_MEMORY_MB, whole=True)
        _check_number("result_mb", self.result_mb, least=1, whole=True)
        if self.cpu_seconds is not None:
            _check_number("cpu_seconds", self.cpu_seconds, least=1, whole=True)
        if self.files_mb is not None:
            _check_number("files_mb", self.files_mb, least=0, whole=True)
        if self.cwd is not None and not Path(self.cwd).is_dir():
            raise RegistrationError(f"isolation: `cwd` {str(self.cwd)!r} is no folder; make it first")


def _check_env(env: object) -> None:
    if not isinstance(env, tuple) or not all(isinstance(name, str) for name in env):
        raise RegistrationError(
            f"isolation: `env` is a tuple of names, such as ('PATH', 'TZ'); got {env!r:.120}"
        )
    if wrong := [name for name in env if not name or "=" in name or "\0" in name]:
        raise RegistrationError(
            f"isolation: `env` holds names of variables, not values; got {wrong[0]!r:.40}"
        )


def _check_number(name: str, value: object, *, least: float, whole: bool = False) -> None:
    number = isinstance(value, int if whole else int | float) and not isinstance(value, bool)
    if not number or not math.isfinite(value) or value < least:  # type: ignore[arg-type,operator]  # a number
        kind = "a whole number" if whole else "a number"
        raise RegistrationError(f"isolation: `{name}` is {kind} of {least} or more; got {value!r:.40}")


class Target(NamedTuple):
    """Where a fresh Python finds a function."""

    module: str
    qualname: str
    path: str
    """The file the module was read from here: the child takes no other."""


_FOUND: Final[weakref.WeakKeyDictionary[Callable[..., Any], Target]] = weakref.WeakKeyDictionary()
"""What was found when it was first asked for: a function that was decorated since is its module's no more."""


def target_of(fn: Callable[..., Any]) -> Target:
    """Say where a child process finds `fn`, or refuse at once what it could not find, or would find as another.

    Asked when a tool is registered, it holds for as long as the function is there.

    Raises:
        RegistrationError: a system without POSIX processes; a lambda, closure, bound method or callable object; a
            function that its module does not hold under its own name, or of a module that is no file (a notebook).
    """
    if not hasattr(os, "waitid"):
        raise RegistrationError(
            "tools in a process of their own need Linux, or macOS with Python 3.13; "
            f"this is {sys.platform} with Python {sys.version_info.major}.{sys.version_info.minor}"
        )
    if not inspect.isfunction(fn):
        _refuse(fn, "it is not a plain function")
    if (known := _FOUND.get(fn)) is None:
        known = _FOUND[fn] = _find(fn)
    return known


def _find(fn: Callable[..., Any]) -> Target:
    module, qualname = fn.__module__, fn.__qualname__
    if "<" in qualname:
        _refuse(fn, "it is a lambda, or is defined inside a function, and exists in this process only")
    found = sys.modules.get(module)
    path = getattr(found, "__file__", None)
    if found is None or path is None:
        _refuse(fn, f"its module `{module}` is no file (in a notebook, write it with `%%writefile tools.py`)")
    _check_held(fn, found, qualname)
    if module == "__main__":
        return _main_target(fn, found, qualname, path)
    return Target(module, qualname, os.path.realpath(path))


def _check_held(fn: Callable[..., Any], module: object, qualname: str) -> None:
    """The module must hold `fn` itself under its name; a decorator runs before there is anything under it."""
    held: Any = module
    for name in qualname.split("."):
        held = getattr(held, name, None)
        if held is None:
            return
    if held is not fn:
        _refuse(fn, f"its module holds something else as `{qualname}`: a wrapper, or a later definition")


def _main_target(fn: Callable[..., Any], main: object, qualname: str, path: str) -> Target:
    """A script's own function is found by the script's path, or by the name that `python -m` was given."""
    code = getattr(inspect.unwrap(fn), "__code__", None)
    if code is not None and Path(code.co_filename).resolve() != Path(path).resolve():
        _refuse(fn, "it was not read from the script that runs")
    spec = getattr(main, "__spec__", None)
    return Target("__main__" if spec is None else spec.name, qualname, os.path.realpath(path))


def _refuse(fn: object, why: str) -> NoReturn:
    raise RegistrationError(
        f"{repr_of(fn):.120} cannot run in a process of its own: {why}; make it a function at the top level of a "
        "module, such as tools.py, and register it from there"
    )


class Cancellation:
    """Ends one call's process from another thread. Asked for before there is one, there will be none."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._kill: Callable[[], None] | None = None
        self.asked = False
        """Whether somebody asked."""

    def cancel(self) -> None:
        """Kill the call's processes, if there are any; safe at any time and from any thread."""
        with self._lock:
            self.asked = True
            if self._kill is not None:
                self._kill()

    def watch(self, kill: Callable[[], None] | None) -> None:
        """Name what ends the process; None, before it is reaped: its number may then be somebody else's."""
        with self._lock:
            self._kill = kill
            if self.asked and kill is not None:
                kill()


def run(
    fn: Callable[..., Any],
    args: Mapping[str, Any],
    isolation: Isolation,
    cancellation: Cancellation | None = None,
) -> Any:
    """Run `fn(**args)` in a process of its own and return its result, as JSON carries it.

    A coroutine function is run to its end. What has no JSON form comes back as `{"repr": …}`, as it would be
    recorded. When this returns or raises, by whatever way, the process and those it started are gone.

    Args:
        fn: a function that `target_of` takes.
        args: JSON, by name.
        isolation: its bounds.
        cancellation: ends the call from another thread.

    Raises:
        RegistrationError: `fn` cannot be run so.
        ToolTimeout: it took too long; it was killed.
        ToolMemory: it ran out of memory.
        ToolCrashed: it ended without a result, by a signal for instance; could not begin; or was cancelled.
        IsolatedToolError: it raised.

    Cost: a process; the thread waits. Safe in any number of threads at once.
    """
    from runtime.isolation_process import converse  # noqa: PLC0415 - subprocess, which most never need

    target = target_of(fn)
    stop = cancellation or Cancellation()
    if stop.asked:
        raise ToolCrashed(f"`{target.qualname}` was cancelled before it began", began=False)
    return converse(target, args, isolation, stop)


async def run_async(fn: Callable[..., Any], args: Mapping[str, Any], isolation: Isolation) -> Any:
    """Do as `run` does, in a thread; a task that is cancelled goes on when the process is gone, and not before."""
    import asyncio  # noqa: PLC0415 - loaded already where this runs

    stop = Cancellation()
    work = asyncio.ensure_future(asyncio.to_thread(run, fn, args, isolation, stop))
    work.add_done_callback(
        lambda done: done.cancelled() or done.exception()
    )  # asked for, even if nobody waits
    try:
        return await asyncio.shield(work)
    except asyncio.CancelledError:
        stop.cancel()
        await _until_done(work)
        raise
    finally:
        stop.cancel()  # also when the coroutine is closed, and nothing can be awaited any more


async def _until_done(work: Any) -> None:
    """Wait however often the waiting itself is cancelled."""
    import asyncio  # noqa: PLC0415 - loaded already where this runs
    import contextlib  # noqa: PLC0415 - as above

    while not work.done():
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.wait([work])


def elsewhere() -> Any | None:
    """Return what stands for a runtime in the process of an isolated tool; None in any other process."""
    child = getattr(sys.modules.get("__main__"), "REDECIDE_CHILD", False) is True
    return Elsewhere() if child else None


class Elsewhere:
    """What `Runtime.open` returns in a tool's process: it lets the module's declarations pass, and nothing else.

    A script that opens a runtime and declares its tools beside it is read again in the child, to find the function.
    """

    def tool(self, fn: Callable[..., Any] | None = None, **declared: Any) -> Any:
        """Take a declaration. What comes back is found by the child, and refuses to be called by anybody else."""
        return functools.partial(self.tool, **declared) if fn is None else Declared(fn)

    def __enter__(self) -> NoReturn:
        self.__getattr__("with")

    def __exit__(self, *_: object) -> None: ...

    def __getattr__(self, name: str) -> NoReturn:
        raise GovernanceError(
            f"`{name}` of a runtime is out of reach in the process of an isolated tool; keep what uses it below "
            "`if __name__ == '__main__':`, or move the tool to a module of its own, such as tools.py"
        )


class Declared:
    """A governed tool as its own module holds it in a tool's process."""

    def __init__(self, fn: Callable[..., Any]) -> None:
        self.redecide_isolated = fn
        """The function itself, for the child that was started to run it."""

    def __call__(self, *_: Any, **__: Any) -> NoReturn:
        """Refuse: nothing governs a call here."""
        name = getattr(self.redecide_isolated, "__name__", "it")
        raise GovernanceError(f"governed tool `{name}` cannot be called from the process of an isolated tool")
