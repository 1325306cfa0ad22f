"""Step 5, the decision trace: what the lake's tables hold, as code with a version.

One rule: from these tables alone, any Cedar engine can decide each row again.

Columns are declared here without pyarrow, so that `import runtime` stays light; `runtime.lake` maps them to
Arrow and Delta. A null means *absent*, never *unknown*, unless the column says otherwise. Timestamps are UTC,
microseconds. JSON columns hold canonical text (`runtime.canonical`).

Departures from the first sketch, and why: `slices` is a table of its own (a slice is shared by many decisions;
a list of hashes in each decision would be most of the table).

The hash chain: `decisions` and `outcomes` of one ledger form one chain, in the order they became durable.
`writer` is the ledger's id, `position` its sequence number (1, 2, 3 … without a gap), `prev_hash` the `hash` at
`position - 1` (64 zeros at 1), and `hash` covers the table's name and every other non-null column of the row.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

SCHEMA_VERSION = 2
"""Version of the tables below. Readers accept every older one and refuse newer ones by name.

2 adds nullable columns: `effect`, `writes`, `grants`, `approval` of decisions; `reason_code`, `guards`, usage and
`details` of outcomes. A row of version 1 has null there: not recorded.
"""

GENESIS = "0" * 64
"""`prev_hash` of a chain's first row."""

DType = Literal[
    "string", "int64", "int32", "bool", "float64", "timestamp", "list<string>", "list<policy_error>"
]
"""Closed set of column types. `policy_error` is a struct of two strings: `policy`, `message`."""


@dataclass(frozen=True, slots=True)
class Column:
    """One column of a table."""

    name: str
    dtype: DType
    doc: str
    required: bool = False
    """Never null."""


@dataclass(frozen=True, slots=True)
class Table:
    """One Delta table of the lake."""

    name: str
    doc: str
    columns: tuple[Column, ...]
    key: str
    """The column that names a row. Content-addressed tables may hold doubles of a key; readers take one."""
    partition_by: tuple[str, ...] = ()
    content_addressed: bool = False


def _c(name: str, dtype: DType, doc: str, *, required: bool = False) -> Column:
    return Column(name, dtype, doc, required)


_CHAIN = (
    _c("schema_version", "int32", "version of these tables the row was written under", required=True),
    _c("writer", "string", "id of the ledger that made the row durable", required=True),
    _c("position", "int64", "the ledger's sequence number, from 1, no gaps", required=True),
    _c("prev_hash", "string", "`hash` of the row at `position - 1`; 64 zeros at 1", required=True),
    _c("hash", "string", "SHA-256 over prev_hash and the canonical row", required=True),
)

Verdict = Literal["allow", "modify", "approve", "block"]
Stage = Literal["request", "tenant", "context", "limits", "policy", "approval"]
CedarDecision = Literal["Allow", "Deny", "NoDecision"]
Kind = Literal["call", "duplicate", "resumed", "shadow"]
"""`call` a request decided for the first time; `duplicate` an idempotency hit, decided again and not executed
again; `resumed` the second evaluation after a grant; `shadow` decided beside the enforced bundle, not enforced."""

