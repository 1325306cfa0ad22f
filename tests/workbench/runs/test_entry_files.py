"""Entries as files: what is read is what was written, or a refusal that says where."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.workbench.runs.entries import entry_of, placed, trace_of
from workbench.errors import TrackingError
from workbench.runs.entry import Assessment, Entry, Measure, Registered, Run, Series, Trace
from workbench.runs.entry_files import NAME, read_entry, write_entry

if TYPE_CHECKING:
    from pathlib import Path

texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=12)
named = st.dictionaries(texts, texts, max_size=3)
leaves = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | texts
values = st.recursive(
    leaves, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3)
)
measures = st.lists(
    st.builds(
        Measure,
        name=texts,
        value=st.floats(allow_nan=False, allow_infinity=False),
        step=st.integers(0, 2**62),
    ),
    max_size=4,
    unique_by=lambda each: (each.name, each.step),
).map(tuple)
registered = st.builds(
    Registered,
    model=texts,
    bundle_version=texts,
    tags=named,
    aliases=st.dictionaries(texts, st.integers(), max_size=2),
)
assessments = st.builds(
    Assessment, name=texts, value=values.filter(lambda value: value is not None), rationale=st.none() | texts,
    kind=st.sampled_from(["feedback", "expectation"]), source=texts, by=st.sampled_from(["program", "person", "judge"]),
)  # fmt: skip
steps = st.fixed_dictionaries(
    {"name": texts},
    optional={"inputs": values, "outputs": values, "attributes": st.dictionaries(texts, values, max_size=2),
              "error": st.none() | texts, "start_ns": st.integers(0, 2**62)},
)  # fmt: skip


@st.composite
def entries(draw: st.DrawFn) -> Entry:
    keys = ["", *draw(st.lists(texts.filter(bool), max_size=4, unique=True))]
    runs = tuple(
        Run(
            key=key, name=draw(texts), parent=draw(st.none() | st.sampled_from(keys[:at])) if at else None,
            params=draw(named), measures=draw(measures), tags=draw(named), dataset=draw(st.none() | named),
            registered=tuple(draw(st.lists(registered, max_size=2))),
        )
        for at, key in enumerate(keys)
    )  # fmt: skip
    traces = tuple(
        Trace(
            key=key, run=draw(st.sampled_from(keys)), name=draw(texts), started_ns=draw(st.integers(0, 2**62)),
            spans=tuple(draw(st.lists(steps, min_size=1, max_size=3))), tags=draw(named),
            assessments=tuple(draw(st.lists(assessments, max_size=2))),
        )
        for key in draw(st.lists(texts.filter(bool), max_size=3, unique=True))
    )  # fmt: skip
    series = draw(st.none() | st.builds(Series, name=texts, measures=measures, tags=named))
    return Entry(
        id=draw(st.from_regex(r"[A-Za-z0-9_.-]{1,120}", fullmatch=True)), experiment=draw(texts.filter(str.strip)),
        runs=runs, traces=traces, series=series,
    )  # fmt: skip


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow], deadline=None)
@given(entry=entries())
def test_what_is_read_is_what_was_written(entry: Entry, tmp_path: Path) -> None:
    write_entry(entry, tmp_path)
    assert read_entry(tmp_path) == entry
    assert [each.name for each in tmp_path.iterdir()] == [NAME]


def first(entry: Entry, **changes: Any) -> Entry:
    return replace(entry, runs=(replace(entry.runs[0], **changes), *entry.runs[1:]))


GOOD = entry_of("good")
NOT_FINITE = (Measure(name="harm", value=float("nan")),)
TWICE = (Measure(name="harm", value=1, step=3), Measure(name="harm", value=2, step=3))


@pytest.mark.parametrize(
    ("entry", "says"),
    [
        (first(GOOD, measures=NOT_FINITE), "'harm' is nan, which is not finite"),
        (first(GOOD, measures=TWICE), "'harm' stands twice at step 3"),
        (replace(GOOD, series=Series(name="nightly", measures=NOT_FINITE)), "series: 'harm' is nan"),
        (first(GOOD, key="a"), "the first run's key is empty"),
        (replace(GOOD, runs=()), "the first run's key is empty"),
        (replace(GOOD, runs=(*GOOD.runs, GOOD.runs[1])), "two runs have the key 'tool=0'"),
        (
            replace(GOOD, runs=(GOOD.runs[0], replace(GOOD.runs[1], parent="later"))),
            "before its parent 'later'",
        ),
        (first(GOOD, files="../elsewhere"), "not below the entry's folder: '../elsewhere'"),
        (first(GOOD, files="/etc"), "not below the entry's folder: '/etc'"),
        (first(GOOD, files="missing"), "are not there: 'missing'"),
        (replace(GOOD, id="a/b"), "an id is 1 to 120 letters"),
        (replace(GOOD, id="it's"), "an id is 1 to 120 letters"),
        (replace(GOOD, experiment=" "), "it names no experiment"),
        (replace(GOOD, traces=(trace_of(0), trace_of(0))), "two traces have the key 'decision-0'"),
        (replace(GOOD, traces=(replace(trace_of(0), run="x"),)), "belongs to run 'x', which is not there"),
        (replace(GOOD, traces=(replace(trace_of(0), spans=()),)), "has no spans"),
        (
            replace(
                GOOD, traces=(replace(trace_of(0), assessments=(Assessment(name="a", value=1, by="cat"),)),)
            ),
            "'a' is 'feedback' by a 'cat'",
        ),
        (
            replace(
                GOOD,
                traces=(
                    replace(trace_of(0), assessments=(Assessment(name="a", value=None, kind="expectation"),)),
                ),
            ),
            "nothing is expected as 'a'",
        ),
    ],
)
def test_what_cannot_be_sent_is_refused_before_it_is_written(entry: Entry, says: str, tmp_path: Path) -> None:
    before = placed(GOOD, tmp_path / "entry") / NAME
    kept = before.read_bytes()
    with pytest.raises(ValueError, match=r"entry .*: ") as caught:
        write_entry(entry, before.parent)
    assert says in str(caught.value)
    assert before.read_bytes() == kept


def test_a_value_that_is_no_json_leaves_the_file_that_was_there(tmp_path: Path) -> None:
    before = placed(GOOD, tmp_path / "entry") / NAME
    kept = before.read_bytes()
    spans = ({"name": "request", "inputs": float("inf")},)
    with pytest.raises(ValueError, match="not JSON compliant"):
        write_entry(replace(GOOD, traces=(replace(trace_of(0), spans=spans),)), before.parent)
    assert before.read_bytes() == kept
    assert sorted(each.name for each in before.parent.iterdir()) == [NAME, "files"]


@pytest.mark.parametrize(
    ("damage", "says"),
    [
        (lambda text: text[:-9], "is no entry that this release reads"),
        (lambda text: "[1]", "other members than `format` and `entry`"),
        (
            lambda text: text.replace('"format": 1', '"format": 2'),
            "it is of format 2, not 1; send it with what wrote it",
        ),
        (
            lambda text: text.replace('"parent": null', '"parents": null'),
            "members that are unknown, or lacks some",
        ),
        (lambda text: text.replace('"step": 4', '"step": "4"'), "Expected `int`, got `str`"),
        (lambda text: text.replace('"value": 0.5', '"value": NaN'), "which is not finite"),
        (lambda text: text.replace('"key": "tool=0"', '"key": ""'), "two runs have the key ''"),
        (lambda text: "[" * 100_000, "is no entry that this release reads"),
    ],
)
def test_a_damaged_file_is_refused_with_what_is_wrong(damage: Any, says: str, tmp_path: Path) -> None:
    path = placed(GOOD, tmp_path / "entry") / NAME
    text = damage(path.read_text())
    assert text != path.read_text()
    path.write_text(text)
    with pytest.raises(TrackingError) as caught:
        read_entry(path.parent)
    assert str(path) in str(caught.value)
    assert says in str(caught.value)


def test_a_folder_without_an_entry_is_named(tmp_path: Path) -> None:
    with pytest.raises(TrackingError, match=rf"{tmp_path}.*cannot be read: No such file"):
        read_entry(tmp_path)


def test_the_file_is_plain_json(tmp_path: Path) -> None:
    path = placed(GOOD, tmp_path / "entry") / NAME
    value = json.loads(path.read_text())
    assert value["entry"]["id"] == "good-1"
    assert value["entry"]["runs"][0]["measures"][0] == {"name": "harm", "value": 0.5, "step": 4}
