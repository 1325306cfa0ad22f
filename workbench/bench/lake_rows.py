"""Rows of `decisions` and `outcomes`, from calls and their cases.

One rule: every column is what `runtime.record` would write of the decision that `runtime.policy.decide` makes; the
chain's columns are `workbench.bench.chain`'s.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import numpy as np
import polars as pl

from runtime.cedar import engine_name
from runtime.projection import PROJECTION_VERSION
from runtime.request import MAX_SKEW_US
from workbench.bench.desk_facts import AS_OF_US, obj, sha256_of, text
from workbench.bench.desk_ruling import ERRING, decided
from workbench.bench.desk_texts import canonical_args

if TYPE_CHECKING:
    from runtime.bundle import Bundle

TEMPLATES: Final = {"Order": "Order::{order_id}", "Ticket": "Ticket::{ticket_id}"}
"""Resource of a tool, as it declares it, by the resource's type."""
_FAULTS: Final = pl.List(pl.Struct({"policy": pl.String, "message": pl.String}))
_NO_TEXTS: Final = pl.lit([], dtype=pl.List(pl.String))
_CASE: Final = ("tenant", "agent", "customer", "resource", "tier", "country")
"""Columns that a case repeats of its calls."""


def decision_rows(calls: pl.DataFrame, cases: pl.DataFrame, bundle: Bundle) -> pl.DataFrame:
    """Return rows of `decisions` without the chain's columns, in order.

    Args:
        calls: as in `DeskFrame.rows`.
        cases: as `DeskRecords.cases` gives them.
        bundle: the baseline.
    """
    of_case = cases.drop(*_CASE, "context", "entity_hashes")
    rows = calls.join(of_case, on=["session", "resource_type"], how="left", maintain_order="left")
    rows = rows.hstack(decided(rows, bundle).rename({"reason": "said"}))  # `reason` is an argument, too
    rows = rows.with_columns(new_args=_enforced_args())
    rows = rows.with_columns(
        decision_id=_ids(rows["at"].to_numpy(), rows["session"].to_numpy(), rows["step"].to_numpy(), 0),
        args_hash=sha256_of(rows["args"]),
        action_hash=sha256_of(rows.select(_action(bundle.policy_hash)).to_series()),
    )
    return rows.select(**_request(), **_verdict(), **_enforced(), **_versions(bundle))


def _enforced_args() -> pl.Expr:
    """Arguments that would run: those given, or patched."""
    patched = canonical_args(amount="enforced_amount_cents", internal="enforced_internal")
    return pl.when("patched").then(patched).otherwise("args")


def _uid(kind: str, name: str) -> pl.Expr:
    r"""An entity's uid as a JSON string: `"Agent::\"a-1\""`."""
    return pl.concat_str(pl.lit(f'"{kind}::\\"'), name, pl.lit('\\""'))


def _action(policy_hash: str) -> pl.Expr:
    """What `runtime.policy.action_hash` hashes."""
    order, ticket = _uid("Order", "resource"), _uid("Ticket", "resource")
    return obj({
        "action": _uid("Action", "tool"), "args": pl.col("new_args"), "on_behalf_of": _uid("Customer", "customer"),
        "policy": f'"{policy_hash}"', "principal": _uid("Agent", "agent"),
        "resource": pl.when(pl.col("resource_type") == "Order").then(order).otherwise(ticket),
        "tenant": text("tenant"),
    })  # fmt: skip


def _request() -> dict[str, pl.Expr]:
    at = pl.from_epoch("at", "ms").dt.replace_time_zone("UTC").dt.cast_time_unit("us")
    names = (
        "decision_id",
        "step",
        "tenant",
        "scopes",
        "tool",
        "resource_type",
        "args",
        "args_hash",
        "context_hash",
    )
    template = pl.col("resource_type").replace_strict(TEMPLATES, return_dtype=pl.String)
    return {name: pl.col(name) for name in names} | {
        "kind": pl.lit("call"),
        "session_id": pl.format("s-{}", "session"),
        "evaluated_at": at,
        "decided_at": at + pl.duration(microseconds=_latency()),
        "principal_type": pl.lit("Agent"),
        "principal_id": pl.col("agent"),
        "on_behalf_of_type": pl.lit("Customer"),
        "on_behalf_of_id": pl.col("customer"),
        "required_scopes": _NO_TEXTS,
        "resource_id": pl.col("resource"),
        "resource_template": template,
        "projection": pl.col("args"),  # every argument is of a type whose Cedar JSON is its JSON
        "session_state": _counters(),
        "slice_hash": pl.col("slice_hash"),
        "stage_inputs": _stage_inputs(),
        "latency_us": _latency(),
    }


