"""One decision as a page: who asked what, by whose authority, what was known, which clause decided, what came of it.

One rule: no number and no verdict is made here. Sizes are bounded whatever the record holds, and what is cut says so.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from runtime.canonical import canonical
from workbench.explaining.values_read import cedar
from workbench.parts import HUES, Compared, Document, Item, Listing, Table
from workbench.texts import count, shorten
from workbench.viewing.decision_policies import policies_of, texts_of

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from datetime import datetime

    from runtime.canonical import Json
    from workbench.explaining.one import Side
    from workbench.explaining.why import Why
    from workbench.parts import Cell, Part
    from workbench.viewing.decision import Decision

MAX_DOCUMENT = 32 * 1024
"""Characters of one JSON text."""
MAX_FACTS = 40
MAX_VALUE = 400
"""Characters of a value in a table."""
MAX_NAMES = 20
MAX_CHANGES = 4
"""Things that would have to be otherwise."""


def parts_of(decision: Decision) -> Iterator[Part]:
    """Yield what a decision's page is made of."""
    yield request(decision)
    yield from arguments(decision)
    yield from policies(decision)
    yield authority(decision)
    yield from context(decision)
    yield from limits(decision)
    yield from outcome(decision)
    yield evidence(decision)


def sentences(why: Why) -> tuple[str, ...]:
    """What happened and why, and what would have to be otherwise; of many ways the first."""
    changes = why.changes
    more = len(changes) - MAX_CHANGES
    rest = (f"And {count(more, 'more thing')} would have to be otherwise.",) if more > 0 else ()
    return (*why.lines, *(f"To be allowed: {each}" for each in changes[:MAX_CHANGES]), *rest)


def request(decision: Decision) -> Listing:
    """Who asked what, on what, when."""
    row = decision.row
    items = [
        Item("tool", row["tool"], is_code=True),
        Item("resource", uid(row, "resource"), is_code=True),
        Item("principal", uid(row, "principal"), is_code=True),
        Item("on behalf of", uid(row, "on_behalf_of") or "nobody"),
        Item("tenant", row["tenant"]),
        Item("session", f"{row['session_id']}, step {row['step']:,}"),
        Item("decided", f"{moment(row['decided_at'])}, in {row['latency_us']:,} µs"),
        Item("decided by", f"{row['decided_by']}: {row['reason_code'].replace('_', ' ')}"),
        Item("bundle", f"{decision.bundle_name} {row['bundle_version'][:12]}"),
        Item("kind", _kind(decision)),
    ]
    if row["idempotency_key"] is not None:
        items.append(Item("idempotency key", row["idempotency_key"], is_code=True))
    if row["effect"] is not None:
        items.append(Item("effect of the tool", row["effect"]))
    return Listing(title="Request", items=items)


def _kind(decision: Decision) -> str:
    row = decision.row
    linked = f" of {row['linked_to']}" if row["linked_to"] else ""
    said = {
        "call": "a call",
        "duplicate": f"duplicate{linked}, not executed again",
        "resumed": f"resumed after approval{linked}",
        "shadow": f"shadow{linked}: never enforced",
    }
    return said.get(row["kind"], str(row["kind"]))


def uid(row: Mapping[str, Any], name: str) -> str | None:
    """An entity of a row as Cedar writes it; None: there is none."""
    kind, ident = row[f"{name}_type"], row[f"{name}_id"]
    return None if kind is None else f"{kind}::{json.dumps(ident, ensure_ascii=False)}"


def moment(at: datetime) -> str:
    """A moment, UTC, to the millisecond."""
    return f"{at:%Y-%m-%d %H:%M:%S}.{at.microsecond // 1000:03d} UTC"


