"""The process of an isolated tool: limits itself, finds the function, runs it, says what came of it, ends.

One rule: the limits hold before the first line of the tool's module runs.

Started as a script by `isolation_process`, in a fresh Python. Each call pays for each import: nothing of this
package, of the standard library the cheapest, and what only some calls need, where they need it.
"""

from __future__ import annotations

import enum
import fcntl
import importlib
import importlib.util
import json
import os
import resource
import select
import signal
import sys
import types

TYPE_CHECKING = False  # `typing` would cost three milliseconds
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any, Final

REDECIDE_CHILD: Final = True
"""How `isolation.elsewhere` knows this process."""

LENGTH: Final = 8
"""Bytes before each message that say how long it is."""

TEXT_CHARS: Final = 4096
"""Longest message and traceback that are sent."""

SCRIPT: Final = "__redecide_script__"
"""Name under which the script is read that the runtime runs in: not `__main__`, so that its guard holds."""


class Unloadable(Exception):  # noqa: N818 - the state's own name
    """The function is not where it was said to be."""


class ResultTooLarge(Exception):  # noqa: N818 - what callers read
    """The tool returned, and its result cannot be carried."""


def main() -> None:
    """Read one call from standard input, run it, answer on the descriptor named by the only argument."""
    if os.getsid(0) != os.getpid():  # else it would have somebody else's processes killed at its end
        sys.exit("isolation_child is started by runtime.isolation, in a session of its own")
    # Out of the way of whatever the tool starts, and of prints and reads of its own.
    reply = fcntl.fcntl(int(sys.argv[1]), fcntl.F_DUPFD_CLOEXEC, 64)
    os.close(int(sys.argv[1]))
    request = fcntl.fcntl(0, fcntl.F_DUPFD_CLOEXEC, 64)
    with open(os.devnull) as nothing:  # noqa: PTH123 - a path object would be no clearer
        os.dup2(nothing.fileno(), 0)
    call = json.loads(_read(request))
    _die_with(request)
    _limit(call["limits"])
    # Python's strings may hold what UTF-8 does not; the runtime's side reads it back.
    _write(reply, _answer(call).encode("utf-8", "surrogatepass"))


def _read(fd: int) -> bytes:
    return _exactly(fd, int.from_bytes(_exactly(fd, LENGTH), "big"))


def _exactly(fd: int, count: int) -> bytes:
    found = bytearray()
    while len(found) < count:
        piece = os.read(fd, min(count - len(found), 1 << 20))
        if not piece:
            os._exit(1)  # the runtime is gone before it had asked for anything
        found += piece
    return bytes(found)


def _write(fd: int, body: bytes) -> None:
    rest = memoryview(len(body).to_bytes(LENGTH, "big") + body)
    while rest:
        rest = rest[os.write(fd, rest) :]


def _die_with(fd: int) -> None:
    """Have the kernel kill this session when the runtime's end of the pipe closes, in whatever way that comes about.

    Else a tool could have its effect after another process has found its runtime dead, and asked what became of it.
    The signal cannot be caught, and costs no thread. Linux only.
    """
    if hasattr(fcntl, "F_SETSIG"):
        fcntl.fcntl(fd, fcntl.F_SETSIG, int(signal.SIGKILL))
        fcntl.fcntl(fd, fcntl.F_SETOWN, -os.getpgrp())
        fcntl.fcntl(fd, fcntl.F_SETFL, fcntl.fcntl(fd, fcntl.F_GETFL) | os.O_ASYNC)
        poll = select.poll()
        poll.register(fd, select.POLLIN)
        if poll.poll(0):  # it closed before we listened
            os._exit(1)


def _limit(limits: Mapping[str, int]) -> None:
    """Set each limit, also as the most that the tool itself may set; a lower one that is there stays."""
    for name, wanted in limits.items():
        kind = getattr(resource, name)
        _, most = resource.getrlimit(kind)
        bound = wanted if most == resource.RLIM_INFINITY else min(wanted, most)
        # The kernel's first signal at the end of processor time can be told from others; a second later it kills.
        soft = max(bound - 1, 1) if name == "RLIMIT_CPU" else bound
        try:
            resource.setrlimit(kind, (soft, bound))
        except (OSError, ValueError):
            if sys.platform != "darwin":  # which takes some limits for no process
                raise


