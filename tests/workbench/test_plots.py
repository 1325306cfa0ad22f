"""Pictures: numbers of the results, for many names and for none, whatever the names are."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from html.parser import HTMLParser
from typing import TYPE_CHECKING, Any, cast

import altair as alt
import polars as pl
import pytest

import workbench as wb
from workbench import plots
from workbench.bench.lake import build_lake
from workbench.drifting.drift import FRAME, Drift
from workbench.errors import NotEstimable, WorkbenchError
from workbench.estimating.estimates import FRAME as ESTIMATED
from workbench.plotting.folding import MAX_BARS, folded, labels
from workbench.plotting.plot import Plot
from workbench.shipped import shipped

if TYPE_CHECKING:
    from pathlib import Path

    from workbench.compare import Diff
    from workbench.covering.result import Coverage
    from workbench.estimating.estimates import Estimates
    from workbench.lake import Lake
    from workbench.replay import Replay

HOSTILE = '"><img src=x onerror=alert(1)>\u202e</text><script>alert(1)</script>'
DAY = datetime(2026, 11, 1, tzinfo=UTC)


class Texts(HTMLParser):
    """The texts and tags of an SVG."""

    def __init__(self, source: str) -> None:
        super().__init__()
        self.texts: list[str] = []
        self.tags: list[str] = []
        self.feed(source)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)

    def handle_data(self, data: str) -> None:
        self.texts.append(data)


@pytest.fixture(scope="module")
def desk(tmp_path_factory: pytest.TempPathFactory) -> Lake:
    """Return a support desk's lake, without labels."""
    place = tmp_path_factory.mktemp("plotted") / "lake"
    build_lake(place, 2_000)
    return wb.open(place)


class Made:
    """A result made of its frame alone."""

    def __init__(self, **named: Any) -> None:
        self.__dict__.update(named)


def times(*moments: timedelta, verdict: str = "allow") -> Replay:
    rows = {"decided_at": [DAY + each for each in moments], "verdict": verdict, "status": "decided"}
    return cast("Replay", Made(frame=pl.LazyFrame(rows)))


def drifted(*rows: dict[str, Any]) -> Drift:
    blank = {"path": "p", "what": "value", "distance": 0.5, "drifted": False, "decisions": 1, "p": 0.5}
    frame = pl.LazyFrame([blank | row for row in rows], schema=dict(FRAME))
    return Drift(
        frame=frame, before="then", after="now", decisions=(1, 1), sessions=(1, 1), shared_sessions=0, level=0.95,
        least=0.1, one_sided=(),
    )  # fmt: skip


def covered(*rows: dict[str, Any]) -> Coverage:
    schema = dict.fromkeys(("policy_hash", "policy", "state"), pl.String)
    return cast(
        "Coverage", Made(clauses=pl.LazyFrame([{"policy_hash": "h"} | row for row in rows], schema=schema))
    )


def estimated(*rows: dict[str, Any]) -> Estimates:
    blank = {
        "unit": "share",
        "low": 0.2,
        "high": 0.2,
        "lower": 0.1,
        "upper": 0.3,
        "of": 10.0,
        "exact_on_log": True,
    }
    return cast(
        "Estimates", Made(frame=pl.LazyFrame([blank | row for row in rows], schema=ESTIMATED), level=0.95)
    )


EMPTY = {
    "intervals": lambda: plots.intervals(estimated()),
    "verdicts": lambda: plots.verdicts(times()),
    "coverage_map": lambda: plots.coverage_map(covered()),
    "drift": lambda: plots.drift(drifted()),
}
NAMED = {
    "intervals": lambda: plots.intervals(estimated({"quantity": HOSTILE})),
    "coverage_map": lambda: plots.coverage_map(covered({"policy": HOSTILE, "state": "never"})),
    "drift": lambda: plots.drift(drifted({"path": HOSTILE, "drifted": True})),
}


@pytest.mark.parametrize("what", EMPTY)
def test_nothing_to_draw_is_said(what: str) -> None:
    plot = EMPTY[what]()
    assert plot.text in " ".join(Texts(plot.svg()).texts)
    assert plot.text.startswith(("There is nothing", "Nothing", "The policies have no", "No variable"))