def arguments(decision: Decision) -> Iterator[Part]:
    """The arguments as given, and what would run where that is something else."""
    row = decision.row
    yield document("Arguments", row["args"], note=_size(row["args"]))
    found = [(row["enforced_args"], "What would run", "as changed")]
    if decision.replayed:
        found = [(row["enforced_args"], "What ran", "as changed")] if row["verdict"] == "modify" else []
        found.append(
            (decision.cand.row.get("enforced_args"), "What would run", f"under {decision.cand.name}")
        )
    for text, title, name in found:
        if text is not None and text != row["args"]:
            yield Compared(
                title=title, left=as_object(row["args"]), right=as_object(text), names=("as given", name)
            )


def _size(text: str) -> str:
    return f"{len(text):,} characters of JSON" if len(text) > MAX_DOCUMENT else ""


def as_object(text: str) -> dict[str, Json]:
    """A JSON text as an object."""
    found = json.loads(text)
    return found if isinstance(found, dict) else {"": found}


def document(title: str, text: str, *, note: str = "", folded: bool = False) -> Document:
    """A JSON text, laid out and cut."""
    try:
        laid = json.dumps(json.loads(text), indent=2, ensure_ascii=False)
    except ValueError:
        laid = text
    left = max(0, len(laid) - MAX_DOCUMENT)
    return Document(title=title, note=note, text=laid[:MAX_DOCUMENT], left_out=left, folded=folded)


def authority(decision: Decision) -> Table:
    """By whose authority: principal, who it acts for, scopes, approvals; each with what the record says of it."""
    row = decision.row
    rows: list[tuple[Cell, ...]] = [
        ("principal", uid(row, "principal"), _attributes(decision, "principal"), None)
    ]
    behalf = uid(row, "on_behalf_of")
    rows.append(("acts for", behalf or "nobody", "delegation only narrows" if behalf else None, None))
    rows.append(("scopes held", names(row["scopes"]), None, None))
    lacking = sorted(set(row["required_scopes"]) - set(row["scopes"]))
    needs = f"lacks {names(lacking)}" if lacking else "all held" if row["required_scopes"] else None
    rows.append(("scopes the tool requires", names(row["required_scopes"]), needs, None))
    rows += [
        (f"approval {each['value']}", each["source"], _approval(each), moment(each["recorded_at"]))
        for each in decision.record.events
        if each["kind"] == "approval"
    ]
    rows += list(_grants(decision))
    for link in decision.record.links:
        said = f"{link['kind']} decision {link['decision_id']}"
        rows.append(
            (
                said,
                None,
                f"{link['verdict']}: {link['reason_code'].replace('_', ' ')}",
                moment(link["decided_at"]),
            )
        )
    return Table(
        title="Authority", heads=("", "who", "what the record says", "when"), rows=rows, code=frozenset({1})
    )


def names(given: list[str] | None) -> str:
    """Some names, the first of many."""
    found = list(given or ())
    more = f" and {len(found) - MAX_NAMES:,} more" if len(found) > MAX_NAMES else ""
    return ", ".join(shorten(each, 80) for each in found[:MAX_NAMES]) + more or "none"


def _approval(event: Mapping[str, Any]) -> str:
    """What an approval says of who gave it: how they were known, and why they did."""
    told = json.loads(event["details"] or "{}")
    said = [f"for `{event['label']}`"]
    if told.get("authenticator"):
        said.append(f"known by {told['authenticator']}")
    if told.get("roles"):
        said.append(f"as {names(told['roles'])}")
    if told.get("expires_at"):
        said.append(f"good until {told['expires_at']}")
    if told.get("reason"):
        said.append(f"because: {shorten(str(told['reason']), MAX_VALUE)}")
    return ", ".join(said)


def _grants(decision: Decision) -> Iterator[tuple[Cell, ...]]:
    """The grants a resumed decision used, and why they could not be where they could not."""
    row = decision.row
    if row["approval"] is None:
        return
    told = json.loads(row["approval"])
    lifted = names(sorted(told.get("lifted") or ()))
    yield "grants used", None, f"{names(row['grants'])}; lifted {lifted}", None
    if told.get("refusal"):
        yield "grants refused", None, cedar(told["refusal"]), None


