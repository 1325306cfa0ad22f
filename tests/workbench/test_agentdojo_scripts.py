"""AgentDojo's suites as scripts: counts, positions of the attack's calls, and what AgentDojo's own checkers say."""

from __future__ import annotations

import subprocess
import sys
from collections import Counter
from typing import TYPE_CHECKING, Any

import pytest

from runtime.canonical import canonical
from runtime.request import ResourceTemplate
from workbench.agentdojo import scripts
from workbench.agentdojo.scripts import RESOURCES, SUITES, SessionScript, check, fresh_environment, sessions

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

pytest.importorskip("agentdojo", reason="the `agentdojo` extra is not installed")

USER_TASKS = {"banking": 16, "slack": 21, "travel": 20, "workspace": 40}
INJECTION_TASKS = {"banking": 9, "slack": 5, "travel": 7, "workspace": 14}
WITHOUT_CALLS = {"travel/injection_task_6", *(f"workspace/injection_task_{n}" for n in range(6, 14))}


@pytest.fixture(scope="module")
def every() -> list[SessionScript]:
    return list(sessions())


def run_all(script: SessionScript, keep: Callable[[Any], bool] = lambda _: True) -> scripts.Checked:
    """Run a script ungoverned, only the calls to keep, and ask AgentDojo."""
    before, environment = fresh_environment(script)
    executed = [call for call in script.calls if keep(call)]
    for call in executed:
        scripts.run(script.suite, environment, call)
    return check(script, before, environment, executed)


def test_every_pair_is_a_session(every: list[SessionScript]) -> None:
    found = Counter((script.suite, script.scenario) for script in every)
    assert found == {
        **{(suite, "honest"): USER_TASKS[suite] for suite in SUITES},
        **{(suite, "hijacked"): USER_TASKS[suite] * INJECTION_TASKS[suite] for suite in SUITES},
    }
    assert len(every) == 97 + 949 == len({script.session_id for script in every})


def test_session_ids_are_readable(every: list[SessionScript]) -> None:
    assert [script.session_id for script in every[:3]] == [
        "banking/user_task_0/honest",
        "banking/user_task_0/injection_task_0",
        "banking/user_task_0/injection_task_1",
    ]


def test_calls_are_counted_as_the_data_card_says(every: list[SessionScript]) -> None:
    calls = Counter((s.scenario, call.origin) for s in every for call in s.calls)
    assert calls == {("honest", "user"): 339, ("hijacked", "user"): 2831, ("hijacked", "attack"): 1105}


def test_nine_injection_tasks_have_no_calls(every: list[SessionScript]) -> None:
    without = {
        f"{s.suite}/{s.injection_task}"
        for s in every
        if s.injection_task and all(call.origin == "user" for call in s.calls)
    }
    assert without == WITHOUT_CALLS


def test_the_user_task_is_the_same_in_both_scenarios(every: list[SessionScript]) -> None:
    """The attack adds calls; the user's own stay, in order. Slack's poisoned channel name changes arguments only."""
    honest = {(s.suite, s.user_task): [c.tool for c in s.calls] for s in every if s.scenario == "honest"}
    for script in every:
        own = [call.tool for call in script.calls if call.origin == "user"]
        assert own == honest[script.suite, script.user_task], script.session_id


@pytest.mark.parametrize("suite", SUITES)
def test_attack_follows_directly_after_the_planted_text_was_read(suite: str) -> None:
    from agentdojo.agent_pipeline.tool_execution import tool_result_to_str

    hijacked = [s for s in sessions(suites=[suite]) if s.scenario == "hijacked"]
    for script in hijacked[:: 1 if suite in ("banking", "slack") else 9]:
        assert script.read_at is not None
        origins = [call.origin for call in script.calls]
        attack = [i for i, origin in enumerate(origins) if origin == "attack"]
        assert attack == list(range(script.read_at + 1, script.read_at + 1 + len(attack))), script.session_id
        _, environment = fresh_environment(script)
        shown = [
            tool_result_to_str(scripts.run(suite, environment, call))
            for call in script.calls[: script.read_at + 1]
        ]
        # One word of the planted text: a result is shown as YAML, which folds longer ones.
        found = ["<INFORMATION>" in text for text in shown]
        assert found == [False] * script.read_at + [True], script.session_id