def test_a_comparison_of_nothing_says_so(diff: Diff) -> None:
    none = Made(
        frame=diff.frame.head(0), policies=diff.policies.head(0), transitions=diff.transitions.head(0)
    )
    for draw in (plots.effects, plots.policies, plots.transitions):
        assert draw(cast("Diff", none)).text.startswith(("No call", "There is no decision"))


@pytest.mark.parametrize("what", NAMED)
def test_names_are_text_in_every_picture(what: str) -> None:
    plot = NAMED[what]()
    for theme in ("light", "dark", "either"):
        seen = Texts(plot.svg(theme))
        assert not {"script", "img", "a", "image"} & set(seen.tags)
        assert any("<img src=x" in text for text in seen.texts), "written out, not dropped"
        assert "\u202e" not in "".join(seen.texts)
    shown = plot._repr_mimebundle_()["text/html"]
    assert Texts(shown).tags.count("img") == 2, "light and dark, and nothing else"
    assert "<script" not in shown


def test_ten_thousand_names_are_fifteen_bars_and_all_are_counted(diff: Diff) -> None:
    names = [f"policy-{number:05}" for number in range(10_000)]
    many = pl.LazyFrame({
        "policy": names, "verdict": "block", "attack_calls_stopped": 1, "honest_calls_disturbed": 2,
        "unlabelled_calls_stopped": 0, "alone": 0,
    })  # fmt: skip
    plot = plots.policies(cast("Diff", Made(policies=many)))
    assert plot.data["policy"].n_unique() == MAX_BARS + 1
    assert plot.data["n"].sum() == 30_000
    assert "9,985 others" in Texts(plot.svg()).texts
    assert len(plot.svg()) < 100_000
    everyone = diff.frame.select("side", "effect", "then").join(pl.LazyFrame({"tenant": names}), how="cross")
    drawn = plots.effects(cast("Diff", Made(frame=everyone))).data
    assert drawn["n"].sum() == everyone.filter(pl.col("then") == "ran").collect().height


def test_labels_tell_names_apart() -> None:
    found = labels(["a\u200b", "a\\u200b", None, "(none)", "x" * 200, "x" * 300, ""])
    assert len(set(found)) == len(found)
    assert all(len(each) < 90 and each.isprintable() and each for each in found)
    data = pl.DataFrame({"name": ["15 others", *"abcdefghijklmnopqrst", None], "n": [99, *range(20), 50]})
    rows, order = folded(data, "name", ["n"])
    assert order[:2] == ["15 others", "(none)"]
    assert rows["n"].sum() == data["n"].sum()
    assert order[-1] == "7 others"


def test_verdicts_are_those_of_the_lake_and_gaps_stay_empty() -> None:
    hours = [timedelta(hours=hour, minutes=minute) for hour in (0, 1, 5) for minute in range(3)]
    plot = plots.verdicts(times(*hours), every="1h")
    assert plot.data["n"].to_list() == [3, 3, 3]
    assert [each.hour for each in plot.data["from"]] == [0, 1, 5]
    assert (plot.data["to"] - plot.data["from"]).unique().to_list() == [timedelta(hours=1)]
    assert plots.verdicts(times(*hours)).data["from"].n_unique() <= 96


@pytest.mark.parametrize("every", ["soon", "-1h", "1ms", "0h"])
def test_a_bar_is_a_length_of_time(every: str) -> None:
    with pytest.raises(ValueError, match="every"):
        plots.verdicts(times(timedelta(), timedelta(days=30)), every=every)


@pytest.mark.slow
def test_verdicts_of_lake_and_replay_sum_to_all(desk: Lake) -> None:
    recorded = plots.verdicts(desk).data
    counts = dict(recorded.group_by("verdict").agg(pl.col("n").sum()).iter_rows())
    assert counts == dict(desk.decisions.group_by("verdict").len().collect().iter_rows())
    replayed = plots.verdicts(desk.replay(shipped("support-desk/candidate"))).data
    assert replayed["n"].sum() == recorded["n"].sum()
    assert set(replayed["verdict"]) - set(counts) <= {"undecided", "quarantined"}


def test_what_is_exact_and_what_is_estimated_do_not_look_alike() -> None:
    plot = plots.intervals(
        estimated(
            {"quantity": "known"},
            {"quantity": "between", "low": 0.1, "high": 0.6, "exact_on_log": False},
            {"quantity": "unbounded", "upper": None, "unit": "calls per session"},
        )
    )
    said = Texts(plot.svg()).texts
    for each in (
        "exact on this log",
        "least to most that this log allows",
        "estimate for future traffic, 95 %",
    ):
        assert each in said
    last = plot.data.row(2, named=True)
    assert (last["open_upper"], last["upper"]) == (True, 0.2)
    with pytest.raises(NotEstimable, match="no quantity `knwn` was estimated"):
        plots.intervals(estimated({"quantity": "known"}), ["knwn"])


