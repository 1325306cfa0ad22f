"""What a comparison says of future traffic: by hand, and against decisions one by one."""

from __future__ import annotations

import json
import math
from typing import TYPE_CHECKING, Any

import numpy as np
import polars as pl
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from workbench.errors import ColumnUnknown, NotEstimable
from workbench.estimating.cluster_sums import clustered, tallies
from workbench.estimating.estimates import FRAME, estimates
from workbench.estimating.sessions import paired, watch
from workbench.estimating.slice_tests import p_values
from workbench.statistics.clusters import fit, gather, zero_bound
from workbench.statistics.paired import Pairs, mcnemar
from workbench.statistics.proportions import clopper_pearson
from workbench.statistics.sequences import Watch
from workbench.weighing.quantities import Quantity

if TYPE_CHECKING:
    from collections.abc import Callable

    from workbench.compare import Diff

    Compared = Callable[..., Diff]


def row(session: str, effect: str = "same", **fields: Any) -> dict[str, Any]:
    """A call that ran, and what becomes of it."""
    to = {"same": "allow", "prevented": "block", "held": "approve", "undecided": "undecided"}[effect]
    return {
        "session": session,
        "tool": "pay",
        "recorded": "allow",
        "then": "ran",
        "to": to,
        "effect": effect,
    } | fields


STOPPED = Quantity(
    name="stopped", text="calls that would not run", unit="calls",
    low=(pl.col("effect") == "prevented").cast(pl.Int64),
    high=pl.col("effect").is_in(("prevented", "undecided")).cast(pl.Int64),
)  # fmt: skip
SHARE = Quantity(
    name="stopped_share",
    text="of all decisions",
    unit="calls",
    low=STOPPED.low,
    high=STOPPED.high,
    of=pl.lit(1),
)


def test_by_hand(compared: Compared) -> None:
    """Three sessions of 2, 1 and 3 calls: 1 of them stopped, 1 open."""
    diff = compared([
        row("a-honest-1"), row("a-honest-1", "prevented"), row("a-honest-2"),
        row("a-honest-3"), row("a-honest-3", "undecided"), row("a-honest-3"),
    ])  # fmt: skip
    found = estimates(diff, (STOPPED, SHARE))
    total, share = found.frame.collect().iter_rows(named=True)
    assert (total["low"], total["high"], total["unit"]) == (1 / 3, 2 / 3, "calls per session")
    assert (total["total_low"], total["total_high"], total["of"], total["clusters"]) == (1, 2, 3, 3)
    assert (share["low"], share["high"], share["unit"], share["of"]) == (1 / 6, 2 / 6, "share", 6)
    assert not share["exact_on_log"]
    kish = 36 / 14  # of sizes 2, 1, 3
    assert share["method"] == "sessions"
    assert share["effective_n"] == pytest.approx(kish)
    assert share["lower"] == pytest.approx(clopper_pearson(kish / 6, kish).lower)
    assert share["upper"] == pytest.approx(clopper_pearson(kish / 3, kish).upper)
    assert found["stopped_share"].interval(0.95) == (share["lower"], share["upper"])


def test_unit_is_the_session_not_the_decision(compared: Compared) -> None:
    """Thirty sessions of eight equal calls each say as much as thirty calls."""
    calls = [row(f"a-honest-{k}", "prevented" if k < 6 else "same") for k in range(30) for _ in range(8)]
    found = estimates(compared(calls), (SHARE,))["stopped_share"]
    assert found.low.value == 0.2
    assert found.effective_n == pytest.approx(29, rel=0.01)
    assert found.design_effect == pytest.approx(8.3, rel=0.01)
    assert tuple(found.interval()) == pytest.approx(tuple(clopper_pearson(6, 30)), abs=0.02)


