"""A job file: what is declared is what is read, and everything that is wrong is told at once, before anything runs."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import polars as pl
import pytest

from runtime import Runtime
from runtime.aliases import move_alias
from runtime.bundle import bundle_from_files
from runtime.errors import BundleError
from runtime.lake import LakeStore
from workbench.errors import BundleNotFound, JobInvalid
from workbench.lake import Lake, open_lake
from workbench.regressing.job import RECORDED, Job, Looks, Window
from workbench.regressing.job_file import read_job
from workbench.regressing.job_keys import moment_of

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

FILES = {
    "policies.cedar": '@id("may")\npermit (principal, action, resource);\n',
    "schema.cedarschema": "entity Agent;\nentity Order;\n"
    'action "look" appliesTo { principal: [Agent], resource: [Order], context: { args: { id: String } } };\n',
}
BUNDLE = bundle_from_files(FILES, "support")

TOP = """
name = "refunds nightly"
lake = "../lake"
baseline = "champion"
candidates = ["next", "beef1234", "challenger"]
context = "candidate"
limits = "next"
cluster = ["tenant", "user_task"]
state = "kept"
"""
TABLES: Mapping[str, str] = {
    "sources": 'directory = "facts/people"\norders = "s3://facts/orders"\n',
    "stakes": 'harm = { chargeback = ["true"] }\nmoney = { refund = "cents" }\n',
    "window": 'mode = "new"\nfirst = "2026-11-01"\n',
    "filter": 'tenant = ["acme", "globex"]\ntool = { not = ["ping"] }\nprincipal = \'Agent::"bot"\'\nstep = 3\n',
    "[gates]": 'quantity = "harm_through_share"\nat_most = 0.05\n',
    "looks": "largest_session = 50\nplanned_sessions = 400\n",
    "scoring": 'metrics = ["verdict_correctness"]\n',
    "drift": "least = 0.2\n",
    "mlflow": 'tracking_uri = "sqlite:///mlflow.db"\nexperiment = "e"\nslices = ["tenant"]\ntraces = 3\n',
    "notify": 'file = "nights.jsonl"\n',
    "output": 'folder = "out"\nformats = ["json"]\nnotebook = false\n',
}
FULL = TOP + "".join(f"[{name}]\n{text}" for name, text in TABLES.items())


def job(folder: Path, text: str = FULL) -> Job:
    """Read a job beside a candidate's folder and a spec."""
    (folder / "next").mkdir(exist_ok=True)
    (folder / "context.toml").write_text("version = 1\n")
    (folder / "nightly.toml").write_text(text)
    return read_job(folder / "nightly.toml")


def refused(folder: Path, text: str) -> str:
    with pytest.raises(JobInvalid) as found:
        job(folder, text)
    message = str(found.value)
    assert message.startswith(f"{folder / 'nightly.toml'}: ")
    assert "\n" not in message, "one line, for a log"
    return message.removeprefix(f"{folder / 'nightly.toml'}: ")


def test_what_is_declared_is_what_is_read(tmp_path: Path) -> None:
    found = job(tmp_path)
    assert (found.name, found.lake, found.state) == (
        "refunds nightly",
        str(tmp_path.parent / "lake"),
        tmp_path / "kept",
    )
    assert (found.baseline.kind, found.context.kind, found.limits.kind) == ("alias", "candidate", "folder")
    assert [(each.text, each.kind, each.path) for each in found.candidates] == [
        ("next", "folder", tmp_path / "next"),
        ("beef1234", "version", None),
        ("challenger", "alias", None),
    ]
    assert found.sources == {"directory": str(tmp_path / "facts/people"), "orders": "s3://facts/orders"}
    assert found.stakes.harm == {"chargeback": ("true",)}
    assert found.stakes.moneys["refund"].pointer == "/cents"
    assert found.cluster == ("tenant", "user_task")
    assert found.window == Window(first=datetime(2026, 11, 1, tzinfo=UTC))
    assert found.filters["tenant"] == ["acme", "globex"]
    assert [gate.text for gate in found.gates] == ["harm_through_share <= 0.05"]
    assert found.looks == Looks(largest_session=50, planned_sessions=400)
    assert [each.metric for each in found.scoring.metrics] == ["verdict_correctness"]
    assert found.drift.least == 0.2
    assert found.notify.file == "nights.jsonl"
    assert found.mlflow is not None
    assert found.mlflow.tracking_uri == f"sqlite:///{tmp_path / 'mlflow.db'}"
    assert (found.mlflow.experiment, found.mlflow.slices, found.mlflow.traces) == ("e", ("tenant",), 3)
    assert (found.output.folder, found.output.formats, found.output.notebook) == (
        tmp_path / "out",
        ("json",),
        False,
    )


