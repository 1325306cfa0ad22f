"""Tools that tests run in processes of their own. Read by the child, so it imports next to nothing."""

from __future__ import annotations

import asyncio
import enum
import os
import resource
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import Any

LIMITS_AT_IMPORT = {
    name: resource.getrlimit(getattr(resource, name))
    for name in ("RLIMIT_AS", "RLIMIT_CPU", "RLIMIT_FSIZE", "RLIMIT_NOFILE", "RLIMIT_CORE")
}


def echo(value: Any = None) -> Any:
    return value


def limits() -> Any:
    return LIMITS_AT_IMPORT


def raise_limits() -> list[str]:
    """Try to go beyond each limit; returns those that could be raised."""
    raised = []
    for name, (_, most) in LIMITS_AT_IMPORT.items():
        try:
            resource.setrlimit(getattr(resource, name), (most, most + 1))
            raised.append(name)
        except (OSError, ValueError):
            pass
    return raised


def surroundings() -> dict[str, Any]:
    """All a tool can find out about what it inherited."""
    descriptors = {}
    for fd in Path("/proc/self/fd").iterdir():
        try:
            descriptors[fd.name] = str(fd.readlink())
        except OSError:
            continue  # the listing's own
    return {
        "environ": Path("/proc/self/environ").read_bytes().decode(),
        "seen": dict(os.environ),
        "cmdline": Path("/proc/self/cmdline").read_bytes().decode(),
        "descriptors": descriptors,
        "cwd": str(Path.cwd()),
        "stdin": sys.stdin.read(),
    }


class Colour(enum.Enum):
    RED = "red"


@dataclass
class Refund:
    cents: int


class Rude:
    def __repr__(self) -> str:
        raise RuntimeError("no")


class RudeError(Exception):
    def __str__(self) -> str:
        raise RuntimeError("no")


def forms() -> dict[str, Any]:
    return {
        "enum": Colour.RED,
        "class": Refund(5),
        "money": Decimal("1.10"),
        "set": {2, 1},
        "bytes": b"ab",
        "tuple": (1, 2),
    }


def no_form(which: str) -> Any:
    if which == "object":
        return {"a": complex(1, 2)}
    if which == "rude":
        return Rude()
    deep: Any = []
    for _ in range(100_000):
        deep = [deep]
    return deep


def generates() -> Any:
    yield 1


async def later(value: int) -> int:
    await asyncio.sleep(0)
    return value + 1


def raises(what: str) -> None:
    if what == "value":
        raise ValueError("no such order: " + "x" * 100_000)
    if what == "rude":
        raise RudeError
    if what == "exit":
        sys.exit(0)
    if what == "interrupt":
        raise KeyboardInterrupt
    raise OSError(5, "disk")


def hungry() -> int:
    return len(bytearray(2_000_000_000))


def spins() -> None:
    while True:
        pass


def spins_deaf() -> None:
    signal.signal(signal.SIGXCPU, signal.SIG_IGN)
    while True:
        pass


def writes_much(path: str) -> None:
    with Path(path).open("wb") as file:
        file.write(b"x" * 3_000_000)


def dies(how: str) -> Any:
    print("last words", flush=True)  # noqa: T201 - what a tool may do
    if how == "exit 0":
        os._exit(0)
    if how == "exit 3":
        os._exit(3)
    os.kill(os.getpid(), getattr(signal, how))
    time.sleep(60)


def returns_then_dies() -> int:
    import atexit

    atexit.register(os._exit, 9)
    return 1


def forges() -> str:
    """Print what the runtime would take for a result, if it came through the other pipe."""
    body = b'{"kind":"returned","value":"forged"}'
    for fd in (1, 2):
        os.write(fd, len(body).to_bytes(8, "big") + body)
    return "real"


def prints(megabytes: int) -> None:
    for _ in range(megabytes):
        os.write(1, b"x" * 1_000_000)
    print("the end", flush=True)  # noqa: T201 - as above
    os._exit(1)


def leaves_behind(pids: str) -> str:
    """Start a child and a grandchild that ignore all they can, hold every pipe, and never end; then return."""
    _family(pids)
    return "returned"


def floods_behind() -> str:
    """Leave a child behind that never stops printing."""
    if not os.fork():
        while True:
            os.write(1, b"x" * 100_000)
    return "returned"


def hangs_with_family(pids: str) -> None:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    _family(pids)
    time.sleep(600)


def _family(pids: str) -> None:
    deaf = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print(1, flush=True); time.sleep(600)"
    executed = subprocess.Popen([sys.executable, "-c", deaf], stdout=subprocess.PIPE)
    assert executed.stdout is not None
    executed.stdout.read(1)
    ready, told = os.pipe()
    forked = os.fork()
    if not forked:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        grandchild = os.fork()
        if grandchild:
            os.write(told, f"{grandchild}".encode())
        time.sleep(600)
    grandchild = int(os.read(ready, 20))
    Path(pids).write_text(f"{os.getpid()} {executed.pid} {forked} {grandchild}")


def tells_and_hangs(fifo: str) -> None:
    """Say through a named pipe which process this is, then hang."""
    with Path(fifo).open("w") as pipe:
        pipe.write(str(os.getpid()))
    time.sleep(600)


def interrupts(pid: int) -> None:
    os.kill(pid, signal.SIGINT)
    time.sleep(600)