def test_nothing_stopped_is_not_nothing(compared: Compared) -> None:
    calls = [row(f"a-honest-{k}") for k in range(59) for _ in range(k % 3 + 1)]
    found = estimates(compared(calls), (STOPPED, SHARE))
    sizes = [float(k % 3 + 1) for k in range(59)]
    bound = zero_bound(gather(0.0, sizes, cap=sizes), 0.025)
    assert found["stopped_share"].method == "exact"
    assert tuple(found["stopped_share"].interval()) == pytest.approx((0, bound))
    assert bound > 1 - 0.025 ** (1 / 59)
    assert found["stopped"].upper(0.025) == pytest.approx(bound * sum(sizes) / 59)


def test_wider_clusters_are_fewer_and_say_less(compared: Compared) -> None:
    """As in AgentDojo: the hijacked sessions of one user task are one cluster."""
    calls = [row(f"task{k // 5}-hijack-{k}", "prevented" if k // 5 % 3 else "same") for k in range(120)]
    diff = compared(calls)
    task = pl.col("session_id").str.extract(r"^(task\d+)").alias("task")
    by_session, by_task = (
        estimates(diff, (SHARE,), cluster=c)["stopped_share"] for c in (("tenant", "session_id"), [task])
    )
    assert (by_session.low.clusters.count, by_task.low.clusters.count) == (120, 24)
    assert by_session.low.value == by_task.low.value
    table = diff.frame.select("session_id", cluster=task).unique()
    assert estimates(diff, (SHARE,), cluster=table)["stopped_share"].interval() == by_task.interval()
    (low, high), (wide_low, wide_high) = by_session.interval(), by_task.interval()
    assert wide_high - wide_low > 1.8 * (high - low)


def test_sessions_of_two_tenants_with_one_name_are_two(compared: Compared) -> None:
    diff = compared([row("s-honest-1", tenant="a"), row("s-honest-1", tenant="b")])
    assert estimates(diff, (STOPPED,))["stopped"].low.clusters.count == 2
    assert estimates(diff, (STOPPED,), cluster=("session_id",))["stopped"].low.clusters.total == 0
    one = estimates(diff, (STOPPED,), cluster=("session_id",))["stopped"].low.clusters
    assert (one.count, one.size) == (1, 2)  # per session, of one cluster


CALLS = st.lists(
    st.tuples(st.integers(0, 5), st.sampled_from(("same", "prevented", "undecided")), st.sampled_from("xyz")),
    min_size=1, max_size=25,
)  # fmt: skip


@given(CALLS)
@settings(max_examples=15, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
def test_sums_are_those_of_decisions_one_by_one(
    compared: Compared, calls: list[tuple[int, str, str]]
) -> None:
    diff = compared([row(f"s-honest-{k}", effect, tool=tool) for k, effect, tool in calls])
    found = estimates(diff, (STOPPED, SHARE), by="tool")
    for tool in (None, *sorted({tool for *_, tool in calls})):
        sums: dict[int, list[int]] = {}
        for k, effect, other in calls:
            if tool in (None, other):
                cell = sums.setdefault(k, [0, 0, 0])
                cell[0] += effect == "prevented"
                cell[1] += effect in ("prevented", "undecided")
                cell[2] += 1
        low, high, size = np.array(list(sums.values()), dtype=float).T
        expected = fit(gather(low, size, cap=size), "share"), fit(gather(high, size, cap=size), "share")
        each = found.slices("stopped_share")[tool]
        assert each.interval() == pytest.approx((expected[0].lower(0.025), expected[1].upper(0.025)))
        assert each.low.clusters.count == len(sums)
        total = found.slices("stopped")[tool]
        assert (total.low.clusters.total, total.low.clusters.size) == (low.sum(), len(sums))


def test_slices_are_tested_against_the_rest_and_told_apart(compared: Compared) -> None:
    rng = np.random.default_rng(2)
    calls = [
        row(f"s-honest-{k}", "prevented" if rng.random() < (0.6 if tool == "bad" else 0.1) else "same", tool=tool)
        for k in range(150) for tool in ("bad", "good", "fine", "other")
    ]  # fmt: skip
    found = estimates(compared(calls), (SHARE,), by="tool").slices("stopped_share")
    assert found["bad"].p_holm < 1e-10
    assert found["bad"].p <= found["bad"].p_bh <= found["bad"].p_holm
    assert math.isnan(found[None].p)
    same = estimates(
        compared([row(f"s-honest-{k}", tool=t) for k in range(9) for t in "ab"]), (SHARE,), by=["tool"]
    )
    assert all(
        math.isnan(each.p) for each in same.slices("stopped_share").values()
    )  # nothing flipped anywhere


def test_slice_test_equals_the_sums_cluster_by_cluster() -> None:
    """The score test, written out over clusters of which some are in both parts."""
    rng = np.random.default_rng(0)
    m = rng.integers(0, 4, (80, 3)).astype(float)
    y = rng.binomial(m.astype(int), [0.2, 0.3, 0.25]).astype(float)
    rows = pl.DataFrame([
        {"tenant": "t", "session_id": str(g), "part": s, "y": y[g, s] if k == 0 else 0.0}
        for g in range(80) for s in range(3) for k in range(int(m[g, s]))
    ])  # fmt: skip
    quantity = Quantity(name="q", text="", unit="calls", low=pl.col("y"), high=pl.col("y"), of=pl.lit(1))
    given = clustered(rows.lazy(), (quantity,), ("tenant", "session_id"), ("part",))
    cells = next(tallies(given, (quantity,), sliced=True)).cells
    found = p_values(cells.rename({"low": "y", "low_all": "y_all", "size": "m", "size_all": "m_all"}))
    assert given.slices is not None
    numbers = {part: number for number, (part,) in enumerate(given.slices.iter_rows())}
    theta, total = y.sum() / m.sum(), m.sum()
    for s in range(3):
        inside, other = y[:, s] - theta * m[:, s], (y - theta * m).sum(axis=1) - (y[:, s] - theta * m[:, s])
        influence = inside / m[:, s].sum() - other / (total - m[:, s].sum())
        from scipy import stats

        z = influence.sum() / math.sqrt((influence**2).sum())
        expected = 2 * stats.t.sf(abs(z), (m[:, s] > 0).sum() - 1)
        assert found[numbers[s]] == pytest.approx(expected)


def test_default_quantities_are_those_the_log_allows(diff: Diff, unlabelled: Diff) -> None:
    named = {each.quantity.name for each in estimates(diff).estimates}
    assert {"harm_through_share", "good_blocked", "calls_prevented_share"} <= named
    assert not any(
        name.startswith(("harm", "good"))
        for name in {e.quantity.name for e in estimates(unlabelled).estimates}
    )


def test_totals_agree_with_the_comparison(diff: Diff) -> None:
    """The same counts as `Diff.summary`, where both count the same."""
    summary, found = diff.summary(), estimates(diff)
    assert found["decisions"].low.clusters.total == summary["decisions"]
    assert found["decisions"].low.clusters.count == summary["sessions"]


def test_faces_and_frame(diff: Diff, hostile_tenant: str) -> None:
    found = estimates(diff, by=("tenant",))
    frame = found.frame.collect()
    assert frame.schema == pl.Schema(FRAME)
    assert hostile_tenant in frame["slice"].to_list()
    text = repr(found)
    assert "is exact" in text
    assert "estimates for future traffic" in text
    assert "not identified" in text
    assert "9 clusters (sessions)" in text
    assert "<b>slack" not in found._repr_html_()
    json.dumps(found.as_dict(), allow_nan=False)
    assert found.as_dict()["pins"]["candidate"] == "r-1"  # type: ignore[index, call-overload]


def test_bounds_widen_with_the_level_and_bootstrap_agrees(compared: Compared) -> None:
    rng = np.random.default_rng(5)
    calls = [
        row(f"s-honest-{k}", "prevented" if rng.random() < 0.3 else "same")
        for k in range(200)
        for _ in range(3)
    ]
    diff = compared(calls)
    plain, wide = (estimates(diff, (SHARE,), level=level)["stopped_share"] for level in (0.8, 0.99))
    assert wide.interval(0.99).lower < plain.interval(0.8).lower
    drawn = estimates(diff, (SHARE,), resampled=2000)["stopped_share"]
    assert drawn.method == "bootstrap"
    assert drawn.interval() == pytest.approx(plain.interval(), abs=0.012)


@pytest.mark.parametrize(
    ("options", "error", "says"),
    [
        ({"by": "tol"}, ColumnUnknown, "did you mean `tool`"),
        ({"cluster": ("sesion_id",)}, ColumnUnknown, "did you mean `session_id`"),
        ({"cluster": ("origin",)}, NotEstimable, "have no cluster"),
        ({"cluster": ()}, NotEstimable, "name the columns"),
        ({"cluster": pl.LazyFrame({"session": ["x"]})}, NotEstimable, "column `cluster`"),
        ({"level": 95}, NotEstimable, r"write 0\.95"),
    ],
)
def test_refuses(diff: Diff, options: dict[str, Any], error: type[Exception], says: str) -> None:
    with pytest.raises(error, match=says):
        estimates(diff, (SHARE,), **options)


def test_refuses_nulls_and_swapped_bounds(diff: Diff) -> None:
    null = pl.when(pl.col("effect") == "same").then(1)
    for low, high, says in (
        (null, pl.lit(1), "null in some decisions"),
        (STOPPED.high, STOPPED.low, "swapped"),
    ):
        with pytest.raises(NotEstimable, match=says):
            estimates(diff, (Quantity(name="q", text="", unit="calls", low=low, high=high),))
    with pytest.raises(NotEstimable, match="did you mean `stopped`"):
        estimates(diff, (STOPPED,))["stoped"]


def test_pairs_are_one_outcome_a_session(compared: Compared) -> None:
    """Nine sessions lose their harm, each with four calls: 9 pairs, not 36."""
    calls = [row(f"s-hijack-{k}", "prevented", origin="attack") for k in range(9) for _ in range(4)]
    calls += [row("s-honest-1"), row("s-hijack-10", origin="attack")]
    found = paired(compared(calls))
    assert found.fewest == found.most == Pairs(both=1, lost=9, gained=0, neither=1)
    assert found.p == mcnemar(found.most) == pytest.approx(2 / 2**9)
    assert "p = 0.003906" in repr(found)
    json.dumps(found.as_dict(), allow_nan=False)


def test_pairs_that_the_log_leaves_open_count_for_the_larger_p(compared: Compared) -> None:
    calls = [row(f"s-hijack-{k}", "prevented", origin="attack") for k in range(6)]
    calls += [row(f"s-hijack-{k}", "undecided", origin="attack") for k in range(6, 9)]
    found = paired(compared(calls))
    assert (found.fewest.lost, found.most.lost, found.fewest.n) == (6, 9, 9)
    assert found.p == pytest.approx(2 / 2**6)
    assert "largest possible" in repr(found)
    with pytest.raises(NotEstimable, match="no quantity `harm`"):
        paired(compared(calls), "harm")


def test_a_night_of_sessions_goes_into_a_watch(compared: Compared) -> None:
    calls = [row(f"s-honest-{k}", "prevented" if k == 0 else "same") for k in range(40) for _ in range(2)]
    look = watch(Watch(bound=5), compared(calls), SHARE).look
    assert look[:4] == (1, 40, 2 / 80, 2 / 80)
    assert watch(Watch(), compared(calls), STOPPED).look[:4] == (1, 40, 1 / 40, 1 / 40)
    with pytest.raises(NotEstimable, match="exceeds the declared bound"):
        watch(Watch(bound=1), compared(calls), SHARE)