def test_a_job_needs_a_lake_and_looks_for_drift_without_candidates(tmp_path: Path) -> None:
    found = job(tmp_path, 'lake = "s3://user:secret@bucket/lake"')
    assert (found.name, found.lake) == ("nightly", "s3://user:secret@bucket/lake")
    assert (found.baseline, found.candidates, found.gates) == (RECORDED, (), ())
    assert found.drift.level == 0.95
    assert (found.window, found.filter, found.mlflow, found.notify, found.scoring) == (
        Window(),
        None,
        None,
        None,
        None,
    )
    assert found.state == tmp_path / ".redecide/nightly"
    assert found.output.folder == tmp_path / "nights/nightly"
    assert "secret" not in repr(found)


def test_files_are_read_for_stakes_and_gates(tmp_path: Path) -> None:
    (tmp_path / "stakes.toml").write_text('harm = { review = ["bad"] }\n')
    (tmp_path / "gates.toml").write_text('[[gates]]\nquantity = "harm_through"\nat_most = 3\non = "log"\n')
    found = job(tmp_path, 'lake = "l"\ncandidates = "next"\nstakes = "stakes.toml"\ngates = "gates.toml"\n')
    assert found.stakes.harm == {"review": ("bad",)}
    assert [gate.text for gate in found.gates] == ["harm_through <= 3 on this log"]
    (tmp_path / "stakes.toml").write_text('harmm = "x"\n')
    text = 'lake = "l"\ncandidates = "next"\nstakes = "stakes.toml"\ngates = "missing.toml"\n'
    told = refused(tmp_path, text)
    assert f"stakes: {tmp_path / 'stakes.toml'}: stakes have no key `harmm`; did you mean `harm`?" in told
    assert f"[[gates]] {tmp_path / 'missing.toml'}: " in told


def test_all_mistakes_are_told_at_once_with_the_closest_that_is_known(tmp_path: Path) -> None:
    text = """
lak = "../lake"
candidates = ["nxet", "next", "next"]
[[gates]]
quantity = "harm_throu_share"
at_most = 0.05
[[gates]]
quantity = "harm_money_through"
at_most = 0.05
[filter]
tennant = "acme"
[window]
mod = "new"
last = "soon"
[scoring]
metrics = ["verdict_corectness"]
[drift]
leest = 1
[mlflow]
slices = ["tol"]
[notify]
fil = "x"
[output]
formats = ["jsn"]
[looks]
largest_session = 0
[mlflwo]
"""
    told = refused(tmp_path, text)
    assert told.startswith("16 mistakes: (1) `")
    for each in (
        '`lake` is missing; say where the lake is, as `lake = "../lake"`',
        "`candidates` names `next` twice",
        "[[gates]] gate `harm_throu_share`: there is no such quantity; did you mean `harm_through_share`?",
        "[[gates]] gate `harm_money_through` is about money, and none is declared",
        "[filter] `tennant` is no column of the decisions; did you mean `tenant`?",
        "[window] `mod` is no key of a job file here; did you mean `mode`?",
        "[window] `last` is 'soon'; give a length of time, as `last = \"7d\"`",
        '[window] `last` is not for `mode = "new"`; a window of time is `mode = "time"`',
        "`verdict_corectness`; did you mean `verdict_correctness`?",
        "[drift]: there is no key `leest`; did you mean `least`?",
        "[mlflow] `slices` names `tol`, which is no column to slice by; did you mean `tool`?",
        "[notify] `fil` is no key of a job file here; did you mean `file`?",
        "[output] `formats` names `jsn`; did you mean `json`?",
        "[looks] `largest_session` is 0; give a whole number from 1 to 1,000,000,000",
        "`mlflwo` is no key of a job file; did you mean `mlflow`?",
        "`lak` is no key of a job file; did you mean `lake`?",
    ):
        assert each in told


