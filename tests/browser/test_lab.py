"""The notebook as it is for a user: a real JupyterLab in a real browser."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import pytest

from tests.browser import checks, lakes

if TYPE_CHECKING:
    from pathlib import Path

    from tests.browser.lab import Book, Lab

RESULTS: Final = {
    "lake": "lake",
    "replay": "base",
    "diff": "diff",
    "decision": "decision(lake, changed)",
    "why": "diff.why(changed)",
    "worth": "diff.worth",
    "estimates": "diff.estimates",
    "divergence": "diff.divergence",
    "sweep": "lake.sweep([policy])",
    "coverage": "wb.coverage(lake, policy)",
    "grid": "wb.grid(lake, policy)",
    "drift": "wb.drift(lake, (None, '2026-09-01T00:30'))",
    "score": "wb.score(diff)",
}
"""What shows itself in a cell, and how one comes by it."""
_REACH: Final = """(url) => url.startsWith("ws")
  ? new Promise((done) => { const s = new WebSocket(url); s.onerror = () => done("refused"); s.onopen = () => done("open"); })
  : fetch(url, {mode: "no-cors"}).then(() => "reached", () => "refused")"""


def _opened(lake: Path, policy: Path | str) -> str:
    return f"""import workbench as wb
from workbench.viewing.decision import decision
lake, policy = wb.open({str(lake)!r}), {str(policy)!r}
base = lake.replay()
diff = wb.compare(base, lake.replay(policy=policy))
changed = diff.changed.select("decision_id").collect().item(0, 0)"""


def test_what_leaves_this_machine_is_refused_and_seen(lab: Lab) -> None:
    book = lab.notebook(["1"], name="network")
    asked = ["https://example.com/x.js", "http://93.184.216.34/", "ws://example.org/"]
    assert [book.page.evaluate(_REACH, url) for url in asked] == ["refused"] * 3
    assert lab.elsewhere == asked
    assert len(book.console_errors) == 3
    lab.elsewhere.clear()
    book.console_errors.clear()


def test_everything_shows_itself_in_both_themes(lab: Lab, desk_lake: Path, desk_candidate: Path) -> None:
    """Readable, no wider than the window, no sentence of the terminal's instead."""
    book = lab.notebook([_opened(desk_lake, desk_candidate), *RESULTS.values()], name="results").run()
    wrong: dict[str, list[str]] = {}
    for theme in ("light", "dark"):
        book.theme(theme)
        for place, name in enumerate(RESULTS, start=1):
            shown = book.cell(place).locator(".jp-RenderedHTMLCommon").last
            assert shown.count() == 1, f"{name} shows no HTML"
            found = checks.faint(shown) + checks.too_wide(shown) + checks.nameless(shown)
            wrong |= {f"{name}, {theme}": found} if found else {}
            book.shot(f"result-{name}", shown)
    assert wrong == {}


@pytest.fixture
def looser(tmp_path: Path, hostile_lake: Path) -> Path:
    """Return the hostile lake's bundle with another limit, so that decisions change."""
    return lakes.hostile_bundle(tmp_path / "looser", limit=700)


def test_markup_in_names_and_arguments_is_text(lab: Lab, hostile_lake: Path, looser: Path) -> None:
    """Everywhere a name or an argument of the log can get to, its markup is characters, and nothing of it runs."""
    cells = [
        _opened(hostile_lake, looser),
        *(RESULTS[name] for name in RESULTS if name not in ("drift", "score")),
    ]
    book = lab.notebook(cells, name="hostile").run()
    _is_text(book, len(cells))


def _is_text(book: Book, cells: int) -> None:
    for place in range(1, cells):
        shown = book.cell(place)
        assert checks.got_through(shown) == []
    assert not checks.pwned(book.page)


_BAD: Final = """from IPython.display import HTML
HTML('''<p style="color:#aaa;background:#fff">faint</p><button></button><div style="width:3000px">wide</div>
<img src=x onerror="window.__pwned=1"><button style="outline:none">bare</button>''')"""


def test_the_checks_find_what_they_look_for(lab: Lab) -> None:
    """Or a view that passes them would show nothing."""
    book = lab.notebook([_BAD], name="checks").run()
    shown = book.cell(0)
    assert [text.split()[0] for text in checks.faint(shown)] == ["2.32"]
    assert checks.nameless(shown) == ['button ""']
    assert [text.split()[0] for text in checks.too_wide(shown)] == ["div"]
    assert len(checks.got_through(shown)) == 1
    assert checks.stops(shown)[-1] == f'button "bare"{checks.NO_RING}'
    book.page.wait_for_function(checks.PWNED)
    assert checks.pwned(book.page)
    book.page.evaluate("delete window.__pwned")
    book.console_errors.clear()
