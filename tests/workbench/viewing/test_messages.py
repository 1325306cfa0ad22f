"""Messages from the browser: a closed union, and a sentence for the rest."""

from __future__ import annotations

import pytest

from workbench.viewing.messages import Index, Message, Name, Problem, read


class Sort(Message, frozen=True):
    column: Name
    descending: bool


class Window(Message, frozen=True):
    start: Index


@pytest.mark.parametrize(
    ("content", "wanted"),
    [
        ({"type": "sort", "column": "tool", "descending": True}, Sort("tool", True)),
        ({"type": "window", "start": 7}, Window(7)),
    ],
)
def test_a_message_of_the_union_is_read(content: object, wanted: Message) -> None:
    assert read(content, Sort | Window) == wanted


@pytest.mark.parametrize(
    "content",
    [
        {"type": "sort", "column": "tool", "descending": 1},
        {"type": "sort", "column": "tool", "descending": True, "more": 1},
        {"type": "sort", "column": "x" * 1_001, "descending": True},
        {"type": "sort"},
        {"type": "window", "start": -1},
        {"type": "window", "start": "7"},
        {"type": "window", "start": 2**60},
        {"type": "run", "code": "1"},
        {"column": "tool", "descending": True},
        {},
        [],
        None,
        "sort",
        7,
    ],
)
def test_what_does_not_fit_is_a_problem_in_one_visible_sentence(content: object) -> None:
    found = read(content, Sort | Window)
    assert isinstance(found, Problem)
    assert found.text.startswith("the view sent a message that this version does not read: ")
    assert found.text.isprintable()
    assert len(found.text) < 700


def test_a_problem_hides_nothing_and_is_bounded() -> None:
    found = read({"type": "\x1b[2J\u202e" + "x" * 100_000}, Sort | Window)
    assert isinstance(found, Problem)
    assert "\x1b" not in found.text
    assert "\u202e" not in found.text
    assert len(found.text) < 700
