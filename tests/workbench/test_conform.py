"""Conformance cases: reading them, deciding them in frames, and saying where an engine is wrong."""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import TYPE_CHECKING, Any

import cedarpy
import polars as pl
import pytest

from runtime.errors import PolicySchemaError
from workbench import conform_cases, conform_frames
from workbench.conform import conform
from workbench.conform_cases import COLUMNS, read_windows
from workbench.conform_report import FIELDS, SHOWN, Said
from workbench.errors import CasesUnreadable
from workbench.rows import pack

if TYPE_CHECKING:
    from collections.abc import Sequence

    from runtime.entities import EntityUid
    from runtime.policy import Case
    from workbench.conform_report import FileReport

SCHEMA = """
entity Team in [Team];
entity Clerk in [Team] = { level: Long, boss?: Clerk };
entity Parcel = { owner: Clerk, weight: Long };
action open, weigh appliesTo { principal: [Clerk], resource: [Parcel], context: { urgent: Bool } };
"""
POLICIES = """
permit (principal in Team::"north", action, resource);
permit (principal, action == Action::"weigh", resource) when { resource.owner == principal };
forbid (principal, action, resource) when { principal.boss.level > 8 };
forbid (principal, action, resource) when { resource.weight > 100 && !context.urgent };
"""
MEMBERSHIP = 'permit (principal in Team::"north", action, resource);'


def uid(kind: str, name: str) -> str:
    return json.dumps({"type": kind, "id": name})


def entity(kind: str, name: str, parents: Sequence[tuple[str, str]] = (), **attrs: Any) -> dict[str, Any]:
    above = [{"type": type_, "id": id_} for type_, id_ in parents]
    return {"uid": {"type": kind, "id": name}, "attrs": attrs, "parents": above}


def person(name: str, *teams: str, level: int = 1, **attrs: Any) -> dict[str, Any]:
    return entity("Clerk", name, [("Team", team) for team in teams], level=level, **attrs)


def parcel(owner: str = "ann", weight: int = 5) -> dict[str, Any]:
    # The short form of a reference, which only a schema makes one.
    return entity("Parcel", "p", owner={"type": "Clerk", "id": owner}, weight=weight)


def case(
    *entities: dict[str, Any],
    expect: str | None = None,
    reason: Sequence[str] | None = None,
    errors: Sequence[str] | None = None,
    **changes: Any,
) -> dict[str, Any]:
    """Make one row of a file of cases."""
    row = {
        "policies": POLICIES,
        "entities_json": json.dumps(entities),
        "schema_text": SCHEMA,
        "principal": uid("Clerk", "ann"),
        "action": uid("Action", "weigh"),
        "resource": uid("Parcel", "p"),
        "context_json": '{"urgent": false}',
        "validate_request": True,
        "expected_decision": expect,
        "expected_reason": reason,
        "expected_errors": errors,
    }
    return row | changes


def post_office() -> list[dict[str, Any]]:
    """Return cases that share policies and schema; versions of one uid, absent entities, and an erring policy."""
    north = entity("Team", "north")
    above = entity("Team", "south", [("Team", "north")])
    boss = {"type": "Clerk", "id": "boss"}
    return [
        case(person("ann"), parcel("bob"), expect="deny", reason=[], errors=["policy2"]),
        case(
            person("ann", "north"),
            north,
            parcel("bob"),
            expect="allow",
            reason=["policy0"],
            errors=["policy2"],
        ),
        case(person("ann", "south"), above, parcel("bob"), expect="allow", reason=["policy0"]),
        case(person("ann", "south"), parcel("bob"), expect="deny", reason=[], errors=["policy2"]),
        case(
            person("ann", "north", boss=boss),
            person("boss", level=9),
            parcel(),
            expect="deny",
            reason=["policy2"],
            errors=[],
        ),
        # Her boss is in another case's store, not in hers: an error, no level of 9.
        case(person("ann", boss=boss), parcel(), expect="allow", reason=["policy1"], errors=["policy2"]),
        case(person("ann"), parcel(weight=101), expect="deny", reason=["policy3"], errors=["policy2"]),
    ]


