"""The explorer's index against the lake itself: generated filters pick the same rows, counts add up."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import polars as pl
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from workbench.exploring.filters import FACETS, PRINCIPAL, Filter
from workbench.exploring.hits import Hits
from workbench.exploring.index import MAX_VALUES, Index, read
from workbench.exploring.rows import COLUMNS, IndexRows

if TYPE_CHECKING:
    from workbench.exploring.filters import FacetName
    from workbench.exploring.index import Facet
    from workbench.lake import Lake


@pytest.fixture(scope="module")
def index(desk: Lake) -> Index:
    return read(desk)


def ids(lake: Lake, where: pl.Expr) -> list[str]:
    found = lake.decisions.filter(where).sort("decided_at", "position").select("decision_id").collect()
    return found["decision_id"].to_list()


def found(lake: Lake, index: Index, chosen: Filter) -> Any:
    hits = Hits(lake, index).search(chosen.text, lambda: False, lambda _: None) if chosen.text else None
    return index.find(chosen, hits, {})


def facet(facets: list[Facet], name: str) -> Facet:
    return next(each for each in facets if each.name == name)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_a_filter_picks_the_same_rows_in_the_view_in_polars_and_pasted(
    data: st.DataObject, desk: Lake, index: Index
) -> None:
    parts: dict[str, Any] = {}
    for name in FACETS:
        values = index.names[name]["value"].to_list()
        parts[name] = tuple(data.draw(st.lists(st.sampled_from(values), unique=True, max_size=3), name))
    times = index.frame["decided_at"].to_list()
    parts["since"] = data.draw(st.one_of(st.none(), st.sampled_from(times)), "since")
    parts["until"] = data.draw(st.one_of(st.none(), st.sampled_from(times)), "until")
    parts["text"] = data.draw(
        st.sampled_from(["", "refund", "Grüezi", "o-1", '"amount', "s-3", "%", "(", "nowhere"]), "text"
    )
    chosen = Filter(**parts)
    shown = found(desk, index, chosen)
    wanted = ids(desk, chosen.expr())
    assert index.frame["decision_id"].gather(shown.order).to_list() == wanted
    pasted = eval(chosen.code(), {"pl": pl, "datetime": datetime, "UTC": UTC})
    assert ids(desk, pasted) == wanted
    assert sum(shown.bins.counts) == len(wanted)


def test_each_facet_counts_what_the_other_parts_leave(desk: Lake, index: Index) -> None:
    chosen = Filter(verdict=("block",), tool=("reply_ticket",))
    shown = found(desk, index, chosen)
    names: tuple[FacetName, ...] = ("verdict", "tool", "tenant")
    for name in names:
        rest = chosen.having(name, ())
        counts = desk.decisions.filter(rest.expr()).group_by(name).len().collect()
        told = {each.value: each.n for each in facet(shown.facets, name).values}
        assert {value: n for value, n in told.items() if n} == dict(counts.iter_rows())
    policies = desk.decisions.filter(chosen.expr()).select("determining").explode("determining")
    by_policy = dict(policies.drop_nulls().group_by("determining").len().collect().iter_rows())
    assert {each.value: each.n for each in facet(shown.facets, "policy").values} == by_policy


def test_a_chosen_value_stays_in_sight_when_nothing_is_left(desk: Lake, index: Index) -> None:
    chosen = Filter(tool=("close_ticket",), text="nowhere")
    shown = found(desk, index, chosen)
    assert shown.order.len() == 0
    assert [
        (each.value, each.n, each.is_chosen) for each in facet(shown.facets, "tool").values if each.is_chosen
    ] == [("close_ticket", 0, True)]


def test_many_values_are_cut_say_how_many_are_left_and_can_be_searched(desk: Lake) -> None:
    n = 10_000
    rows = pl.concat([desk.decisions.head(500).collect()] * (n // 500))
    rows = rows.with_columns(
        decision_id=pl.format("d{}", pl.int_range(pl.len())),
        principal_id=pl.format("agent-{}", pl.int_range(pl.len())),
        determining=pl.concat_list(pl.format("policy-{}", pl.int_range(pl.len()))),
    )

    class Crowd:
        decisions = rows.lazy()

    index = read(Crowd())  # type: ignore[arg-type]  # a lake of these rows
    shown = index.find(Filter(), None, {})
    for name in ("principal", "policy"):
        many = facet(list(shown.facets), name)
        assert (len(many.values), many.left_out, many.distinct) == (MAX_VALUES, n - MAX_VALUES, n)
    looked = index.find(Filter(), None, {"policy": "POLICY-9999", "principal": "nobody"})
    assert [each.value for each in facet(list(looked.facets), "policy").values] == ["policy-9999"]
    assert facet(list(looked.facets), "principal").values == []
    one = Filter(policy=("policy-9999",))
    assert index.find(one, None, {}).order.len() == 1


def test_ids_with_odd_signs_stay_apart(desk: Lake) -> None:
    odd = [["a,b"], ["a", "b"], ["a\x1f", "b"], ["a", "\x1fb"], [""], [], ["a"]]
    rows = (
        desk.decisions.head(len(odd))
        .collect()
        .with_columns(determining=pl.Series(odd, dtype=pl.List(pl.String)))
    )

    class Odd:
        decisions = rows.lazy()

    index = read(Odd())  # type: ignore[arg-type]  # a lake of these rows
    names = set(index.names["policy"]["value"])
    assert names == {"a,b", "a", "b", "a\x1f", "\x1fb"}
    for name in names:
        wanted = sum(name in each for each in odd)
        assert index.find(Filter(policy=(name,)), None, {}).order.len() == wanted


def test_a_search_that_is_cancelled_leaves_nothing_behind(desk: Lake, index: Index) -> None:
    hits = Hits(desk, index)
    assert hits.search("refund", lambda: True, lambda _: None) is None
    assert hits.known("refund") is None
    parts: list[float] = []
    mask = hits.search("REFUND", lambda: False, parts.append)
    assert mask is not None
    assert parts[-1] == 1.0
    assert mask.sum() == len(ids(desk, Filter(text="refund").expr())) > 0
    assert hits.search("REFUND", lambda: True, parts.append) is mask


def test_the_table_shows_arguments_of_the_window_and_orders_by_any_head(desk: Lake, index: Index) -> None:
    rows = IndexRows(desk, index)
    window = rows.window(10, 5)
    assert window.columns == [column.name for column in COLUMNS]
    wanted = (
        desk.decisions.sort("decided_at", "position").slice(10, 5).select("decided_at", "args", "determining")
    )
    expected = wanted.collect()
    assert window["args"].to_list() == [text[:161] for text in expected["args"]]
    assert window["decided_at"].to_list() == expected["decided_at"].to_list()
    assert window["policies"].to_list() == expected["determining"].to_list()
    for column in COLUMNS:
        if column.sortable:
            ordered = rows.sorted(column.name, descending=True)
            whole = ordered.window(0, 800)[column.name]
            texts = whole.list.join(", ") if whole.dtype == pl.List else whole
            values = [
                str(each) if isinstance(each, str) else each for each in texts.to_list() if each is not None
            ]
            assert values == sorted(values, reverse=True), column.name
            assert ordered.find(ordered.key(3)) == 3
    assert rows.window(800, 5).height == 0


def test_a_session_is_all_its_decisions_by_time(desk: Lake, index: Index) -> None:
    one = index.frame.row(400, named=True)
    session = index.session(one["decision_id"])
    same = (pl.col("session_id") == one["session_id"]) & (pl.col("tenant") == one["tenant"])
    assert session["decision_id"].to_list() == ids(desk, same)
    assert session["step"].to_list() == sorted(session["step"])
    assert index.session("nobody").height == 0


def test_a_lake_may_be_narrowed_before(desk: Lake) -> None:
    narrow = read(desk, PRINCIPAL.str.contains("1") & (pl.col("verdict") != "allow"))
    assert 0 < narrow.frame.height < 800
    assert set(narrow.names["verdict"]["value"]) == {"approve", "block", "modify"}
    mask = Hits(desk, narrow).search("refund", lambda: False, lambda _: None)
    assert mask is not None
    assert mask.len() == narrow.frame.height
    nothing = read(desk, pl.lit(False))
    shown = nothing.find(Filter(verdict=("block",)), None, {})
    assert (shown.order.len(), shown.bins) == (0, None)