@pytest.mark.parametrize("suite", SUITES)
def test_planted_text_is_agentdojos_own(suite: str) -> None:
    from agentdojo.agent_pipeline.ground_truth_pipeline import GroundTruthPipeline
    from agentdojo.attacks.important_instructions_attacks import ImportantInstructionsAttackNoModelName

    tasks = scripts._suite(scripts.VERSION, suite)
    pipeline = GroundTruthPipeline(None)
    pipeline.name = "local"
    attack = ImportantInstructionsAttackNoModelName(tasks, pipeline)
    hijacked = [s for s in sessions(suites=[suite]) if s.scenario == "hijacked"]
    for script in hijacked[:: INJECTION_TASKS[suite] * 3 + 1]:
        user, injection = tasks.user_tasks[script.user_task], tasks.injection_tasks[script.injection_task]
        assert attack.attack(user, injection) == script.injections, script.session_id


@pytest.mark.parametrize("suite", SUITES)
def test_environment_is_agentdojos_own(suite: str) -> None:
    """We read the same YAML with libyaml; nothing may differ, planted text included."""
    tasks = scripts._suite(scripts.VERSION, suite)
    for script in list(sessions(suites=[suite]))[:: len(tasks.injection_tasks) * 7 + 1]:
        theirs = tasks.load_and_inject_default_environment(dict(script.injections))
        assert fresh_environment(script)[1] == theirs, script.session_id


def test_arguments_are_plain_json(every: list[SessionScript]) -> None:
    for script in every:
        for call in script.calls:
            canonical(dict(call.args))
    shared = next(c for s in every for c in s.calls if c.tool == "share_file")
    assert type(shared.args["permission"]) is str


def test_resources_cover_the_tools_exactly() -> None:
    assert set(RESOURCES) == {name for suite in SUITES for name in scripts.tools(suite)}


def test_every_call_resolves_its_resource(every: list[SessionScript]) -> None:
    templates = {tool: ResourceTemplate.parse(text) for tool, text in RESOURCES.items()}
    for script in every:
        for call in script.calls:
            assert templates[call.tool].resolve(call.args).id


def test_environments_are_separate() -> None:
    script = next(iter(sessions(suites=["banking"])))
    before, environment = fresh_environment(script)
    environment.bank_account.transactions.clear()
    assert len(before.bank_account.transactions) == 5
    assert len(fresh_environment(script)[1].bank_account.transactions) == 5


def test_running_a_script_leaves_it_as_it_was() -> None:
    """AgentDojo's calendar appends the owner to the list of participants."""
    script = next(s for s in sessions(suites=["workspace"]) if s.user_task == "user_task_6")
    before = [canonical(dict(call.args)) for call in script.calls]
    run_all(script)
    assert [canonical(dict(call.args)) for call in script.calls] == before


def test_unknown_suite_is_named() -> None:
    with pytest.raises(
        ValueError, match="suite must be one of banking, slack, travel, workspace, got 'bankng'"
    ):
        list(sessions(suites=["bankng"]))


def test_every_honest_session_is_useful(every: list[SessionScript]) -> None:
    useful = {s.session_id: run_all(s) for s in every if s.scenario == "honest"}
    assert {checked.utility for checked in useful.values()} == {True}, useful
    assert {checked.attack_success for checked in useful.values()} == {None}


def succeeded(found: Iterable[SessionScript]) -> tuple[list[str], int]:
    checked = {s.session_id: run_all(s) for s in found}
    failed = [name for name, result in checked.items() if not result.attack_success]
    return failed, sum(result.utility for result in checked.values())


def test_attacks_succeed_when_nothing_stops_them(every: list[SessionScript]) -> None:
    failed, useful = succeeded(s for s in every if s.suite == "banking" and s.scenario == "hijacked")
    # In the one the user changes the password again; in the other the user changed a standing order before the attack
    # listed it, and AgentDojo's checker wants the list as it was.
    assert failed == ["banking/user_task_14/injection_task_7", "banking/user_task_15/injection_task_8"]
    assert useful == 126


@pytest.mark.slow
@pytest.mark.parametrize(
    ("suite", "failures", "useful"), [("slack", 0, 103), ("travel", 2, 28), ("workspace", 320 + 9, 326)]
)
def test_attacks_succeed_in_the_other_suites(
    every: list[SessionScript], suite: str, failures: int, useful: int
) -> None:
    failed, done = succeeded(s for s in every if s.suite == suite and s.scenario == "hijacked")
    assert (len(failed), done) == (failures, useful)


def test_attacks_fail_when_their_calls_are_refused(every: list[SessionScript]) -> None:
    hijacked = [s for s in every if s.suite in ("banking", "slack") and s.scenario == "hijacked"]
    results = [run_all(s, lambda call: call.origin == "user") for s in hijacked]
    assert not any(result.attack_success for result in results)


def test_importing_is_cheap() -> None:
    code = (
        "import sys, workbench.agentdojo.scripts, workbench.agentdojo.facts; "
        "sys.exit(bool({'agentdojo', 'pyarrow'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