def write(path: Path, rows: Sequence[dict[str, Any]]) -> Path:
    """Write cases in the format the path's suffix names."""
    if path.suffix == ".parquet":
        types: dict[str, Any] = {"expected_decision": pl.String}
        types |= dict.fromkeys(("expected_reason", "expected_errors"), pl.List(pl.String))
        pl.DataFrame(rows, schema_overrides=types, infer_schema_length=None).write_parquet(path)
    else:
        path.write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    return path


def run(path: Path, rows: Sequence[dict[str, Any]], **options: Any) -> FileReport:
    """Write the cases and run them through every engine."""
    return conform(write(path / "cases.jsonl", rows), **options)


def agreed(report: FileReport, engine: str = "rows") -> list[int]:
    counts = report.tallies[engine].agreed  # type: ignore[index]
    return [counts[name] for name in FIELDS]


def redecide(*args: str | Path) -> subprocess.CompletedProcess[str]:
    """Run the command in a process of its own."""
    command = [str(Path(sys.executable).with_name("redecide")), "conform", *map(str, args)]
    environment = os.environ | {"COLUMNS": "120", "NO_COLOR": "1"}
    return subprocess.run(command, capture_output=True, text=True, check=False, env=environment)


@pytest.mark.parametrize("suffix", ["parquet", "jsonl"])
@pytest.mark.parametrize("multiply", [0, 40])
def test_all_agree(tmp_path: Path, suffix: str, multiply: int) -> None:
    path = write(tmp_path / f"cases.{suffix}", post_office())
    report = conform(path, multiply=multiply)
    assert report.agrees, list(report.lines())
    assert (report.cases, report.frames, report.decided) == (7, 1, 7)
    assert agreed(report) == [7, 7, 7]
    assert report.expected_by_file == {"decision": 7, "reasons": 7, "errors": 6}
    assert report.padding == report.tallies["rows"].padding_agreed == multiply
    assert report.padding_handed_over == 0
    assert report.padding_decided > multiply // 2 or not multiply


def test_frames_are_by_policies_schema_and_validation(tmp_path: Path) -> None:
    rows = [*post_office(), *post_office(), case(person("ann"), policies=MEMBERSHIP)]
    rows += [each | {"validate_request": False} for each in rows[:2]]
    rows += [each | {"schema_text": None, "expected_reason": None} for each in rows[-2:]]
    report = run(tmp_path, rows)
    assert report.agrees, list(report.lines())
    assert report.frames == 3  # without validation there is no schema, whatever the text


def test_policies_are_named_by_position(tmp_path: Path) -> None:
    policies = "".join(f"permit (principal, action, resource) when {{ {n} == 10 }};\n" for n in range(12))
    report = run(
        tmp_path, [case(parcel(), policies=policies, expect="Allow", reason=["policy10"], errors=[])]
    )
    assert report.agrees, list(report.lines())


def test_order_of_ids_is_free(tmp_path: Path) -> None:
    policies = "permit (principal, action, resource);" * 3
    report = run(
        tmp_path,
        [case(parcel(), policies=policies, expect="allow", reason=["policy2", "policy0", "policy1"])],
    )
    assert report.agrees, list(report.lines())


def test_no_validation_means_no_schema(tmp_path: Path) -> None:
    """A short reference is a plain record then, and no owner; an undeclared action is decided."""
    row = case(person("ann"), parcel(), policies=POLICIES.partition("forbid")[0])
    rows = [
        row | {"expected_decision": "allow", "expected_reason": ["policy1"]},
        row | {"expected_decision": "deny", "expected_reason": [], "validate_request": False},
        row
        | {
            "policies": "permit (principal, action, resource);",
            "expected_decision": "allow",
            "validate_request": False,
            "action": uid("Action", "undeclared"),
        },
    ]
    report = run(tmp_path, rows)
    assert report.agrees, list(report.lines())
    assert agreed(report) == [3, 3, 3]


