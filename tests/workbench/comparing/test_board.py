"""The board: what is chosen, what is counted beside it, what comes back, for one candidate and for several."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import polars as pl
import pytest
from polars.testing import assert_frame_equal

from workbench.compare import compare
from workbench.comparing.board import MOST_KEYS, Board
from workbench.comparing.candidates import MOST, candidates_of
from workbench.comparing.filters import Cell
from workbench.errors import FilterUnknown, NotComparable

if TYPE_CHECKING:
    from collections.abc import Callable

    from workbench.compare import Diff

BLOCKED = Cell(before="allow", after="block")


@pytest.fixture
def board(diff: Diff) -> Board:
    return Board(candidates_of([diff]))


@pytest.fixture
def three(made: Callable[..., Any], history: Any) -> tuple[Diff, Diff, Diff]:
    """A base against three candidates: the hand-made one, one that blocks every transfer, and the base itself."""
    base = made(history, recorded=True)
    harsh = [
        row if row.tool != "send_money" or row.to in ("undecided", "quarantined") else
        type(row)(**{name: getattr(row, name) for name in row.__dataclass_fields__} | {"to": "block", "effect": "prevented", "by": ("harsh",)})
        for row in history
    ]  # fmt: skip
    cands = [made(history), made(harsh, policy=("harsh", "d" * 64)), made(history, recorded=True)]
    first, second, third = (compare(base, cand) for cand in cands)
    return first, second, third


def counts_of(board: Board, side: str) -> dict[str, list[int]]:
    (found,) = [each for each in board.counts()["facets"] if each["side"] == side]
    return {row["title"]: row["counts"] for row in found["rows"]}


def test_the_changed_decisions_are_listed_first(board: Board, diff: Diff) -> None:
    counts = board.counts()
    assert counts["shown"] | {"help": ""} == {
        "n": 10, "of": 19, "title": "Changed", "help": "", "keys": [], "code": "pl.col('changed')",
    }  # fmt: skip
    assert_frame_equal(board.selection.collect(), diff.changed.collect())
    assert board.rows().height == 10
    assert board.where.meta.eq(pl.col("changed"))


def test_lists_are_shown_where_they_hold_something(board: Board, unlabelled: Diff) -> None:
    shown = {each["name"]: each["counts"] for each in board.counts()["lists"]}
    assert shown == {
        "changed": [10], "attack_stopped": [4], "attack_released": [1], "honest_disturbed": [1],
        "honest_released": [1], "unlabelled_stopped": [2], "attack_still_run": [2], "unresolved": [2], "all": [19],
    }  # fmt: skip
    bare = {each["name"] for each in Board(candidates_of([unlabelled])).counts()["lists"]}
    assert bare == {"changed", "unlabelled_stopped", "unlabelled_released", "unresolved", "all"}


def test_a_cell_is_chosen_and_again_not(board: Board, diff: Diff) -> None:
    board.choose(0, BLOCKED)
    assert board.counts()["matrices"][0]["chosen"] == ["allow", "block"]
    assert board.selection.collect()["decision_id"].to_list() == (
        diff.frame.filter((pl.col("from") == "allow") & (pl.col("to") == "block"))
        .collect()["decision_id"]
        .to_list()
    )
    assert board.code == "(pl.col('from') == 'allow') & (pl.col('to') == 'block')"
    board.choose(0, BLOCKED)
    assert board.counts()["shown"]["title"] == "Changed"


def test_the_matrix_counts_what_is_narrowed_to_and_keeps_its_rows(board: Board) -> None:
    before = board.counts()["matrices"][0]
    assert before["total"] == 19
    board.narrow(0, "tool", [key.value for key in board.keys["tool"]].index("invite"))
    after = board.counts()["matrices"][0]
    assert after["total"] == 3
    assert [row["state"] for row in after["rows"]] == [row["state"] for row in before["rows"]]
    assert sum(cell["n"] for row in after["rows"] for cell in row["cells"]) == 3
    assert {row["state"]: row["total"] for row in after["rows"]}["allow"] == 2


def test_each_side_is_counted_without_its_own_choice(board: Board) -> None:
    tools = counts_of(board, "tool")
    place = [key.value for key in board.keys["tool"]].index("invite")
    board.narrow(0, "tool", place)
    assert counts_of(board, "tool") == tools
    assert set(counts_of(board, "tenant")) == {"<b>slack</b> & co"}
    assert board.counts()["shown"]["keys"] == [{"side": "tool", "place": place, "title": "invite"}]
    board.narrow(0, "tool", place)
    assert board.counts()["shown"]["keys"] == []


def test_ten_thousand_names_are_searched_and_cut(compared: Callable[..., Diff]) -> None:
    rows = [
        {"session": "s", "tool": f"tool-{n}", "recorded": "allow", "then": "ran", "to": "block", "effect": "prevented",
         "by": [f"policy-{n}" * 20], "tenant": f"tenant-{n}"}
        for n in range(10_000)
    ]  # fmt: skip
    board = Board(candidates_of([compared(rows)]))
    counts = board.counts()
    assert [len(each["rows"]) for each in counts["facets"]] == [MOST_KEYS] * 3
    assert [each["left"] for each in counts["facets"]] == [10_000 - MOST_KEYS] * 3
    assert len(json.dumps(counts)) < 20_000
    board.search("policy", "POLICY-4321")
    (row,) = next(each for each in board.counts()["facets"] if each["side"] == "policy")["rows"]
    assert row["title"].startswith("policy-4321")
    assert len(row["title"]) <= 120
    board.narrow(0, "policy", row["place"])
    assert board.rows().height == 1


def test_what_is_not_there_is_said_with_what_is(board: Board) -> None:
    before = board.filter
    for call, said in (
        (lambda: board.choose(1, "all"), "no candidate number 1; they are 0 to 0"),
        (lambda: board.choose(0, "harm"), "no list 'harm'; the lists are changed"),
        (
            lambda: board.choose(0, Cell(before="allow", after="<b>")),
            "no replay says '<b>'; the matrix has allow",
        ),
        (lambda: board.narrow(0, "tool", 99), "no tool number 99; they are 0 to 6"),
        (lambda: board.narrow(0, "x", 0), "not by 'x'"),
        (lambda: board.about(-1), "no candidate number -1"),
        (lambda: board.search("args", "x"), "not by 'args'"),
        (lambda: board.key("tool", "send_mony"), "did you mean `send_money`"),
        (lambda: board.key("tool", "zzz"), "there are 7"),
    ):
        with pytest.raises(FilterUnknown, match=said):
            call()
    assert board.filter == before


def test_several_candidates_stand_in_columns(three: tuple[Diff, Diff, Diff]) -> None:
    board = Board(candidates_of(three))
    assert board.candidates.names == ("candidate", "harsh", "recorded")
    lists = {each["name"]: each["counts"] for each in board.counts()["lists"]}
    assert lists["changed"] == [
        three[0].summary()["decisions_changed"],
        three[1].summary()["decisions_changed"],
        0,
    ]
    assert counts_of(board, "tool")["invite"] == [2, 2, 0]
    assert [column.name for column in board.columns][2:6] == ["from", "to_1", "to_2", "to_3"]
    frame = board.frame.collect()
    for place, diff in enumerate(three, 1):
        assert frame[f"to_{place}"].equals(diff.frame.collect()["to"])


def test_where_candidates_differ(three: tuple[Diff, Diff, Diff]) -> None:
    board = Board(candidates_of(three))
    board.choose(1, "differ")
    says = [diff.frame.collect()["to"].to_list() for diff in three]
    wanted = [place for place, found in enumerate(zip(*says, strict=True)) if len(set(found)) > 1]
    assert board.selection.collect()["decision_id"].to_list() == [f"d-{place:02}" for place in wanted]
    assert board.selection.collect().filter(eval(board.code, {"pl": pl})).height == len(wanted)
    assert board.diff is three[1]


def test_a_choice_moves_to_the_candidate_whose_number_was_clicked(three: tuple[Diff, Diff, Diff]) -> None:
    board = Board(candidates_of(three))
    place = [key.value for key in board.keys["tool"]].index("send_money")
    board.narrow(0, "tool", place)
    board.narrow(1, "tool", place)
    assert (board.filter.candidate, len(board.filter.keys)) == (1, 1)
    board.narrow(1, "tool", place)
    assert board.filter.keys == ()
    board.about(2)
    assert board.rows().height == 0
    board.clear()
    assert board.filter.candidate == 2


def test_candidates_of_other_bases_or_decisions_are_refused(
    three: tuple[Diff, Diff, Diff], made: Callable[..., Any], history: Any
) -> None:
    other_base = compare(made(history), made(history))
    with pytest.raises(NotComparable, match="comparison 2 has another base than the first: 10 decisions"):
        candidates_of([three[0], other_base])
    short = history[:-1]
    fewer = compare(made(short, recorded=True), made(short))
    with pytest.raises(NotComparable, match="comparison 3 covers other decisions"):
        candidates_of([*three[:2], fewer])
    with pytest.raises(NotComparable, match=f"at most {MOST}"):
        candidates_of([three[0]] * (MOST + 1))


def test_names_tell_candidates_apart(made: Callable[..., Any], history: Any) -> None:
    base = made(history, recorded=True)

    def names(*cands: Any) -> tuple[str, ...]:
        return candidates_of([compare(base, cand) for cand in cands]).names

    assert names(made(history), made(history, policy=("candidate", "d" * 64))) == (
        "candidate cccccccc",
        "candidate dddddddd",
    )
    assert names(made(history), made(history, context="next")) == (
        "candidate with recorded contexts",
        "candidate with next contexts",
    )
    assert names(made(history), made(history)) == ("candidate #1", "candidate #2")
    assert names(made(history, policy=("a\u202eb", "d"))) == ("a\\u202eb",)