def _attributes(decision: Decision, root: str) -> str | None:
    """Attributes of an entity, as policies saw them."""
    case = None if decision.base.facts is None else decision.base.facts.case
    if case is None:
        return None
    found = next((each for each in case.slice.entities if each.uid == getattr(case, root)), None)
    if found is None or not (found.attrs or found.parents):
        return None
    said = [f"{name} = {cedar(value)}" for name, value in found.attrs.items()]
    said += [f"in {parent}" for parent in found.parents]
    return shorten(", ".join(said), MAX_VALUE)


def policies(decision: Decision) -> Iterator[Part]:
    """The policies that matter, with what their clauses were; then what those say in words."""
    other = decision.base if decision.replayed else None
    found, more = policies_of(decision.base, decision.cand)
    yield from texts_of(decision.cand, other, found)
    if more:
        items = [
            Item("policies", f"{more:,} more matter; `decision.why.frame` has the clauses of all of them")
        ]
        yield Listing(items=items)


def context(decision: Decision) -> Iterator[Part]:
    """Every fact with where it comes from; then the whole of what policies saw."""
    prepared = decision.base.facts
    if prepared is None or prepared.compiled is None:
        return
    judged = prepared.inputs.get("context")
    told = judged.get("facts", {}) if isinstance(judged, dict) else {}
    facts = list(prepared.compiled.facts.values())
    facts.sort(key=lambda fact: fact.status == "not_asked")
    rows: list[tuple[Cell, ...]] = []
    for fact in facts[:MAX_FACTS]:
        seen = told.get(fact.name) if isinstance(told, dict) else None
        age, stale = (seen.get(name) if isinstance(seen, dict) else None for name in ("age_s", "stale"))
        key = ", ".join(f"{name} = {cedar(value)}" for name, value in fact.key.items())
        value = fact.message or (None if fact.value is None else _value(fact.value))
        rows.append((
            fact.name, fact.status.replace("_", " "), value, fact.into, fact.source,
            None if fact.version is None else str(fact.version), shorten(key, MAX_VALUE) or None,
            _age(age, stale=bool(stale)),
        ))  # fmt: skip
    if rows:
        more = f" {len(facts) - MAX_FACTS:,} more are not shown." if len(facts) > MAX_FACTS else ""
        heads = ("fact", "came back", "value", "placed in", "source", "version", "asked by", "age")
        note = f"What was known when it was decided: {count(len(facts), 'fact')}.{more}"
        yield Table(title="Context", note=note, heads=heads, rows=rows, code=frozenset({0, 2, 6}))
    if (whole := seen_by_policies(decision.base)) is not None:
        yield document("All that policies saw", canonical(whole), folded=True)


def _value(value: Json) -> str:
    text = cedar(value)
    return (
        text
        if len(text) <= MAX_DOCUMENT
        else f"{text[:MAX_DOCUMENT]} … {len(text) - MAX_DOCUMENT:,} more characters"
    )


def _age(seconds: Any, *, stale: bool) -> str | None:
    if not isinstance(seconds, int | float):
        return None
    for unit, size in (("days", 86_400), ("h", 3_600), ("min", 60)):
        if seconds >= 2 * size:
            return f"{seconds / size:,.1f} {unit}" + (", stale" if stale else "")
    return f"{seconds:,} s" + (", stale" if stale else "")


def seen_by_policies(side: Side) -> dict[str, Json] | None:
    """What policies saw of a request: context, and attributes and parents of principal and resource, Cedar JSON."""
    case = None if side.facts is None else side.facts.case
    if case is None:
        return None
    entities: dict[str, Json] = {
        str(each.uid): {"attrs": dict(each.attrs), "parents": [str(parent) for parent in each.parents]}
        for each in case.slice.entities
        if each.attrs or each.parents
    }
    return {
        "principal": str(case.principal),
        "action": str(case.action),
        "resource": str(case.resource),
        "context": dict(case.context),
        "entities": entities,
    }