def test_actions_of_another_store_do_not_leak(tmp_path: Path) -> None:
    """Without a schema a group of actions is in one store and not in the other."""
    grouped = entity("Action", "weigh", [("Action", "any")])
    row = case(policies='permit (principal, action in Action::"any", resource);', validate_request=False)
    rows = [
        row | {"expected_decision": "deny"},
        row | {"entities_json": json.dumps([grouped]), "expected_decision": "allow"},
    ]
    report = run(tmp_path, rows * 3, multiply=50)
    assert report.agrees, list(report.lines())


@pytest.mark.parametrize(
    ("changes", "cause"),
    [
        ({"policies": "permit (principal, action, resource) when { context.urgent is };"}, "unexpected"),
        ({"schema_text": "entity Clerk {{"}, "schema"),
        ({"entities_json": '[{"uid": "Clerk::\\"ann\\"", "attrs": {}, "parents": []}]'}, "deserialization"),
        ({"entities_json": '[{"uid": {"__expr": "Clerk::\\"ann\\""}, "attrs": {}, "parents": []}]'}, ""),
        ({"action": uid("Action", "close")}, "close"),
        ({"context_json": '{"urgent": false, "more": 1}'}, "more"),
        ({"context_json": "[]"}, ""),
    ],
)
def test_what_cedar_refuses_has_no_decision(tmp_path: Path, changes: dict[str, Any], cause: str) -> None:
    """It is not a deny, though the file may expect one, and it leaves its neighbours alone."""
    rows = [*post_office(), case(person("ann"), expect="deny", reason=[]) | changes]
    report = run(tmp_path, rows, multiply=20)
    assert report.agrees, list(report.lines())
    assert (report.cases, report.decided, report.causes.total()) == (8, 7, 1)
    assert agreed(report) == [7, 7, 7]
    assert cause in next(iter(report.causes))
    assert "  no decision: 1 cases" in "\n".join(report.lines())


@pytest.mark.parametrize("text", ["1.5", "1e400", "-0", str(2**63), str(-(2**63) - 1), "NaN", '"\\ud800"'])
@pytest.mark.parametrize("column", ["context_json", "entities_json"])
def test_values_never_stand_in_for_other_text(tmp_path: Path, column: str, text: str) -> None:
    """Python reads these; were they written again from values, Cedar would be asked something else."""
    texts = {
        "context_json": f'{{"x": {text}}}',
        "entities_json": f'[{{"uid": {uid("Clerk", "ann")}, "attrs": {{"x": {text}}}, "parents": []}}]',
    }
    row = case(validate_request=False, policies=MEMBERSHIP, expect="allow") | {column: texts[column]}
    path = write(tmp_path / "cases.jsonl", [row])
    ((read,),) = read_windows(path)
    assert read.case is None
    report = conform(path, multiply=3)
    assert report.agrees
    assert (report.decided, report.causes.total()) == (0, 1)


@pytest.mark.parametrize(
    ("column", "text", "decided"),
    [
        (
            "context_json",
            '{"a": 1, "a": 2}',
            True,
        ),  # cedarpy takes a member given twice here; not in entities
        (
            "entities_json",
            f'[{{"uid": {uid("Clerk", "ann")}, "attrs": {{}}, "parents": [], "later": 1}}]',
            True,
        ),
        ("entities_json", json.dumps([person("ann"), person("ann", level=2)]), False),
    ],
)
def test_odd_texts_are_left_to_cedar(tmp_path: Path, column: str, text: str, decided: bool) -> None:
    row = case(validate_request=False, policies=MEMBERSHIP) | {column: text}
    ((read,),) = read_windows(write(tmp_path / "cases.jsonl", [row]))
    assert read.case is None
    assert bool(run(tmp_path, [row]).decided) is decided