DECISIONS = Table(
    name="decisions",
    doc="One row a decision.",
    key="decision_id",
    partition_by=("tenant",),
    columns=(
        _c("decision_id", "string", "UUID v7", required=True),
        _c("kind", "string", "call | duplicate | resumed | shadow", required=True),
        _c("linked_to", "string", "decision_id of the original, for duplicate, resumed and shadow rows"),
        _c("session_id", "string", "the agent's session", required=True),
        _c("step", "int32", "order within the session, from 0", required=True),
        _c("decided_at", "timestamp", "when the decision was made", required=True),
        _c(
            "evaluated_at", "timestamp", "`context.now` as policies saw it, whole milliseconds", required=True
        ),
        _c("tenant", "string", "isolation boundary", required=True),
        _c("principal_type", "string", "Cedar entity type of the caller", required=True),
        _c("principal_id", "string", "", required=True),
        _c("on_behalf_of_type", "string", "entity type of the user acted for; null: nobody"),
        _c("on_behalf_of_id", "string", ""),
        _c("scopes", "list<string>", "scopes the session holds, sorted", required=True),
        _c("required_scopes", "list<string>", "scopes the tool declares, sorted", required=True),
        _c("tool", "string", "tool name = Cedar action id", required=True),
        _c("resource_type", "string", "null: could not be derived (see reason_code)"),
        _c("resource_id", "string", ""),
        _c("resource_template", "string", "as declared by the tool", required=True),
        _c("args", "string", "arguments as given, canonical JSON", required=True),
        _c("args_hash", "string", "content address of `args`", required=True),
        _c("projection", "string", "`context.args` as policies saw it, Cedar JSON; null: did not project"),
        _c("projection_version", "int32", "version of the projection's rules", required=True),
        _c("session_state", "string", "`context.session` as policies saw it, Cedar JSON", required=True),
        _c("idempotency_key", "string", "as given; null: no deduplication"),
        _c("bundle_version", "string", "hash of the three hashes below", required=True),
        _c("policy_hash", "string", "policies + schema + links", required=True),
        _c("context_spec_hash", "string", "context.toml", required=True),
        _c("limits_hash", "string", "limits.toml", required=True),
        _c("context_hash", "string", "address in `contexts` of the compiled facts; null: not compiled"),
        _c("slice_hash", "string", "address in `slices` of the entities; null: not compiled"),
        _c("verdict", "string", "allow | modify | approve | block", required=True),
        _c("decided_by", "string", "request | tenant | context | limits | policy | approval", required=True),
        _c("reason_code", "string", "closed vocabulary of `runtime.ruling.REASONS`", required=True),
        _c("reason", "string", "for people; names what was given and what is allowed", required=True),
        _c("cedar_decision", "string", "what plain Cedar says of the request as it stands; null: not asked"),
        _c(
            "determining",
            "list<string>",
            "ids of the policies that determined the verdict, sorted",
            required=True,
        ),
        _c(
            "cedar_reasons",
            "list<string>",
            "ids plain Cedar names for `cedar_decision`, sorted",
            required=True,
        ),
        _c(
            "errors",
            "list<policy_error>",
            "policies that raised an evaluation error, sorted by id",
            required=True,
        ),
        _c(
            "stage_inputs",
            "string",
            "what each stage before policy saw (counters, ages …), JSON",
            required=True,
        ),
        _c(
            "enforced_args",
            "string",
            "arguments to run (once granted, for approve), JSON; null: nothing may run",
        ),
        _c("enforced_projection", "string", "projection of enforced_args where a patch applied, else null"),
        _c("enforced_resource_type", "string", "resource after a patch, else null"),
        _c("enforced_resource_id", "string", ""),
        _c("enforced_context_hash", "string", "context after a patch, else null"),
        _c("enforced_slice_hash", "string", "slice after a patch, else null"),
        _c(
            "enforced_determining",
            "list<string>",
            "policies that determined the second evaluation, sorted",
            required=True,
        ),
        _c("action_hash", "string", "hash of what would be enforced: grants bind to it; null: nothing would"),
        _c("engine", "string", "who evaluated: name and version", required=True),
        _c("effect", "string", "read | idempotent | staged | compensable, as the tool declares"),
        _c("writes", "list<string>", "entities the action writes, sorted; null: undeclared, so its resource"),
        _c("grants", "list<string>", "ids of the grants this decision consumed, sorted; null: none"),
        _c(
            "approval",
            "string",
            "of a resumed decision, JSON: `approval` as policies saw it, `lifted` policy ids, `approval_id`, "
            "`action_hash` that was approved, `refusal` why it could not be used; null: none",
        ),
        _c(
            "latency_us",
            "int64",
            "from request to decision, microseconds; ledger commit excluded",
            required=True,
        ),
        *_CHAIN,
    ),
)

ExecutionStatus = Literal[
    "succeeded", "failed", "cancelled", "aborted", "compensated", "expired", "denied", "in_doubt"
]
"""What became of a decision. `succeeded` and `failed` ran (a tool that raised may have had its effect before);
`cancelled` only read, and was interrupted (in version 1: any call); `compensated` ran and was undone; `aborted`,
`expired`, `denied` did not take effect; `in_doubt` may have. A decision may have several: the last one holds."""

OUTCOMES = Table(
    name="outcomes",
    doc="What happened, and labels that arrive later. One row an event; a decision may have several.",
    key="outcome_id",
    partition_by=("tenant",),
    columns=(
        _c("outcome_id", "string", "UUID v7", required=True),
        _c("kind", "string", "execution | label | approval", required=True),
        _c("decision_id", "string", "null: the label is of the whole session"),
        _c("session_id", "string", "", required=True),
        _c("tenant", "string", "", required=True),
        _c("recorded_at", "timestamp", "when the row was written", required=True),
        _c(
            "status",
            "string",
            "of an execution: see `ExecutionStatus`",
        ),
        _c("started_at", "timestamp", "when the tool was called"),
        _c("ended_at", "timestamp", "when it returned or raised"),
        _c(
            "result",
            "string",
            "JSON of the result, or its first KiB if above 32 KiB; null: not stored",
        ),
        _c("result_hash", "string", "content address of the whole result; null: `none` was asked"),
        _c("result_bytes", "int64", "size of the whole result's JSON"),
        _c("result_storage", "string", "full | hash | none, as the tool declares"),
        _c("error_type", "string", "Python class of what the tool raised"),
        _c("error_message", "string", ""),
        _c("label", "string", "name of the label: origin, utility, security, chargeback …"),
        _c("value", "string", "its value"),
        _c("source", "string", "who says so: runtime, agentdojo, a person"),
        _c("reason_code", "string", "of an execution: why it ended so, see `runtime.lifecycle.ENDINGS`"),
        _c("guards", "string", "what output guards said, in order, JSON: [{guard, passed, reason}]"),
        _c("cost_micros", "int64", "what the call cost, millionths of the currency; null: not reported"),
        _c("input_tokens", "int64", "as OpenTelemetry's gen_ai.usage.input_tokens; null: not reported"),
        _c("output_tokens", "int64", "as gen_ai.usage.output_tokens; null: not reported"),
        _c("details", "string", "of an approval: who, how authenticated, for which action; JSON"),
        *_CHAIN,
    ),
)

