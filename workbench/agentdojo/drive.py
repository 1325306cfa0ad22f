"""Drives AgentDojo's scripted sessions through the governed runtime: the tools really run, through our broker.

One rule: this module is a user of the runtime's public API like any other, and what it knows of labels (whose idea
a call was, what AgentDojo's checkers say) goes to `outcomes` after the decision, never into it.

The agent is scripted: it makes its calls whatever the runtime answers. A refused call is not executed, and neither
is it retried.
"""

from __future__ import annotations

import inspect
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from runtime import ApprovalRequired, Blocked, Runtime
from runtime.session import current_session
from workbench.agentdojo.facts import write_facts
from workbench.agentdojo.scripts import (
    RESOURCES,
    SUITES,
    VERSION,
    ScriptCall,
    SessionScript,
    check,
    fresh_environment,
    run,
    sessions,
    tools,
)
from workbench.shipped import shipped

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from runtime.session import Session

SOURCE = "agentdojo"
"""`source` of every label this module writes."""


@dataclass(frozen=True, slots=True)
class DriveReport:
    """What a drive did, counted by suite."""

    sessions: Counter[str] = field(default_factory=Counter)
    decisions: Counter[str] = field(default_factory=Counter)
    verdicts: Counter[tuple[str, str, str]] = field(default_factory=Counter)
    """(suite, origin of the call, verdict)."""
    tool_errors: Counter[str] = field(default_factory=Counter)
    """Calls that ran and raised."""
    utility: Counter[tuple[str, str, bool]] = field(default_factory=Counter)
    """(suite, scenario, the user's task was done)."""
    attacks: Counter[tuple[str, bool]] = field(default_factory=Counter)
    """(suite, the injected goal was reached)."""


def drive(
    scripts: Iterable[SessionScript],
    *,
    bundle: str | Path,
    lake: str | Path,
    sources: Mapping[str, Any],
    on_session: Callable[[SessionScript], None] = lambda _: None,
) -> DriveReport:
    """Run every script under `bundle`, each in a fresh environment, and drain the traces into `lake`.

    Durability: all decisions, outcomes and labels are in the lake when this returns.
    """
    report = DriveReport()
    environments: dict[str, tuple[str, Any]] = {}
    with Runtime.open(bundle, lake=lake, sources=sources) as runtime:
        _register(runtime, environments)
        for script in scripts:
            _drive_one(runtime, script, environments, report)
            on_session(script)
    return report


def _register(runtime: Runtime, environments: Mapping[str, tuple[str, Any]]) -> None:
    """Register each tool once; tools that two suites share (`send_email`) find their environment by session."""
    for suite in SUITES:
        for name, function in tools(suite, VERSION).items():
            if name not in runtime.tools:
                runtime.tool(_tool(name, function, environments), name=name, resource=RESOURCES[name])


def _tool(name: str, function: Any, environments: Mapping[str, tuple[str, Any]]) -> Callable[..., Any]:
    def call(**args: Any) -> Any:
        session = current_session()
        assert session is not None  # noqa: S101 - the runtime calls tools inside their session
        suite, environment = environments[session.identity.session_id]
        # An optional argument that was not given is absent to AgentDojo, not null.
        given = {key: value for key, value in args.items() if value is not None}
        return run(suite, environment, ScriptCall(name, given, "user"))

    call.__name__ = name
    call.__doc__ = function.description
    call.__signature__ = _signature(function)  # type: ignore[attr-defined]  # what inspect and the runtime read
    return call


def _signature(function: Any) -> inspect.Signature:
    keyword = inspect.Parameter.KEYWORD_ONLY
    return inspect.Signature(
        [
            inspect.Parameter(
                name,
                keyword,
                default=inspect.Parameter.empty if info.is_required() else info.default,
                annotation=info.annotation,
            )
            for name, info in function.parameters.model_fields.items()
        ]
    )


def _drive_one(
    runtime: Runtime, script: SessionScript, environments: dict[str, tuple[str, Any]], report: DriveReport
) -> None:
    before, environment = fresh_environment(script)
    environments[script.session_id] = (script.suite, environment)
    opened = runtime.session(
        principal=script.principal,
        on_behalf_of=script.on_behalf_of,
        tenant=script.tenant,
        session_id=script.session_id,
    )
    report.sessions[script.suite] += 1
    with opened as session:
        executed = [call for call in script.calls if _call(runtime, session, call, report)]
        _label_session(runtime, session, script, report, before, environment, executed)
    del environments[script.session_id]


def _call(runtime: Runtime, session: Session, call: ScriptCall, report: DriveReport) -> bool:
    """Make one call; return whether it ran."""
    suite, ran = session.identity.tenant, True
    try:
        session.call(call.tool, idempotency_key=None, **dict(call.args))
    except (Blocked, ApprovalRequired):
        ran = False
    except Exception:  # noqa: BLE001 - AgentDojo's tools raise what they like; the broker recorded it
        report.tool_errors[suite] += 1
    row = session.last_decision
    assert row is not None  # noqa: S101 - a decision was made
    report.decisions[suite] += 1
    report.verdicts[suite, call.origin, str(row["verdict"])] += 1
    runtime.label("origin", call.origin, session=session, decision_id=str(row["decision_id"]), source=SOURCE)
    return ran


def _label_session(
    runtime: Runtime,
    session: Session,
    script: SessionScript,
    report: DriveReport,
    before: Any,
    environment: Any,
    executed: list[ScriptCall],
) -> None:
    found = check(script, before, environment, executed)
    report.utility[script.suite, script.scenario, found.utility] += 1
    labels = {"scenario": script.scenario, "user_task": script.user_task, "prompt": script.prompt}
    labels["utility"] = str(found.utility).lower()
    if script.injection_task is not None:
        report.attacks[script.suite, bool(found.attack_success)] += 1
        labels |= {
            "injection_task": script.injection_task,
            "attack_success": str(found.attack_success).lower(),
        }
    for label, value in labels.items():
        runtime.label(label, value, session=session, source=SOURCE)


def build(
    workdir: str | Path,
    *,
    suites: Iterable[str] | None = None,
    bundle: str | Path = "baseline",
    lake: str = "lake",
    on_session: Callable[[SessionScript], None] = lambda _: None,
) -> DriveReport:
    """Build the data set: fact tables under `workdir/facts`, traces under `workdir/<lake>`.

    Args:
        workdir: folder for both; created if missing.
        suites: suites to take; None: all.
        bundle: what governs the calls: `baseline`, `candidate`, or a bundle folder.
        lake: name of the lake's folder. One that is there gets further sessions.
        on_session: told of each session that is done.
    """
    workdir = Path(workdir)
    scripts = list(sessions(suites=suites))
    sources = write_facts(workdir / "facts", scripts)
    folder = bundle if Path(bundle).is_dir() else shipped(f"agentdojo/{bundle}")
    return drive(scripts, bundle=folder, lake=workdir / lake, sources=sources, on_session=on_session)
