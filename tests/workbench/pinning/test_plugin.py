"""The pytest plugin, in a pytest of its own, and how little it costs a run that does not use it."""

from __future__ import annotations

import os
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from workbench.pinning.making import pin

if TYPE_CHECKING:
    from workbench.lake import Lake

pytest_plugins = ["pytester"]

ROOT = Path(__file__).resolve().parents[3]
PLUGIN = (
    "-p",
    "no:redecide",
    "-p",
    "workbench.pytest_plugin",
    "-p",
    "no:deepeval",
    "-p",
    "no:cacheprovider",
    "-rs",
)
"""As a module of its own, whether it is installed as an entry point or not."""
BASELINE, CANDIDATE = (ROOT / "datasets" / "support-desk" / name for name in ("baseline", "candidate"))


@pytest.fixture(scope="session")
def pins(desk: Lake, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder of three pins: one that stays, one that flips, one that the candidate cannot decide."""
    folder = tmp_path_factory.mktemp("folder")
    rows = desk.history.filter(verdict="allow").select("decision_id", "tool").sort("decision_id").collect()
    for name, tool, outcome in (
        ("stays", "lookup_order", "passed"),
        ("flips", "issue_refund", "failed"),
        ("open", "reply_ticket", "undecided"),
    ):
        found = (pin(desk, each) for each in rows.filter(tool=tool)["decision_id"])
        next(each for each in found if each.check(CANDIDATE).outcome == outcome).write(
            folder / f"{name}.pin.json"
        )
    return folder


def run(
    pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch, test: str, *args: str
) -> pytest.RunResult:
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    pytester.makeini("[pytest]\naddopts = --strict-markers\nasyncio_default_fixture_loop_scope = function\n")
    pytester.makepyfile(f"import pytest\n\n{test}")
    return pytester.runpytest_subprocess(*PLUGIN, *args)


def test_pins_become_tests(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch, pins: Path) -> None:
    found = run(
        pytester, monkeypatch,
        f"""@pytest.mark.redecide(pins={str(pins)!r}, policy={str(CANDIDATE)!r})
def test_pins():
    "The plugin checks it."


@pytest.mark.redecide(pins={str(pins)!r}, policy={str(CANDIDATE)!r}, undecided="skip")
def test_skipped(redecide_pin):
    assert redecide_pin.checked.passed


@pytest.mark.redecide(pins={str(pins / 'flips.pin.json')!r}, policy={str(BASELINE)!r})
def test_one(redecide_pin):
    assert redecide_pin.pinned.file.expected.verdict == redecide_pin.checked.verdict == "allow"
""",
        "-v",
    )  # fmt: skip
    found.assert_outcomes(passed=3, failed=3, skipped=1)
    found.stdout.fnmatch_lines(
        [
            "*test_pins[[]flips[]] FAILED*",
            "*test_pins[[]open[]] FAILED*",
            "*test_pins[[]stays[]] PASSED*",
            "*test_skipped[[]open[]] SKIPPED*",
            "*expected allow, got approve",
            "*`context.args.amount_cents >= 5000`*",
            "*context.args.body*--keep context.args.body*",
        ],
    )
    assert "Traceback" not in found.stdout.str()


def test_another_policy_by_option(
    pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch, pins: Path
) -> None:
    test = f"@pytest.mark.redecide(pins={str(pins)!r}, policy='nowhere')\ndef test_pins():\n    pass\n"
    run(pytester, monkeypatch, test, f"--redecide-policy={BASELINE}").assert_outcomes(passed=3)


def test_decisions_of_a_lake_become_tests(
    pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch, desk: Lake
) -> None:
    found = run(
        pytester, monkeypatch,
        f"""@pytest.mark.redecide(lake={desk.uri!r}, where={{"tool": "issue_refund", "verdict": ["block", "modify"]}},
                      limit=4, policy={str(BASELINE)!r})
def test_refunds(redecide_pin):
    assert redecide_pin.pinned.file.request.tool == "issue_refund"


def test_by_hand(redecide_lake_decisions):
    for each in redecide_lake_decisions({desk.uri!r}, {{"verdict": "approve"}}, 2):
        assert each.check({str(BASELINE)!r}).verdict == "approve"
""",
    )  # fmt: skip
    found.assert_outcomes(passed=5)
    found.stdout.fnmatch_lines(["redecide: 4 of * decisions of *"])


WRONG = {
    "pins='tests/pins', policy='p'": "*no pins at *tests/pins*",
    "pin='tests/pins'": "*no argument `pin`; did you mean `pins`*",
    "policy='p'": "*give either `pins`*",
    "pins='p', undecided='skipped'": "*`undecided` is 'skipped'; did you mean `skip`*",
    "'tests/pins'": "*give arguments by name*",
    "lake='nowhere'": "*nowhere*",
}


def test_a_marker_that_is_wrong_is_an_error_of_the_collection(
    pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch
) -> None:
    tests = {
        f"test_{number}": f"import pytest\n@pytest.mark.redecide({marker})\ndef test_pins():\n    pass\n"
        for number, marker in enumerate(WRONG)
    }
    pytester.makepyfile(**tests)
    found = run(pytester, monkeypatch, "")
    found.assert_outcomes(errors=len(WRONG))
    for said in WRONG.values():
        found.stdout.fnmatch_lines([said])
    assert "Traceback" not in found.stdout.str()
    assert "During handling" not in found.stdout.str()


def test_a_file_that_is_wrong_fails_its_own_test(
    pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch, pins: Path
) -> None:
    folder = pytester.mkdir("pins")
    (folder / "good.pin.json").write_bytes((pins / "stays.pin.json").read_bytes())
    (folder / "bad.pin.json").write_text("{}")
    found = run(
        pytester, monkeypatch,
        f"@pytest.mark.redecide(pins='pins', policy={str(BASELINE)!r})\ndef test_pins():\n    pass\n\n\n"
        "@pytest.mark.redecide(pins='pins/good.pin.json', policy='gone')\ndef test_no_bundle():\n    pass\n\n\n"
        "@pytest.mark.redecide(pins='pins/good.pin.json')\ndef test_no_policy():\n    pass\n",
    )  # fmt: skip
    found.assert_outcomes(passed=1, failed=3)
    found.stdout.fnmatch_lines(["*bad.pin.json: no pinned decision*"])
    found.stdout.fnmatch_lines(["no bundle at *gone*"])
    found.stdout.fnmatch_lines(["say which policies: *"])


def test_a_run_without_pins_loads_nothing_of_ours(
    pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = run(
        pytester, monkeypatch,
        "import sys\n\n\ndef test_none():\n"
        "    assert 'workbench.pytest_plugin' in sys.modules\n"
        "    assert not {'runtime', 'polars', 'cedarpy', 'deltalake', 'workbench.lake'} & set(sys.modules)\n",
    )  # fmt: skip
    found.assert_outcomes(passed=1)


def test_importing_the_plugin_imports_hardly_anything_beside_pytest() -> None:
    code = (
        "import sys, pytest; before = set(sys.modules); import workbench.pytest_plugin; "
        "print(*sorted(each for each in set(sys.modules) - before if each.partition('.')[0] not in sys.stdlib_module_names))"
    )
    env = os.environ | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True, check=True)
    assert done.stdout.split() == [
        "workbench",
        "workbench.errors",
        "workbench.freed",
        "workbench.pytest_plugin",
    ]


def test_pytest_finds_it_where_redecide_is_installed() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    assert project["project"]["entry-points"]["pytest11"] == {"redecide": "workbench.pytest_plugin"}
