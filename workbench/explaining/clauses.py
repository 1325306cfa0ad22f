"""Policies as clauses: the parts of a scope and the conjuncts of each `when` and `unless`, with where they stand.

One rule: a line is told only where the text and Cedar agree. The text is cut into pieces by its tokens; every piece
is parsed by Cedar, and what the pieces say together must be what the policy says. Where it is not, the clauses are
Cedar's own, and their lines are unknown.

Conjuncts are flattened, however they are bracketed: `&&` is associative, errors and laziness included. An `||` is one
clause with its operands as children, an `&&` among those likewise; `!`, `if` and comparisons are not taken apart.
A part of a scope that holds for everything (`principal`) is no clause. Links share their template's clauses.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any, Literal

import cedarpy
from cedarpy import pst

from runtime.chains import bracketed, operands
from runtime.literals import quoted
from workbench.columnar.policies import document_tree
from workbench.explaining.cutting import Piece, cut, one_line
from workbench.memo import remembered

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from runtime.bundle import Bundle, PolicyInfo

Place = Literal["principal", "action", "resource", "when", "unless"]
"""Where in its policy a clause stands."""

Op = Literal["one", "or", "and"]
"""`or` and `and` have children; `one` is evaluated as a whole."""

SCOPE: tuple[Literal["principal", "action", "resource"], ...] = ("principal", "action", "resource")
"""In the order in which Cedar evaluates them."""

_OPERATORS: Mapping[Op, str] = {"and": "&&", "or": "||"}
_ANYTHING: Mapping[str, Any] = {
    "effect": "permit", "principal": {"op": "All"}, "action": {"op": "All"}, "resource": {"op": "All"},
}  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class Clause:
    """One condition of a policy."""

    policy: str
    """`@id` of the text it stands in; of linked policies, the template's."""
    key: str
    """Its place in the policy: `action`, `1.2` (first body, second conjunct), `1.2.1` (its first operand)."""
    place: Place
    op: Op = "one"
    text: str
    """Cedar as written, on one line, comments left out; as Cedar writes it where it is not found in the text."""
    file: str
    line: int | None
    """First line in the file, from 1; None: not known."""
    end_line: int | None
    span: tuple[int, int] | None
    """First character and the one after the last, in the policy's text; None: not known."""
    body: Mapping[str, Any] = field(compare=False, repr=False)
    """Cedar's JSON form: of the expression, or of the scope's part."""
    expr: pst.Expr | None = field(compare=False, repr=False)
    """The expression; None: a part of the scope."""
    children: tuple[Clause, ...] = ()

    @property
    def id(self) -> str:
        """Names it in its bundle: `limit:1.2`."""
        return f"{self.policy}:{self.key}"

    @property
    def is_scope(self) -> bool:
        """Whether it is a part of the scope; those have no errors."""
        return self.expr is None

    def walk(self) -> Iterator[Clause]:
        """Yield the clause, then what it is made of, in the order of the text."""
        yield self
        for child in self.children:
            yield from child.walk()


@dataclass(frozen=True, slots=True, kw_only=True)
class Body:
    """One `when { … }` or `unless { … }`."""

    kind: Literal["when", "unless"]
    clauses: tuple[Clause, ...]
    """Its conjuncts: a `when` holds if all of them do, an `unless` keeps a policy off if all of them do."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PolicyClauses:
    """One policy that decides, as clauses."""

    id: str
    """Of the policy; of a linked one, the link's."""
    info: PolicyInfo = field(repr=False)
    scope: tuple[Clause, ...]
    bodies: tuple[Body, ...]
    template: pst.Template = field(compare=False, repr=False)
    """Its syntax tree, slots not filled in."""
    slots: Mapping[pst.SlotName, pst.EntityUid] = field(compare=False, repr=False)

    @property
    def source(self) -> str:
        """`@id` of its text: its own, or its template's."""
        return self.info.annotations.get("id", self.id)

    @property
    def top(self) -> tuple[Clause, ...]:
        """Scope and conjuncts, in the order of evaluation."""
        return (*self.scope, *(clause for body in self.bodies for clause in body.clauses))

    def walk(self) -> Iterator[Clause]:
        """Yield every clause, children after what they belong to."""
        for clause in self.top:
            yield from clause.walk()


