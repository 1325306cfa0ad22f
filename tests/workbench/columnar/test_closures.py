"""What entities reach: signatures are equal exactly where all that is reachable is; circles are found."""

from __future__ import annotations

from itertools import pairwise, product

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runtime.entities import Entity, EntityUid, Slice
from workbench.columnar.closures import Signatures, ancestors
from workbench.columnar.decoding import Ref, Unfit
from workbench.columnar.slices import SliceReader

REFS = [Ref("T", name) for name in "abcdef"]
GRAPHS = st.dictionaries(
    st.sampled_from(REFS),
    st.tuples(st.lists(st.sampled_from(REFS), max_size=3), st.integers(0, 1)),
    max_size=6,
)
"""What each entity leads to, and its version."""


def closure(graph: dict[Ref, tuple[list[Ref], int]], root: Ref) -> frozenset[Ref]:
    seen = {root}
    while more := {other for ref in seen for other in graph.get(ref, ([], 0))[0]} - seen:
        seen |= more
    return frozenset(seen)


@given(one=GRAPHS, two=GRAPHS, same=st.booleans())
def test_signatures_are_equal_exactly_where_what_is_reached_is(
    one: dict[Ref, tuple[list[Ref], int]], two: dict[Ref, tuple[list[Ref], int]], same: bool
) -> None:
    if same:
        two = {**two, **one}  # mostly alike
    signatures = Signatures()
    found: list[dict[Ref, int]] = []
    reached = []
    for graph in (one, two):
        numbers: dict[Ref, int] = {}
        for ref in REFS:
            if ref not in numbers:
                signatures.add(
                    ref,
                    lambda each, graph=graph: graph.get(each, ([], 0))[0],  # type: ignore[misc]  # bound now
                    lambda each, graph=graph: (each, str(graph.get(each))),  # type: ignore[misc]
                    numbers,
                )
        found.append(numbers)
        reached.append({r: {each: graph.get(each) for each in closure(graph, r)} for r in REFS})
    for (a, ref), (b, other) in product(product((0, 1), REFS), repeat=2):
        assert (found[a][ref] == found[b][other]) == (reached[a][ref] == reached[b][other])


@given(graph=GRAPHS)
def test_ancestors_are_all_that_is_above(graph: dict[Ref, tuple[list[Ref], int]]) -> None:
    parents = {ref: tuple(links) for ref, (links, _) in graph.items()}
    above = {ref: frozenset().union(*(closure(graph, each) for each in up)) for ref, up in parents.items()}
    if any(ref in up for ref, up in above.items()):
        with pytest.raises(Unfit, match="above itself"):
            ancestors(parents)
    else:
        found = ancestors(parents)
        assert {ref: found[ref] for ref in parents} == above


def entity(name: str, *, boss: str | None = None, level: int = 1) -> Entity:
    attrs = {"level": level} | ({} if boss is None else {"boss": {"__entity": {"type": "T", "id": boss}}})
    return Entity(EntityUid("T", name), attrs)  # type: ignore[arg-type]  # JSON


def test_an_entity_has_a_version_for_what_its_boss_is() -> None:
    reader = SliceReader(None, frozenset({"boss"}))
    views = [
        reader.view(Slice((entity("a", boss="b"), entity("b", level=level), entity("c"))))
        for level in (1, 2, 1)
    ]
    assert views[0] is views[2], "equal content is read once"
    numbers = [[view.reached(Ref("T", name)) for name in "abcx"] for view in views]
    assert numbers[0][0] != numbers[1][0]
    assert numbers[0][1] != numbers[1][1]
    assert numbers[0][2:] == numbers[1][2:]
    others = SliceReader(None, frozenset({"level"}))
    plain = [others.view(Slice((entity("a", boss="b"), entity("b", level=level)))) for level in (1, 2)]
    assert plain[0].reached(Ref("T", "a")) == plain[1].reached(Ref("T", "a")), "no policy names `boss`"


def test_a_value_that_only_looks_equal_is_another_version() -> None:
    """RFC 8785 writes 5.0 as 5; Cedar refuses the one and takes the other."""
    reader = SliceReader(None)
    whole, broken = (Slice((Entity(EntityUid("T", "a"), {"n": n}),)) for n in (5, 5.0))
    assert whole.hash == broken.hash
    reader.view(whole)
    with pytest.raises(Unfit, match="no Cedar value"):
        reader.view(broken)


def test_deep_and_wide_slices_take_time_in_proportion() -> None:
    """Four thousand entities in one line: without closures walked once an entity."""
    names = [f"{n:04}" for n in range(4000)]
    chain = [
        Entity(EntityUid("T", a), {"n": 1}, (), {"t": {"__entity": {"type": "T", "id": b}}})
        for a, b in pairwise(names)
    ]
    view = SliceReader(None).view(Slice(tuple(chain)))
    assert len({view.reached(Ref("T", name)) for name in names}) == 4000
