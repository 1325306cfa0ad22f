"""The tuner as a notebook has it, without a browser: what it is told, and what it shows."""

from __future__ import annotations

import gc
import json
import threading
import weakref
from typing import TYPE_CHECKING, Any

import pytest

import workbench as wb
from runtime.bundle import load_bundle
from workbench.errors import TuningRefused
from workbench.tuning import Tuner, tune
from workbench.tuning.shown import signed
from workbench.viewing.testing import Browser

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from runtime.bundle import Bundle
    from workbench.lake import Lake
    from workbench.live import Live

WAIT = 30
KEY = "refund-large.refund_limit"


@pytest.fixture
def browser() -> Iterator[Browser]:
    with Browser() as found:
        yield found


@pytest.fixture
def tuner(browser: Browser, lake: Lake, live: Live, folder: Path) -> Iterator[Tuner]:
    made = Tuner(lake, live, load_bundle(folder), folder.parent)
    yield made
    made.close()


def shown(browser: Browser, tuner: Tuner) -> dict[str, Any]:
    tuner.tuning.wait(WAIT)
    tuner.tuning._worker.wait(WAIT)
    return browser.state(tuner.view)


def test_it_shows_texts_sliders_and_numbers_as_it_begins(
    browser: Browser, tuner: Tuner, bundle: Bundle
) -> None:
    state = shown(browser, tuner)
    assert state["_files"]["policies"] == {f: t for f, t in bundle.files.items() if f.endswith(".cedar")}
    assert sorted(state["_files"]["others"]) == ["context.toml", "limits.toml", "schema.cedarschema"]
    assert [each["value"] for each in state["_controls"]] == ["5000", "30000", "3"]
    assert state["_status"]["phase"] == "ready"
    assert {each["delta"] for each in state["_answer"]["verdicts"]} == {"±0"}
    assert sum(int(each["n"].replace(",", "")) for each in state["_answer"]["verdicts"]) == 5_200
    assert state["_picture"]["current"] == 0
    assert state["_saving"]["name"] == "candidate-2"
    assert json.loads(json.dumps(state)) == state


def test_a_slider_in_the_browser_moves_text_numbers_picture_and_lists(browser: Browser, tuner: Tuner) -> None:
    browser.says(tuner.view, type="move", key="close-urgent.urgent", value="1", client="b", seq=4)
    state = shown(browser, tuner)
    assert state["_seen"] == {"b": {"=close-urgent.urgent": 4}}
    assert "resource.priority >= 1" in state["_files"]["policies"]["tickets.cedar"]
    change = tuner.tuning.now.change
    tiles = {each["name"]: each for each in state["_answer"]["tiles"]}
    assert tiles["good_held_up"]["delta"] == signed(change.objectives["good_held_up"])
    assert tiles["good_held_up"]["tone"] == "bad"
    assert [point["text"] for point in state["_picture"]["points"]] == [
        "#0: as the session began", "#1: urgent 3 → 1",
    ]  # fmt: skip
    table = tuner._tables["blocked"]
    assert table.rows.height == change.blocked_good.decisions > 0
    assert table.label.startswith(f"Good work newly held up: {change.blocked_good.decisions:,} decisions in ")
    assert sum(int(each["n"].replace(",", "")) for each in state["_answer"]["flips"]) == change.changed


def test_an_edit_in_the_browser_is_acknowledged_with_the_text_it_led_to(
    browser: Browser, tuner: Tuner, bundle: Bundle
) -> None:
    text = bundle.files["orders.cedar"].replace("permit (", "prmit (", 1)
    browser.says(tuner.view, type="edit", file="orders.cedar", text=text, client="b", seq=1)
    state = shown(browser, tuner)
    assert state["_files"]["policies"]["orders.cedar"] == text
    assert state["_seen"] == {"b": {"orders.cedar": 1}}
    (problem,) = state["_problems"]
    assert (problem["place"], problem["policy"]) == ("orders.cedar:4", "own-customers-order")
    assert (state["_status"]["phase"], state["_status"]["is_stale"]) == ("error", True)
    assert state["_answer"]["verdicts"][0]["delta"] == "±0", "the last good answer stays"
    assert tuner._tables["blocked"].is_stale
    browser.says(
        tuner.view, type="edit", file="orders.cedar", text=bundle.files["orders.cedar"], client="b", seq=2
    )
    assert shown(browser, tuner)["_status"]["phase"] == "ready"