@dataclass(frozen=True, kw_only=True, repr=False)
class Clauses:
    """The policies of a bundle, as clauses."""

    policies: Mapping[str, PolicyClauses]
    """By id of what decides, links apart; in the order of the bundle."""

    @cached_property
    def places(self) -> tuple[tuple[str, Clause], ...]:
        """Every (policy id, clause), children included: the order of columns of truths."""
        return tuple((ident, clause) for ident, each in self.policies.items() for clause in each.walk())

    @cached_property
    def texts(self) -> tuple[Clause, ...]:
        """Every clause once, those of templates, too: what a coverage tool has lines for."""
        return tuple({clause.id: clause for _, clause in self.places}.values())


_known: dict[str, Clauses] = {}


def clauses_of(bundle: Bundle) -> Clauses:
    """Take a bundle's policies apart into clauses; kept by policy hash.

    Raises:
        ValueError: a policy nests deeper than Cedar's syntax tree goes (100 levels).

    Cost: a parse a clause, about 0.1 ms each.
    """
    return remembered(_known, bundle.policy_hash, lambda: _clauses(bundle))


def _clauses(bundle: Bundle) -> Clauses:
    tree = document_tree(bundle.document)
    links = {link.new_id: link for link in tree.template_links}
    made: dict[str, tuple[tuple[Clause, ...], tuple[Body, ...]]] = {}
    found = {}
    for ident, info in bundle.policies.items():
        link = links.get(ident)
        source = ident if link is None else link.template_id
        json_of = bundle.document["staticPolicies" if link is None else "templates"][source]
        if source not in made:
            made[source] = _of_text(source, info, json_of)
        scope, bodies = made[source]
        template = tree.static_policies[ident] if link is None else tree.templates[source]
        slots = {} if link is None else link.values
        found[ident] = PolicyClauses(
            id=ident, info=info, scope=scope, bodies=bodies, template=template, slots=slots
        )
    return Clauses(policies=found)


def _of_text(
    source: str, info: PolicyInfo, policy: Mapping[str, Any]
) -> tuple[tuple[Clause, ...], tuple[Body, ...]]:
    """The clauses of one policy or template, expressions filled in."""
    text = _Text(source, info)
    pieces = cut(info.text)
    scope = tuple(text.scope(policy, () if pieces is None else pieces.scope))
    bodies = []
    written = [] if pieces is None else pieces.bodies
    sides = written if len(written) == len(policy["conditions"]) else [None] * len(policy["conditions"])
    for number, (condition, piece) in enumerate(zip(policy["conditions"], sides, strict=True), 1):
        bodies.append(Body(kind=condition["kind"], clauses=tuple(text.body(condition, piece, str(number)))))
    return scope, _with_exprs(bodies)


@dataclass(frozen=True, slots=True)
class _Text:
    """The text of one policy, whose clauses are being made."""

    source: str
    info: PolicyInfo

    def scope(self, policy: Mapping[str, Any], pieces: Sequence[Piece]) -> Iterator[Clause]:
        """Yield the parts of the scope that constrain."""
        sides: Sequence[Piece | None] = pieces if len(pieces) == len(SCOPE) else [None] * len(SCOPE)
        for name, piece in zip(SCOPE, sides, strict=True):
            body = policy[name]
            if body["op"] != "All":
                there = piece if piece is not None and self._says_scope(name, piece, body) else None
                yield self._clause(name, name, body, there)

    def _says_scope(self, name: str, piece: Piece, body: Mapping[str, Any]) -> bool:
        parts = (piece.of(self.info.text) if each == name else each for each in SCOPE)
        found = _parsed(f"permit ({', '.join(parts)}\n);")
        return found is not None and bool(found[name] == body)

    def body(self, condition: Mapping[str, Any], piece: Piece | None, key: str) -> Iterator[Clause]:
        """Yield the conjuncts of a `when` or `unless`."""
        conjuncts = operands("&&", condition["body"])
        parts = None if piece is None else self._agreeing("and", piece.conjuncts, conjuncts)
        if parts is None:  # Cedar's own, wherever they stand
            parts = [(None, each) for each in conjuncts]
        for number, (there, body) in enumerate(parts, 1):
            yield self._made(condition["kind"], f"{key}.{number}", there, body)

    def _agreeing(
        self, op: Op, pieces: Sequence[Piece], wanted: Sequence[Any]
    ) -> list[tuple[Piece | None, Any]] | None:
        """Each piece with what Cedar reads it as; None: together they do not say what is wanted."""
        bodies = [_expression(piece.of(self.info.text)) for piece in pieces]
        if any(body is None for body in bodies):
            return None
        flat = [each for body in bodies for each in operands(_OPERATORS[op], body)]
        return list(zip(pieces, bodies, strict=True)) if flat == list(wanted) else None

    def _made(self, place: Place, key: str, piece: Piece | None, body: Any) -> Clause:
        """A clause, and the operands it is made of."""
        op = _op_of(body, piece)
        children: list[tuple[Piece | None, Any]] | None = None
        if op != "one":
            wanted = operands(_OPERATORS[op], body)
            if piece is None:
                children = [(None, each) for each in wanted]
            else:
                children = self._agreeing(op, piece.operands(op), wanted)
        clause = self._clause(place, key, body, piece)
        if children is None or len(children) < 2:  # noqa: PLR2004 - an operator has two operands
            return clause
        made = (self._made(place, f"{key}.{n}", there, each) for n, (there, each) in enumerate(children, 1))
        return replace(clause, op=op, children=tuple(made))

    def _clause(self, place: Place, key: str, body: Any, piece: Piece | None) -> Clause:
        line = end = span = None
        if piece is None:
            text = _scope_text(place, body) if place in SCOPE else _written(body)
        else:
            source, span = self.info.text, (piece.start, piece.end)
            text = one_line(piece.of(source))
            line = self.info.line + source.count("\n", 0, piece.start)
            end = self.info.line + source.count("\n", 0, piece.end)
        return Clause(
            policy=self.source, key=key, place=place, text=text, file=self.info.file, line=line,
            end_line=end, span=span, body=body, expr=None,
        )  # fmt: skip


