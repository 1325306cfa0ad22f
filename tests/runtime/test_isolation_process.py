"""Tools in processes of their own: real children, each way to end, and nothing left of any of them."""

from __future__ import annotations

import asyncio
import fcntl
import gc
import importlib.util
import os
import resource
import signal
import subprocess
import sys
import textwrap
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from runtime import Runtime, isolation_process
from runtime.bundle import bundle_from_files
from runtime.errors import (
    GovernanceError,
    IsolatedToolError,
    RegistrationError,
    ToolCrashed,
    ToolError,
    ToolMemory,
    ToolTimeout,
)
from runtime.isolation import Cancellation, Elsewhere, Isolation, elsewhere, run, run_async, target_of
from runtime.ledger import Ledger

if TYPE_CHECKING:
    from collections.abc import Iterator

TOOLS = Path(__file__).with_name("isolation_tools.py")
QUICK = Isolation(seconds=20)
PATIENT = Isolation(seconds=120)
"""For calls that something else ends: a test that waits for this one has failed."""


def _load(path: Path, name: str) -> Any:
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


tools = _load(TOOLS, "redecide_isolation_tools")


def call(fn: Any, isolation: Isolation = QUICK, **args: Any) -> Any:
    return run(fn, args, isolation)


def gone(pid: int) -> bool:
    """Whether a process runs no more: it may stay as a zombie where nothing reaps orphans."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] in "ZX"
    except (FileNotFoundError, ProcessLookupError):
        return True


def soon_gone(pid: int) -> bool:
    """A kill takes effect when the kernel comes to it; a process that was not killed stays for minutes."""
    deadline = time.monotonic() + 10
    while not gone(pid) and time.monotonic() < deadline:
        time.sleep(0.001)
    return gone(pid)


def descriptors() -> set[str]:
    return {fd.name for fd in Path("/proc/self/fd").iterdir()}


def children_of(task: Path) -> list[str]:
    try:
        return (task / "children").read_text().split()
    except (FileNotFoundError, ProcessLookupError):  # a thread that has ended meanwhile
        return []


def children() -> set[str]:
    """Return our child processes, zombies included; other tests' may be among them."""
    return {pid for task in Path("/proc/self/task").iterdir() for pid in children_of(task)}


@pytest.fixture(autouse=True)
def nothing_left() -> Iterator[None]:
    """Every test here leaves no descriptor and no child behind, zombies included."""
    gc.collect()  # what other files' tests left may go whenever it likes
    before = descriptors(), children()
    yield
    assert descriptors() <= before[0]
    assert children() <= before[1]


json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**63 - 1) | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
)


@settings(max_examples=8)
@given(json_values)
def test_json_comes_back_as_it_went(value: Any) -> None:
    assert call(tools.echo, value=value) == value


def test_more_than_a_pipe_holds_goes_both_ways() -> None:
    text = "é" * 3_000_000
    assert call(tools.echo, value=text) == text


def test_results_of_other_forms_are_as_they_would_be_recorded() -> None:
    expected = {
        "enum": "red",
        "class": {"cents": 5},
        "money": "1.10",
        "set": [1, 2],
        "bytes": "YWI=",
        "tuple": [1, 2],
    }
    assert call(tools.forms) == expected
    assert call(tools.no_form, which="object") == {"repr": "{'a': (1+2j)}"}
    assert call(tools.no_form, which="rude") == {"repr": "<Rude whose repr raises RuntimeError>"}
    assert call(tools.no_form, which="deep") == {"repr": "<list whose repr raises RecursionError>"}


def test_a_coroutine_is_run_to_its_end() -> None:
    assert call(tools.later, value=1) == 2


