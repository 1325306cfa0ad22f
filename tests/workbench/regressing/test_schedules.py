"""Schedules: what they run is run here, by the shells that run it there, with each exit code; and a real job."""

from __future__ import annotations

import ast
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml  # type: ignore[import-untyped]  # no annotations are shipped

from runtime import Blocked, Runtime
from workbench.errors import JobInvalid
from workbench.regressing.reporting.markdown import marker
from workbench.regressing.schedules import KINDS, schedule

SCHEMA = """
entity Agent; entity Order;
action "pay" appliesTo { principal: [Agent], resource: [Order], context: { args: { order_id: String, cents: Long } } };
"""
PERMIT = '@id("permit") permit(principal, action, resource);\n'
STRICT = PERMIT + '@id("over") forbid(principal, action, resource) when { context.args.cents > 10 };\n'
STAND_IN = r"""#!/bin/sh
# What `redecide` does as far as a schedule sees it; prints its arguments, one a line.
[ "$TOLD" = 3 ] && { echo "redecide: error: nobody is there" >&2; exit 3; }
printf '%s\n' '# a night with 100 % and \back'
for each in "$@"; do printf 'arg %s\n' "$each"; done
exit "$TOLD"
"""
GH = r"""#!/bin/sh
echo "$@" >> "$CALLS"
case "$*" in *--paginate*) printf "%s" "$COMMENTS" ;; esac
"""
CODES = (0, 1, 2, 3)


def job_at(folder: Path, name: str = "refunds 100 @night") -> Path:
    """A job of a repository, with a candidate and a lake that nobody asks for."""
    (folder / ".git").mkdir(parents=True, exist_ok=True)
    bundle = folder / "policies" / "next one"
    bundle.mkdir(parents=True, exist_ok=True)
    (bundle / "p.cedar").write_text(STRICT)
    (bundle / "schema.cedarschema").write_text(SCHEMA)
    path = folder / "jobs" / "it's nightly.toml"
    path.parent.mkdir(exist_ok=True)
    path.write_text(
        f'name = "{name}"\nlake = "../lake"\ncandidates = ["../policies/next one"]\n'
        '[stakes]\nharm = { origin = ["attack"] }\ngood = { origin = ["user"] }\n'
        '[output]\nformats = ["markdown"]\nnotebook = false\n'
        '[[gates]]\nquantity = "good_lost"\nat_most = 0\non = "log"\n'
    )
    return path


@pytest.fixture
def stand_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Put commands that stand in for `redecide` and GitHub's `gh` first on the path."""
    folder = tmp_path / "bin"
    folder.mkdir()
    for name, text in (("redecide", STAND_IN), ("gh", GH)):
        (folder / name).write_text(text)
        (folder / name).chmod(0o755)
    monkeypatch.setattr(
        "workbench.regressing.schedules.shutil.which", lambda *_, **__: str(folder / "redecide")
    )
    return folder


def cron_command(text: str) -> tuple[list[str], str]:
    """Read a crontab as cron does: the last line's five fields, and its command up to the first bare `%`."""
    (line,) = [each for each in text.splitlines() if each and not each.startswith("#")]
    *fields, command = line.split(" ", 5)
    taken, _, standard_input = re.sub(r"\\%", "\0", command).partition("%")
    assert not standard_input, "what follows a bare % would be the command's input"
    return fields, taken.replace("\0", "%")


def as_cron(command: str, **more: str) -> subprocess.CompletedProcess[str]:
    """Run a command with the little that cron gives it."""
    env = {
        "HOME": os.environ.get("HOME", "/"),
        "LOGNAME": "x",
        "SHELL": "/bin/sh",
        "PATH": "/usr/bin:/bin",
        **more,
    }
    return subprocess.run(
        ["/bin/sh", "-c", command], env=env, capture_output=True, text=True, cwd="/", check=False
    )


@pytest.mark.parametrize("code", CODES)
def test_a_cron_line_keeps_the_exit_code_and_says_what_is_not_ship(
    stand_in: Path, tmp_path: Path, code: int
) -> None:
    path = job_at(tmp_path / "repository 50%")
    fields, command = cron_command(schedule("cron", path, when="5 3 * * 1-5"))
    assert fields == ["5", "3", "*", "*", "1-5"]
    done = as_cron(command, TOLD=str(code))
    assert done.returncode == code
    if code == 0:
        assert done.stdout == ""
    elif code == 3:
        assert done.stdout == "redecide: error: nobody is there\n"
    else:
        assert f"arg regress\narg {path}\narg --markdown\n" in done.stdout
        assert done.stdout.startswith("# a night with 100 % and \\back\n")