def _latency() -> pl.Expr:
    return (pl.col("at") * 7 % 61 + 90).cast(pl.Int64)


def _counters() -> pl.Expr:
    return obj({"calls": pl.col("calls"), "refunded_cents": pl.col("refunded_cents")})


def _stage_inputs() -> pl.Expr:
    age = (pl.col("at") * 1_000 - AS_OF_US) // 1_000_000
    seen = obj({"age_s": age, "as_of": str(AS_OF_US), "stale": "false"})
    order = obj({"agent": seen, "customer": seen, "order": seen})
    ticket = obj({"agent": seen, "customer": seen, "ticket": seen})
    facts = pl.when(pl.col("resource_type") == "Order").then(order).otherwise(ticket)
    judged = obj({"facts": facts, "max_skew_us": str(MAX_SKEW_US)})
    return obj({"context": judged, "limits": _counters()})


def _verdict() -> dict[str, pl.Expr]:
    names = ("verdict", "decided_by", "reason_code", "cedar_decision", "determining", "cedar_reasons")
    fault = pl.concat_list(pl.struct(policy=pl.lit(ERRING), message="fault"))
    errors = pl.when(pl.col("fault").is_null()).then(pl.lit([], dtype=_FAULTS)).otherwise(fault)
    return {name: pl.col(name) for name in names} | {"reason": pl.col("said"), "errors": errors}


def _enforced() -> dict[str, pl.Expr]:
    """What a patch changed. Resource, context and slice stay: no patch touches what they depend on."""
    runs = pl.col("verdict") != "block"
    same = ("resource_type", "context_hash", "slice_hash")
    return {
        "enforced_args": pl.when(runs).then("new_args"),
        "enforced_projection": pl.when("patched").then("new_args"),
        "enforced_resource_id": pl.when("patched").then("resource"),
        **{f"enforced_{name}": pl.when("patched").then(name) for name in same},
        "enforced_determining": pl.col("enforced_determining"),
        "action_hash": pl.when(runs).then("action_hash"),
    }


def _versions(bundle: Bundle) -> dict[str, pl.Expr]:
    return {
        "bundle_version": pl.lit(bundle.version),
        "policy_hash": pl.lit(bundle.policy_hash),
        "context_spec_hash": pl.lit(bundle.context_spec_hash),
        "limits_hash": pl.lit(bundle.limits_hash),
        "projection_version": pl.lit(PROJECTION_VERSION, pl.Int32),
        "engine": pl.lit(engine_name()),
    }


def outcome_rows(decisions: pl.DataFrame) -> pl.DataFrame:
    """Return rows of `outcomes` without hashes: one execution for each decision that ran, right after it."""
    ran = decisions.filter(pl.col("verdict").is_in(["allow", "modify"]))
    failed = pl.col("position") % 97 == 0
    started = pl.col("decided_at") + pl.duration(microseconds=40)
    ended = started + pl.duration(microseconds=1_000 + pl.col("position") % 997)
    millis = ran["evaluated_at"].dt.epoch("ms").to_numpy()
    return ran.select(
        "decision_id", "session_id", "tenant", "writer", "schema_version",
        kind=pl.lit("execution"),
        outcome_id=_ids(millis, ran["position"].to_numpy(), ran["step"].to_numpy(), 1),
        position=pl.col("position") + 1,
        recorded_at=ended, started_at=started, ended_at=ended,
        status=pl.when(failed).then(pl.lit("failed")).otherwise(pl.lit("succeeded")),
        result_storage=pl.lit("none"),
        source=pl.lit("runtime"),
        error_type=pl.when(failed).then(pl.lit("TimeoutError")),
        error_message=pl.when(failed).then(pl.lit("the shop did not answer")),
    )  # fmt: skip


_HEX: Final = np.array([f"{byte:02x}" for byte in range(256)], dtype="S2")


def _ids(millis: np.ndarray, number: np.ndarray, step: np.ndarray, kind: int) -> pl.Series:
    """UUIDs of version 7: 48 bits of time, then what tells two of a millisecond apart; 32 hex digits."""
    raw = np.empty((len(millis), 16), dtype=np.uint8)
    raw[:, :6] = millis.astype(">u8").view(np.uint8).reshape(-1, 8)[:, 2:]
    raw[:, 6], raw[:, 7] = 0x70 | kind, 0
    raw[:, 8], raw[:, 9] = 0x80, 0
    raw[:, 10:14] = number.astype(">u4").view(np.uint8).reshape(-1, 4)
    raw[:, 14:] = step.astype(">u2").view(np.uint8).reshape(-1, 2)
    digits = _HEX[raw].view("S32").reshape(-1)
    return pl.Series(digits.astype("U32"))
