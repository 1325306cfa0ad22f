"""The grid over lakes that the runtime wrote: every cell is the replay it says, every attribution as by hand."""

from __future__ import annotations

import itertools
import shutil
from functools import partialmethod
from pathlib import Path
from typing import TYPE_CHECKING, Any

import polars as pl
import pyarrow as pa
import pytest
from deltalake import DeltaTable, write_deltalake

from runtime import Blocked, Runtime
from workbench.diverging import divergence
from workbench.errors import CellUnknown, ColumnUnknown, NotComparable
from workbench.gridding.attribution import ATTRIBUTIONS, AXES, CHANGED, attributed, cells_of, due_to, name_of
from workbench.gridding.grid import Grid, grid
from workbench.history.records import Records
from workbench.lake import Lake, open_lake

if TYPE_CHECKING:
    from collections.abc import Sequence

    from workbench.gridding.attribution import Axis

SCHEMA = """
entity Agent; entity Order;
action refund appliesTo { principal: [Agent], resource: [Order], context: {
  args: { order_id: String, cents: Long }, order?: { refundable: Long }, EXTRA } };
action look appliesTo { principal: [Agent], resource: [Order], context: { args: { order_id: String } } };
"""
PERMIT = '@id("may") permit (principal, action, resource);\n'
REFUND = 'forbid (principal, action == Action::"refund", resource)'
OLD = PERMIT + (
    f'@id("huge") {REFUND} when {{ context.args.cents > 9000 }};\n'
    f'@id("over") {REFUND} when {{ context has order && context.args.cents > context.order.refundable }};\n'
)
NEW = PERMIT + (
    f'@id("large") {REFUND} when {{ context.args.cents > 5000 }};\n'
    f'@id("twice") {REFUND} when {{ context has order && context.args.cents > 2 * context.order.refundable }};\n'
)
FACTS = """
version = 1
[sources.orders]
kind = "delta"
uri = "../orders"
[[facts]]
name = "order"
actions = ["refund"]
source = "orders"
key = { order_id = "args.order_id" }
fields = ["refundable"]
shared = true
"""
BUDGET = 'version = 2\n[[budget]]\nname = "calls"\nmax = 6\n'
THEN = {"o-1": 200, "o-2": 9999, "o-3": 300, "o-4": 9000, "o-5": 200}
NOW = {"o-1": 1000, "o-2": 100, "o-3": 150, "o-4": 9000, "o-5": 300}
CALLS: tuple[tuple[str, int | None, str, tuple[str, ...]], ...] = (
    # order, cents (none: looked at), attribution over all three axes, what it is due to
    ("o-1", 50, "unchanged", ()),
    ("o-2", 6000, "overdetermined", ("policy", "context")),  # large; or over what is refundable now
    ("o-4", 7000, "policy", ("policy",)),  # large
    ("o-2", 500, "context", ("context",)),  # over 100, and over 200
    ("o-3", 290, "cancelled", ()),  # over 150 by the old rule, within 300 by the new one
    (
        "o-5",
        500,
        "interaction",
        ("policy+context",),
    ),  # over 200, 300 and 400, within 600: only both release it
    ("o-1", None, "unchanged", ()),
    ("o-1", None, "limits", ("limits",)),  # six calls ran before
    ("o-4", 7000, "overdetermined", ("policy", "limits")),
    ("o-3", 290, "overdetermined", ("context", "limits")),
    ("o-5", 500, "cancelled", ()),  # what both release, the budget stops
)


def bundle(
    root: Path, name: str, policies: str, *, context: str = FACTS, limits: str = "", extra: str = ""
) -> Path:
    folder = root / name
    folder.mkdir()
    (folder / "p.cedar").write_text(policies)
    (folder / "schema.cedarschema").write_text(SCHEMA.replace(", EXTRA", extra))
    (folder / "context.toml").write_text(context)
    (folder / "limits.toml").write_text(limits)
    return folder