def _answer(call: Mapping[str, Any]) -> str:
    """Run the call; whatever the tool does becomes an answer, as JSON."""
    try:
        sys.path[:], sys.argv[:] = call["sys_path"], [call["path"]]
        fn = _find(call["module"], call["qualname"], call["path"])
    except MemoryError:
        return json.dumps({"kind": "memory"})
    except BaseException as exc:  # noqa: BLE001 - a guard point: the module's own code runs here
        return json.dumps({"kind": "unloadable", **_described(exc)})
    try:
        text = _text_of(_result(fn, call["args"]), call["result_bytes"])
    except MemoryError:
        return json.dumps({"kind": "memory"})
    except BaseException as exc:  # noqa: BLE001 - a guard point: the tool's own code runs here
        return json.dumps({"kind": "raised", **_described(exc)})
    return f'{{"kind":"returned","value":{text}}}'


def _find(module: str, qualname: str, path: str) -> Any:
    found: Any = _module(module, path)
    for name in qualname.split("."):
        if (found := getattr(found, name, None)) is None:
            raise Unloadable(f"`{path}` holds no `{qualname}`")
    # A tool that is declared where its runtime is opened is held by a stand-in that refuses calls.
    return getattr(found, "redecide_isolated", found)


def _module(name: str, path: str) -> types.ModuleType:
    if name != "__main__":
        try:
            spec = importlib.util.find_spec(name)
        except ModuleNotFoundError:
            spec = None
        if spec is not None:
            if spec.origin is None or os.path.realpath(spec.origin) != path:
                raise Unloadable(f"module `{name}` is {spec.origin} here, and {path} in the runtime")
            return importlib.import_module(name)
    return _from_file(SCRIPT if name == "__main__" else name, path)


def _from_file(name: str, path: str) -> types.ModuleType:
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise Unloadable(f"{path} is no Python file")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # dataclasses, pickle and type hints look themselves up
    spec.loader.exec_module(module)
    return module


def _result(fn: Any, args: Mapping[str, Any]) -> Any:
    result = fn(**args)
    if isinstance(result, types.GeneratorType | types.AsyncGeneratorType):
        raise TypeError("the tool returned a generator, which cannot leave its process; return a list")
    if hasattr(result, "__await__"):
        import asyncio  # noqa: PLC0415 - that only async tools pay

        async def awaited() -> Any:
            return await result

        return asyncio.run(awaited())
    return result


def _text_of(value: Any, most: int) -> str:
    """Return a result as JSON, of `most` bytes."""
    text = _json_of(value)
    if (size := len(text.encode("utf-8", "surrogatepass"))) > most:
        raise ResultTooLarge(
            f"the tool returned, and its result of {size} bytes is above `Isolation.result_mb`"
        )
    return text


def _json_of(value: Any) -> str:
    """Return a result as JSON; the tool has run, so one of no JSON form must not look like a failure."""
    try:
        return json.dumps(value, default=_plain, ensure_ascii=False)
    except MemoryError:
        raise
    except Exception:  # noqa: BLE001 - a guard point: the value's own methods run here
        try:
            return json.dumps({"repr": repr(value)})
        except Exception as exc:  # noqa: BLE001 - as above
            return json.dumps({"repr": f"<{type(value).__name__} whose repr raises {type(exc).__name__}>"})


def _plain(value: Any) -> Any:
    """Return what stands in JSON for a value that has no form of its own there, as `runtime.tools` records it."""
    import base64  # noqa: PLC0415 - few results need any of these
    import decimal  # noqa: PLC0415 - as above
    import uuid  # noqa: PLC0415 - as above

    match value:
        case enum.Enum():
            return value.value
        case decimal.Decimal() | uuid.UUID():
            return str(value)
        case set() | frozenset():
            return sorted(value)
        case bytes() | bytearray():
            return base64.b64encode(value).decode()
    if hasattr(value, "__dataclass_fields__") and not isinstance(value, type):
        return {name: getattr(value, name) for name in value.__dataclass_fields__}
    if callable(dump := getattr(value, "model_dump", None)):
        return dump(mode="json")
    if callable(iso := getattr(value, "isoformat", None)):  # dates and times
        return iso()
    raise TypeError(f"{type(value).__name__} has no JSON form")


def _described(error: BaseException) -> dict[str, str]:
    try:
        message = str(error)
    except Exception as exc:  # noqa: BLE001 - a guard point: the exception's own method runs here
        message = f"<whose str raises {type(exc).__name__}>"
    import traceback  # noqa: PLC0415 - only failures need it

    lines = "".join(traceback.format_tb(error.__traceback__))
    return {"type": type(error).__name__, "message": message[:TEXT_CHARS], "traceback": lines[-TEXT_CHARS:]}


if __name__ == "__main__":
    main()