def test_the_environment_is_what_was_declared(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("API_KEY", "s3cr3t-key")
    monkeypatch.setenv("REGION", "eu")
    found = call(tools.surroundings, Isolation(env=("REGION", "NOT_SET"), cwd=tmp_path))
    assert "s3cr3t" not in str(found)
    assert found["seen"].pop("REGION") == "eu"
    assert set(found["seen"]) <= {
        "LC_CTYPE",
        "LD_LIBRARY_PATH",
        "PYTHONHOME",
    }  # the first set by Python itself
    assert found["cwd"] == str(tmp_path.resolve())
    assert found["stdin"] == ""


def test_arguments_are_not_on_the_command_line_for_others_to_read() -> None:
    assert "4111" not in str(call(tools.surroundings)["cmdline"])
    with pytest.raises(IsolatedToolError):
        call(tools.surroundings, card="4111-1111")


def test_no_descriptor_of_the_runtime_is_inherited(tmp_path: Path) -> None:
    with (
        Ledger.open(tmp_path / "ledger.sqlite"),
        (tmp_path / "lock").open("w") as lock,
        (tmp_path / "inheritable").open("w") as careless,
    ):
        os.set_inheritable(careless.fileno(), True)
        fcntl.flock(lock, fcntl.LOCK_EX)
        found = call(tools.surroundings)["descriptors"]
    kinds = {number: where.partition(":")[0] for number, where in found.items()}
    assert kinds.pop("0") == "/dev/null"
    assert set(kinds.values()) == {"pipe"}
    assert len(kinds) == 4  # output, error, the request (whose end is our death), the reply


def test_limits_hold_before_the_module_is_read_and_cannot_be_raised() -> None:
    isolation = Isolation(memory_mb=300, cpu_seconds=7, files_mb=2)
    mib = 1024 * 1024
    assert call(tools.limits, isolation) == {
        "RLIMIT_AS": [300 * mib, 300 * mib],
        "RLIMIT_CPU": [7, 8],
        "RLIMIT_FSIZE": [2 * mib, 2 * mib],
        "RLIMIT_NOFILE": [256, 256],
        "RLIMIT_CORE": [0, 0],
    }


def test_memory_ends_it() -> None:
    with pytest.raises(ToolMemory, match=r"`hungry` needed more than its 200 MiB \(`Isolation.memory_mb`\)"):
        call(tools.hungry, Isolation(memory_mb=200))


@pytest.mark.parametrize("fn", [tools.spins, tools.spins_deaf], ids=["spins", "ignores the signal"])
def test_processor_time_ends_it(fn: Any) -> None:
    with pytest.raises(ToolTimeout, match=r"used more than its 1 s of processor time"):
        call(fn, Isolation(cpu_seconds=1, seconds=60))


def test_the_size_of_files_is_bounded(tmp_path: Path) -> None:
    with pytest.raises(IsolatedToolError, match="File too large"):
        call(tools.writes_much, Isolation(files_mb=1), path=str(tmp_path / "f"))
    assert (tmp_path / "f").stat().st_size <= 1024 * 1024


def test_time_ends_it_with_all_its_family(tmp_path: Path) -> None:
    pids = tmp_path / "pids"
    with pytest.raises(ToolTimeout, match=r"took longer than its 3 s"):
        call(tools.hangs_with_family, Isolation(seconds=3), pids=str(pids))
    family = [int(pid) for pid in pids.read_text().split()]
    assert len(set(family)) == 4
    assert all(soon_gone(pid) for pid in family)


def test_what_it_leaves_behind_is_killed(tmp_path: Path) -> None:
    """Grandchildren hold every pipe: the call must neither wait for them nor leave them."""
    pids = tmp_path / "pids"
    assert call(tools.leaves_behind, Isolation(seconds=60), pids=str(pids)) == "returned"
    assert all(soon_gone(int(pid)) for pid in pids.read_text().split())


def test_what_it_leaves_behind_cannot_hold_up_its_end() -> None:
    assert call(tools.floods_behind) == "returned"


def test_prints_are_no_result() -> None:
    assert call(tools.forges) == "real"


def test_what_it_prints_is_bounded_and_shown() -> None:
    with pytest.raises(ToolCrashed, match=r"with exit status 1; it printed at the end: x+the end$") as caught:
        call(tools.prints, megabytes=20)
    assert len(str(caught.value)) < 2000


def test_what_it_prints_is_not_kept_in_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    kept: list[int] = []
    shown = isolation_process._last_words

    def counted(child: Any) -> str:
        kept.append(len(child.printed))
        return shown(child)

    monkeypatch.setattr(isolation_process, "_last_words", counted)
    with pytest.raises(ToolCrashed):
        call(tools.prints, megabytes=5)
    assert kept == [isolation_process.KEPT]


@pytest.mark.parametrize(
    ("how", "says"),
    [
        ("exit 0", "ended without a result, with exit status 0; it printed at the end: last words"),
        ("exit 3", "ended without a result, with exit status 3; it printed at the end: last words"),
        ("SIGSEGV", "was killed without a result, by SIGSEGV; it printed"),
        (
            "SIGKILL",
            "was killed without a result, by SIGKILL, perhaps by the system for want of memory; it printed",
        ),
    ],
)
def test_a_crash_says_how(how: str, says: str) -> None:
    with pytest.raises(ToolCrashed) as caught:
        call(tools.dies, how=how)
    assert f"`dies` {says}" in str(caught.value)


def test_a_result_counts_once_the_process_has_ended_well() -> None:
    with pytest.raises(ToolCrashed, match="ended after it had returned, with exit status 9"):
        call(tools.returns_then_dies)


@pytest.mark.parametrize(
    ("what", "type_name", "starts"),
    [
        ("value", "ValueError", "ValueError: no such order: xxx"),
        ("rude", "RudeError", "RudeError: <whose str raises RuntimeError>"),
        ("exit", "SystemExit", "SystemExit: 0"),
        ("interrupt", "KeyboardInterrupt", "KeyboardInterrupt"),
        ("os", "OSError", "OSError: [Errno 5] disk"),
    ],
)
def test_what_it_raises_is_raised_by_name(what: str, type_name: str, starts: str) -> None:
    with pytest.raises(IsolatedToolError) as caught:
        call(tools.raises, what=what)
    assert caught.value.type_name == type_name
    assert str(caught.value).startswith(starts)
    assert len(str(caught.value)) < 5000
    assert "isolation_tools.py" in caught.value.__notes__[0]


def test_a_generator_and_a_large_result_are_refused() -> None:
    with pytest.raises(IsolatedToolError, match="returned a generator"):
        call(tools.generates)
    with pytest.raises(
        IsolatedToolError, match="ResultTooLarge: the tool returned, and its result of 1100002 bytes"
    ):
        call(tools.echo, Isolation(result_mb=1), value="x" * 1_100_000)


def test_a_wrong_call_is_the_tools_own_error() -> None:
    with pytest.raises(IsolatedToolError, match="unexpected keyword argument 'other'"):
        call(tools.echo, other=1)


def test_without_process_descriptors_it_is_asked_now_and_then(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(os, "pidfd_open")
    assert call(tools.echo, value=3) == 3
    with pytest.raises(ToolTimeout):
        call(tools.spins, Isolation(seconds=0.2))


def test_what_cannot_begin_says_so(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    folder = tmp_path / "folder"
    folder.mkdir()
    isolation = Isolation(cwd=folder)
    folder.rmdir()
    with pytest.raises(ToolCrashed, match=r"`echo` did not begin: .*No such file"):
        call(tools.echo, isolation)


def test_many_threads_at_once() -> None:
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(lambda number: call(tools.echo, value=number), range(16)))
    assert found == list(range(16))


def test_threads_take_nothing_of_each_other() -> None:
    """One ends by time, one by a signal, one well, all under way at once."""
    barrier = threading.Barrier(3)

    def one(fn: Any, isolation: Isolation, **args: Any) -> Any:
        barrier.wait()
        try:
            return call(fn, isolation, **args)
        except ToolError as exc:
            return type(exc)

    with ThreadPoolExecutor(3) as pool:
        jobs = [
            pool.submit(one, tools.spins, Isolation(seconds=0.5)),
            pool.submit(one, tools.dies, QUICK, how="SIGSEGV"),
            pool.submit(one, tools.echo, QUICK, value=1),
        ]
    assert [job.result() for job in jobs] == [ToolTimeout, ToolCrashed, 1]


class Telling:
    """A named pipe through which a tool says which process it is."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / "fifo"
        os.mkfifo(self.path)

    def pid(self) -> int:
        """Wait until the tool runs."""
        return int(self.path.read_text())


async def test_a_cancelled_task_goes_on_when_the_process_is_gone(tmp_path: Path) -> None:
    telling = Telling(tmp_path)
    task = asyncio.ensure_future(run_async(tools.tells_and_hangs, {"fifo": str(telling.path)}, PATIENT))
    pid = await asyncio.to_thread(telling.pid)
    assert not gone(pid)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert gone(pid)
    await asyncio.get_running_loop().shutdown_default_executor()
    # The executor's threads are gone; what is left of the loop belongs to pytest.


async def test_a_timeout_of_asyncio_kills_it(tmp_path: Path) -> None:
    telling = Telling(tmp_path)
    seen: list[int] = []
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(None) as bound:

            async def expire() -> None:
                seen.append(await asyncio.to_thread(telling.pid))
                bound.reschedule(asyncio.get_running_loop().time())

            expiring = asyncio.ensure_future(expire())
            await run_async(tools.tells_and_hangs, {"fifo": str(telling.path)}, PATIENT)
    await expiring
    assert gone(seen[0])


async def test_async_gives_results_and_errors() -> None:
    found = await asyncio.gather(*(run_async(tools.echo, {"value": n}, QUICK) for n in range(4)))
    assert found == [0, 1, 2, 3]
    with pytest.raises(IsolatedToolError):
        await run_async(tools.raises, {"what": "value"}, QUICK)


def test_cancelled_from_another_thread(tmp_path: Path) -> None:
    telling, stop = Telling(tmp_path), Cancellation()
    with ThreadPoolExecutor(1) as pool:
        job = pool.submit(run, tools.tells_and_hangs, {"fifo": str(telling.path)}, PATIENT, stop)
        pid = telling.pid()
        stop.cancel()
        with pytest.raises(ToolCrashed, match="was cancelled; its process was killed"):
            job.result()
    assert gone(pid)
    stop.cancel()  # nothing is there any more, and nobody else's process is hit


def test_cancelled_before_it_began(monkeypatch: pytest.MonkeyPatch) -> None:
    stop = Cancellation()
    stop.cancel()
    monkeypatch.setattr(subprocess, "Popen", lambda *_, **__: pytest.fail("started"))
    with pytest.raises(ToolCrashed, match="cancelled before it began"):
        run(tools.echo, {}, QUICK, stop)


# What needs a process that can be killed, or a script that runs as `__main__`.

PRELUDE = f"""
import importlib.util, os, sys
spec = importlib.util.spec_from_file_location("tools", {str(TOOLS)!r})
tools = importlib.util.module_from_spec(spec); sys.modules["tools"] = tools; spec.loader.exec_module(tools)
from runtime.isolation import *
"""


def script(folder: Path, text: str) -> list[str]:
    path = folder / "script.py"
    path.write_text(textwrap.dedent(text))
    return [sys.executable, str(path)]


@pytest.mark.crash
def test_nothing_runs_on_when_the_runtime_is_killed(tmp_path: Path) -> None:
    """Else its effect could come after another process has found the runtime dead and asked what became of it."""
    pids = tmp_path / "pids"
    os.mkfifo(pids)
    text = PRELUDE + f"run(tools.hangs_with_family, {{'pids': {str(pids)!r}}}, Isolation(seconds=600))"
    with subprocess.Popen(script(tmp_path, text)) as runtime:
        family = [int(pid) for pid in pids.read_text().split()]
        assert not any(gone(pid) for pid in family)
        runtime.kill()
    assert runtime.returncode == -signal.SIGKILL
    assert all(soon_gone(pid) for pid in family)


def test_an_interrupt_ends_it(tmp_path: Path) -> None:
    text = (
        PRELUDE
        + """
try:
    run(tools.interrupts, {"pid": os.getpid()}, Isolation(seconds=60))
except KeyboardInterrupt:
    try:
        os.waitpid(-1, os.WNOHANG)
    except ChildProcessError:
        print("interrupted, and reaped")
"""
    )
    done = subprocess.run(script(tmp_path, text), capture_output=True, text=True, check=True)
    assert done.stdout == "interrupted, and reaped\n"


def test_a_status_that_somebody_else_took_is_no_success(tmp_path: Path) -> None:
    text = (
        PRELUDE
        + """
import signal
signal.signal(signal.SIGCHLD, signal.SIG_IGN)
try:
    print(run(tools.echo, {"value": 1}, Isolation()))
except Exception as exc:
    print(type(exc).__name__, exc)
"""
    )
    done = subprocess.run(script(tmp_path, text), capture_output=True, text=True, check=True)
    assert done.stdout.startswith(
        "ToolCrashed `echo` ended after it had returned that can be trusted: its exit status"
    )


def test_a_daemon_without_standard_streams(tmp_path: Path) -> None:
    """The first descriptors it opens are 0, 1 and 2, which mean something else in a child."""
    found = tmp_path / "found"
    text = (
        PRELUDE
        + f"""
os.closerange(0, 3)
result = run(tools.echo, {{"value": 7}}, Isolation())
open({str(found)!r}, "w").write(str(result))
"""
    )
    subprocess.run(script(tmp_path, text), check=True)
    assert found.read_text() == "7"


OWN_SCRIPT = """
import sys
from runtime.isolation import *
print("read by", __name__)

def double(value):
    return value * 2

if __name__ == "__main__":
    print(run(double, {"value": 21}, Isolation()))
"""


@pytest.mark.parametrize("as_module", [False, True], ids=["script", "python -m"])
def test_a_scripts_own_function(tmp_path: Path, as_module: bool) -> None:
    command = script(tmp_path, OWN_SCRIPT)
    command = [sys.executable, "-m", "script"] if as_module else command
    done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=tmp_path)
    assert done.stdout == "read by __main__\n42\n"


BESIDE = """
from runtime import Blocked, Isolation, IsolatedToolError, Runtime

rt = Runtime.open("bundle", lake="lake")
BOUNDS = Isolation(memory_mb=1024)


@rt.tool(isolate=BOUNDS)
def double(value: int) -> int:
    return value * 2


@rt.tool(isolate=BOUNDS)
def roundabout(value: int) -> int:
    return double(value)


if __name__ == "__main__":
    with rt.session(principal="Agent::bot", tenant="acme") as session:
        print(session.call(double, value=21))
        print(double(4))
        try:
            roundabout(1)
        except IsolatedToolError as error:
            print(error)
    rt.close(drain=False)
"""


def test_a_tool_declared_where_its_runtime_is_opened(tmp_path: Path) -> None:
    """The child reads the script again; it opens no ledger, and gets at the one function it was started for."""
    (tmp_path / "bundle").mkdir()
    (tmp_path / "bundle" / "p.cedar").write_text('@id("p") permit(principal, action, resource);')
    (tmp_path / "bundle" / "schema.cedarschema").write_text("""
        entity Agent; entity Tool;
        action "double", "roundabout" appliesTo { principal: Agent, resource: Tool, context: { args: { value: Long } } };
    """)
    done = subprocess.run(script(tmp_path, BESIDE), capture_output=True, text=True, cwd=tmp_path, check=False)
    assert done.stderr == ""
    assert done.stdout.splitlines() == [
        "42",
        "8",
        "GovernanceError: governed tool `double` cannot be called from the process of an isolated tool",
    ]


GOVERNED = """
entity Agent; entity Tool;
action "echo" appliesTo { principal: Agent, resource: Tool, context: { args: { value?: String } } };
action "dies" appliesTo { principal: Agent, resource: Tool, context: { args: { how: String } } };
action "raises" appliesTo { principal: Agent, resource: Tool, context: { args: { what: String } } };
action "tells_and_hangs" appliesTo { principal: Agent, resource: Tool, context: { args: { fifo: String } } };
action "spins", "hungry" appliesTo { principal: Agent, resource: Tool, context: { args: {} } };
"""


@pytest.fixture
def runtime(tmp_path: Path) -> Iterator[Runtime]:
    """Give a runtime whose policies allow everything."""
    permit = '@id("p") permit(principal, action, resource);'
    bundle = bundle_from_files({"p.cedar": permit, "schema.cedarschema": GOVERNED}, "b")
    opened = Runtime.open(bundle, lake=tmp_path / "lake", ledger=tmp_path / "governed.sqlite")
    yield opened
    opened.close(drain=False)


def last_outcome(runtime: Runtime, session: Any) -> Any:
    """Return how the session's last call ended, as recorded."""
    return runtime.ledger.outcome_of(session.last_decision["decision_id"])


@pytest.mark.parametrize(
    ("fn", "args", "bounds", "status", "reason"),
    [
        (tools.echo, {"value": "ä"}, {}, "succeeded", "returned"),
        (tools.raises, {"what": "value"}, {}, "failed", "raised"),
        (tools.spins, {}, {"seconds": 0.5}, "in_doubt", "timeout"),
        (tools.hungry, {}, {"memory_mb": 200}, "in_doubt", "memory"),
        (tools.dies, {"how": "SIGKILL"}, {}, "in_doubt", "crashed"),
    ],
    ids=["returns", "raises", "timeout", "memory", "crash"],
)
def test_the_trace_says_how_it_ended(
    runtime: Runtime, fn: Any, args: dict[str, Any], bounds: dict[str, Any], status: str, reason: str
) -> None:
    """What may have had its effect is in doubt, and never a plain failure."""
    tool = runtime.tool(isolate=Isolation(**bounds))(fn)
    session = runtime.session(principal="Agent::bot", tenant="acme")
    if status == "succeeded":
        assert session.call(tool, **args) == args["value"]
    else:
        with pytest.raises(GovernanceError):
            session.call(tool, **args)
    outcome = last_outcome(runtime, session)
    assert (outcome["status"], outcome["reason_code"]) == (status, reason)


def test_what_never_began_is_no_doubt(runtime: Runtime, tmp_path: Path) -> None:
    path = tmp_path / "redecide_gone.py"
    path.write_text("def echo(value=None): return value")
    tool = runtime.tool(isolate=QUICK)(_load(path, "redecide_gone").echo)
    path.unlink()
    session = runtime.session(principal="Agent::bot", tenant="acme")
    with pytest.raises(ToolCrashed, match="could not be loaded"):
        session.call(tool, value="x")
    outcome = last_outcome(runtime, session)
    assert (outcome["status"], outcome["reason_code"]) == ("aborted", "crashed")


async def test_a_cancelled_call_is_recorded_when_its_process_is_gone(
    runtime: Runtime, tmp_path: Path
) -> None:
    telling = Telling(tmp_path)
    tool = runtime.tool(isolate=PATIENT)(tools.tells_and_hangs)
    session = runtime.session(principal="Agent::bot", tenant="acme")
    task = asyncio.ensure_future(session.acall(tool, fifo=str(telling.path)))
    pid = await asyncio.to_thread(telling.pid)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert gone(pid)
    outcome = last_outcome(runtime, session)
    assert outcome["reason_code"] == "cancelled"
    await asyncio.get_running_loop().shutdown_default_executor()


def test_a_function_that_cannot_be_isolated_is_refused_as_a_tool(runtime: Runtime) -> None:
    with pytest.raises(RegistrationError, match="make it a function at the top level of a module"):
        runtime.tool(name="echo", isolate=QUICK)(inner())


def test_a_runtime_elsewhere_refuses_all_but_declarations() -> None:
    assert elsewhere() is None
    stand_in = Elsewhere()
    assert stand_in.tool(resource="Order::{id}")(tools.echo).redecide_isolated is tools.echo
    with pytest.raises(
        GovernanceError, match=r"`session` of a runtime is out of reach.*`if __name__ == '__main__':`"
    ):
        stand_in.session(principal="Agent::bot", tenant="acme")
    with pytest.raises(GovernanceError, match="`with` of a runtime is out of reach"), stand_in:
        pass


class Shop:
    def refund(self) -> None: ...

    @staticmethod
    def price() -> int:
        return 5


def inner() -> Any:
    def closure() -> None: ...

    return closure


def wrapped(fn: Any) -> Any:
    import functools

    @functools.wraps(fn)
    def around(**args: Any) -> Any:
        return fn(**args)

    return around


@pytest.mark.parametrize(
    ("fn", "why"),
    [
        (lambda: None, "is a lambda, or is defined inside a function"),
        (inner(), "is a lambda, or is defined inside a function"),
        (Shop().refund, "is not a plain function"),
        (Shop(), "is not a plain function"),
        (print, "is not a plain function"),
        (wrapped(tools.echo), "its module holds something else as `echo`"),
    ],
    ids=["lambda", "closure", "method", "object", "built-in", "wrapper"],
)
def test_what_a_child_could_not_find_is_refused_at_once(fn: Any, why: str) -> None:
    with pytest.raises(RegistrationError) as caught:
        target_of(fn)
    assert why in str(caught.value)
    assert "make it a function at the top level of a module" in str(caught.value)


def test_a_function_of_a_notebook_is_refused_with_the_fix(monkeypatch: pytest.MonkeyPatch) -> None:
    notebook: dict[str, Any] = {"__name__": "__main__"}
    exec("def charge(): ...", notebook)
    monkeypatch.setitem(sys.modules, "__main__", SimpleNamespace(**notebook))
    with pytest.raises(RegistrationError, match=r"in a notebook, write it with `%%writefile tools.py`"):
        target_of(notebook["charge"])


def test_a_static_method_is_found() -> None:
    assert target_of(Shop.price).qualname == "Shop.price"


def test_a_child_that_leads_no_session_does_nothing() -> None:
    """At the end of its pipe it has its session killed: that must be its own."""
    done = subprocess.run(
        [sys.executable, isolation_process.CHILD, "1"],
        stdin=subprocess.PIPE,
        capture_output=True,
        check=False,
    )
    assert done.returncode == 1
    assert b"in a session of its own" in done.stderr


def test_another_system_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(os, "waitid")
    with pytest.raises(RegistrationError, match=r"need Linux, or macOS with Python 3.13; this is linux"):
        target_of(tools.echo)


def test_a_module_that_is_another_file_is_not_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The child finds a module of the same name earlier on the path: it must not run that one."""
    (tmp_path / "redecide_other.py").write_text("def charge(): return 'the wrong one'")
    (tmp_path / "real").mkdir()
    (tmp_path / "real" / "redecide_other.py").write_text("def charge(): return 'the right one'")
    module = _load(tmp_path / "real" / "redecide_other.py", "redecide_other")
    assert call(module.charge) == "the right one"
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(
        ToolCrashed, match=r"could not be loaded .*Unloadable: module `redecide_other` is .* in the runtime"
    ):
        call(module.charge)


def test_a_module_that_fails_in_the_child(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "redecide_needy.py"
    path.write_text("import os\nKEY = os.environ['NEEDED_KEY']\ndef charge(): return KEY")
    monkeypatch.setenv("NEEDED_KEY", "k")
    charge = _load(path, "redecide_needy").charge
    with pytest.raises(ToolCrashed, match=r"could not be loaded from .*: KeyError: 'NEEDED_KEY'"):
        call(charge)
    assert call(charge, Isolation(env=("NEEDED_KEY",))) == "k"
    path.write_text("")
    with pytest.raises(ToolCrashed, match="holds no `charge`") as caught:
        call(charge)
    assert not caught.value.began


@pytest.mark.parametrize(
    ("declared", "why"),
    [
        ({"env": "PATH"}, r"`env` is a tuple of names, such as \('PATH', 'TZ'\); got 'PATH'"),
        ({"env": ("KEY=secret",)}, "names of variables, not values"),
        ({"seconds": 0}, "`seconds` is a number of 0.001 or more; got 0"),
        ({"seconds": float("nan")}, "`seconds` is a number"),
        ({"seconds": float("inf")}, "`seconds` is a number"),
        ({"seconds": True}, "`seconds` is a number"),
        ({"memory_mb": 1}, "`memory_mb` is a whole number of 64 or more; got 1"),
        ({"memory_mb": 512.5}, "`memory_mb` is a whole number"),
        ({"cpu_seconds": 0}, "`cpu_seconds` is a whole number of 1 or more"),
        ({"files_mb": -1}, "`files_mb` is a whole number of 0 or more"),
        ({"result_mb": 0}, "`result_mb` is a whole number of 1 or more"),
        ({"cwd": "/no/such/folder"}, "`cwd` '/no/such/folder' is no folder"),
    ],
)
def test_wrong_bounds_are_refused(declared: dict[str, Any], why: str) -> None:
    with pytest.raises(RegistrationError, match=why):
        Isolation(**declared)


def test_limits_of_the_runtime_itself_are_not_touched() -> None:
    before = [
        resource.getrlimit(kind)
        for kind in (resource.RLIMIT_AS, resource.RLIMIT_NOFILE, resource.RLIMIT_CORE)
    ]
    call(tools.echo)
    after = [
        resource.getrlimit(kind)
        for kind in (resource.RLIMIT_AS, resource.RLIMIT_NOFILE, resource.RLIMIT_CORE)
    ]
    assert after == before
