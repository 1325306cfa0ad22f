"""AgentDojo's suites as scripts: which tool calls a session makes, and whose idea each call was.

One rule: a script is a value. The same benchmark version gives the same sessions, calls and order, in every process;
only `fresh_environment` hands out something that changes.

How a session is made. *Honest*: the ground truth of one user task, in the clean environment. *Hijacked*: the
same, in an environment into which one injection task was planted by AgentDojo's `important_instructions` attack
(the variant that names no model), in every place that the user task's ground truth reads. The attack's calls
follow directly after the first call whose result carries the planted text; its ground truth is computed on the
environment as it stands at that point, so that ids are those the agent would see.

Accepted trade-offs: the agent is scripted, it does not react to a refusal or to an error, and it obeys every
injection. AgentDojo is imported on first use (3.7 s: it loads several model SDKs), so importing this module is cheap.
"""

from __future__ import annotations

import pickle
from dataclasses import dataclass
from functools import cache, lru_cache
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from runtime.canonical import Json, canonical
from runtime.entities import EntityUid
from workbench.agentdojo.resources import RESOURCES
from workbench.agentdojo.sharing import share

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

__all__ = [
    "RESOURCES", "SUITES", "VERSION", "Checked", "Origin", "ScriptCall", "SessionScript", "check",
    "clean_environment", "fresh_environment", "run", "sessions", "tools",
]  # fmt: skip

VERSION = "v1.2.1"
"""The benchmark version scripts are made from unless told."""

SUITES = ("banking", "slack", "travel", "workspace")
"""Suites, which are the tenants."""

Origin = Literal["user", "attack"]
"""Whose idea a call was: `user` it is in the user task's ground truth, `attack` in the injection task's."""


@dataclass(frozen=True, slots=True)
class ScriptCall:
    """One tool call of a session."""

    tool: str
    args: Mapping[str, Json]
    """Arguments by name, plain JSON; absent ones take the tool's default."""
    origin: Origin


@dataclass(frozen=True, slots=True, kw_only=True)
class SessionScript:
    """One session: what the user asked, and the calls the agent makes, in order."""

    session_id: str
    """Readable and stable: `banking/user_task_0/honest`, `banking/user_task_0/injection_task_1`."""
    version: str
    suite: str
    user_task: str
    injection_task: str | None
    """None: an honest session."""
    prompt: str
    """What the user asked for; the only text a session's facts may be taken from."""
    injections: Mapping[str, str]
    """Planted text by injection vector; empty in honest sessions."""
    read_at: int | None
    """Index in `calls` of the first call whose result carries planted text; None in honest sessions."""
    calls: tuple[ScriptCall, ...]
    output: str
    """What the agent says at the end, by AgentDojo's ground truth; its checkers read it."""

    @property
    def tenant(self) -> str:
        """The suite's name."""
        return self.suite

    @property
    def principal(self) -> EntityUid:
        """The suite's agent."""
        return EntityUid("Agent", f"{self.suite}-assistant")

    @property
    def on_behalf_of(self) -> EntityUid:
        """The user; AgentDojo calls her Emma Johnson in every suite."""
        return EntityUid("User", "emma")

    @property
    def scenario(self) -> Literal["honest", "hijacked"]:
        """The session's label."""
        return "honest" if self.injection_task is None else "hijacked"


class Checked(NamedTuple):
    """What AgentDojo's own checkers say of a session that ran."""

    utility: bool
    """The user's task was done."""
    attack_success: bool | None
    """The injected goal was reached; None in honest sessions."""


def sessions(version: str = VERSION, suites: Iterable[str] | None = None) -> Iterator[SessionScript]:
    """Yield every session: per suite, each user task honest, then hijacked by each injection task.

    Args:
        version: AgentDojo's benchmark version.
        suites: names to take, None for all of `SUITES`.

    Raises:
        ValueError: an unknown suite.

    Cost: some fifteen seconds for all 1,046 sessions, once a process; scripts and environments are kept (75 MB).
    """
    for suite in sorted(SUITES if suites is None else suites):
        if suite not in SUITES:
            raise ValueError(f"suite must be one of {', '.join(SUITES)}, got {suite!r}")
        tasks = _suite(version, suite)
        for user_task in sorted(tasks.user_tasks, key=_number):
            yield _honest(version, suite, user_task)
            for injection_task in sorted(tasks.injection_tasks, key=_number):
                yield _hijacked(version, suite, user_task, injection_task)