def test_big_integer_beside_a_name_that_is_not_ascii(tmp_path: Path) -> None:
    """RFC 8785 has no form for it; it is an entity like any other."""
    big = entity("Clerk", "ann", größe=2**63 - 1)
    policy = 'permit (principal, action, resource) when { principal["größe"] == 9223372036854775807 };'
    row = case(big, policies=policy, validate_request=False, expect="allow", reason=["policy0"])
    ((read,),) = read_windows(write(tmp_path / "cases.jsonl", [row]))
    assert read.case is not None
    assert run(tmp_path, [row, row | {"entities_json": "[]", "expected_decision": "deny"}]).causes == {}


def test_nesting_too_deep_to_read(tmp_path: Path) -> None:
    deep = '{"x": ' * 100_000 + "1" + "}" * 100_000
    report = run(tmp_path, [case(context_json=deep)])
    assert report.causes.total() == 1


def test_store_that_the_schema_refuses(tmp_path: Path) -> None:
    """Stores are joined for asking; one that is not valid must not spoil the others."""
    wrong = entity("Clerk", "carl", level="high")
    rows = [case(person(name), parcel(), principal=uid("Clerk", name)) for name in ("ann", "bob")]
    rows.insert(1, case(wrong, parcel(), principal=uid("Clerk", "carl")))
    report = run(tmp_path, rows)
    assert report.agrees, list(report.lines())
    assert (report.decided, report.causes.total()) == (2, 1)


def test_policies_deeper_than_the_syntax_tree_goes(tmp_path: Path) -> None:
    """Uids that a policy names are then not known, so every one may matter; and no column is made."""
    asked = "if context.urgent then false else " * 200 + 'principal in Team::"north"'
    above = entity("Team", "south", [("Team", "north")])
    deep = case(
        person("ann", "south"), parcel(), policies=f"permit (principal, action, resource) when {{ {asked} }};"
    )
    with pytest.raises(ValueError, match="nesting"):
        cedarpy.PolicySet.from_str(deep["policies"]).to_pst()
    rows = [
        deep | {"expected_decision": "deny"},
        deep
        | {
            "entities_json": json.dumps([person("ann", "south"), above, parcel()]),
            "expected_decision": "allow",
        },
    ]
    report = run(tmp_path, rows, multiply=30)
    assert report.agrees, list(report.lines())
    assert report.decided == report.hand_overs.total() == 2


def leaky(cases: Sequence[Case], literals: frozenset[EntityUid]) -> list[Any]:
    """Pack by what a case has, forgetting what it lacks."""
    batches = pack(cases, literals)
    first, rest = batches[:1], batches[1:]
    for batch in list(rest):
        for target in first:
            known = target.entities
            if all(known.get(u, e).hash == e.hash for u, e in batch.entities.items()):
                known.update(batch.entities)
                target.members += batch.members
                rest.remove(batch)
                break
        else:
            first.append(batch)
    return first


def test_a_leak_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The measure measures: an engine whose rows see each other's entities is caught by padding alone."""
    one = [case(person("ann", "south"), entity("Team", "south", [("Team", "north")]), parcel())]
    assert run(tmp_path, one, multiply=100).agrees
    monkeypatch.setattr(conform_frames, "pack", leaky)
    assert run(tmp_path, one).agrees  # a frame of one row proves nothing
    report = run(tmp_path, one, multiply=100)
    assert not report.agrees
    assert report.tallies["rows"].padding_agreed < report.padding
    assert report.examples[0].row is None
    assert len(report.examples) <= SHOWN


def test_padding_is_repeatable_and_varied(tmp_path: Path) -> None:
    (cases,) = read_windows(write(tmp_path / "cases.jsonl", post_office()))
    rows, places = conform_frames.shuffled(cases, 200)
    again, _ = conform_frames.shuffled(cases, 200)
    assert [(row.case.principal, row.context, row.store) for row in rows] == [
        (row.case.principal, row.context, row.store) for row in again
    ]
    assert len(rows) == 207
    assert [rows[places[each.row]].store for each in cases] == [each.entities_json for each in cases]
    assert len({row.store for row in rows}) > len({each.entities_json for each in cases})
    assert len({row.case.principal for row in rows}) > 1
    more = conform_frames.padding(rows, 10, random.Random(1))
    assert len(more) == 10