def test_a_bundle_that_is_named_by_nothing_names_what_is_near(tmp_path: Path) -> None:
    told = refused(
        tmp_path, 'lake = "l"\ncandidates = ["./nxet"]\n[[gates]]\nquantity = "harm_ran"\nat_most = 1\n'
    )
    assert told == (
        f"`candidates` is `./nxet`: there is no such folder in {tmp_path}, did you mean `next`?; it is a folder, a "
        "version of the lake or an alias"
    )


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ('candidates = ["next"]\n', "`gates` are missing: nothing would be judged"),
        ('[[gates]]\nquantity = "harm_ran"\nat_most = 1\n', "`gates` judge candidates, and there are none"),
        ("[scoring]\nmetrics = ['verdict_correctness']\n", "`scoring` is of what a candidate would do, and there is none"),
        ("cluster = []\n", "`cluster` is empty"),
        ('name = "a/b"\n', "`name` is 'a/b'; give up to 100 letters"),
        ('[window]\nmode = "time"\n', '[window] `mode` = "time" needs `last`, `since` or `until`'),
        ('[window]\nmode = "time"\nfirst = "all"\nlast = "7d"\n', '[window] `first` is not for `mode = "time"`'),
        ('[window]\nmode = "time"\nsince = 2026-11-02\nuntil = 2026-11-01\n', "[window] `until` is not after `since`"),
        ('[window]\nmode = "time"\nsince = 2026-11-02\nlast = "1h"\n', "both say where the window begins"),
        ('[window]\nfirst = "never"\n', '[window] `first` is \'never\'; it is "all", "new" or a time'),
        ("filter = 5\n", "`filter` is 5; write it as a table, `[filter]`"),
        ("[filter]\nlatency_us = true\n", "[filter] `latency_us` is True; give a whole number"),
        ("[filter]\ntool = []\n", "[filter] `tool` is []; give a text"),
        ("[filter]\ntool = { nott = 'x' }\n", "[filter] `tool` is {'nott': 'x'}; give a text"),
        ("stakes = 5\n", "`stakes` is a table `[stakes]`, or a file"),
        ("lake = 5\n", "is no TOML"),
    ],
)  # fmt: skip
def test_what_cannot_be_is_told(tmp_path: Path, text: str, why: str) -> None:
    assert why in refused(tmp_path, f'lake = "l"\n{text}')


@pytest.mark.parametrize(
    ("gate", "why"),
    [
        ('quantity = "harm_ran"\neach = true\nat_most = 1', "`each`"),
        (
            'quantity = "harm_through_share"\nat_most = 0',
            "no log can show harm_through_share <= 0 of future traffic",
        ),
        ('quantity = "harm_ran"\nat_moost = 1', "gate 1 has no key `at_moost`; did you mean `at_most`?"),
    ],
)
def test_gates_that_no_night_could_judge_are_told_before_any(tmp_path: Path, gate: str, why: str) -> None:
    assert why in refused(tmp_path, f'lake = "l"\ncandidates = "next"\n[[gates]]\n{gate}\n')


def test_no_file_and_no_toml_are_told(tmp_path: Path) -> None:
    with pytest.raises(JobInvalid, match=r"missing.toml: cannot be read: No such file"):
        read_job(tmp_path / "missing.toml")
    with pytest.raises(JobInvalid, match=r"cannot be read: Is a directory"):
        read_job(tmp_path)
    for content, why in (
        (b"\xff", "is no TOML"),
        (b"a = ?\n", "is no TOML: .*line 1"),
        (b"a = " + b"[" * 9999, "is no"),
    ):
        (tmp_path / "job.toml").write_bytes(content)
        with pytest.raises(JobInvalid, match=why):
            read_job(tmp_path / "job.toml")


VALUES = ("0", "-1", "1.5", "nan", "true", '""', '"x"', '"a/b"', "[]", "[1]", '["a", "a"]', "{ a = 1 }", "2026-01-01",
          "0001-01-01T00:00:00+14:00", '"\\u001b[31m"', "[[]]", "9223372036854775807")  # fmt: skip


def keys() -> list[tuple[str, str]]:
    """Every key of a full file, with its table; the top's is empty."""
    found = [("", line.partition(" =")[0]) for line in TOP.strip().splitlines()]
    return found + [
        (name, line.partition(" =")[0]) for name, text in TABLES.items() for line in text.splitlines()
    ]


@pytest.mark.parametrize(("table", "key"), keys())
def test_whatever_a_key_is_the_file_is_read_or_refused(tmp_path: Path, table: str, key: str) -> None:
    """No value of the wrong kind breaks the reader, and none is taken for another: what is refused names the key."""
    for value in VALUES:
        top = [
            f"{key} = {value}" if line.startswith(f"{key} =") and not table else line
            for line in TOP.splitlines()
        ]
        rest = [
            f"[{name}]\n"
            + "\n".join(
                f"{key} = {value}" if name == table and line.startswith(f"{key} =") else line
                for line in text.splitlines()
            )
            for name, text in TABLES.items()
        ]
        text = "\n".join([*top, *rest])
        assert f"{key} = {value}" in text
        told = ""
        try:
            assert job(tmp_path, text).asks()
        except JobInvalid as exc:
            told = str(exc)
        assert not told or key in told or table.strip("[]") in told
        assert "\x1b" not in told