class Workflow:
    """A GitHub workflow, and its steps as a runner takes them."""

    def __init__(self, text: str, root: Path, calls: Path) -> None:
        self.read: dict[Any, Any] = yaml.safe_load(text)
        self.root, self.calls = root, calls
        (job,) = self.read["jobs"].values()
        self.steps: dict[str, Any] = {each.get("name", each.get("uses")): each for each in job["steps"]}

    def run(self, name: str, path: Path, **more: str) -> subprocess.CompletedProcess[str]:
        """Run a step's script as GitHub's runner does, with the workflow's environment."""
        script = self.steps[name]["run"]
        assert "${{" not in script, "an expression in a script is an injection"
        files = {each: str(self.root / each) for each in ("GITHUB_OUTPUT", "GITHUB_STEP_SUMMARY")}
        env = {
            "PATH": f"{path}:/usr/bin:/bin",
            "HOME": "/",
            "CALLS": str(self.calls),
            **files,
            **self.read["env"],
            **more,
        }
        command = ["bash", "--noprofile", "--norc", "-eo", "pipefail", "-c", script]
        return subprocess.run(command, env=env, cwd=self.root, capture_output=True, text=True, check=False)

    @property
    def outputs(self) -> dict[str, str]:
        return dict(line.split("=", 1) for line in (self.root / "GITHUB_OUTPUT").read_text().splitlines())


@pytest.fixture
def workflow(stand_in: Path, tmp_path: Path) -> Workflow:
    root = tmp_path / "repository"
    return Workflow(schedule("github", job_at(root)), root, tmp_path / "calls")


def test_the_workflow_says_when_and_what_it_may(workflow: Workflow) -> None:
    read = workflow.read
    on = read[True]  # YAML 1.1 takes `on` for true, as GitHub's own reader does not
    assert on["schedule"] == [{"cron": "30 2 * * *"}]
    assert on["pull_request"]["paths"] == ["jobs/it's nightly.toml", "policies/next one/**"]
    assert read["permissions"] == {"contents": "read", "pull-requests": "write"}
    assert read["env"] == {"JOB": "jobs/it's nightly.toml", "MARKER": marker("refunds 100 @night")}
    kept, restored = (workflow.steps[name]["with"] for name in ("Save the state", "Restore the state"))
    assert kept["path"] == restored["path"] == "jobs/.redecide/refunds 100 @night"
    assert kept["key"] == restored["key"]
    assert kept["key"].startswith(restored["restore-keys"])
    assert "pull_request" in workflow.steps["Save the state"]["if"]


@pytest.mark.parametrize("code", CODES)
def test_the_workflow_keeps_the_exit_code(workflow: Workflow, stand_in: Path, code: int) -> None:
    ran = workflow.run("Regress", stand_in, TOLD=str(code))
    assert ran.returncode == 0, ran.stderr
    assert workflow.outputs == {"code": str(code)}
    verdict = workflow.run("Verdict", stand_in, CODE=workflow.outputs["code"])
    assert verdict.returncode == code
    assert verdict.stdout.strip().endswith(("ship", "regression", "inconclusive", "could not run")[code])
    summary = (workflow.root / "GITHUB_STEP_SUMMARY").read_text()
    assert summary == (workflow.root / "redecide-night" / "night.md").read_text()
    if code == 3:
        assert summary.startswith(marker("refunds 100 @night"))
        assert "    redecide: error: nobody is there" in summary
    else:
        assert (
            "arg jobs/it's nightly.toml\narg --markdown\narg --junit\narg redecide-night/junit.xml\n"
            in summary
        )


def test_a_step_that_never_came_to_a_verdict_is_no_ship(workflow: Workflow, stand_in: Path) -> None:
    assert workflow.run("Verdict", stand_in, CODE="").returncode == 3


@pytest.mark.parametrize("there", ["", "17\n18\n"])
def test_a_pull_request_has_one_comment(workflow: Workflow, stand_in: Path, there: str) -> None:
    workflow.run("Regress", stand_in, TOLD="1")
    asked = {"REPOSITORY": "me/shop", "NUMBER": "7", "COMMENTS": there, "GH_TOKEN": "x"}
    done = workflow.run("Comment", stand_in, **asked)
    assert done.returncode == 0, done.stderr
    looked, written = workflow.calls.read_text().splitlines()
    assert f'startswith("{marker("refunds 100 @night")}")' in looked
    body = "-F body=@redecide-night/night.md"
    if there:
        assert written == f"api --silent --method PATCH repos/me/shop/issues/comments/17 {body}"
    else:
        assert written == f"api --silent --method POST repos/me/shop/issues/7/comments {body}"