POLICIES = Table(
    name="policies",
    doc="Every file of every bundle, by version.",
    key="row_hash",
    content_addressed=True,
    columns=(
        _c("row_hash", "string", "hash of bundle_version and file", required=True),
        _c("bundle_version", "string", "", required=True),
        _c("policy_hash", "string", "", required=True),
        _c("context_spec_hash", "string", "", required=True),
        _c("limits_hash", "string", "", required=True),
        _c("name", "string", "folder name of the bundle when first used", required=True),
        _c("file", "string", "path inside the bundle, `/` between parts", required=True),
        _c("text", "string", "the file, UTF-8, LF", required=True),
    ),
)

CONTEXTS = Table(
    name="contexts",
    doc="Compiled contexts: facts with provenance, content-addressed. Cedar's context is these facts plus "
    "`args`, `now`, `scopes`, `session`, `tenant`, `on_behalf_of` of the decision row.",
    key="context_hash",
    content_addressed=True,
    columns=(
        _c("context_hash", "string", "SHA-256 of `context`", required=True),
        _c("context", "string", "canonical JSON: {facts: {name: record}, spec: hash}", required=True),
    ),
)

ENTITIES = Table(
    name="entities",
    doc="Entities by content.",
    key="entity_hash",
    content_addressed=True,
    columns=(
        _c("entity_hash", "string", "SHA-256 of `entity`", required=True),
        _c("uid_type", "string", "", required=True),
        _c("uid_id", "string", "", required=True),
        _c("entity", "string", "canonical Cedar entity JSON: uid, attrs, parents, tags", required=True),
    ),
)

SLICES = Table(
    name="slices",
    doc="Which entities a decision was made with.",
    key="slice_hash",
    content_addressed=True,
    columns=(
        _c("slice_hash", "string", "SHA-256 of the canonical list of entity hashes", required=True),
        _c("entity_hashes", "list<string>", "sorted", required=True),
    ),
)

BLOBS = Table(
    name="blobs",
    doc="Results above 32 KiB.",
    key="blob_hash",
    content_addressed=True,
    columns=(
        _c("blob_hash", "string", "SHA-256 of `data`", required=True),
        _c("bytes", "int64", "size in UTF-8", required=True),
        _c("data", "string", "JSON text", required=True),
    ),
)

ALIASES = Table(
    name="aliases",
    doc="Append-only log of names for bundle versions; the last row of a name holds.",
    key="row_id",
    columns=(
        _c("row_id", "string", "UUID v7", required=True),
        _c("alias", "string", "champion, challenger …", required=True),
        _c("bundle_version", "string", "", required=True),
        _c(
            "previous_version",
            "string",
            "compare-and-set: what held before; null: nothing",
        ),
        _c("actor", "string", "", required=True),
        _c("reason", "string", "", required=True),
        _c("at", "timestamp", "", required=True),
    ),
)

SCORES = Table(
    name="scores",
    doc="Scores of replayed decisions and sessions, one row a (replay, decision or session, metric).",
    key="row_id",
    columns=(
        _c("row_id", "string", "UUID v7", required=True),
        _c("replay_id", "string", "", required=True),
        _c("tenant", "string", "", required=True),
        _c("session_id", "string", "", required=True),
        _c("decision_id", "string", "null: the score is of the whole session"),
        _c("metric", "string", "", required=True),
        _c("metric_version", "string", "", required=True),
        _c("score", "float64", "null: the metric could not be computed (see error)"),
        _c("success", "bool", "score reached the metric's threshold; null with `score`"),
        _c("reason", "string", ""),
        _c("error", "string", "why there is no score"),
        _c("case_hash", "string", "content address of what was scored", required=True),
        _c("actor", "string", "who scored", required=True),
        _c("at", "timestamp", "", required=True),
    ),
)

REPLAYS = Table(
    name="replays",
    doc="Saved replays, one row each: what was pinned, and the digest it must reproduce.",
    key="replay_id",
    columns=(
        _c("replay_id", "string", "UUID v7", required=True),
        _c(
            "pins",
            "string",
            "JSON: last position by ledger, bundle, context, engine",
            required=True,
        ),
        _c("digest", "string", "order-independent digest of the rows", required=True),
        _c("rows", "int64", "", required=True),
        _c("actor", "string", "", required=True),
        _c("at", "timestamp", "", required=True),
    ),
)

TABLES: tuple[Table, ...] = (
    POLICIES, ENTITIES, SLICES, CONTEXTS, BLOBS, DECISIONS, OUTCOMES, ALIASES, SCORES, REPLAYS,
)  # fmt: skip
"""Every table. The drained ones come first, in drain order: no row refers to a missing one."""

DRAINED: tuple[Table, ...] = TABLES[:7]
"""Tables the runtime writes, in the order it drains them."""