def limits(decision: Decision) -> Iterator[Table]:
    """What the limits stage judged by."""
    prepared = decision.base.facts
    seen = {} if prepared is None else prepared.inputs.get("limits")
    if isinstance(seen, dict) and seen:
        rows: list[tuple[Cell, ...]] = [
            (name, shorten(cedar(value), MAX_VALUE)) for name, value in sorted(seen.items())[:MAX_FACTS]
        ]
        folded = decision.row["decided_by"] != "limits"
        yield Table(
            title="Limits",
            note="Counters as the limits stage saw them.",
            heads=("counter", "value"),
            rows=rows,
            folded=folded,
        )


def outcome(decision: Decision) -> Iterator[Part]:
    """What came of it, and what was said of it later."""
    events = [each for each in decision.record.events if each["kind"] == "execution"]
    if not events:
        runs = decision.row["verdict"] in ("allow", "modify") and decision.row["kind"] in ("call", "resumed")
        said = "none: it was under way, or its process died" if runs else "none: it did not run"
        yield Listing(title="Outcome", items=[Item("outcome", said)])
    for event in events:
        yield Listing(title="Outcome", items=list(_execution(event)))
        if event["result"]:
            note = (
                f"The first part of {event['result_bytes']:,} bytes"
                if (event["result_bytes"] or 0) > MAX_DOCUMENT
                else ""
            )
            yield document("Result", event["result"], note=note, folded=True)
    rows: list[tuple[Cell, ...]] = [
        (
            each["label"],
            each["value"],
            "decision" if each["decision_id"] else "session",
            each["source"],
            moment(each["recorded_at"]),
        )
        for each in decision.record.events
        if each["kind"] == "label"
    ]
    if rows:
        rows = [
            tuple(shorten(cell, MAX_VALUE) if isinstance(cell, str) else cell for cell in row) for row in rows
        ]
        yield Table(title="Labels", heads=("label", "value", "of the", "by", "when"), rows=rows[:MAX_FACTS])


def _execution(event: Mapping[str, Any]) -> Iterator[Item]:
    ended = event["status"].replace("_", " ")
    yield Item("status", ended, hue=HUES.get(ended, "plain"))
    if event["reason_code"]:
        yield Item("why", event["reason_code"].replace("_", " "))
    if event["started_at"] and event["ended_at"]:
        ran = (event["ended_at"] - event["started_at"]).total_seconds()
        yield Item("ran", f"{moment(event['started_at'])}, {ran:,.3f} s")
    if event["error_type"]:
        message = shorten(f"{event['error_type']}: {event['error_message'] or ''}", MAX_VALUE)
        yield Item("error", message, is_code=True)
    if event["guards"]:
        for guard in json.loads(event["guards"])[:MAX_FACTS]:
            said = (
                "passed"
                if guard.get("passed")
                else f"stopped it: {shorten(str(guard.get('reason')), MAX_VALUE)}"
            )
            yield Item(f"guard {guard.get('guard')}", said)
    if event["result_storage"]:
        size = f", {event['result_bytes']:,} bytes" if event["result_bytes"] is not None else ""
        yield Item("result kept", f"{event['result_storage']}{size}")
    if event["cost_micros"] is not None:
        yield Item("cost", f"{event['cost_micros'] / 1_000_000:,.6f}")
    if event["input_tokens"] is not None or event["output_tokens"] is not None:
        yield Item("tokens", f"{event['input_tokens'] or 0:,} in, {event['output_tokens'] or 0:,} out")


def evidence(decision: Decision) -> Table:
    """What was checked of its evidence, and what was not."""
    rows: list[tuple[Cell, ...]] = [(each.what, each.result, each.said) for each in decision.evidence]
    broken = sum(each.result == "broken" for each in decision.evidence)
    held = sum(each.result == "holds" for each in decision.evidence)
    note = f"{count(broken, 'check')} failed." if broken else f"{count(held, 'check')} made, all hold."
    return Table(title="Evidence", note=note, heads=("", "", "what was checked"), rows=rows)
