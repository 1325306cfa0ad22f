"""`redecide doctor`, `resolve` and `upgrade`: what is wrong is named with the way out, and told by the exit code."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from deltalake import DeltaTable
from typer.testing import CliRunner

from runtime import approval_state
from runtime.drain import drain
from runtime.lake import LakeStore
from runtime.ledger import Ledger
from runtime.stops import Stops
from runtime.testing import MOMENT, context, decision, execution
from runtime.trace import CONTEXTS, DECISIONS, DRAINED, OUTCOMES
from workbench.cli import app
from workbench.cli_ledger import findings
from workbench.doctor_lake import lake_findings

if TYPE_CHECKING:
    from workbench.doctor import Finding

GOLDEN = Path(__file__).parent.parent / "runtime" / "golden" / "lake_v1"
ENTRY = "from workbench.cli import main; main()"


@pytest.fixture
def lake(tmp_path: Path) -> Path:
    """Return a copy of the golden lake, ledger and all."""
    return Path(shutil.copytree(GOLDEN, tmp_path / "lake"))


def bad(lake: Path, **options: Any) -> list[tuple[str, str]]:
    return [(each.subject, each.text) for each in lake_findings(str(lake), **options) if each.status == "bad"]


def about(found: list[Finding], subject: str) -> list[Finding]:
    return [each for each in found if each.subject == subject]


def redecide(*args: object, code: int = 0) -> str:
    """Run a command as a user does; return what it printed."""
    command = [sys.executable, "-P", "-c", ENTRY, *map(str, args)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == code, done.stdout + done.stderr
    return done.stdout + done.stderr


# -- a lake ----------------------------------------------------------------------------------------------------


def test_a_whole_lake_is_sound(lake: Path) -> None:
    assert bad(lake) == []


LOST = [
    ("contexts", "`context_hash` of", "context_hash"),
    ("slices", "`slice_hash` of", "slice_hash"),
    ("entities", "`entity_hashes` of", "entity_hash"),
    ("policies", "`bundle_version` of", "bundle_version"),
    ("blobs", "`result_hash` of", "blob_hash"),
]


@pytest.mark.parametrize(("table", "words", "key"), LOST, ids=[name for name, *_ in LOST])
@pytest.mark.parametrize("rows", ["one", "all", "table"])
def test_contents_that_rows_refer_to_and_that_are_lost(
    lake: Path, table: str, words: str, key: str, rows: str
) -> None:
    handle = DeltaTable(lake / table)
    if rows == "table":
        shutil.rmtree(lake / table)
    else:
        ident = (
            LakeStore(lake).read(next(each for each in DRAINED if each.name == table), [key])[key][0].as_py()
        )
        handle.delete(None if rows == "all" else f"{key} = '{ident}'")
    found = [text for subject, text in bad(lake) if subject == table]
    assert any(words in text and "missing" in text for text in found), found


def test_a_content_that_was_changed(lake: Path) -> None:
    DeltaTable(lake / "contexts").update(updates={"context": "'{}'"})
    found = [text for subject, text in bad(lake) if subject == "contexts"]
    assert len(found) == LakeStore(lake).read(CONTEXTS).num_rows
    assert "its content is at" in found[0]


def test_a_policy_that_was_changed(lake: Path) -> None:
    DeltaTable(lake / "policies").update(predicate="file = 'limits.toml'", updates={"text": "'version = 1'"})
    assert any(
        "its texts give another version" in text for subject, text in bad(lake) if subject == "policies"
    )


def test_an_outcome_without_its_decision(lake: Path) -> None:
    ident = LakeStore(lake).read(OUTCOMES, ["decision_id"])["decision_id"].drop_null()[0].as_py()
    DeltaTable(lake / "decisions").delete(f"decision_id = '{ident}'")
    words = [text for subject, text in bad(lake) if subject == "decisions"]
    assert any("`decision_id` of" in text for text in words)


def test_a_gap_is_a_fault_unless_the_ledger_says_that_it_is_on_its_way(tmp_path: Path) -> None:
    store = LakeStore(tmp_path / "lake", write=True)
    with Ledger.open(tmp_path / "lake" / "_ledger.sqlite") as ledger:
        for _ in range(2):
            made = decision(tenant="t")
            ledger.commit(evidence=[(DECISIONS, made)])
            ledger.commit(evidence=[(OUTCOMES, execution(made))])
        with pytest.raises(InterruptedError):
            drain(ledger, store, at_step=_stop)
        found = list(findings(str(tmp_path / "lake")))
        assert [each.status for each in about(found, "chain")] == ["note", "ok"]
        assert "outcomes after position 0 are not drained yet" in about(found, "chain")[0].text
        assert next(subject for subject, _ in bad(tmp_path / "lake")) == "chain", "the lake alone cannot know"
        drain(ledger, store)
        assert [each.status for each in about(list(findings(str(tmp_path / "lake"))), "chain")] == ["ok"]
    DeltaTable(tmp_path / "lake" / "outcomes").delete("position = 2")
    found = list(findings(str(tmp_path / "lake")))
    assert [each.text for each in about(found, "chain")] == [
        f"ledger {ledger.id}, position 2: missing: position 2"
    ]


def _stop(step: str) -> None:
    if step == "written:decisions":
        raise InterruptedError


# -- a ledger --------------------------------------------------------------------------------------------------


def test_what_is_in_doubt_is_named_with_what_to_do(lake: Path) -> None:
    said = redecide("doctor", lake, code=1)
    doubtful = re.findall(
        r"BAD +action +decision (\w+): tool `refund` on Order::\"acme-1\" of tenant 'acme'", said
    )
    assert len(doubtful) == 2
    path = lake / "_ledger.sqlite"
    assert (
        f"redecide resolve {path} {doubtful[0]} --as succeeded|failed|aborted --by WHO --reason HOW" in said
    )
    assert "not in the lake yet: 6 rows of `decisions`, 6 rows of `outcomes`" in said
    alone = redecide("doctor", path, code=1)
    assert doubtful[1] in alone
    assert "rows, Delta version" not in alone


def test_resolving_is_recorded_and_ends_the_doubt(lake: Path) -> None:
    path = lake / "_ledger.sqlite"
    with Ledger.open(path) as ledger:
        first, second = (str(row["decision_id"]) for row in ledger.unfinished())
    said = redecide(
        "resolve", path, first, "--as", "succeeded", "--by", "User::ana", "--reason", "bank statement"
    )
    assert f"decision {first}: succeeded, recorded as position" in said
    said = redecide(
        "resolve", lake, second, "--as", "aborted", "--by", "User::ana", "--reason", "no such payment"
    )
    redecide("doctor", lake)
    with Ledger.open(path) as ledger:
        outcome = ledger.outcome_of(first)
        assert outcome is not None
        assert (outcome["status"], outcome["reason_code"]) == ("succeeded", "resolved")
        assert outcome["source"] == "User::ana: bank statement"
        drain(ledger, LakeStore(lake, write=True))
    assert bad(lake) == []


REFUSED: dict[str, tuple[tuple[str, ...], str]] = {
    "unknown": (("nope", "--as", "failed", "--by", "a", "--reason", "b"), "no decision"),
    "nobody": (("{id}", "--as", "failed", "--by", " ", "--reason", "b"), "--by must not be empty"),
    "no reason": (("{id}", "--as", "failed", "--by", "a", "--reason", ""), "--reason must not be empty"),
    "no ending": (("{id}", "--as", "denied", "--by", "a", "--reason", "b"), "denied"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_resolving_refuses(lake: Path, name: str) -> None:
    path = lake / "_ledger.sqlite"
    with Ledger.open(path) as ledger:
        ident, end = str(ledger.unfinished()[0]["decision_id"]), ledger.head()
    args, words = REFUSED[name]
    said = redecide("resolve", path, *(arg.format(id=ident) for arg in args), code=2)
    assert words in said
    with Ledger.open(path) as ledger:
        assert ledger.head() == end


def test_resolving_what_somebody_runs_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "ledger.sqlite"
    with Ledger.open(path) as ledger:
        made = decision(tenant="t")
        ledger.commit(evidence=[(DECISIONS, made)])
        ident = str(made["decision_id"])
        said = redecide("resolve", path, ident, "--as", "failed", "--by", "a", "--reason", "b", code=2)
        assert "still runs" in said
        assert "by a process that lives" in redecide("doctor", path)


def test_resolving_makes_no_ledger(tmp_path: Path) -> None:
    path = tmp_path / "none.sqlite"
    redecide("resolve", path, "x", "--as", "failed", "--by", "a", "--reason", "b", code=2)
    assert not path.exists()


def test_approvals_and_stops_are_shown_and_no_fault(tmp_path: Path) -> None:
    path = tmp_path / "lake" / "_ledger.sqlite"
    with Ledger.open(path) as ledger:
        for name, expires in (("a-late", MOMENT), ("a-open", 2**60)):
            made = decision(tenant="t", verdict="approve", decision_id=name, tool="pay\x1b[2J")
            asked = approval_state.asks(name, "t", {"large": ["x"]}, MOMENT - 1, expires)
            ledger.commit(contents=[context("c")], evidence=[(DECISIONS, made)], moves=[asked])
        Stops(ledger).set(everything=True, reason="leak", by="ana")
    found = list(findings(str(tmp_path / "lake")))
    assert {each.status for each in found} == {"ok", "note"}
    late, waits = (each.text for each in about(found, "approval"))
    assert late.startswith("a-late: tool `pay\\u001b[2J` of tenant 't'")
    assert "not closed yet" in late
    assert "waits for large; until" in waits
    assert "stops everything; by ana" in about(found, "stop")[0].text
    assert "holds no decision yet" in about(found, "lake")[0].text


def test_many_are_summed_up(tmp_path: Path) -> None:
    with Ledger.open(tmp_path / "ledger.sqlite") as ledger:
        for _ in range(30):
            ledger.commit(evidence=[(DECISIONS, decision(tenant="t"))])
        told = about(list(findings(str(tmp_path / "ledger.sqlite"))), "action")
    assert len(told) == 21
    assert told[-1].text == "in all: 30 started"


# -- upgrading -------------------------------------------------------------------------------------------------


def test_an_upgrade_is_told_done_and_done_once(lake: Path) -> None:
    before = {path: path.read_bytes() for path in lake.rglob("*") if path.is_file()}
    told = redecide("upgrade", lake, "--dry-run")
    assert "ledger: version 2 → 3" in told
    assert "decisions: version 1 → 2, adds effect, writes, grants, approval" in told
    assert "contexts: version 1 → 2\n" in told
    assert "nothing was changed" in told
    assert {path: path.read_bytes() for path in lake.rglob("*") if path.is_file()} == before
    assert redecide("upgrade", lake) == told.partition("nothing was")[0]
    assert redecide("upgrade", lake) == redecide("upgrade", lake, "--dry-run") == "up to date\n"
    assert bad(lake) == []


def test_a_ledger_is_upgraded_alone_and_a_lake_without_its_ledger(lake: Path, tmp_path: Path) -> None:
    path = lake / "_ledger.sqlite"
    elsewhere = path.rename(tmp_path / "ledger.sqlite")
    assert redecide("upgrade", elsewhere) == "ledger: version 2 → 3\n"
    assert "ledger" not in redecide("upgrade", lake, "--ledger", elsewhere)
    assert redecide("upgrade", lake) == "up to date\n"


def test_there_is_nothing_to_upgrade(tmp_path: Path) -> None:
    assert "nothing is there" in redecide("upgrade", tmp_path / "none", code=2)
    assert "no ledger at" in redecide("upgrade", tmp_path, "--ledger", tmp_path / "none.sqlite", code=2)


def test_the_commands_explain_themselves() -> None:
    for name in ("doctor", "resolve", "upgrade"):
        assert CliRunner().invoke(app, [name, "--help"]).exit_code == 0


BASE = """
import sys
from importlib import util
real = util.find_spec
util.find_spec = lambda name, package=None: None if name == "polars" else real(name, package)
sys.modules["polars"] = None
from workbench.cli import main
sys.argv = ["redecide", *sys.argv[1:]]
main()
"""


def test_a_ledger_is_looked_into_without_the_extras(lake: Path) -> None:
    """On the agent's machine there is no Polars."""
    command = [sys.executable, "-P", "-c", BASE, "doctor", str(lake / "_ledger.sqlite")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 1, done.stderr
    assert "BAD   action" in done.stdout