def test_a_filter_is_a_condition_over_decisions(tmp_path: Path) -> None:
    chosen = job(tmp_path).filter
    assert chosen is not None
    rows = pl.DataFrame(
        {
            "tenant": ["acme", "globex", "acme", "other", "acme", "acme"],
            "tool": ["pay", "pay", "ping", "pay", "pay", "pay"],
            "principal_type": ["Agent"] * 6,
            "principal_id": ["bot"] * 4 + ["eve", "bot"],
            "step": [3, 3, 3, 3, 3, 4],
        }
    )
    assert rows.select(chosen).to_series().to_list() == [True, True, False, False, False, False]
    none = job(tmp_path, 'lake = "l"\n[filter]\nreason_code = { not = "x" }\n').filter
    assert none is not None
    some = pl.DataFrame({"reason_code": ["x", None, "y"]})
    assert some.select(none).to_series().to_list() == [False, True, True], "what is absent is not `x`"


def test_windows_of_time_are_stretches_up_to_now() -> None:
    now = datetime(2026, 11, 23, 3, tzinfo=UTC)
    day = timedelta(days=1)
    assert Window().stretch(now) == (None, None)
    assert Window(first="new").stretch(now) == (None, None)
    assert Window(first=now - day).stretch(now) == (now - day, None)
    assert Window(mode="time", last=day).stretch(now) == (now - day, now)
    assert Window(mode="time", last=day, until=now - day).stretch(now) == (now - 2 * day, now - day)
    assert Window(mode="time", since=now - day).stretch(now) == (now - day, None)
    assert moment_of("2026-11-23T04:00:00+01:00") == now
    assert moment_of(5) is moment_of("9999-12-31T23:59:59-14:00") is None


def test_what_makes_nights_comparable_is_said(tmp_path: Path) -> None:
    """Thresholds and outputs may change between nights; what is counted may not."""
    asks = job(tmp_path).asks()
    same = FULL.replace("at_most = 0.05", "at_most = 0.01").replace('folder = "out"', 'folder = "other"')
    assert job(tmp_path, same).asks() == asks
    for old, new in (
        ('"acme", ', ""),
        ("harm_through_share", "harm_through"),
        ('"user_task"', '"session_id"'),
        ('["true"]', '["yes"]'),
        ('"cents"', '"euros"'),
        ("2026-11-01", "2026-11-02"),
        ("largest_session = 50", "largest_session = 51"),
    ):
        assert old in FULL
        assert job(tmp_path, FULL.replace(old, new)).asks() != asks


@pytest.fixture(scope="module")
def lake(tmp_path_factory: pytest.TempPathFactory) -> Lake:
    root = tmp_path_factory.mktemp("job")
    with Runtime.open(BUNDLE, lake=root / "lake") as runtime:
        runtime.tool(lambda id: id, name="look", resource="Order::{id}")  # noqa: A006
        runtime.session(principal="Agent::bot", tenant="acme").call("look", id="1")
        runtime.drain()
    move_alias(
        LakeStore(str(root / "lake"), write=True),
        "champion",
        BUNDLE.version,
        expected=None,
        actor="a",
        reason="first",
        now=datetime(2026, 11, 1, tzinfo=UTC),
    )
    return open_lake(root / "lake")


def test_a_bundle_is_found_by_folder_version_and_alias(tmp_path: Path, lake: Lake) -> None:
    for name, text in FILES.items():
        (tmp_path / "next").mkdir(exist_ok=True)
        (tmp_path / "next" / name).write_text(text)

    def named(text: str) -> Any:
        gates = '[[gates]]\nquantity = "harm_ran"\nat_most = 1\n'
        return job(tmp_path, f'lake = "l"\ncandidates = ["{text}"]\ncontext = "context.toml"\n{gates}')

    for text in (BUNDLE.version, BUNDLE.version[:8], "champion", "next", str(tmp_path / "next")):
        assert named(text).candidates[0].bundle(lake).version == BUNDLE.version
    assert (named("next").context.kind, named("next").context.path) == ("spec", tmp_path / "context.toml")
    assert RECORDED.bundle(lake) is None
    with pytest.raises(
        BundleNotFound,
        match=r"`challenger` is no folder beside the job, and .* has no alias 'challenger'; it has champion",
    ):
        named("challenger").candidates[0].bundle(lake)
    with pytest.raises(BundleNotFound):
        named("dead").candidates[0].bundle(lake)
    (tmp_path / "next" / "policies.cedar").write_text("permit (")
    with pytest.raises(BundleError):
        named("next").candidates[0].bundle(lake)
