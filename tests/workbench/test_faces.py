"""Results that show themselves: every face says the same, and none of them runs what the log holds."""

from __future__ import annotations

import json
import re
from html.parser import HTMLParser
from typing import TYPE_CHECKING

import pytest

from workbench import faces
from workbench.cli_output import emit
from workbench.errors import WorkbenchError
from workbench.faces import Code, Faces, Page, Table

if TYPE_CHECKING:
    from pathlib import Path

    from runtime.canonical import Json

HOSTILE = "<script>alert(1)</script>|`x`\x1b[2J\u202e"

PAGE = Page(
    kind="coverage",
    title=f"of {HOSTILE}",
    lines=["12 of 14 clauses were true once.", f"Says {HOSTILE}"],
    parts=[
        Table(
            title="Clauses",
            note="One row a clause.",
            heads=["clause", "true", "share", "known"],
            rows=[["amount > 10", 1234, 0.12344, True], [HOSTILE, 0, None, False]],
            code=frozenset({0}),
        ),
        Code(
            title="Policy", text=f"permit(principal, action, resource);\n// ``` {HOSTILE}", language="cedar"
        ),
    ],
    next=["coverage.frame"],
    pins={"ledger": HOSTILE},
)


class Result(Faces):
    """A result as a helper would write it."""

    def page(self) -> Page:
        return PAGE

    def as_dict(self) -> dict[str, Json]:
        return {"clauses": 14, "text": HOSTILE}


def test_every_face_has_every_sentence_and_number() -> None:
    found = [repr(Result()), Result().markdown(), Result()._repr_html_(), faces.html(PAGE)]
    for face in found:
        for said in ("12 of 14 clauses were true once.", "1,234", "0.1234", "yes", "–", "One row a clause."):
            assert said in face


class _Tags(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.seen: set[str] = set()
        self.attributes: set[str] = set()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.seen.add(tag)
        self.attributes |= {name for name, _ in attrs}


@pytest.mark.parametrize("face", [faces.cell(PAGE), faces.html(PAGE)], ids=["cell", "page"])
def test_html_runs_and_loads_nothing(face: str) -> None:
    tags = _Tags()
    tags.feed(face)
    assert "table" in tags.seen
    assert not tags.seen & {"script", "img", "iframe", "link", "object"}
    assert not {name for name in tags.attributes if name.startswith("on") or name in ("src", "href")}
    assert "&lt;script&gt;alert(1)" in face
    assert "\x1b" not in face
    assert "\u202e" not in face


def test_text_and_markdown_show_what_hides() -> None:
    for face in (repr(Result()), Result().markdown()):
        assert "\x1b" not in face
        assert "\u202e" not in face
        assert "\\u001b" in face
    assert "<script>" not in Result().markdown().partition("````")[0]


def test_markdown_fences_hold_their_text() -> None:
    fences = [line for line in Result().markdown().splitlines() if line.startswith("```")]
    assert [len(line.rstrip("cedar")) for line in fences] == [4, 4]


def test_markdown_rows_have_as_many_cells_as_heads() -> None:
    rows = [line for line in Result().markdown().splitlines() if line.startswith("|")]
    assert {len(re.findall(r"(?<!\\)\|", line)) for line in rows} == {5}


def test_emit_prints_one_face_and_writes_the_page(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    where = tmp_path / "deep" / "page.html"
    emit(Result(), as_json=True, as_markdown=False, html=where)
    told = capsys.readouterr()
    assert json.loads(told.out) == Result().as_dict()
    assert str(where) in told.err
    assert "Clauses" in where.read_text()
    assert [each.name for each in where.parent.iterdir()] == ["page.html"]
    emit(Result(), as_json=False, as_markdown=True, html=None)
    assert capsys.readouterr().out.startswith("## ")
    with pytest.raises(WorkbenchError, match="not both"):
        emit(Result(), as_json=True, as_markdown=True, html=None)


def test_a_page_that_cannot_be_written_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "no space left on device")

    monkeypatch.setattr("pathlib.Path.replace", full)
    with pytest.raises(OSError, match="no space"):
        Result().to_html(tmp_path / "page.html")
    assert list(tmp_path.iterdir()) == []