@pytest.mark.parametrize(
    ("message", "says"),
    [
        ({"type": "edit", "file": "schema.cedarschema", "text": "", "client": "b", "seq": 1}, "cannot be edited here"),
        ({"type": "edit", "file": "../x.cedar", "text": "", "client": "b", "seq": 1}, "cannot be edited here"),
        ({"type": "edit", "file": "orders.cedar", "text": "x" * 2_000_001, "client": "b", "seq": 1}, "does not read"),
        ({"type": "move", "key": KEY, "value": "-1", "client": "b", "seq": 1}, "must be a Long of at least 0"),
        ({"type": "move", "key": "nothing", "value": "1", "client": "b", "seq": 1}, "has no tunable `nothing`"),
        ({"type": "back", "number": 99}, "was not tried"),
        ({"type": "save", "name": "../outside"}, "is no name for a folder"),
        ({"type": "save", "name": "candidate"}, "exists"),
        ({"type": "run", "code": "1"}, "does not read"),
        ({"type": "save", "name": "x", "folder": "/etc"}, "does not read"),
        ("save", "does not read"),
    ],
)  # fmt: skip
def test_what_a_browser_may_not_ask_is_said_and_changes_nothing(
    browser: Browser, tuner: Tuner, folder: Path, message: dict[str, object] | str, says: str
) -> None:
    before = tuner.tuning.now.draft
    if isinstance(message, str):
        tuner.view._on_message(tuner.view, message, [])
    else:
        browser.says(tuner.view, **message)
    assert says in browser.state(tuner.view)["problem"]
    assert tuner.tuning.now.draft is before
    assert [path.name for path in folder.parent.iterdir()] == ["candidate"]
    assert len(browser.state(tuner.view)["problem"]) <= 500
    browser.says(tuner.view, type="back", number=0)
    assert browser.state(tuner.view)["problem"] == ""


def test_traits_set_by_a_browser_are_ignored(browser: Browser, tuner: Tuner) -> None:
    browser.sets(tuner.view, _files={}, _seen={"x": {}}, label="pwned")
    assert tuner.view._files["policies"]
    assert tuner.view.label.startswith("Tuning candidate")


def test_python_and_browser_edit_the_same_texts(browser: Browser, tuner: Tuner) -> None:
    tuner.set("refund_limit", 20_000)
    assert tuner.answer.bundle is tuner.bundle
    assert tuner.bundle.tunables[KEY].value == 20_000
    assert shown(browser, tuner)["_controls"][0]["value"] == "20000"
    browser.says(tuner.view, type="back", number=0)
    assert tuner.bundle.tunables[KEY].value == 5_000
    assert tuner.tried.collect()["changed"].to_list() == ["", "refund_limit 5000 → 20000"]
    tuner.edit("orders.cedar", "nonsense")
    assert tuner.problems[0].file == "orders.cedar"
    assert tuner.files["orders.cedar"] == "nonsense"
    assert tuner.bundle.tunables[KEY].value == 5_000
    assert "problem in the text" in repr(tuner)


def test_a_saved_version_loads_as_what_was_decided(browser: Browser, tuner: Tuner, folder: Path) -> None:
    tuner.set("refund_limit", 7_000)
    browser.says(tuner.view, type="save", name="candidate-2")
    saved = load_bundle(folder.parent / "candidate-2")
    assert saved.version == tuner.bundle.version
    state = browser.state(tuner.view)
    assert state["_saving"]["text"].startswith(f"Saved version {saved.version[:12]} in ")
    assert (state["_saving"]["tone"], state["_saving"]["name"]) == ("good", "candidate-3")
    assert load_bundle(folder).tunables[KEY].value == 5_000
    tuner.edit("orders.cedar", "nonsense")
    with pytest.raises(TuningRefused, match=r"in error.*orders\.cedar:1"):
        tuner.save(folder.parent / "candidate-3")
    assert not (folder.parent / "candidate-3").exists()