def orders(root: Path, refundable: dict[str, int]) -> None:
    rows = pa.table({"order_id": [*refundable], "refundable": [*refundable.values()]})
    write_deltalake(str(root / "orders"), rows, mode="overwrite")


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with a lake of twelve calls, and bundles that change policy, facts and limits."""
    root = tmp_path_factory.mktemp("grid")
    orders(root, THEN)
    with Runtime.open(bundle(root, "old", OLD), lake=root / "lake") as runtime:
        runtime.tool(lambda order_id, cents: cents, name="refund", resource="Order::{order_id}")
        runtime.tool(lambda order_id: order_id, name="look", resource="Order::{order_id}", effect="read")
        calls = [("s", order, cents) for order, cents, *_ in CALLS] + [("later", "o-4", None)]
        for session_id, order, cents in calls:
            with runtime.session(principal="Agent::bot", tenant="acme", session_id=session_id) as session:
                try:
                    if cents is None:
                        session.call("look", order_id=order)
                    else:
                        session.call("refund", order_id=order, cents=cents)
                except Blocked:
                    continue
    orders(root, NOW)
    bundle(root, "new", NEW, limits=BUDGET)
    return root


@pytest.fixture(scope="module")
def lake(root: Path) -> Lake:
    return open_lake(root / "lake")


@pytest.fixture(scope="module")
def all_axes(lake: Lake, root: Path) -> Grid:
    return grid(lake, root / "new", versions={"orders": 1}, limits=root / "new")


def test_each_change_is_attributed_as_by_hand(all_axes: Grid) -> None:
    rows = all_axes.frame.select("attribution", "due_to").collect()
    expected = [(attribution, [*due] or None) for *_, attribution, due in CALLS]
    assert rows.rows() == [*expected, ("unchanged", None)]
    assert all_axes.counts() == {
        "unchanged": 3, "policy": 1, "context": 1, "limits": 1, "overdetermined": 3, "interaction": 1,
        "inseparable": 0, "cancelled": 2, "undecided": 0, "quarantined": 0, "decisions": 12, "changed": 7,
    }  # fmt: skip


@pytest.mark.parametrize("engine", ["rows", "columnar"])
def test_every_cell_is_the_replay_it_says(lake: Lake, root: Path, engine: Any) -> None:
    axes: dict[str, dict[str, Any]] = {
        "policy": {"policy": root / "new"},
        "context": {"versions": {"orders": 1}},
        "limits": {"limits": root / "new"},
    }
    found = grid(lake, root / "new", versions={"orders": 1}, limits=root / "new", engine=engine)
    assert list(found.replays) == [
        "base", "policy", "context", "limits", "policy+context", "policy+limits", "context+limits",
        "policy+context+limits",
    ]  # fmt: skip
    for name, replay in found.replays.items():
        given = {key: each for axis in axes if axis in name for key, each in axes[axis].items()}
        alone = lake.replay(**given, recompile=True, engine=engine)
        assert replay.digest() == alone.digest(), name
        assert replay.frame.collect().equals(alone.frame.collect()), name
        assert {**replay.pins, "engine": ""} == {**alone.pins, "engine": ""}, name
        assert (replay.policy, replay.context) == (alone.policy, alone.context)
    assert found.counts() == grid(lake, root / "new", versions={"orders": 1}, limits=root / "new").counts()


def test_what_is_shared_is_shared_within_a_chunk_only(
    lake: Lake, all_axes: Grid, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Records, "chunks", partialmethod(Records.chunks, span=7))
    monkeypatch.setattr("workbench.gridding.cells.CHUNK", 3)
    for engine in ("columnar", "rows"):
        found = grid(lake, root / "new", versions={"orders": 1}, limits=root / "new", engine=engine)
        assert found.frame.collect().equals(all_axes.frame.collect())


def test_one_axis_is_two_replays_and_all_is_due_to_it(lake: Lake, root: Path) -> None:
    found = grid(lake, limits=root / "new")
    assert list(found.replays) == ["base", "limits"]
    counts = found.counts()
    assert (counts["changed"], counts["limits"]) == (3, 3)
    assert found.diff().frame.filter(pl.col("changed")).collect().height == 3


def test_cells_by_name(all_axes: Grid) -> None:
    assert all_axes.replay("context+policy") is all_axes.replays["policy+context"]
    assert all_axes.replay() is all_axes.replays["policy+context+limits"]
    effects = all_axes.diff("policy + context", "policy").frame.filter(pl.col("changed")).select("effect")
    assert effects.collect().to_series().to_list() == ["prevented", "released", "released"]
    with pytest.raises(CellUnknown, match="no cell 'polcy'; it has base, policy"):
        all_axes.replay("polcy")


def test_nothing_to_vary_is_an_error(lake: Lake) -> None:
    with pytest.raises(NotComparable, match="needs an axis"):
        grid(lake)


def test_counts_and_faces(all_axes: Grid, tmp_path: Path) -> None:
    by_tool = all_axes.by("tool").collect()
    assert by_tool.select("tool", "limits", "decisions").rows() == [("look", 1, 3), ("refund", 0, 9)]
    assert all_axes.cells.select("cell", "allow", "block", "changed").collect().rows() == [
        ("base", 10, 2, 0), ("policy", 7, 5, 3), ("context", 6, 6, 4), ("limits", 7, 5, 3),
        ("policy+context", 8, 4, 6), ("policy+limits", 5, 7, 5), ("context+limits", 4, 8, 6),
        ("policy+context+limits", 5, 7, 7),
    ]  # fmt: skip
    policies = {
        row[0]: row[1:]
        for row in all_axes.policies.select("policy_id", "becomes", "decisions").collect().rows()
    }
    assert policies["large"] == ("deciding", 2)
    assert policies["over"] == ("silent", 1)
    said = repr(all_axes)
    assert "7 of 12 decisions come out otherwise: 1 due to the policy, 1 due to the context" in said
    assert "2 changed by some axes and back by others" in said
    assert "interaction" in all_axes.markdown()
    assert "Where axes meet" in all_axes.to_html(tmp_path / "grid.html").read_text()
    assert all_axes.as_dict()["axes"] == ["policy", "context", "limits"]
    with pytest.raises(ColumnUnknown, match="did you mean `tool`"):
        all_axes.by("tol")


CUSTOMERS = (
    FACTS
    + """