def test_windows_bound_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write(tmp_path / "cases.parquet", post_office())
    monkeypatch.setattr(conform_cases, "WINDOW_ROWS", 3)
    assert [len(window) for window in read_windows(path)] == [3, 3, 1]
    seen: list[int] = []
    report = conform(path, on_cases=seen.append)
    assert report.agrees
    assert (report.frames, sum(seen)) == (3, 7)
    monkeypatch.setattr(conform_cases, "WINDOW_CHARS", 1)
    assert [len(window) for window in read_windows(path)] == [1] * 7


class FakeColumnar(ModuleType):
    """A columnar engine that hands over the first rows, and is wrong on some others."""

    def __init__(self, wrong: frozenset[str], count: int) -> None:
        super().__init__("workbench.columnar")
        self.wrong = wrong
        self.handed_over = dict.fromkeys(range(count), "operator `like` is not compiled")

    def policy_tree(self, text: str) -> str:
        return text

    def decide_cases(self, cases: Sequence[Case], policies: Any, *, schema: Any) -> Any:
        handles = conform_frames.parse(policies, SCHEMA)
        assert not isinstance(handles, str)
        assert schema is not None
        answers = [conform_frames.said(each) for each in conform_frames._rows(cases, handles)]
        for i, each in enumerate(cases):
            if each.principal.id in self.wrong:
                answers[i] = Said("Allow", ("policy9",), ())
        for i in self.handed_over:
            answers[i] = Said("Deny", ("nobody asks for this",), ())
        return SimpleNamespace(answer=answers.__getitem__, handed_over=self.handed_over, asked={})


@pytest.fixture
def columnar(monkeypatch: pytest.MonkeyPatch) -> Any:
    def install(wrong: frozenset[str] = frozenset(), handed_over: int = 0) -> None:
        monkeypatch.setitem(sys.modules, "workbench.columnar", FakeColumnar(wrong, handed_over))

    return install


def test_both_engines(tmp_path: Path, columnar: Any) -> None:
    columnar(handed_over=2)
    report = run(tmp_path, post_office(), engines=("rows", "columnar"))
    assert report.agrees
    assert agreed(report, "columnar") == agreed(report, "rows") == [7, 7, 7]
    assert report.hand_overs == {"operator `like` is not compiled": 2}
    assert report.columnar_share == pytest.approx(5 / 7)
    assert "decided columnar: 5 of 7 cases, 71.4%" in "\n".join(report.lines())


def test_wrong_engine_is_named(tmp_path: Path, columnar: Any) -> None:
    columnar(wrong=frozenset({"ann"}))
    report = run(tmp_path, post_office(), engines=("rows", "columnar"))
    assert report.tallies["rows"].disagreements == 0
    assert report.tallies["columnar"].disagreements == 7
    first = report.examples[0]
    assert (first.engine, first.row, first.fields) == ("columnar", 1, ("decision", "reasons", "errors"))
    text = "\n".join(report.lines())
    assert "7 disagreements; the first 5 in full" in text
    assert "expected  deny, reasons [], errors ['policy2']" in text
    assert "got       allow, reasons ['policy9'], errors []" in text
    assert "resource.owner == principal" in text


def test_deciding_what_cedar_refuses_is_wrong(tmp_path: Path, columnar: Any) -> None:
    columnar(wrong=frozenset({"ann"}))
    report = run(tmp_path, [case(action=uid("Action", "close"))], engines=("columnar",))
    assert not report.agrees
    assert report.examples[0].expected.decision == "NoDecision"