def test_a_chosen_decision_is_explained_as_recorded_and_as_it_is_now(browser: Browser, tuner: Tuner) -> None:
    tuner.set("urgent", 1)
    tuner.tuning.wait(WAIT)
    table = tuner._tables["blocked"]
    table.selected = table.rows.key(0)
    tuner.detail.worker.wait(WAIT)
    html = browser.state(tuner.detail)["_html"]
    assert table.selected in html
    assert "close-urgent" in html
    tuner.back(0)
    tuner.tuning.wait(WAIT)
    tuner.tuning._worker.wait(WAIT)
    tuner.detail.worker.wait(WAIT)
    assert browser.state(tuner.detail)["_html"] != html, "it follows the newest version"


def test_the_comparison_is_that_of_replays(browser: Browser, tuner: Tuner, lake: Lake) -> None:
    tuner.set("urgent", 1)
    diff = tuner.compare(on_rows=lambda _: None)
    other = wb.compare(lake.replay(), lake.replay(tuner.bundle))
    assert diff.frame.collect().equals(other.frame.collect())
    browser.says(tuner.view, type="compare")
    assert browser.state(tuner.view)["_saving"]["is_comparing"]
    assert tuner._worker.wait(WAIT)
    assert tuner.children[-1].diff.cand.policy == diff.cand.policy
    assert not browser.state(tuner.view)["_saving"]["is_comparing"]


def test_without_a_policy_the_last_recorded_version_is_tuned(browser: Browser, lake: Lake) -> None:
    tuner = tune(lake, on_rows=lambda _: None)
    assert tuner.bundle.version == lake.decisions.collect()["bundle_version"][-1]
    assert tuner.baseline.bundle is None
    assert "compared with what was recorded" in repr(tuner)
    assert tuner.answer.bundle is tuner.bundle
    assert tuner.answer.verdicts == tuner.baseline.verdicts
    tuner.close()


@pytest.mark.filterwarnings("error::pytest.PytestUnraisableExceptionWarning")
def test_a_tuner_that_cannot_be_made_goes_quietly(
    browser: Browser, lake: Lake, live: Live, bundle: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise TuningRefused("no view")

    monkeypatch.setattr("workbench.tuning.tuner.TuneView", refuse)
    with pytest.raises(TuningRefused, match="no view"):
        Tuner(lake, live, bundle, tmp_path)
    gc.collect()


def test_closing_takes_it_out_and_leaves_no_thread_and_no_history(
    browser: Browser, lake: Lake, bundle: Bundle
) -> None:
    tuner = tune(lake, bundle, on_rows=lambda _: None)
    tuner.set("urgent", 1)
    assert tuner.answer.decisions == 5_200
    history = weakref.ref(tuner.baseline)
    tuner.close()
    closed = {sent.model for sent in browser.sent if sent.kind == "comm_close"}
    opened = {sent.model for sent in browser.sent if sent.kind == "comm_open"}
    assert tuner.tuning._worker.wait(WAIT)
    assert opened <= closed
    assert not [each for each in threading.enumerate() if each.name == "redecide-view"]
    gc.collect()
    assert history() is None, "a notebook keeps what it showed: the closed tuner must be small"
    assert tuner.tried.collect().height == 2
    assert tuner.bundle.tunables["close-urgent.urgent"].value == 1
    assert repr(tuner) == "Tuning candidate: 5,200 decisions, compared with the version given; closed"
    for ask in (lambda: tuner.answer, lambda: tuner.set("urgent", 2), tuner.compare):
        with pytest.raises(TuningRefused, match="closed"):
            ask()
    tuner.close()