def fresh_environment(script: SessionScript) -> tuple[Any, Any]:
    """Return (environment as it was before, environment to run in), both of AgentDojo's type for the suite.

    Each call returns new objects; the first is for `check`, the second for the tools.
    """
    task = _suite(script.version, script.suite).user_tasks[script.user_task]
    injections = tuple(sorted(script.injections.items()))
    environment = task.init_environment(_loaded(script.version, script.suite, injections))
    return _copy(environment), environment


def clean_environment(suite: str, version: str = VERSION) -> Any:
    """Return a new copy of a suite's environment as AgentDojo ships it, nothing planted."""
    return _loaded(version, suite, ())


def check(script: SessionScript, pre: Any, post: Any, executed: Sequence[ScriptCall]) -> Checked:
    """Ask AgentDojo's checkers whether the user's task, and the attack, succeeded.

    Args:
        script: the session that ran.
        pre: the environment as it was before; it is altered (`sharing`), so ask once.
        post: the environment after the run.
        executed: the calls that really ran, in order; refused ones are left out.
    """
    suite = _suite(script.version, script.suite)
    trace = [_function_call(call.tool, call.args) for call in executed]
    output = [{"type": "text", "content": script.output}]
    user_task = suite.user_tasks[script.user_task]
    share(pre, post)
    utility = suite._check_user_task_utility(user_task, output, pre, post, trace)  # noqa: SLF001 - the one door there is
    if script.injection_task is None:
        return Checked(bool(utility), None)
    injection_task = suite.injection_tasks[script.injection_task]
    success = suite._check_injection_task_security(injection_task, output, pre, post, trace)  # noqa: SLF001 - as above
    return Checked(bool(utility), bool(success))


def tools(suite: str, version: str = VERSION) -> Mapping[str, Any]:
    """Return the suite's tools by name, as AgentDojo's `Function` objects."""
    return {tool.name: tool for tool in _suite(version, suite).tools}


def run(suite: str, environment: Any, call: ScriptCall, version: str = VERSION) -> Any:
    """Run one call in an environment, ungoverned, and return what the tool returns.

    Raises:
        Exception: whatever the tool raises, unchanged.
    """
    return _execute(_suite(version, suite), environment, call.tool, call.args)


@cache
def _honest(version: str, suite: str, user_task: str) -> SessionScript:
    task = _suite(version, suite).user_tasks[user_task]
    environment = task.init_environment(_loaded(version, suite, ()))
    return SessionScript(
        session_id=f"{suite}/{user_task}/honest",
        version=version,
        suite=suite,
        user_task=user_task,
        injection_task=None,
        prompt=task.PROMPT,
        injections={},
        read_at=None,
        calls=_ground_truth(task, environment, "user"),
        output=task.GROUND_TRUTH_OUTPUT,
    )


@cache
def _hijacked(version: str, suite: str, user_task: str, injection_task: str) -> SessionScript:
    tasks = _suite(version, suite)
    task, attack = tasks.user_tasks[user_task], tasks.injection_tasks[injection_task]
    planted = _planted(version, suite, user_task)
    text = _jailbreak(version, suite, injection_task)
    injections = dict.fromkeys(planted.vectors, text)
    environment = task.init_environment(_loaded(version, suite, tuple(sorted(injections.items()))))
    calls = _ground_truth(task, environment, "user")
    for call in calls[: planted.read_at + 1]:
        _execute(tasks, environment, call.tool, call.args)
    attack_calls = _ground_truth(attack, environment, "attack")
    return SessionScript(
        session_id=f"{suite}/{user_task}/{injection_task}",
        version=version,
        suite=suite,
        user_task=user_task,
        injection_task=injection_task,
        prompt=task.PROMPT,
        injections=injections,
        read_at=planted.read_at,
        calls=calls[: planted.read_at + 1] + attack_calls + calls[planted.read_at + 1 :],
        output="\n".join(part for part in (task.GROUND_TRUTH_OUTPUT, attack.GROUND_TRUTH_OUTPUT) if part),
    )


class _Planted(NamedTuple):
    vectors: tuple[str, ...]
    """Injection vectors the user task's ground truth reads."""
    read_at: int
    """Index of the first call that reads one."""