def test_a_comparison_shows_its_own_estimates(diff: Diff) -> None:
    drawn = plots.intervals(diff).data
    wanted = diff.estimates.frame.filter(pl.col("of") > 0).collect()
    assert set(drawn["quantity"]) <= set(wanted["quantity"])
    assert drawn.height >= 10


def test_a_front_is_what_nothing_beats(desk: Lake) -> None:
    swept = desk.sweep(
        shipped("support-desk/candidate"), {"refund_limit": [0, 3_000, 200_000], "urgent": [1, 3]}
    )
    plot = plots.pareto(swept)
    best = plot.data.filter(pl.col("kind").str.starts_with("nothing"))
    assert plot.data["versions"].sum() == len(swept.versions)
    for x, y in plot.data.select("x", "y").iter_rows():
        assert not best.filter(
            (pl.col("x") >= x) & (pl.col("y") >= y) & ((pl.col("x") > x) | (pl.col("y") > y))
        ).height
    assert "no call of this history" in plots.pareto(swept, ("good_held_up", "harm_let_through")).text
    with pytest.raises(WorkbenchError, match="two objectives"):
        plots.pareto(swept, ("approvals_asked",))


@pytest.mark.slow
def test_a_search_shows_what_was_confirmed(desk: Lake) -> None:
    found = wb.search(
        desk, shipped("support-desk/candidate"), {"refund_limit": [0, 3_000, 200_000]},
        objectives=("approvals_asked", "calls_held_up"), confirm=2,
    )  # fmt: skip
    plot = plots.pareto(found)
    assert "confirmed on other sessions" in Texts(plot.svg()).texts
    assert plot.data.filter(pl.col("kind").str.starts_with("nothing")).height == found.front.collect().unique(
        ["approvals_asked", "calls_held_up"]
    ).height  # fmt: skip
    with pytest.raises(WorkbenchError, match="no objective"):
        plots.pareto(found, ("good_held_up", "approvals_asked"))


def test_the_worst_covered_policies_come_first_and_long_ones_are_cut() -> None:
    rows = [{"policy": f"p{number:03}", "state": "both"} for number in range(60)]
    rows += [{"policy": "worst", "state": "never"}] * 40 + [{"policy": "bad", "state": "one"}]
    plot = plots.coverage_map(covered(*rows))
    assert plot.data["name"].unique(maintain_order=True).to_list()[-2:] == ["worst", "bad"]
    assert plot.data["name"].n_unique() == 30
    said = Texts(plot.svg()).texts
    assert "+16" in said
    assert "32 policies covered better left out" in said


def test_drift_draws_the_furthest_and_says_what_it_left_out() -> None:
    rows = [{"path": f"v{number:02}", "distance": 1 - number / 50, "p": None} for number in range(40)]
    plot = plots.drift(drifted({"path": "first", "drifted": True, "p": 0.001}, *rows))
    assert plot.data["name"][0] == "first"
    assert set(plot.data["kind"]) == {"drifted", "too few sessions to test"}
    assert any("17 variables less far apart left out" in text for text in Texts(plot.svg()).texts)


def test_plots_are_saved_by_their_ending_and_masked(tmp_path: Path) -> None:
    plot = plots.verdicts(times(timedelta()))
    assert plot.save(tmp_path / "a.png").read_bytes().startswith(b"\x89PNG")
    assert plot.save(tmp_path / "a.svg", "dark").read_text(encoding="utf-8").startswith("<svg")
    with pytest.raises(ValueError, match=r"`\.svg` or `\.png`"):
        plot.save(tmp_path / "a.pdf")


def test_a_plot_says_in_words_what_it_shows() -> None:
    plot = plots.verdicts(times(timedelta()))
    assert "Verdicts: 1 decision over time" in repr(plot)
    assert 'alt="Verdicts: 1 decision' in plot._repr_mimebundle_()["text/html"]
    assert isinstance(plot, Plot)
    assert isinstance(plot.chart, alt.Chart)