def _op_of(body: Any, piece: Piece | None) -> Op:
    """Which operator a clause is of; `has a.b` is an `&&` to Cedar, and one thing as written."""
    if len(body) != 1:
        return "one"
    if "&&" in body and (piece is None or len(piece.operands("and")) > 1):
        return "and"
    return "or" if "||" in body else "one"


def _with_exprs(bodies: Sequence[Body]) -> tuple[Body, ...]:
    """Bodies whose clauses have their expressions: one syntax tree for all of a policy's."""
    every = [clause for body in bodies for top in body.clauses for clause in top.walk()]
    alone = {
        clause.key: {**_ANYTHING, "conditions": [{"kind": "when", "body": clause.body}]} for clause in every
    }
    document = {"staticPolicies": alone, "templates": {}, "templateLinks": []}
    found = document_tree(document).static_policies if alone else {}
    exprs = {key: template.clauses[0].expr for key, template in found.items()}

    def filled(clause: Clause) -> Clause:
        return replace(clause, expr=exprs[clause.key], children=tuple(map(filled, clause.children)))

    return tuple(replace(body, clauses=tuple(map(filled, body.clauses))) for body in bodies)


def _parsed(text: str) -> dict[str, Any] | None:
    """Cedar's JSON form of one policy; None: it is none."""
    try:
        document = json.loads(cedarpy.policies_to_json_str(text))
    except ValueError:
        return None
    found = [*document["staticPolicies"].values(), *document["templates"].values()]
    return found[0] if len(found) == 1 else None


def _expression(text: str) -> Any | None:
    """Cedar's JSON form of an expression; None: it is none."""
    found = _parsed(f"permit (principal, action, resource) when {{ {text}\n}};")
    if found is None or len(found["conditions"]) != 1:
        return None
    return found["conditions"][0]["body"]


def _scope_text(name: str, body: Mapping[str, Any]) -> str:
    """A part of a scope as Cedar writes it."""
    match body:
        case {"op": "is", "entity_type": kind, "in": inner}:
            return f"{name} is {kind} in {_target(inner)}"
        case {"op": "is", "entity_type": kind}:
            return f"{name} is {kind}"
        case {"op": op, "entities": [*many]}:
            return f"{name} {op} [{', '.join(_uid(each) for each in many)}]"
        case _:
            return f"{name} {body['op']} {_target(body)}"


def _target(body: Mapping[str, Any]) -> str:
    return str(body["slot"]) if "slot" in body else _uid(body["entity"])


def _uid(entity: Mapping[str, str]) -> str:
    return f"{entity['type']}::{quoted(entity['id'])}"


def _written(body: Any) -> str:
    """An expression as Cedar writes it."""
    policy = {**_ANYTHING, "conditions": [{"kind": "when", "body": body}]}
    document = {"staticPolicies": {"policy0": policy}, "templates": {}, "templateLinks": []}
    text = cedarpy.policies_from_json_str(json.dumps(bracketed(document)))
    return one_line(text[text.index("{") + 1 : text.rindex("}")])