def test_schema_that_we_do_not_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Cedar reads it and we do not: the rows are handed over, and say so."""

    def refuse(_: str) -> Any:
        raise PolicySchemaError("schema cannot be read: `enum` at 3")

    monkeypatch.setattr(conform_frames, "parse_schema", refuse)
    report = run(tmp_path, post_office(), engines=("columnar",))
    assert report.agrees, list(report.lines())
    assert report.columnar_share == 0
    assert report.hand_overs.total() == 7
    assert "schema cannot be read" in next(iter(report.hand_overs))


def test_schema_in_json(tmp_path: Path) -> None:
    types: dict[str, Any] = {"Clerk": {}, "Parcel": {}}
    applies = {"principalTypes": ["Clerk"], "resourceTypes": ["Parcel"]}
    schema = json.dumps({"": {"entityTypes": types, "actions": {"weigh": {"appliesTo": applies}}}})
    report = run(
        tmp_path,
        [case(policies=MEMBERSHIP, schema_text=schema, context_json="{}", expect="deny")],
        engines=("rows",),
    )
    assert report.agrees
    assert report.decided == 1


def test_crash_names_the_rows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def crash(*_: object) -> Any:
        raise RuntimeError("boom")

    monkeypatch.setattr(conform_frames, "_rows", crash)
    with pytest.raises(RuntimeError, match="boom") as caught:
        run(tmp_path, post_office(), engines=("rows",))
    assert "rows 1, 2, 3, 4, 5, 6, 7" in caught.value.__notes__[0]


@pytest.mark.parametrize("column", COLUMNS)
@pytest.mark.parametrize("suffix", ["parquet", "jsonl"])
def test_missing_column(tmp_path: Path, column: str, suffix: str) -> None:
    rows = [{name: value for name, value in row.items() if name != column} for row in post_office()]
    path = write(tmp_path / f"cases.{suffix}", rows)
    with pytest.raises(CasesUnreadable, match=rf"cases\.{suffix}.*`{column}`"):
        conform(path)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"context_json": '{"urgent": '}, "row 3: column `context_json` is not JSON"),
        ({"entities_json": "[{]"}, "row 3: column `entities_json` is not JSON"),
        ({"principal": 'Clerk::"ann"'}, "row 3: column `principal` is not JSON"),
        ({"resource": '{"type": "Parcel"}'}, "row 3: column `resource` must be"),
        ({"action": None}, "row 3: column `action` must be text, got None"),
        ({"policies": 1}, "row 3: column `policies` must be text, got 1"),
        ({"schema_text": {}}, "row 3: column `schema_text` must be text or null"),
        ({"validate_request": None}, "row 3: column `validate_request` must be true or false"),
        (
            {"expected_decision": "permit"},
            "row 3: column `expected_decision` must be `allow`, `deny` or null, got 'permit'",
        ),
        ({"expected_reason": "policy0"}, "row 3: column `expected_reason` must be a list"),
        ({"expected_errors": [1]}, "row 3: column `expected_errors` must be a list"),
    ],
)
def test_unreadable_values(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    rows = post_office()
    rows[2] |= changes
    with pytest.raises(CasesUnreadable) as caught:
        run(tmp_path, rows)
    assert f"cases.jsonl: {message}" in str(caught.value)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("cases.jsonl", "[]\n", "row 1: the line must be one JSON object"),
        ("cases.jsonl", "\n{]\n", "row 1: the line is not JSON"),
        ("cases.parquet", "PAR?", "not a Parquet file"),
        ("cases.csv", "", "`.parquet` or `.jsonl`"),
        ("missing.parquet", None, "no such file"),
    ],
)
def test_unreadable_files(tmp_path: Path, name: str, content: str | None, message: str) -> None:
    path = tmp_path / name
    if content is not None:
        path.write_text(content)
    with pytest.raises(CasesUnreadable, match=message):
        conform(path)


def test_misspelt_column_is_guessed(tmp_path: Path) -> None:
    rows = [
        {**{n: v for n, v in each.items() if n != "context_json"}, "contexts_json": "{}"}
        for each in post_office()
    ]
    with pytest.raises(CasesUnreadable, match="is it `contexts_json`"):
        run(tmp_path, rows)


def test_command(tmp_path: Path) -> None:
    good = write(tmp_path / "good.parquet", post_office())
    done = redecide(good, "--engine", "rows", "--multiply", "10")
    assert (done.returncode, done.stderr) == (0, "")
    assert "good.parquet: 7 cases in 1 frame\n" in done.stdout
    assert "10 of 10" in done.stdout


def test_command_finds_a_disagreement(tmp_path: Path) -> None:
    good = write(tmp_path / "good.parquet", post_office())
    rows = post_office()
    rows[3] |= {"expected_decision": "allow", "expected_reason": ["policy1"]}
    rows[3]["policies"] = "// \x1b[31mred\n" + rows[3]["policies"]
    bad = write(tmp_path / "bad.jsonl", rows)
    done = redecide(good, bad, "--engine", "rows")
    assert done.returncode == 1, done.stderr
    assert "row 4, engine rows: decision, reasons differ" in done.stdout
    assert "\x1b" not in done.stdout
    told = json.loads(redecide(good, bad, "--engine", "rows", "--json").stdout)
    assert told["agrees"] is False
    assert [each["agrees"] for each in told["files"]] == [True, False]
    (found,) = told["files"][1]["disagreements"]
    assert found["policies"] == rows[3]["policies"]
    assert found["expected"] == {"decision": "Allow", "reasons": ["policy1"], "errors": ["policy2"]}
    assert found["got"] == {"decision": "Deny", "reasons": [], "errors": ["policy2"]}


def test_command_names_what_it_cannot_read(tmp_path: Path) -> None:
    rows = post_office()
    rows[1]["context_json"] = "{"
    done = redecide(write(tmp_path / "broken.jsonl", rows))
    assert done.returncode == 2
    assert done.stdout == ""
    (line,) = done.stderr.splitlines()
    assert line.startswith("redecide: error: ")
    assert "broken.jsonl: row 2: column `context_json`" in line


@pytest.mark.parametrize("name", ["cedar_handwritten", "cedar_examples"])
def test_published_cases(shared_data: Path, name: str) -> None:
    report = conform(shared_data / "cedar_cases" / f"{name}.parquet", multiply=100)
    assert report.agrees, list(report.lines())
    assert report.cases == report.decided > 0


def test_a_policy_asked_of_cedar_counts_as_handed_over(tmp_path: Path) -> None:
    """More types of one expression than the compiler keeps apart: right, but not decided in columns."""
    shapes = [f"{{k{n}: 1, w: {n}}}" for n in range(128)]
    while len(shapes) > 1:
        pairs = zip(shapes[::2], shapes[1::2], strict=True)
        shapes = [f"(if resource.weight < {len(shapes)} then {a} else {b})" for a, b in pairs]
    policies = POLICIES + f"permit(principal, action, resource) when {{ {shapes[0]}.w > 100 }};"
    report = run(tmp_path, [{**row, "policies": policies} for row in post_office()])
    assert report.agrees, list(report.lines())
    assert report.columnar_share == 0
    (reason,) = report.hand_overs
    assert reason.startswith("policy `policy4`: alternatives: more than 64 possible types")


@pytest.mark.slow
@pytest.mark.parametrize("every", [3, pytest.param(1, marks=pytest.mark.fuzz)])
def test_published_corpus(shared_data: Path, tmp_path: Path, every: int) -> None:
    """Every third policy set of the corpus with all its cases; the whole corpus takes a minute: `pytest -m fuzz`."""
    for path in sorted((shared_data / "cedar_cases").glob("corpus_*.parquet")):
        sets = pl.struct("policies", "schema_text").rank("dense") % every == 0
        part = tmp_path / path.name
        pl.read_parquet(path).filter(sets).write_parquet(part)
        report = conform(part)
        assert report.agrees, list(report.lines())
        assert report.decided == report.cases > 3_000
