"""The runtime's side of an isolated call: start the process, talk through pipes, end it, say how it ended.

One rule: whatever happens, the process's whole session is killed and the process reaped before the call ends; its
number is never used once it is reaped.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import selectors
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Self

from runtime.errors import IsolatedToolError, ToolCrashed, ToolMemory, ToolTimeout
from runtime.foreign import message_of, well_formed

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from runtime.isolation import Cancellation, Isolation, Target

CHILD: Final = str(Path(__file__).resolve().with_name("isolation_child.py"))
LENGTH: Final = 8
"""Bytes before each message that say how long it is; as in `isolation_child`."""
FRAME: Final = 64 * 1024
"""Bytes of a reply beside the result: names, messages, traceback."""
KEPT: Final = 8 * 1024
"""Bytes kept of the end of what a tool prints, for messages."""
SHOWN: Final = 1024
"""Bytes of it that a message shows."""
OPEN_FILES: Final = 256
"""File descriptors a tool's process may hold."""
MIB: Final = 1024 * 1024
POLL_SECONDS: Final = 0.02
"""How often a system that cannot wake us at a process's end is asked."""
OWN_ENV: Final = ("PYTHONHOME", "LD_LIBRARY_PATH", "DYLD_LIBRARY_PATH")
"""What Python itself may need to start; none holds secrets."""


def converse(target: Target, args: Mapping[str, Any], isolation: Isolation, stop: Cancellation) -> Any:
    """Run one call in a process; see `isolation.run`."""
    deadline = time.monotonic() + isolation.seconds
    with Child(target, _request(target, args, isolation), isolation, stop) as child:
        ended = child.wait(deadline)
        child.finish()
    if stop.asked:
        raise ToolCrashed(f"`{target.qualname}` was cancelled; its process was killed")
    if not ended:
        raise ToolTimeout(
            f"`{target.qualname}` took longer than its {isolation.seconds:g} s (`Isolation.seconds`); it was killed"
        )
    return _conclude(target, child, isolation)


def _request(target: Target, args: Mapping[str, Any], isolation: Isolation) -> bytes:
    limits = {
        "RLIMIT_CORE": 0,
        "RLIMIT_NOFILE": OPEN_FILES,
        "RLIMIT_AS": isolation.memory_mb * MIB,
    }
    if isolation.cpu_seconds is not None:
        limits["RLIMIT_CPU"] = isolation.cpu_seconds + 1
    if isolation.files_mb is not None:
        limits["RLIMIT_FSIZE"] = isolation.files_mb * MIB
    call = target._asdict() | {
        "args": dict(args),
        "limits": limits,
        "sys_path": [os.path.realpath(os.fsdecode(entry)) for entry in sys.path],
        "result_bytes": isolation.result_mb * MIB,
    }
    body = json.dumps(call, ensure_ascii=False).encode("utf-8", "surrogatepass")
    return len(body).to_bytes(LENGTH, "big") + body


