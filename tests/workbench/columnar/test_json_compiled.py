"""The compiled pass over JSON texts: what it is sure of is what the columns read, bit for bit."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from random import Random
from typing import TYPE_CHECKING

import polars as pl
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from runtime.schema import Attribute, EntityRef, Extension, Primitive, Record, SetOf
from tests.workbench.columnar.test_json_reading import cases, code, valid_unicode
from tests.workbench.columnar.test_json_traps import RECORD, TEXTS
from workbench.bench.decode import texts as bench_texts
from workbench.columnar import json_compiled, json_scan
from workbench.columnar.json_batches import moments
from workbench.columnar.json_columns import read_json
from workbench.columnar.json_compiled import compiled_pass
from workbench.columnar.json_loading import Loader, checked, load
from workbench.columnar.json_plan import plan_of
from workbench.columnar.json_scan import SURE, by_columns

if TYPE_CHECKING:
    from collections.abc import Callable

    from workbench.bench.decode import Size
    from workbench.columnar.json_native import Kernel
    from workbench.columnar.json_plan import Form, Plan

QUIET = settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))


@pytest.fixture(scope="module")
def kernel() -> Kernel:
    found = load(compiles=True)
    assert found is not None
    return checked(found)


def names_of(plan: Plan) -> list[str]:
    """Every column that can be asked for."""
    leaves = [leaf.text for leaf in plan.leaves]
    return [*leaves, *plan.places.values(), *(column.name for column in plan.columns)]


def sure_of(kernel: Kernel, texts: pl.Series, record: Record, form: Form = "arguments") -> pl.Series:
    """Hold the compiled pass to the columns; gives the rows that it is sure of."""
    plan = plan_of(record, form)
    names = names_of(plan)
    wanted = by_columns(texts, plan, names, code)
    found = compiled_pass(texts, plan, names, code, kernel, SURE)
    assert found.schema == wanted.schema
    assert found[SURE].null_count() == 0
    assert found.filter(found[SURE] & wanted[SURE]).equals(wanted.filter(found[SURE] & wanted[SURE]))
    alone = found[SURE] & ~wanted[SURE]
    if alone.any():  # what only the compiled pass reads, against Python
        _hold_to_python(found.filter(alone), texts.filter(alone), record, form)
    return found[SURE]


def _hold_to_python(found: pl.DataFrame, texts: pl.Series, record: Record, form: Form) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(json_scan, "scan", None)
        patch.setattr("workbench.columnar.json_columns.scan", _nothing_sure)
        leaves, typed = read_json(texts, record, form=form, coder=code)
    assert typed.bad.is_empty()
    assert not leaves.odd.any()
    wanted = [*leaves.frame.columns, *typed.columns.columns]
    assert found.select(wanted).equals(pl.concat([leaves.frame, typed.columns], how="horizontal"))


def _nothing_sure(texts: pl.Series, plan: Plan, wanted: list[str], _: object = None) -> pl.DataFrame:
    found = by_columns(texts.clear(), plan, wanted)
    return found.clear(texts.len()).with_columns(pl.lit(value=False).alias(SURE))


@pytest.mark.parametrize("form", ["arguments", "cedar"])
def test_generated_types_and_texts(kernel: Kernel, form: Form) -> None:
    @QUIET
    @given(cases(form))
    def check(case: tuple[Record, list[str]]) -> None:
        record, raw = case
        sure_of(kernel, pl.Series([valid_unicode(text) for text in raw]), record, form)

    check()


def test_texts_of_canonical_forms_are_read_by_it(kernel: Kernel) -> None:
    """Else the tests here would hold nothing to anything."""
    record = Record(
        {
            "b": Attribute(Primitive("Bool")),
            "d": Attribute(Extension("decimal"), required=False),
            "e": Attribute(EntityRef("N::E", ("a", "é")), required=False),
            "n": Attribute(Primitive("Long")),
            "cents": Attribute(Primitive("Long"), False, {"scaled": "n2*100"}),
            "r": Attribute(Record({"w": Attribute(Extension("datetime"), required=False)}), required=False),
            "s": Attribute(Primitive("String")),
            "t": Attribute(SetOf(Primitive("String")), required=False),
            "u": Attribute(Extension("duration"), required=False),
        }
    )
    texts = [
        '{"b":true,"d":1.5,"e":"é","n":-9007199254740991,"n2":12.34,"r":{"w":"2024-02-29T12:00:00Z"},"s":"a","t":["x"]}',
        '{"b":false,"d":null,"e":null,"n":0,"n2":null,"r":{},"s":"\\"\\\\\\n","u":"1d2h"}',
        '{"b":false,"n":1,"s":"","t":[]}',
    ]
    assert sure_of(kernel, pl.Series(texts), record).to_list() == [True] * 3
    other = ['{"b":true,"e":"b","n":1,"s":"a"}', '{"b":true,"n":1,"s":"a","u":null}', "{}", "", None]
    assert sure_of(kernel, pl.Series(other), record).to_list() == [False] * 5


@pytest.mark.parametrize("size", ["short", "long"])
def test_every_text_of_the_benchmark_is_read_by_it(kernel: Kernel, size: Size) -> None:
    made = bench_texts(size, 3_000)
    assert sure_of(kernel, made.column, made.record).all()


PIECES = st.sampled_from(
    ['"', "\\", "\\n", '\\"', "\\\\", "\\u000a", "\\/", "\x1f", "é", "日", "😀", "a", "\x7f"]
)
STRINGS = Record({"s": Attribute(Primitive("String")), "t": Attribute(Primitive("String"), required=False)})


def test_strings_of_every_length(kernel: Kernel) -> None:
    """Around eight bytes (a step), and twelve (what a view holds itself)."""

    @QUIET
    @given(st.lists(st.tuples(st.text("ab é", max_size=20), st.lists(PIECES, max_size=4)), max_size=6))
    def check(made: list[tuple[str, list[str]]]) -> None:
        inner = [plain + "".join(pieces) + plain[:3] for plain, pieces in made]
        whole = [json.dumps(plain * 2, ensure_ascii=False) for plain, _ in made]
        texts = [f'{{"s":"{a}","t":{b}}}' for a, b in zip(inner, whole, strict=True)]
        sure_of(kernel, pl.Series(texts, dtype=pl.String), STRINGS)
        sure_of(kernel, pl.Series([f'{{"s":"{a}"}}' for a in inner], dtype=pl.String), STRINGS)

    check()


DIGITS = st.from_regex(r"\A-?[0-9]{0,20}(\.[0-9]{0,6})?\Z") | st.integers(-(2**65), 2**65).map(str)
LONGS = Record({"n": Attribute(Primitive("Long"))})
AMOUNTS = Record(
    {
        "d": Attribute(Extension("decimal"), required=False),
        "cents": Attribute(Primitive("Long"), True, {"scaled": "n*100"}),
        "large": Attribute(Primitive("Long"), False, {"scaled": "n*1000000000000"}),
    }
)


def test_numbers(kernel: Kernel) -> None:
    @QUIET
    @given(st.lists(DIGITS, max_size=8))
    def check(digits: list[str]) -> None:
        longs = [f'{{"n":{each}}}' for each in digits]
        for form in ("arguments", "cedar"):
            sure_of(kernel, pl.Series(longs, dtype=pl.String), LONGS, form)
        amounts = [f'{{"d":{a},"n":"{b}"}}' for a, b in zip(digits, reversed(digits), strict=True)]
        sure_of(kernel, pl.Series([*longs, *amounts], dtype=pl.String), AMOUNTS)
        decimals = [f'{{"d":{{"__extn":{{"arg":"{each}","fn":"decimal"}}}}}}' for each in digits]
        sure_of(
            kernel,
            pl.Series(decimals, dtype=pl.String),
            Record({"d": Attribute(Extension("decimal"))}),
            "cedar",
        )

    check()


def test_moments(kernel: Kernel) -> None:
    parts = [
        st.sampled_from(each)
        for each in (
            ("0000", "0001", "1900", "1970", "2000", "2023", "2024", "9999", "20x4"),
            ("00", "01", "02", "03", "04", "11", "12", "13"),
            ("00", "01", "28", "29", "30", "31", "32"),
            ("00", "23", "24", " 1"),
            ("00", "59", "60"),
            ("00", "59", "60", "/0"),
            ("", ".000", ".999", ".99", ",000", ".00x", ":000"),
            ("Z", "z", "+"),
        )
    ]

    @QUIET
    @given(st.lists(st.tuples(*parts), min_size=1, max_size=12))
    def check(made: list[tuple[str, ...]]) -> None:
        texts = [f"{y}-{m}-{d}T{h}:{i}:{s}{f}{z}" for y, m, d, h, i, s, f, z in made]
        record = Record({"w": Attribute(Extension("datetime"))})
        column = pl.Series([f'{{"w":"{text}"}}' for text in texts])
        sure = sure_of(kernel, column, record)
        assert sure.to_list() == [each is not None for each in moments(pl.Series(texts))]

    check()


@pytest.fixture
def through(kernel: Kernel, monkeypatch: pytest.MonkeyPatch) -> Callable[[Kernel | None], None]:
    """Read through a kernel, or without."""

    def use(found: Kernel | None) -> None:
        monkeypatch.setattr(json_scan, "LOADER", Loader(kernel=found, why_not="" if found else "left out"))

    assert kernel is not None
    return use


@pytest.mark.parametrize("form", ["arguments", "cedar"])
@pytest.mark.parametrize("block", [8, 64, 32_768])
def test_all_traps_in_one_column(
    kernel: Kernel,
    through: Callable[[Kernel | None], None],
    monkeypatch: pytest.MonkeyPatch,
    form: Form,
    block: int,
) -> None:
    """Blocks and threads, nulls, a column that begins inside another, and in pieces: the same rows, the same reasons."""
    monkeypatch.setattr(json_compiled, "BLOCK", block)
    order = [*TEXTS, None, '{"n":5}', '{"n":6,"s":"a string with \\"quotes\\" and an end"}'] * 3
    Random(7).shuffle(order)
    column = pl.concat(
        [pl.Series(order, dtype=pl.String), pl.Series(order[::-1], dtype=pl.String)], rechunk=False
    )[5:]
    through(None)
    leaves, typed = read_json(column, RECORD, form=form)
    through(kernel)
    again, found = read_json(column, RECORD, form=form)
    assert found.columns.equals(typed.columns)
    assert found.bad.equals(typed.bad)
    assert again.frame.equals(leaves.frame)
    assert again.odd.equals(leaves.odd)
    assert again.refused.equals(leaves.refused)


def test_no_memory_for_escapes_is_no_wrong_string(
    kernel: Kernel, through: Callable[[Kernel | None], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(json_compiled, "_MOST_SPARE", 40)
    texts = pl.Series([f'{{"s":"{i} on\\ntwo lines, and more"}}' for i in range(9)])
    assert sure_of(kernel, texts, STRINGS).to_list() == [True] + [False] * 8
    through(kernel)
    _, found = read_json(texts, STRINGS, form="arguments")
    assert found.columns["0 s"].to_list() == [f"{i} on\ntwo lines, and more" for i in range(9)]


def test_many_threads_read_at_once(kernel: Kernel, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(json_compiled, "BLOCK", 256)
    made = [bench_texts("long", 2_000, seed) for seed in range(6)]
    plan = plan_of(made[0].record, "arguments")

    def read(column: pl.Series) -> pl.DataFrame:
        return compiled_pass(column, plan, names_of(plan), None, kernel, SURE)

    alone = [read(each.column) for each in made]
    with ThreadPoolExecutor(6) as threads:
        for found, wanted in zip(threads.map(read, [each.column for each in made]), alone, strict=True):
            assert found.equals(wanted)


def test_strings_outlive_their_texts(kernel: Kernel) -> None:
    """Views point into memory that the columns keep."""
    plan = plan_of(STRINGS, "arguments")
    texts = pl.Series(
        [f'{{"s":"number {i} of a few, on\\ntwo lines","t":"a longer text of {i}"}}' for i in range(999)]
    )
    found = compiled_pass(texts, plan, names_of(plan), None, kernel, SURE)
    del texts
    junk = [pl.Series([f"other text that takes the place {i}"] * 999) for i in range(50)]
    assert found["0 s"].to_list() == [f"number {i} of a few, on\ntwo lines" for i in range(999)]
    assert found["1 t"].to_list() == [f"a longer text of {i}" for i in range(999)]
    assert len(junk) == 50
