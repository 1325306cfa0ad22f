"""A group whose rows are prepared one by one by the runtime's own code: the fold over columns meets its oracle."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from functools import cached_property
from typing import TYPE_CHECKING, Any

import cedarpy
import polars as pl
import pytest

from runtime.bundle import Bundle, bundle_from_files
from runtime.canonical import NotCanonical, canonical, parse
from runtime.cedar import ask_batch
from runtime.context import compile_context
from runtime.entities import EntityUid
from runtime.policy import Decision, Prepared
from runtime.prepare import prepare
from runtime.request import Request, ResourceTemplate
from runtime.schema import EntityRef, Extension, Primitive, Record
from runtime.sources import CallableSource
from workbench.atoms import atoms_of
from workbench.columnar.decoding import Extended, Ref, decode
from workbench.columnar.json_leaves import take_leaves, written
from workbench.history.fold import fold
from workbench.rows import Job, RowEngine, Undecided

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from runtime.policy import Case
    from runtime.schema import CedarType
    from workbench.columnar.json_leaves import Leaves

SCHEMA = """
entity Team;
entity Agent in [Team] = { level?: Long, cap?: decimal, boss?: Agent };
entity Order = { owner?: String, open?: Bool };
action "refund" appliesTo { principal: [Agent], resource: [Order], context: {
  args: {
    order_id: String, amount: Long, note?: String, rate?: decimal, @scaled("price*100") price_cents?: Long,
    who?: Agent, tags?: Set<String>, box: { size?: Long },
    opts?: { fast?: Bool, label?: String, deep?: { n?: Long } }, odd?: { must: { n?: Long }, x?: Long }
  },
  order?: { refundable: Long, owner?: String, rate?: decimal, flag?: Bool, when?: datetime, agent?: Agent },
  extra?: { n: Long }, more?: { n: Long }
} };
"""
SPEC = """
[sources.orders]
kind = "callable"
[sources.agents]
kind = "callable"
[[facts]]
name = "order"
actions = ["refund"]
source = "orders"
key = { id = "args.order_id" }
fields = ["refundable", "owner", "rate", "flag", "when", "agent"]
shared = true
[[facts]]
name = "agent"
actions = ["refund"]
source = "agents"
key = { id = "principal.id" }
fields = ["level", "cap", "boss"]
into = "principal"
shared = true
[[facts]]
name = "thing"
actions = ["refund"]
source = "orders"
key = { id = "resource.id" }
fields = ["owner"]
into = "resource"
shared = true
"""
PERMIT = '@id("permit") permit (principal, action, resource);\n'
ORDERS: dict[str, dict[str, Any]] = {
    "o1": {"refundable": 100, "owner": "ana", "rate": "2.5", "flag": True, "agent": "bo"},
    "o2": {"refundable": 2**53 + 1, "owner": 'a "b"\\ \n é', "rate": "-0.0500", "when": "2026-11-22"},
    "o3": {"refundable": 0, "owner": "", "rate": "7", "flag": False},
    "o4": {"refundable": -5, "rate": "922337203685477.5807"},
}
AGENTS: dict[str, dict[str, Any]] = {"bot": {"level": 3, "cap": "10.0001", "boss": "ana"}, "new": {}}
_KINDS = {"Long": "long", "Bool": "bool", "String": "string"}


def bundle_of(policies: str, more: str = "") -> Bundle:
    """A bundle of these policies, beside a permit of everything unless they hold one; `more` arguments."""
    text = policies if "permit" in policies else PERMIT + policies
    schema = SCHEMA.replace("order_id: String,", f"order_id: String, {more}")
    return bundle_from_files({"p.cedar": text, "schema.cedarschema": schema, "context.toml": SPEC}, "test")


def request_of(args: dict[str, Any], step: int, principal: str) -> Request:
    return Request(
        decision_id=f"d{step}",
        session_id="s",
        step=step,
        tenant="acme",
        principal=EntityUid("Agent", principal),
        on_behalf_of=None,
        scopes=("refunds",),
        tool="refund",
        resource=ResourceTemplate.parse("Order::{order_id}"),
        required_scopes=(),
        args=args,
        idempotency_key=None,
        at=datetime(2026, 11, 22, 10, tzinfo=UTC) + timedelta(milliseconds=step),
        session_state={"calls": step},
    )


@dataclass
class ByRow:
    """`workbench.history.fold.Group` over requests; masks are made of what `cedarpy` says of each row alone."""

    bundle: Bundle
    requests: Sequence[Request]
    missing: tuple[str, ...] = ()
    bound: frozenset[str] = frozenset({"order_id"})
    record: Record = field(init=False)
    asked: list[tuple[str, tuple[str, ...]]] = field(default_factory=list)

    def __post_init__(self) -> None:
        declared = self.bundle.schema.actions["refund"].context.attrs["args"].type
        assert isinstance(declared, Record)
        self.record = declared

    def prepared(self, row: int, args: Mapping[str, Any]) -> Prepared:
        """The stages before policy, as the runtime goes through them."""
        sources = {
            "orders": CallableSource(lambda where: ORDERS.get(str(where["id"]))),
            "agents": CallableSource(lambda where: AGENTS.get(str(where["id"]))),
        }

        def facts(request: Request, resource: EntityUid) -> Any:
            return compile_context(self.bundle.spec, sources, request, resource)

        return replace(prepare(self.requests[row], args, self.bundle, facts), missing=self.missing)

    @cached_property
    def cases(self) -> list[Case]:
        return [_case(self.prepared(row, request.args)) for row, request in enumerate(self.requests)]

    @cached_property
    def args(self) -> pl.Series:
        return pl.Series(
            "args", [canonical(dict(request.args)) for request in self.requests], dtype=pl.String
        )

    @cached_property
    def leaves(self) -> Leaves:
        return take_leaves(self.args, self.record, form="arguments")

    @property
    def height(self) -> int:
        return len(self.requests)

    @property
    def policy_ids(self) -> Sequence[str]:
        return sorted(self.bundle.policies, reverse=True)

    @property
    def atom_ids(self) -> Sequence[str]:
        return sorted({atom.id for atom in atoms_of(self.bundle).every})

    def masks(self) -> pl.DataFrame:
        return self.evaluated(self.cases)

    def atoms(self) -> pl.DataFrame:
        return self.told(self.cases)

    def again(self, rows: pl.Series, leaves: Leaves) -> tuple[pl.DataFrame, pl.DataFrame]:
        found = self.patched(rows, leaves)
        refused = [(i, each.refusal.message) for i, each in enumerate(found) if each.refusal]
        cases = [self.cases[0] if each.refusal else _case(each) for each in found]
        bad = pl.DataFrame(refused, schema={"row": pl.UInt32, "reason": pl.String}, orient="row")
        return self.evaluated(cases), bad

    def atoms_again(self, rows: pl.Series, leaves: Leaves) -> pl.DataFrame:
        found = self.patched(rows, leaves)
        cases = [self.cases[0] if each.refusal else _case(each) for each in found]
        return self.told(cases)

    def patched(self, rows: pl.Series, leaves: Leaves) -> list[Prepared]:
        texts = written(leaves, self.record, form="arguments")
        assert len(texts) == len(rows) == leaves.frame.height
        return [self.prepared(row, _object(text)) for row, text in zip(rows, texts, strict=True)]

    def evaluated(self, cases: Sequence[Case]) -> pl.DataFrame:
        """Masks over the policies: permits and forbids asked apart, so that Cedar lists all that are satisfied."""
        permits = frozenset(i for i, policy in self.bundle.policies.items() if policy.effect == "permit")
        forbids = frozenset(self.bundle.policies) - permits
        return self.asked_of(
            cases, [self.bundle.without(permits), self.bundle.without(forbids)], self.policy_ids
        )

    def told(self, cases: Sequence[Case]) -> pl.DataFrame:
        return self.asked_of(cases, [atoms_of(self.bundle).engine], self.atom_ids)

    def asked_of(
        self, cases: Sequence[Case], sets: Sequence[cedarpy.PolicySet], ids: Sequence[str]
    ) -> pl.DataFrame:
        schema = self.bundle.cedar_schema
        satisfied, errored = [], []
        for case in cases:
            store = cedarpy.Entities.from_json_str(case.slice.text, schema)
            answers = [ask_batch([case], store, policies, schema)[0] for policies in sets]
            assert all(answer.decision != "NoDecision" for answer in answers)
            satisfied.append(sum(1 << ids.index(each) for answer in answers for each in answer.reasons))
            errored.append(sum(1 << ids.index(each.policy) for answer in answers for each in answer.errors))
        columns = {"satisfied_0": satisfied, "errored_0": errored}
        return pl.DataFrame(columns, schema=dict.fromkeys(columns, pl.UInt64))

    def value(self, root: str, path: tuple[str, ...]) -> tuple[pl.Series, str] | None:
        self.asked.append((root, path))
        type_: CedarType | None = self._root(root)
        for name in path:
            inner = type_.attrs.get(name) if isinstance(type_, Record) else None
            type_ = None if inner is None else inner.type
        if type_ is None or (kind := _kind(type_)) is None:
            return None
        values = [_found(self._values(case, root), path, type_) for case in self.cases]
        dtype = {"string": pl.String, "bool": pl.Boolean}.get(kind, pl.Int64)
        return pl.Series("", values, dtype=pl.String if kind.startswith("entity ") else dtype), kind

    def _root(self, root: str) -> Record:
        schema = self.bundle.schema
        types = {"principal": "Agent", "resource": "Order"}
        return (
            schema.actions["refund"].context if root == "context" else schema.entity_types[types[root]].attrs
        )

    @staticmethod
    def _values(case: Case, root: str) -> Any:
        if root == "context":
            return case.context
        uid = case.principal if root == "principal" else case.resource
        return next((entity.attrs for entity in case.slice.entities if entity.uid == uid), {})

    def oracle(self) -> list[dict[str, Any]]:
        """What the row engine says of every row."""
        jobs = [
            Job(request, self.bundle, lambda args, row=row: self.prepared(row, args))  # type: ignore[misc]  # the loop's own row
            for row, request in enumerate(self.requests)
        ]
        try:
            return [_expected(result) for result in RowEngine().run(jobs)]
        except NotCanonical:  # a row that `runtime.patches` does not take: it must have been handed over
            return [_alone(job) for job in jobs]


def _case(prepared: Prepared) -> Case:
    assert prepared.refusal is None, prepared.refusal
    assert prepared.case is not None
    return prepared.case


def _object(text: str) -> dict[str, Any]:
    found = parse(text)
    assert isinstance(found, dict)
    return found


def _kind(type_: CedarType) -> str | None:
    match type_:
        case Primitive(name):
            return _KINDS[name]
        case Extension(name):
            return name
        case EntityRef(type=name):
            return f"entity {name}"
        case _:
            return None


def _found(value: Any, path: tuple[str, ...], type_: CedarType) -> Any:
    for name in path:
        if not isinstance(value, dict) or name not in value:
            return None
        value = value[name]
    match decode(value, type_):
        case Extended(payload=payload):
            return payload
        case Ref(id=ident):
            return ident
        case plain:
            return plain


def _alone(job: Job) -> dict[str, Any]:
    try:
        return _expected(RowEngine().run([job])[0])
    except NotCanonical:
        return {"status": "raises"}


def _expected(result: Decision | Undecided) -> dict[str, Any]:
    if isinstance(result, Undecided):
        return {"status": "undecided"}
    reason, answer = result.reason, result.answer
    assert answer is not None
    for fault in result.errors:
        reason = reason.replace(f": {fault.message}", "")
    args = result.enforced_args
    return {
        "status": "decided",
        "verdict": result.verdict,
        "decided_by": result.decided_by,
        "reason_code": result.reason_code,
        "reason": reason,
        "cedar_decision": answer.decision,
        "cedar_reasons": list(answer.reasons),
        "determining": list(result.determining),
        "enforced_determining": list(result.enforced_determining),
        "errors": sorted({fault.policy for fault in result.errors}),
        "enforced_args": None if args is None else canonical(dict(args)),
    }


@dataclass
class Folding:
    """Folds requests in columns and row by row."""

    bundle: Bundle
    missing: tuple[str, ...] = ()
    group: ByRow = field(init=False)

    def __call__(self, *rows: dict[str, Any], principal: str = "bot") -> list[dict[str, Any]]:
        """Fold rows of arguments, hold every row that is not handed over against the row engine, and return them."""
        given = [{"order_id": "o1", "amount": 5, "box": {}} | row for row in rows]
        requests = [request_of(args, i, principal) for i, args in enumerate(given)]
        self.group = ByRow(self.bundle, requests, self.missing)
        found = fold(self.group)
        assert found.height == len(rows)
        for row, expected in zip(found.iter_rows(named=True), self.group.oracle(), strict=True):
            if row["status"] != "handed_over":
                nothing = dict.fromkeys(row)
                assert row == nothing | expected
            else:
                assert row["why"]
                assert row == dict.fromkeys(row) | {"status": "handed_over", "why": row["why"]}
        return list(found.iter_rows(named=True))


@pytest.fixture(scope="session")
def folding() -> Any:
    """Makes a `Folding` of policies' texts."""
    return lambda policies, *missing, more="": Folding(bundle_of(policies, more), missing)


@pytest.fixture(scope="session")
def modify() -> Any:
    """Makes the text of a `modify` policy: id, patch, condition."""

    def made(ident: str, patch: Any, when: str = "true") -> str:
        text = canonical(patch).replace("\\", "\\\\").replace('"', '\\"')
        head = f'@id("{ident}") @verdict("modify") @patch("{text}")'
        return f"{head} forbid (principal, action, resource) when {{ {when} }};\n"

    return made
