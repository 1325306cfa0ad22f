"""What the baseline bundle decides of the desk's calls, written by hand in Polars.

One rule: what a *policy* says is written here, what *follows* from it is `runtime.ruling`'s and `runtime.policy`'s,
worked out once for each distinct combination of policies. A test holds every column against the row engine.

It is how a lake of millions of right verdicts is made without the engines that are measured on it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import polars as pl

from runtime.policy import reason_of
from runtime.ruling import Answer, PolicyFault, determining, flags_of, rule

if TYPE_CHECKING:
    from collections.abc import Mapping

    from runtime.bundle import Bundle, PolicyInfo

_MOST: Final = 2**63 - 1
_TWO_YEARS_MS: Final = 730 * 86_400_000
_LARGE, _HIGHEST, _URGENT = 20_000, 4, 4
_TOOL: Final = pl.col("tool")
_ORDERS: Final = _TOOL.is_in(["lookup_order", "issue_refund", "change_address"])
_REFUND, _CHANGE, _REPLY, _CLOSE = (
    pl.lit(name) == _TOOL for name in ("issue_refund", "change_address", "reply_ticket", "close_ticket")
)
_SAME_SHOP: Final = pl.col("resource_tenant") == pl.col("tenant")
_BODY: Final = pl.col("body").str
_AMOUNT: Final = pl.col("amount_cents")
_LEFT: Final = pl.col("refundable_cents")
_PAID: Final = pl.col("refunded_cents")


def _in_team(team: str) -> pl.Expr:
    return pl.col("teams").list.contains(team)


SATISFIED: Final[Mapping[str, pl.Expr]] = {
    "own-customers-order": _ORDERS & _SAME_SHOP & (pl.col("agent_tenant") == pl.col("tenant"))
    & (pl.col("owner") == pl.col("customer")),
    "lead-looks-at-any-order": (_TOOL == "lookup_order") & _SAME_SHOP & _in_team("leads"),
    "frozen-order": (_REFUND | _CHANGE) & (pl.col("status") == "frozen") & ~_in_team("fraud"),
    "refund-scope": _REFUND & ~pl.col("scopes").list.contains("refunds:write"),
    "refund-refundable": _REFUND & (_LEFT > 0) & (_AMOUNT > _LEFT),
    "refund-large": _REFUND & (_AMOUNT >= _LARGE) & (pl.col("level") < _HIGHEST),
    "refund-budget": _REFUND & (_AMOUNT <= _MOST - _PAID) & (_AMOUNT > 60_000 - _PAID),
    "refund-window": _REFUND & (pl.col("at") - pl.col("placed_at") > _TWO_YEARS_MS),
    "address-abroad": _CHANGE & (pl.col("to_country") != pl.col("country")),
    "own-ticket": ~_ORDERS & _SAME_SHOP
    & ((pl.col("assignee") == pl.col("agent")) | pl.col("teams").list.contains(pl.col("team"))),
    "reply-link": _REPLY & _BODY.contains("http.*://") & ~pl.col("internal"),
    "reply-secret": _REPLY
    & (_BODY.contains("password", literal=True) | _BODY.contains("card number", literal=True)),
    "close-urgent": _CLOSE & ((pl.col("priority") >= _URGENT) | (pl.col("queue") == "vip")) & ~_in_team("leads"),
}  # fmt: skip
"""Where each policy of the baseline is satisfied; null is false."""
ERRING: Final = "refund-budget"
"""The one policy that can be in error: its sum may overflow."""
_ERRS: Final = (_REFUND & (_AMOUNT > _MOST - _PAID)).fill_null(value=False)
_FAULT: Final = pl.format("integer overflow while attempting to add the values `{}` and `{}`", _PAID, _AMOUNT)
_MARK: Final = "\N{SECTION SIGN}"
IDS: Final = tuple(sorted(SATISFIED))
MAX_CALLS: Final = 26
_SPENT: Final = (pl.col("calls") >= MAX_CALLS) & (_TOOL != "lookup_order")

_OUT: Final[dict[str, type[pl.DataType] | pl.DataType]] = {
    "verdict": pl.String, "reason_code": pl.String, "reason": pl.String, "cedar_decision": pl.String,
    "determining": pl.List(pl.String), "cedar_reasons": pl.List(pl.String),
}  # fmt: skip


def ruled(calls: pl.DataFrame, bundle: Bundle) -> pl.DataFrame:
    """Decide calls once, as the policy stage does.

    Args:
        calls: columns of `DeskFrame.rows` and of `DeskRecords.cases`.
        bundle: the baseline.

    Returns:
        One row a call, in order: `verdict`, `reason_code`, `reason`, `cedar_decision`, `determining`, `cedar_reasons`
        (lists sorted), `fault` (what the erring policy says; null: nothing).
    """
    bits = [pl.when(SATISFIED[policy]).then(1 << number).otherwise(0) for number, policy in enumerate(IDS)]
    masks = calls.select(mask=pl.sum_horizontal(bits), errs=_ERRS, fault=pl.when(_ERRS).then(_FAULT))
    distinct = masks.select("mask", "errs").unique()
    told = [_told(mask, bundle.policies, errs=errs) for mask, errs in distinct.iter_rows()]
    found = distinct.hstack(pl.DataFrame(told, schema=pl.Schema(_OUT)))
    joined = masks.join(found, on=["mask", "errs"], how="left", maintain_order="left")
    said = pl.col("reason").str.replace(_MARK, pl.col("fault").fill_null(""), literal=True)
    return joined.select(*_OUT, "fault").with_columns(reason=said)


def _told(mask: int, policies: Mapping[str, PolicyInfo], *, errs: bool) -> dict[str, Any]:
    """What follows from one combination of satisfied policies; `_MARK` stands for the error's message."""
    satisfied = [policy for number, policy in enumerate(IDS) if mask >> number & 1]
    permits = tuple(policy for policy in satisfied if policies[policy].effect == "permit")
    forbids = tuple(policy for policy in satisfied if policies[policy].effect == "forbid")
    allowed = bool(permits) and not forbids
    answer = Answer(
        "Allow" if allowed else "Deny",
        permits if allowed else forbids,
        (PolicyFault(ERRING, _MARK),) if errs else (),
        permitted=bool(permits),
    )
    ruling = rule(flags_of(answer, policies))
    found = determining(ruling, answer, policies)
    return {
        "verdict": ruling.verdict, "reason_code": ruling.code, "reason": reason_of(ruling, answer, found),
        "cedar_decision": answer.decision, "determining": list(found), "cedar_reasons": list(answer.reasons),
    }  # fmt: skip