class Child:
    """One process, its pipes, and what came out of them. Use it in `with`: leaving kills and reaps."""

    def __init__(self, target: Target, request: bytes, isolation: Isolation, stop: Cancellation) -> None:
        self._stop = stop
        self._unsent = memoryview(request)
        self._most = isolation.result_mb * MIB + FRAME
        self.reply = bytearray()
        """Its answer, length first; as much as has come."""
        self.printed = bytearray()
        """The end of what it printed to standard output and error."""
        self.status: int | None = None
        """How it ended, as `os.wait4` says; None: somebody else has taken that."""
        self.cpu_seconds = 0.0
        """Processor time it took, with those of its own children that it waited for."""
        self._reply, theirs = _pipe()
        try:
            self._process = _start(theirs, isolation)
        except BaseException as exc:
            os.close(self._reply)
            if isinstance(exc, OSError | ValueError):
                raise ToolCrashed(
                    f"`{target.qualname}` did not begin: {message_of(exc)}", began=False
                ) from exc
            raise
        finally:
            os.close(theirs)
        assert self._process.stdin is not None  # noqa: S101 - both are pipes
        assert self._process.stdout is not None  # noqa: S101 - as above
        self._request, self._prints = self._process.stdin, self._process.stdout
        for fd in (self._reply, self._request.fileno(), self._prints.fileno()):
            os.set_blocking(fd, False)

    def __enter__(self) -> Self:
        self._stop.watch(self.kill)
        return self

    def __exit__(self, *_: object) -> None:
        try:
            self.kill()
            self._stop.watch(None)
            self._reap()
        finally:
            os.close(self._reply)
            self._request.close()
            self._prints.close()

    def kill(self) -> None:
        """Kill the process and all it started in its session. It is not reaped yet, so the number is its own."""
        # No such process: all gone. Not permitted: on macOS, when only a zombie is left.
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self._process.pid, signal.SIGKILL)

    def wait(self, deadline: float) -> bool:
        """Talk until the process has ended; False: the deadline came first."""
        with selectors.DefaultSelector() as selector, _waking(self._process.pid) as wakes:
            selector.register(self._request, selectors.EVENT_WRITE, self._send)
            selector.register(self._prints, selectors.EVENT_READ, self._read_prints)
            selector.register(self._reply, selectors.EVENT_READ, self._read_reply)
            if wakes is not None:
                selector.register(wakes, selectors.EVENT_READ, lambda: True)
            while not self._has_ended():
                left = deadline - time.monotonic()
                if left <= 0:
                    return False
                for key, _ in selector.select(left if wakes is not None else min(left, POLL_SECONDS)):
                    if not key.data():
                        selector.unregister(key.fileobj)
        return True

    def finish(self) -> None:
        """Kill what is left of the session and take what is still in the pipes."""
        self.kill()
        while self._read_reply():
            pass
        while self._read_prints():
            pass

    def answer(self) -> Mapping[str, Any] | None:
        """Return what the process said, if it said all of it."""
        if len(self.reply) < LENGTH:
            return None
        body = self.reply[LENGTH:]
        if len(body) != int.from_bytes(self.reply[:LENGTH], "big"):
            return None
        try:
            found = json.loads(body)
        except (ValueError, RecursionError):
            return None
        return found if isinstance(found, dict) else None

    def _send(self) -> bool:
        """Send a piece of the request; False when there is no more. The pipe stays open: its end means our death."""
        try:
            self._unsent = self._unsent[os.write(self._request.fileno(), self._unsent[:MIB]) :]
        except BlockingIOError:
            return True
        except BrokenPipeError:
            return False
        return bool(self._unsent)

    def _read_reply(self) -> bool:
        piece = _take(self._reply)
        self.reply += piece
        if len(self.reply) > self._most:  # the child keeps to its bound; this is something else writing
            self.reply.clear()
            self.kill()
            return False
        return bool(piece)

    def _read_prints(self) -> bool:
        piece = _take(self._prints.fileno())
        self.printed += piece
        del self.printed[:-KEPT]
        return bool(piece)

    def _has_ended(self) -> bool:
        try:
            return os.waitid(os.P_PID, self._process.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None
        except ChildProcessError:
            return True

    def _reap(self) -> None:
        with contextlib.suppress(ChildProcessError):
            _, self.status, usage = os.wait4(self._process.pid, 0)
            self.cpu_seconds = usage.ru_utime + usage.ru_stime
        self._process.returncode = 0 if self.status is None else os.waitstatus_to_exitcode(self.status)


def _pipe() -> tuple[int, int]:
    """Make a pipe clear of 0 to 2, which are free in a daemon and mean something else in its children."""
    ends = os.pipe()
    try:
        return (
            fcntl.fcntl(ends[0], fcntl.F_DUPFD_CLOEXEC, 3),
            fcntl.fcntl(ends[1], fcntl.F_DUPFD_CLOEXEC, 3),
        )
    finally:
        for end in ends:
            os.close(end)


def _start(reply: int, isolation: Isolation) -> subprocess.Popen[bytes]:
    return subprocess.Popen(  # noqa: S603 - our own Python, our own script
        [sys.executable, "-I", "-X", "utf8", CHILD, str(reply)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        bufsize=0,
        pass_fds=(reply,),
        start_new_session=True,
        cwd=isolation.cwd,
        env={name: os.environ[name] for name in (*OWN_ENV, *isolation.env) if name in os.environ},
    )


def _take(fd: int) -> bytes:
    """Read what is there; nothing at the end, and when there is nothing yet."""
    try:
        return os.read(fd, MIB)
    except BlockingIOError:
        return b""


@contextlib.contextmanager
def _waking(pid: int) -> Iterator[int | None]:
    """Give a descriptor that becomes readable when the process ends, where the system has such."""
    try:
        wakes = os.pidfd_open(pid)
    except (AttributeError, OSError):
        yield None
        return
    try:
        yield wakes
    finally:
        os.close(wakes)


def _conclude(target: Target, child: Child, isolation: Isolation) -> Any:
    """Return the result, or raise what the ended process said or shows."""
    name, answer = f"`{target.qualname}`", child.answer() or {}
    match answer.get("kind"):
        case "returned" if child.status == 0:
            return answer.get("value")
        case "raised":
            raised = IsolatedToolError(
                well_formed(str(answer.get("message"))), type_name=well_formed(str(answer.get("type")))
            )
            raised.add_note(f"in the process of {name}:\n{answer.get('traceback')}")
            raise raised
        case "memory":
            raise ToolMemory(f"{name} needed more than its {isolation.memory_mb} MiB (`Isolation.memory_mb`)")
        case "unloadable":
            raise ToolCrashed(
                f"{name} could not be loaded from {target.path} in a process of its own: {answer.get('type')}: "
                f"{answer.get('message')}",
                began=False,
            )
    if _was_out_of_cpu(child, isolation):
        raise ToolTimeout(
            f"{name} used more than its {isolation.cpu_seconds} s of processor time (`Isolation.cpu_seconds`)"
        )
    raise ToolCrashed(f"{name} {_ending(child.status, answered=bool(answer))}{_last_words(child)}")


def _was_out_of_cpu(child: Child, isolation: Isolation) -> bool:
    if isolation.cpu_seconds is None or child.status is None or not os.WIFSIGNALED(child.status):
        return False
    signalled = os.WTERMSIG(child.status)
    return signalled == signal.SIGXCPU or (
        signalled == signal.SIGKILL and child.cpu_seconds >= isolation.cpu_seconds
    )


def _ending(status: int | None, *, answered: bool) -> str:
    when = "after it had returned" if answered else "without a result"
    if status is None:
        return (
            f"ended {when} that can be trusted: its exit status was taken by something that reaps every child "
            "of this process, such as a handler of SIGCHLD"
        )
    if not os.WIFSIGNALED(status):
        return f"ended {when}, with exit status {os.waitstatus_to_exitcode(status)}"
    number = os.WTERMSIG(status)
    hint = ", perhaps by the system for want of memory" if number == signal.SIGKILL else ""
    return f"was killed {when}, by {signal.Signals(number).name}{hint}"


def _last_words(child: Child) -> str:
    text = child.printed[-SHOWN:].decode(errors="replace").strip()
    return f"; it printed at the end: {text}" if text else ""