@pytest.mark.parametrize("kind", ["airflow", "dagster"])
def test_python_files_compile_and_run_this_job(stand_in: Path, tmp_path: Path, kind: str) -> None:
    """They were loaded and run under Airflow and Dagster themselves, once; here, what does not need them."""
    path = job_at(tmp_path / "repository")
    text = schedule(kind, path, when="0 4 * * *")
    tree = ast.parse(text)
    compile(tree, kind, "exec")
    (command,) = [
        ast.literal_eval(each.value)
        for each in tree.body
        if isinstance(each, ast.Assign)
        and isinstance(each.targets[0], ast.Name)
        and each.targets[0].id == "COMMAND"
    ]
    assert command == [str(stand_in / "redecide"), "regress", str(path), "--markdown"]
    words = {each.value for each in ast.walk(tree) if isinstance(each, ast.Constant)}
    assert {"0 4 * * *", "redecide_refunds_100_night"} <= words
    imported = {each.module for each in ast.walk(tree) if isinstance(each, ast.ImportFrom)}
    assert imported <= {
        "__future__",
        "datetime",
        "dagster",
        "airflow.sdk",
        "airflow.sdk.exceptions",
        "airflow.decorators",
        "airflow.exceptions",
    }


@pytest.mark.parametrize("kind", KINDS)
def test_nothing_is_left_open_in_a_file(stand_in: Path, tmp_path: Path, kind: str) -> None:
    assert not re.search(r"@[A-Z]+@", schedule(kind, job_at(tmp_path / "repository")))


@pytest.mark.parametrize(
    ("kind", "when", "told"),
    [
        ("crom", "0 4 * * *", "there is no schedule for `crom`; did you mean `cron`?"),
        ("cron", "0 4 * *", "`0 4 * *` is no time"),
        ("cron", "99 4 * * *", "`99 4 * * *` is no time"),
        ("cron", "0 4 1-40 * *", "is no time"),
        ("cron", "0 4 * * *\nreboot", "is no time"),
        ("github", '0 4 * * "x"', "is no time"),
        ("cron", "0 4 * * %", "is no time"),
    ],
)
def test_what_cannot_be_written(tmp_path: Path, kind: str, when: str, told: str) -> None:
    with pytest.raises(JobInvalid) as refused:
        schedule(kind, job_at(tmp_path / "repository"), when=when)
    assert told in str(refused.value)


@pytest.mark.parametrize(("kind", "name"), [("cron", "two\nlines"), ("github", "x ${{ secrets.A }}")])
def test_a_path_that_would_break_the_file_is_refused(tmp_path: Path, kind: str, name: str) -> None:
    folder = job_at(tmp_path / "repository").parent
    path = folder / f"{name}.toml"
    shutil.copy(folder / "it's nightly.toml", path)
    with pytest.raises(JobInvalid, match="cannot be written into a schedule; give the job a plainer path"):
        schedule(kind, path)


@pytest.mark.slow
def test_a_real_job_by_cron_and_by_github(tmp_path: Path) -> None:
    """The candidate blocks good work: both say regression with exit code 1, the second night over nothing new."""
    root = tmp_path / "repository"
    path = job_at(root)
    (root / "policies" / "now").mkdir()
    (root / "policies" / "now" / "p.cedar").write_text(PERMIT)
    (root / "policies" / "now" / "schema.cedarschema").write_text(SCHEMA)
    with Runtime.open(root / "policies" / "now", lake=root / "lake") as runtime:
        runtime.tool(lambda order_id, cents: cents, name="pay", resource="Order::{order_id}")
        for cents in (5, 50):
            session = runtime.session(principal="Agent::a", tenant="acme")
            try:
                session.call("pay", order_id="o", cents=cents)
            except Blocked:
                pytest.fail("the policy in force lets all run")
            runtime.label("origin", "user", session=session, source="test")
    _, command = cron_command(schedule("cron", path))
    assert str(Path(sys.executable).parent / "redecide") in command
    home = str(tmp_path)
    done = as_cron(command, HOME=home)
    assert done.returncode == 1, done.stdout + done.stderr
    assert done.stdout.startswith(marker("refunds 100 @night"))
    shutil.rmtree(root / "jobs" / ".redecide")
    workflow = Workflow(schedule("github", path), root, tmp_path / "calls")
    ran = workflow.run("Regress", Path(sys.executable).parent, HOME=home)
    assert workflow.outputs == {"code": "1"}, ran.stderr
    assert "good_lost" in (root / "GITHUB_STEP_SUMMARY").read_text()
    assert "<failure" in (root / "redecide-night" / "junit.xml").read_text()
    assert json.dumps(workflow.read["env"])
