"""What the evidence of one decision says, checked from the lake alone, and what was not checked.

One rule: a check that was not made is said to be not made, with what would make it. Nothing here speaks for rows that
were not read: who can rewrite the whole chain, and every copy of its head, is not found by any of these.
"""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from runtime.canonical import NotCanonical
from runtime.evidence import row_hash
from runtime.trace import DECISIONS, GENESIS
from runtime.values import micros
from workbench.erasure import CAUSES as HOLES
from workbench.recorded import Recorded
from workbench.replay import CAUSES

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from workbench.explaining.one import Side
    from workbench.viewing.decision_record import Record

Result = Literal["holds", "broken", "not checked"]


class Check(NamedTuple):
    """One thing that evidence says of a decision."""

    what: str
    result: Result
    said: str


def checks(record: Record, recorded: Side) -> tuple[Check, ...]:
    """Check a decision's evidence.

    Args:
        record: as `workbench.viewing.decision_record.read` has it.
        recorded: the decision under its own policies, over what was recorded.
    """
    return (
        _row(record, recorded),
        *_links(record),
        *_contents(record, recorded),
        _policies(record, recorded),
        _again(recorded),
        Check(
            "signed checkpoint",
            "not checked",
            "no checkpoint over this chain is signed; keep the head of the chain elsewhere to find a rollback",
        ),
    )


def _row(record: Record, recorded: Side) -> Check:
    row = {
        name: micros(value) if isinstance(value, datetime) else value for name, value in record.row.items()
    }
    try:
        actual = row_hash(DECISIONS.name, row)
    except NotCanonical as exc:
        return Check("hash of the row", "broken", f"it has no hash: {exc}")
    where = f"position {row['position']:,} of ledger {row['writer']}"
    if actual == row["hash"]:
        return Check("hash of the row", "holds", f"{actual}, {where}")
    if _is_holed(recorded):
        return Check("hash of the row", "not checked", f"parts of it were taken out on purpose; {where}")
    return Check(
        "hash of the row", "broken", f"the row says {row['hash']}, its content hashes to {actual}; {where}"
    )


def _is_holed(recorded: Side) -> bool:
    return recorded.row.get("cause") in HOLES.values()


def _links(record: Record) -> Iterator[Check]:
    """The rows before and after in the chain: of both tables, they share its positions."""
    row, position = record.row, int(record.row["position"])
    before, after = record.neighbours.get(position - 1), record.neighbours.get(position + 1)
    if position == 1:
        first = row["prev_hash"] == GENESIS
        said = "the chain begins here" if first else "the chain begins here, but the row names one before it"
        yield Check("row before", "holds" if first else "broken", said)
    elif before is None:
        yield Check("row before", "broken", f"there is no row at position {position - 1:,}")
    else:
        yield _link(
            "row before",
            f"its hash is what this row names, position {position - 1:,}",
            before["hash"],
            row["prev_hash"],
        )
    if after is None:
        yield Check(
            "row after", "not checked", "it is the last of its chain at the pin: no later row fixes it"
        )
    else:
        yield _link(
            "row after", f"names this row's hash, position {position + 1:,}", row["hash"], after["prev_hash"]
        )


def _link(what: str, said: str, left: str, right: str) -> Check:
    if left == right:
        return Check(what, "holds", said)
    return Check(what, "broken", f"{right} is named where the hash is {left}")


def _contents(record: Record, recorded: Side) -> Iterator[Check]:
    """What the row refers to by content."""
    (found,) = record.frame.iter_rows(named=True)
    whole = Recorded(found, found["context"], found["enforced_context"])
    match whole.damage():
        case None:
            yield Check("arguments and context", "holds", _addresses(record.row))
        case "row_corrupt":
            yield Check("arguments and context", "broken", "the arguments do not hash to their address")
        case "context_lost":
            yield Check("arguments and context", "broken", "the context it refers to is not in the lake")
        case "context_corrupt":
            yield Check("arguments and context", "broken", "a context does not hash to its address")
        case hole:
            names = ", ".join(whole.holes.names) if whole.holes else ""
            yield Check("arguments and context", "not checked", f"{hole.removeprefix('field_')}: {names}")
    case = None if recorded.facts is None else recorded.facts.case
    address = record.row["slice_hash"]
    if case is not None and address is not None:
        same = case.slice.hash == address
        said = f"the facts give {'these' if same else 'other'} entities: slice {case.slice.hash[:12]}"
        yield Check("entities", "holds" if same else "broken", said)


def _addresses(row: Mapping[str, Any]) -> str:
    named = [
        ("arguments", "args_hash"),
        ("context", "context_hash"),
        ("enforced context", "enforced_context_hash"),
    ]
    return ", ".join(f"{what} {row[name][:12]}" for what, name in named if row[name] is not None)


def _policies(record: Record, recorded: Side) -> Check:
    version = str(record.row["bundle_version"])
    if recorded.bundle is None:
        return Check(
            "policies", "broken", f"bundle {version} is not in the lake, or its texts give another version"
        )
    return Check("policies", "holds", f"the texts of {recorded.bundle.name} give its version {version[:12]}")


def _again(recorded: Side) -> Check:
    if recorded.status == "decided":
        said = "recorded policies over the recorded context give what was recorded"
        return Check("decided again", "holds", said)
    cause = str(recorded.row["cause"])
    result: Result = "not checked" if cause == "policy_lost" or _is_holed(recorded) else "broken"
    return Check("decided again", result, CAUSES.get(cause, cause))
