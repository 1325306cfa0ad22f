"""From calls to rows of the trace, as the runtime would have recorded them under the baseline.

One rule: a decision is made by the runtime's own fold (`runtime.policy.decide`, driven by the row engine), its row
by `runtime.record`, its link in the chain by `runtime.evidence`; nothing about verdicts or hashes is written here.

Counters of a session are what the runtime would have counted: every decision lets its call run, so each counts as a
call; an outcome counts as a failure as `runtime.metering` has it. What the file does not report (costs, tokens,
times) is left out of them: not known is not nothing.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from runtime import trace
from runtime.canonical import sha256
from runtime.cedar import engine_name
from runtime.cycles import Attempts, signature
from runtime.evidence import chain
from runtime.facts import CompiledContext
from runtime.policy import Decision
from runtime.prepare import prepare
from runtime.record import content_rows, decision_row, label_row
from runtime.request import Request
from workbench.importing.endings import result_columns
from workbench.importing.moments import at_of
from workbench.importing.records import said
from workbench.rows import Job, RowEngine

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence
    from collections.abc import Mapping as Table

    from runtime.bundle import Bundle
    from runtime.canonical import Json
    from runtime.policy import Prepared
    from runtime.record import Row
    from runtime.trace import Table as TraceTable
    from workbench.importing.calls import Call, SessionKey
    from workbench.importing.mapping import Mapping
    from workbench.importing.records import Record
    from workbench.rows import Undecided

SOURCE = "import"
"""Who says so, of outcomes and labels."""


@dataclass(slots=True)
class Counters:
    """What a session has used before its next call."""

    state: dict[str, int]
    """By member of `context.session`; only what the file reports."""
    attempts: Attempts = field(default_factory=Attempts)

    def before(self, call: Call) -> tuple[dict[str, Json], dict[str, Json]]:
        """Count the attempt; return what the call sees: `context.session`, and what limits look at beside it."""
        self.attempts = self.attempts.then(signature(call.tool, call.text))
        self.state["repeats"] = self.attempts.repeats
        return dict(self.state), {"cycles": {"*": self.attempts.recorded}}

    def after(self, call: Call) -> None:
        """Count a call that was let run, and what it used."""
        used = {"calls": 1, "failures": int(call.ending.failed), "wall_ms": -(-(call.took or 0) // 1_000)}
        for name in self.state:
            if name != "repeats":
                more = used.get(name, call.ending.columns.get(name)) or 0
                assert isinstance(more, int)  # noqa: S101 - columns of usage are
                self.state[name] += more


def counted(mapping: Mapping) -> dict[str, int]:
    """Return the counters that a file of this mapping can fill, at nought."""
    outcome, time = mapping.outcome, mapping.time
    told = {
        "calls": True,
        "cost_micros": outcome.cost is not None,
        "failures": any((outcome.executed, outcome.status, outcome.error, mapping.verdict.refused)),
        "input_tokens": outcome.input_tokens is not None,
        "output_tokens": outcome.output_tokens is not None,
        "repeats": True,
        "wall_ms": time.ended is not None or time.duration_ms is not None,
    }
    return {name: 0 for name, known in told.items() if known}


@dataclass(slots=True)
class Rows:
    """Makes rows, block by block, in the order of the chain."""

    mapping: Mapping
    bundle: Bundle
    writer: str
    position: int = 0
    last_hash: str = trace.GENESIS
    sessions: dict[SessionKey, Counters] = field(default_factory=dict)
    known: set[bytes] = field(default_factory=set)
    """Addresses of contents that have been given already; as texts they would take twice as much."""
    tally: dict[tuple[str, str], int] = field(default_factory=dict)
    """What was made: (kind, status or label) → rows."""
    engine: RowEngine = field(default_factory=RowEngine)
    facts: CompiledContext = field(init=False)
    """Of every call: there are none."""

    def __post_init__(self) -> None:
        self.facts = CompiledContext.of((), self.bundle.context_spec_hash)

    def block(self, calls: Sequence[Call], records: Sequence[Record]) -> Iterator[tuple[TraceTable, Row]]:
        """Yield the rows of some calls; contents before what refers to them.

        Raises:
            Refused: Cedar refuses calls that fit the schema.
        """
        decided = self._decided(calls)
        for call, record, decision in zip(calls, records, decided, strict=True):
            yield from self._contents(decision)
            yield self._linked(trace.DECISIONS, self._decision(call, decision))
            yield from self._outcome(call, record)
            yield from self._labels(call, record)

    def session_labels(
        self, ends: Table[SessionKey, int], said_of: Iterable[tuple[SessionKey, str, str]]
    ) -> Iterator[tuple[TraceTable, Row]]:
        """Yield labels of whole sessions.

        Args:
            ends: by session, the time of its last call.
            said_of: session, label, value.
        """
        for number, (key, label, value) in enumerate(said_of):
            row = self._label(key, None, label, value, ends[key])
            yield self._linked(
                trace.OUTCOMES, {**row, "outcome_id": self.ident(ends[key], f"session {number}")}
            )

    def ident(self, time_us: int, what: str) -> str:
        """Return an id, in the form of a UUID of version 7, that follows from the import: same file, same ids."""
        digits = sha256(f"{self.writer} {what}")
        return f"{(time_us // 1_000) & (2**48 - 1):012x}7{digits[:3]}8{digits[3:18]}"

    def _decided(self, calls: Sequence[Call]) -> list[Decision]:
        found = self.engine.run([self._job(self._request(call)) for call in calls])
        refused = {c.number: _why(d) for c, d in zip(calls, found, strict=True) if _why(d) is not None}
        if refused:
            raise Refused(refused)
        return found  # type: ignore[return-value]  # each was looked at

    def _request(self, call: Call) -> Request:
        counters = self.sessions.get(call.key)
        if counters is None:
            counters = self.sessions[call.key] = Counters(counted(self.mapping))
        state, limits = counters.before(call)
        counters.after(call)
        assert call.at is not None  # noqa: S101 - given or derived
        assert call.template is not None  # noqa: S101 - set when it was read
        return Request(
            decision_id=self.ident(call.at, f"call {call.number}"),
            session_id=call.key[1],
            step=call.step,
            tenant=call.key[0],
            principal=call.principal,
            on_behalf_of=call.on_behalf_of,
            scopes=(),
            tool=call.tool,
            resource=call.template,
            required_scopes=(),
            args=call.args,
            idempotency_key=None,
            at=at_of(call.at // 1_000 * 1_000),
            session_state=state,
            limits=limits,
            bound=(call.args, call.text),
        )

    def _job(self, request: Request) -> Job:
        facts = self.facts

        def prepared(args: Table[str, Json]) -> Prepared:
            return prepare(request, args, self.bundle, lambda *_: facts)

        return Job(request, self.bundle, prepared)

    def _decision(self, call: Call, decision: Decision) -> Row:
        assert call.at is not None  # noqa: S101 - given or derived
        known = self.mapping.tools.get(call.tool)
        row = decision_row(
            decision, self.bundle, decided_at=at_of(call.at), latency_us=0, engine=engine_name()
        )
        effect = None if known is None else known.effect
        return {**row, "effect": effect, "writes": call.writes}  # type: ignore[dict-item]  # a list of texts is JSON

    def _contents(self, decision: Decision) -> Iterator[tuple[TraceTable, Row]]:
        for table, row in content_rows(decision):
            address = bytes.fromhex(str(row[table.key]))
            if address not in self.known:
                self.known.add(address)
                yield table, row

    def _outcome(self, call: Call, record: Record) -> Iterator[tuple[TraceTable, Row]]:
        ending = call.ending
        if ending.status is None:
            return
        assert call.at is not None  # noqa: S101 - given or derived
        result, blob = result_columns(record, self.mapping.outcome)
        if blob is not None and (address := bytes.fromhex(str(blob["blob_hash"]))) not in self.known:
            self.known.add(address)
            yield trace.BLOBS, blob
        ended = call.at + (call.took or 0)
        row: Row = {
            "outcome_id": self.ident(ended, f"execution {call.number}"),
            "kind": "execution",
            "decision_id": self.ident(call.at, f"call {call.number}"),
            "session_id": call.key[1],
            "tenant": call.key[0],
            "recorded_at": ended,
            "status": ending.status,
            "started_at": None if ending.status == "aborted" else call.at,
            "ended_at": ended,
            "source": SOURCE,
            **ending.columns,
            **result,
        }
        self._count("execution", ending.status)
        yield self._linked(trace.OUTCOMES, row)

    def _labels(self, call: Call, record: Record) -> Iterator[tuple[TraceTable, Row]]:
        assert call.at is not None  # noqa: S101 - given or derived
        ident = self.ident(call.at, f"call {call.number}")
        for name, value in call_labels(record, self.mapping):
            row = self._label(call.key, ident, name, value, call.at)
            yield self._linked(
                trace.OUTCOMES, {**row, "outcome_id": self.ident(call.at, f"label {call.number} {name}")}
            )

    def _label(self, key: SessionKey, ident: str | None, label: str, value: str, time_us: int) -> Row:
        self._count("label", label)
        return label_row(
            session_id=key[1], tenant=key[0], decision_id=ident, label=label, value=value, source=SOURCE,
            recorded_at=at_of(time_us),
        )  # fmt: skip

    def _count(self, kind: str, what: str) -> None:
        self.tally[kind, what] = self.tally.get((kind, what), 0) + 1

    def _linked(self, table: TraceTable, row: Table[str, Any]) -> tuple[TraceTable, Row]:
        self.position += 1
        link = chain(table, row, self.writer, self.position, self.last_hash)
        self.last_hash = str(link["hash"])
        return table, link


class Refused(Exception):  # noqa: N818 - never leaves this package
    """Calls that the baseline does not allow: it cannot stand for them."""

    def __init__(self, refused: Table[int, str | None]) -> None:
        super().__init__(f"{len(refused)} calls")
        self.refused = refused
        """Why, by number of the row."""


def _why(decision: Decision | Undecided) -> str | None:
    """Why a call is not allowed; None: it is."""
    if not isinstance(decision, Decision):
        return "undecided"
    return None if decision.verdict == "allow" else decision.reason


def call_labels(record: Record, mapping: Mapping) -> Iterator[tuple[str, str]]:
    """Yield the labels of one call: what the recorded system said, and those the mapping names."""
    for name, column in (
        ("recorded_verdict", mapping.verdict.column),
        ("recorded_reason", mapping.verdict.reason),
    ):
        value = None if column is None else said(record.get(column))
        if value:
            yield name, value
    for label in mapping.labels:
        if label.of == "call" and (value := valued(record.get(label.column), label.values)) is not None:
            yield label.name, value


def valued(value: object, values: Table[str, str]) -> str | None:
    """Return what a value of a label's column is called; None: it gives no label."""
    text = said(value)
    return text if text is None or not values else values.get(text)