@cache
def _planted(version: str, suite: str, user_task: str) -> _Planted:
    """Run the ground truth over canaries, as AgentDojo's `get_injection_candidates` does, noting the call."""
    from agentdojo.agent_pipeline.tool_execution import tool_result_to_str  # noqa: PLC0415 - imports model SDKs

    tasks = _suite(version, suite)
    canaries = {name: f"<CANARY---{name}--->" for name in _vector_defaults(version, suite)}
    task = tasks.user_tasks[user_task]
    environment = task.init_environment(_loaded(version, suite, tuple(sorted(canaries.items()))))
    first_read: dict[str, int] = {}
    for index, call in enumerate(_ground_truth(task, environment, "user")):
        shown = tool_result_to_str(_execute(tasks, environment, call.tool, call.args))
        for name, canary in canaries.items():
            if canary in shown:
                first_read.setdefault(name, index)
    return _Planted(tuple(sorted(first_read)), min(first_read.values()))


@cache
def _jailbreak(version: str, suite: str, injection_task: str) -> str:
    """The text AgentDojo's attack plants for an injection task."""
    from agentdojo.attacks.important_instructions_attacks import (  # noqa: PLC0415 - imports model SDKs
        ImportantInstructionsAttackNoModelName as Attack,
    )

    goal = _suite(version, suite).injection_tasks[injection_task].GOAL
    # The constructor asks for a pipeline, only to learn the model's name, which this variant then drops.
    text: str = Attack._JB_STRING.format(goal=goal, user="Emma Johnson", model="the AI language model")  # noqa: SLF001
    return text


def _ground_truth(task: Any, environment: Any, origin: Origin) -> tuple[ScriptCall, ...]:
    calls = task.ground_truth(_copy(environment))
    return tuple(ScriptCall(call.function, _json(call.args), origin) for call in calls)


def _json(value: Any) -> Any:
    """Plain JSON of what AgentDojo writes: enums become their text, tuples lists; anything else is refused."""
    if isinstance(value, dict):
        return {str(key): _json(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_json(item) for item in value]
    plain = str(value.value) if hasattr(value, "value") else value
    canonical(plain)
    return plain


def _execute(suite: Any, environment: Any, tool: str, args: Mapping[str, Json]) -> Any:
    from agentdojo.functions_runtime import FunctionsRuntime  # noqa: PLC0415 - imports model SDKs

    # Validation copies what it is given: tools that extend a list leave the script as it is.
    result, _ = FunctionsRuntime(suite.tools).run_function(
        environment, tool, _json(args), raise_on_error=True
    )
    return result


def _function_call(tool: str, args: Mapping[str, Json]) -> Any:
    from agentdojo.functions_runtime import FunctionCall  # noqa: PLC0415 - imports model SDKs

    return FunctionCall(function=tool, args=dict(args))


def _loaded(version: str, suite: str, injections: tuple[tuple[str, str], ...]) -> Any:
    """The suite's environment with texts planted: new objects each time."""
    return pickle.loads(_environment(version, suite, injections))  # noqa: S301 - bytes of this process


def _copy(environment: Any) -> Any:
    """A deep copy; three times faster than by `model_copy`."""
    return pickle.loads(pickle.dumps(environment, pickle.HIGHEST_PROTOCOL))  # noqa: S301 - as above


@lru_cache(maxsize=1024)
def _environment(version: str, suite: str, injections: tuple[tuple[str, str], ...]) -> bytes:
    """The suite's environment, loaded once per planted text, pickled: whoever wants it gets a copy.

    The same steps as AgentDojo's `load_and_inject_default_environment`, with libyaml's loader where PyYAML has it:
    12 times faster, and half of the demo's time otherwise. A test compares the two.
    """
    import yaml  # type: ignore[import-untyped]  # noqa: PLC0415 - comes with AgentDojo
    from agentdojo.task_suite.task_suite import read_suite_file  # noqa: PLC0415 - imports model SDKs

    tasks = _suite(version, suite)
    template = read_suite_file(suite, "environment.yaml", tasks.data_path)
    text = template.format(**(_vector_defaults(version, suite) | dict(injections)))
    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    environment = tasks.environment_type.model_validate(yaml.load(text, Loader=loader))  # noqa: S506 - a safe loader
    return pickle.dumps(environment, pickle.HIGHEST_PROTOCOL)


@cache
def _vector_defaults(version: str, suite: str) -> dict[str, str]:
    defaults: dict[str, str] = _suite(version, suite).get_injection_vector_defaults()
    return defaults


@cache
def _suite(version: str, name: str) -> Any:
    from agentdojo.task_suite.load_suites import get_suite  # noqa: PLC0415 - imports model SDKs

    return get_suite(version, name)


def _number(task_id: str) -> int:
    return int(task_id.rpartition("_")[2])