def decided(calls: pl.DataFrame, bundle: Bundle) -> pl.DataFrame:
    """Decide calls as `runtime.policy.decide` does, patches and limits included.

    Args:
        calls: as for `ruled`.
        bundle: the baseline.

    Returns:
        One row a call, in order: columns of `ruled`, and `decided_by`, `enforced_determining`, `patched` (Boolean:
        the second evaluation was of other arguments), and `enforced_amount_cents` and `enforced_internal`, as they
        would be run.
    """
    first = ruled(calls, bundle)
    calls = calls.with_columns(patched=first["verdict"] == "modify")
    again = calls.filter("patched").with_columns(
        amount_cents=pl.when(_REFUND).then(_LEFT).otherwise(_AMOUNT),
        internal=pl.when(_REPLY).then(pl.lit(value=True)).otherwise("internal"),
    )
    second = _second(first.filter(calls["patched"]), ruled(again, bundle))
    second = second.with_columns(
        enforced_amount_cents=again["amount_cents"], enforced_internal=again["internal"]
    )
    rest = first.filter(~calls["patched"]).with_columns(
        enforced_determining=pl.lit([], dtype=pl.List(pl.String)),
        enforced_amount_cents=calls.filter(~pl.col("patched"))["amount_cents"],
        enforced_internal=calls.filter(~pl.col("patched"))["internal"],
    )
    place = calls.select(row=pl.int_range(pl.len()), patched="patched")
    parts = (place.filter("patched").hstack(second), place.filter(~pl.col("patched")).hstack(rest))
    whole = pl.concat(parts, how="diagonal").sort("row").drop("row").with_columns(decided_by=pl.lit("policy"))
    return _limited(whole, calls)


def _second(first: pl.DataFrame, again: pl.DataFrame) -> pl.DataFrame:
    """Conclude from the evaluation of the patched calls; see `runtime.policy`."""
    names = pl.format("`{}`", pl.col("determining").list.join("`, `"))
    later = again.select(pl.all().name.prefix("later_"))
    both = first.hstack(later)
    verdict = (
        pl.when(pl.col("later_verdict") == "allow").then(pl.lit("modify"))
        .when(pl.col("later_verdict") == "approve").then(pl.lit("approve"))
        .otherwise(pl.lit("block"))
    )  # fmt: skip
    codes = {"modify": "modified", "approve": "approval_required", "block": "patch_insufficient"}
    return both.select(
        verdict=verdict,
        reason_code=verdict.replace_strict(codes, return_dtype=pl.String),
        reason=pl.format("patched by {}; the patched request: {}", names, "later_reason"),
        cedar_decision="cedar_decision",
        determining=pl.when(verdict == "approve").then("later_determining").otherwise("determining"),
        cedar_reasons="cedar_reasons",
        fault=pl.coalesce("fault", "later_fault"),
        enforced_determining="later_determining",
    )


def _limited(whole: pl.DataFrame, calls: pl.DataFrame) -> pl.DataFrame:
    """Refuse what is beyond the budget: the stage before policy, so nothing of policy is recorded."""
    spent = calls.select(_SPENT).to_series()
    none = pl.lit([], dtype=pl.List(pl.String))
    said = pl.format(
        "budget 'calls-per-session' allows {} calls per session, {} ran", MAX_CALLS, calls["calls"]
    )
    instead: dict[str, pl.Expr] = {
        "verdict": pl.lit("block"), "decided_by": pl.lit("limits"), "reason_code": pl.lit("budget_spent"),
        "reason": said,
        "cedar_decision": pl.lit(None, pl.String), "determining": none, "cedar_reasons": none,
        "enforced_determining": none, "fault": pl.lit(None, pl.String), "patched": pl.lit(value=False),
    }  # fmt: skip
    return whole.with_columns(
        pl.when(spent).then(value).otherwise(name).alias(name) for name, value in instead.items()
    )
