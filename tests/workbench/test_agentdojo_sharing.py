"""What checkers compare may share what is alike: they say the same, and are done sooner."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from workbench.agentdojo import scripts
from workbench.agentdojo.scripts import check, fresh_environment, run, sessions
from workbench.agentdojo.sharing import share

if TYPE_CHECKING:
    from workbench.agentdojo.scripts import SessionScript

pytest.importorskip("agentdojo", reason="the `agentdojo` extra is not installed")


def environments() -> tuple[Any, Any]:
    return fresh_environment(next(iter(sessions(suites=["workspace"]))))


def test_what_is_alike_becomes_one_object_and_what_is_not_stays() -> None:
    before, after = environments()
    changed, kept = list(after.inbox.emails)[:2]
    after.inbox.emails[changed].subject = "another"
    own = before.inbox.emails[changed]
    share(before, after)
    assert before.inbox.emails[kept] is after.inbox.emails[kept]
    assert before.inbox.emails[changed] is own
    assert own.subject != "another"
    assert before.calendar.events
    assert all(event is after.calendar.events[key] for key, event in before.calendar.events.items())


@pytest.mark.parametrize("value", [True, 1.0], ids=repr)
def test_equal_values_of_other_types_are_not_alike(value: object) -> None:
    """Python takes 1, 1.0 and True for equal; a checker that compares types does not."""
    before, after = environments()
    key = next(iter(before.cloud_drive.files))
    before.cloud_drive.files[key].__dict__["size"] = 1
    after.cloud_drive.files[key].__dict__["size"] = value
    assert before.cloud_drive.files[key] == after.cloud_drive.files[key]
    share(before, after)
    assert before.cloud_drive.files[key] is not after.cloud_drive.files[key]


def checked(script: SessionScript) -> scripts.Checked:
    before, environment = fresh_environment(script)
    for call in script.calls:
        run(script.suite, environment, call)
    return check(script, before, environment, script.calls)


@pytest.mark.parametrize(("suite", "every"), [("workspace", 31), ("travel", 13)])
def test_checkers_say_the_same_of_environments_that_share_nothing(
    suite: str, every: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    chosen = list(sessions(suites=[suite]))[::every]
    shared = [checked(script) for script in chosen]
    monkeypatch.setattr(scripts, "share", lambda *_: None)
    assert [checked(script) for script in chosen] == shared
    assert len({result.utility for result in shared}) == 2, "both answers are among them"