[sources.customers]
kind = "delta"
uri = "../customers"
[[facts]]
name = "customer"
actions = ["refund"]
source = "customers"
key = { order_id = "args.order_id" }
fields = ["flagged"]
shared = true
"""
)
FLAGGED = OLD + f'@id("flag") {REFUND} when {{ context has customer && context.customer.flagged }};\n'


def test_new_policies_over_new_facts_cannot_be_told_apart(lake: Lake, root: Path) -> None:
    write_deltalake(str(root / "customers"), pa.table({"order_id": ["o-1", "o-2"], "flagged": [True, False]}))
    extra = ", customer?: { flagged: Bool }"
    new = bundle(root, "flagged", FLAGGED, context=CUSTOMERS, extra=extra)
    at = open_lake(root / "lake").decisions.select(pl.col("decided_at").max()).collect().item()
    found = grid(lake, new, context=new, versions={"customers": 0, "orders": 0}, at=at)
    rows = found.frame.collect()
    # `o-1` is flagged: blocked with the new facts, undecided without; others come out the same.
    assert rows["attribution"].to_list()[:3] == ["inseparable", "unchanged", "unchanged"]
    assert rows["policy"].to_list()[:2] == ["undecided", "undecided"]
    assert rows["policy+context"].to_list()[:2] == ["block", "allow"]
    assert rows["due_to"].to_list()[0] is None
    assert found.counts()["changed"] == 1
    assert "1 that the log cannot tell apart" in found.headline


def test_divergence_of_a_real_comparison(lake: Lake, root: Path) -> None:
    """`s` changes o-4 in its third call; from there on it is conditional, and so is who looks at o-4 later."""
    diff = grid(lake, root / "new").diff()
    found = (
        divergence(diff).frame.select("session_id", "divergence", "through", "after", "decision_id").collect()
    )
    assert found["divergence"].to_list() == [
        *["exact"] * 2, *["conditional_in_session"] * 9, "conditional_across_sessions",
    ]  # fmt: skip
    # The second call is the first that changes (large): it is exact, and reaches the third.
    assert found["after"].to_list()[2:4] == [found["decision_id"][1]] * 2
    assert found["through"].to_list()[-1] == "entity"
    assert found["after"].to_list()[-1] == found["decision_id"][2]


def test_limits_of_the_candidate_reach_across_sessions(lake: Lake, root: Path) -> None:
    shared = bundle(
        root, "shared", OLD, limits='version = 2\n[[budget]]\nname = "all"\nper = "tenant"\nmax = 99\n'
    )
    diff = grid(lake, root / "new", limits=shared).diff()
    found = divergence(diff).frame.collect()
    assert found["through"].to_list()[-1] == "limit"
    assert (
        found["after"].to_list()[-1] == found["decision_id"][0]
    )  # undecided: the record has no such counter
    assert divergence(diff, limits=()).frame.collect()["through"].to_list()[-1] == "entity"


@pytest.mark.parametrize("engine", ["rows", "columnar"])
def test_damaged_rows_are_quarantined_as_in_each_replay_alone(
    root: Path, tmp_path: Path, engine: Any
) -> None:
    """A changed verdict, changed arguments, and facts that cannot be read at the recorded version any more."""
    shutil.copytree(root, tmp_path, dirs_exist_ok=True)
    table = DeltaTable(str(tmp_path / "lake" / "decisions"))
    ids = open_lake(tmp_path / "lake").decisions.select("decision_id").collect().to_series()
    table.update(predicate=f"decision_id = '{ids[1]}'", updates={"verdict": "'block'"})
    table.update(predicate=f"decision_id = '{ids[2]}'", updates={"args_hash": "'00'"})
    old = DeltaTable(str(tmp_path / "orders"), version=0).file_uris()
    for file in old:
        Path(file).unlink()
    lake = open_lake(tmp_path / "lake")
    found = grid(lake, tmp_path / "new", versions={"orders": 1}, engine=engine)
    for name, given in (
        ("base", {}),
        ("policy", {"policy": tmp_path / "new"}),
        ("context", {"versions": {"orders": 1}}),
        ("policy+context", {"policy": tmp_path / "new", "versions": {"orders": 1}}),
    ):
        alone = lake.replay(**given, recompile=True, engine=engine)
        assert found.replay(name).frame.collect().equals(alone.frame.collect()), name
    rows = found.frame.collect()
    assert rows["policy"].to_list()[:4] == ["allow", "quarantined", "quarantined", "allow"]
    assert rows["attribution"].to_list()[:4] == ["quarantined"] * 4
    looks = rows.filter(pl.col("tool") == "look")["attribution"]
    assert set(looks) == {"unchanged"}  # these need no facts
    assert found.counts()["quarantined"] == 9


# Attribution is exclusive and exhaustive: every combination of outcomes, against the definitions in words.

VALUES: tuple[int | None, ...] = (0, 1, 2, None)


def frame_of(axes: Sequence[Axis]) -> pl.DataFrame:
    """Every combination of outcomes of all cells; outcome numbers up to renaming, base first."""
    names = [name_of(cell) for cell in cells_of(axes)]
    rows = list(itertools.product((0, None), *[VALUES] * (len(names) - 1)))
    return pl.DataFrame(rows, schema=dict.fromkeys(names, pl.Int8), orient="row")


def complete(cells: dict[str, int], axes: Sequence[Axis]) -> str:
    """Attribution where everything is decided, by the definitions."""
    base, full = cells["base"], cells[name_of(tuple(axes))]
    enough = [axis for axis in axes if cells[axis] == full]
    if base == full:
        return "unchanged" if set(cells.values()) == {base} else "cancelled"
    return enough[0] if len(enough) == 1 else "overdetermined" if enough else "interaction"


def by_completion(cells: dict[str, int | None], axes: Sequence[Axis]) -> str:
    """Whatever cells that are not decided would say; 3 is a value no cell has."""
    base, full = cells["base"], cells[name_of(tuple(axes))]
    if base is None or full is None:
        return "undecided"
    open_ = [name for name, value in cells.items() if value is None]
    if base == full:
        said = {value for value in cells.values() if value is not None}
        return "unchanged" if said == {base} else "cancelled"
    decided = {name: value for name, value in cells.items() if value is not None}
    found = {
        complete(decided | dict(zip(open_, values, strict=True)), axes)
        for values in itertools.product((base, full, 3), repeat=len(open_))
    }
    return found.pop() if len(found) == 1 else "inseparable"


@pytest.mark.parametrize("axes", [axes for size in (1, 2, 3) for axes in itertools.combinations(AXES, size)])
def test_every_combination_has_the_attribution_of_the_definitions(axes: tuple[Axis, ...]) -> None:
    frame = frame_of(axes).with_columns(quarantined=pl.lit(value=False))
    # All combinations of two axes; of three a third of the 32,768, evenly spread, which the slow reference can take.
    sample = frame if len(axes) < 3 else frame.gather_every(11)
    found = sample.with_columns(found=attributed(axes), due=due_to(axes))
    names = [name_of(cell) for cell in cells_of(axes)]
    for row in found.iter_rows(named=True):
        cells = {name: row[name] for name in names}
        assert row["found"] == by_completion(cells, axes), cells
    assert found["found"].null_count() == 0


@pytest.mark.parametrize("axes", [("policy", "context"), AXES])
def test_attributions_exclude_each_other_and_leave_nothing_out(axes: tuple[Axis, ...]) -> None:
    frame = frame_of(axes).with_columns(quarantined=pl.lit(value=False))
    counts = frame.select(attributed(axes)).to_series().value_counts()
    assert counts["count"].sum() == frame.height
    single = {*axes, "overdetermined", "interaction"}
    assert set(counts["attribution" if "attribution" in counts.columns else counts.columns[0]]) == {
        "unchanged", "cancelled", "undecided", "inseparable", *single,
    }  # fmt: skip
    held = frame.with_columns(quarantined=pl.lit(value=True)).select(attributed(axes)).to_series()
    assert held.unique().to_list() == ["quarantined"]


def test_what_a_change_is_due_to_brings_it_there_and_nothing_smaller_does() -> None:
    frame = frame_of(AXES).with_columns(quarantined=pl.lit(value=False))
    found = frame.with_columns(found=attributed(AXES), due=due_to(AXES)).drop_nulls("due")
    size = {name_of(cell): len(cell) for cell in cells_of(AXES)}
    for row in found.gather_every(7).iter_rows(named=True):
        full, due = row["policy+context+limits"], row["due"]
        assert row["base"] != full
        assert due
        least = size[due[0]]
        for name, number in size.items():
            if name != "base" and number <= least:
                assert (row[name] == full) == (name in due)
        one = "overdetermined" if len(due) > 1 else due[0]
        assert row["found"] == (one if least == 1 else "interaction")


def test_names() -> None:
    assert set(CHANGED) < set(ATTRIBUTIONS)
    assert len(cells_of(AXES)) == 8
