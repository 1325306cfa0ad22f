"""Policies taken apart: trees of `&&`, `||`, `!`, `if` over atoms that Cedar can be asked one by one.

One rule: the tree over its atoms is the policy. `scope && when && !unless && …` keeps Cedar's order, in which a part
is only evaluated where the parts before it let Cedar get there.
"""

from __future__ import annotations

from dataclasses import dataclass, fields, is_dataclass, replace
from typing import TYPE_CHECKING

import cedarpy
from cedarpy import pst

from workbench.columnar.policies import document_tree, filled
from workbench.memo import remembered

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from runtime.bundle import Bundle

Path = tuple[str, ...]
"""An attribute chain, `("context", "order", "cents")`."""


@dataclass(frozen=True, slots=True)
class Atom:
    """A boolean expression that is answered as a whole."""

    id: str
    reads: frozenset[Path]
    """Attribute chains it reads the value of, `("context", "order", "cents")`."""
    asks: frozenset[Path]
    """Chains it asks the presence of, by `has`."""
    has: frozenset[Path]
    """The same, if the atom is nothing but one `has`."""
    hierarchy: frozenset[str]
    """Roots whose ancestors it may read."""


@dataclass(frozen=True, slots=True)
class Node:
    """`and`, `or`, `not`, `if` over nodes and atoms."""

    op: str
    parts: tuple[Node | Atom, ...]


@dataclass(frozen=True, slots=True)
class Atoms:
    """A policy set taken apart."""

    trees: Mapping[str, Node | Atom]
    """By policy id."""
    engine: cedarpy.PolicySet
    """One permit an atom, keyed by the atom's id: satisfied means true, in error means error."""
    ancestors: frozenset[str]
    """Which of `principal` and `resource` some policy may ask the ancestors of."""
    every: tuple[Atom, ...]


_atoms: dict[str, Atoms] = {}


def atoms_of(bundle: Bundle) -> Atoms:
    """Take a bundle's policies apart; cached by policy hash."""
    return remembered(_atoms, bundle.policy_hash, lambda: split(document_tree(bundle.document)))


def split(policies: pst.PolicySet) -> Atoms:
    """Take a policy set apart into atoms; not cached."""
    made: dict[str, pst.Template] = {}
    trees = {ident: _tree_of(policy, made) for ident, policy in _linked(policies)}
    engine = cedarpy.PolicySet.from_pst(pst.PolicySet(templates={}, static_policies=made, template_links=()))
    every = tuple(leaf for tree in trees.values() for leaf in leaves_of(tree))
    return Atoms(trees, engine, frozenset().union(*(atom.hierarchy for atom in every)), every)


def _linked(policies: pst.PolicySet) -> Iterator[tuple[str, pst.Template]]:
    """Every policy that decides, by id, slots filled."""
    yield from policies.static_policies.items()
    for link in policies.template_links:
        yield link.new_id, filled(policies.templates[link.template_id], link.values)


def _tree_of(policy: pst.Template, made: dict[str, pst.Template]) -> Node | Atom:
    """`scope && when && !unless && …`, in order."""
    roots = frozenset(
        root
        for root in ("principal", "resource")
        if isinstance(getattr(policy, root), pst.ScopeIn | pst.ScopeIsIn)
    )
    scope = replace(policy, effect="permit", clauses=(), annotations={})
    tree: Node | Atom = Atom(_keep(scope, made), frozenset(), frozenset(), frozenset(), roots)
    for clause in policy.clauses:
        part = _tree(clause.expr, made)
        tree = Node("and", (tree, part if isinstance(clause, pst.When) else Node("not", (part,))))
    return tree


def _tree(expr: pst.Expr, made: dict[str, pst.Template]) -> Node | Atom:
    match expr:
        case pst.BinaryOp(op="and" | "or" as op, left=left, right=right):
            return Node(op, (_tree(left, made), _tree(right, made)))
        case pst.UnaryOp(op="not", arg=arg):
            return Node("not", (_tree(arg, made),))
        case pst.IfThenElse(cond, then, other):
            return Node("if", tuple(_tree(part, made) for part in (cond, then, other)))
        case _:
            return _atom(expr, made)


def _atom(expr: pst.Expr, made: dict[str, pst.Template]) -> Atom:
    anything = pst.Template(
        "", "permit", pst.ScopeAny(), pst.ScopeAny(), pst.ScopeAny(), (pst.When(expr),), {}
    )
    ident = _keep(anything, made)
    alone = _chain(expr.base) if isinstance(expr, pst.HasAttr) else None
    has = (
        frozenset({(*alone, *expr.attrs)})
        if alone is not None and isinstance(expr, pst.HasAttr)
        else frozenset()
    )
    roots = frozenset({"principal", "resource"}) if _reads_ancestors(expr) else frozenset()
    return Atom(ident, frozenset(_reads(expr)), frozenset(_asks(expr)), has, roots)


def atoms_in(expr: pst.Expr) -> tuple[Atom, ...]:
    """Return the atoms of an expression, in order; their ids name nothing outside of it."""
    return tuple(leaves_of(_tree(expr, {})))


def _keep(policy: pst.Template, made: dict[str, pst.Template]) -> str:
    ident = f"atom{len(made)}"
    made[ident] = replace(policy, id=ident)
    return ident


def _chain(expr: object) -> Path | None:
    """`principal.manager.level` as a path; None for anything but a variable and attributes."""
    match expr:
        case pst.Var(name):
            return (name,)
        case pst.GetAttr(base, attr) if (inner := _chain(base)) is not None:
            return (*inner, attr)
        case _:
            return None


def _reads(node: object) -> Iterator[Path]:
    """Every maximal attribute chain below `node` whose value is read."""
    if (whole := _chain(node)) is not None:
        yield whole
        return
    if isinstance(node, pst.HasAttr) and _chain(node.base) is not None:
        return
    if isinstance(node, pst.GetAttr | pst.HasAttr):
        # Of something computed: which entity's or record's attribute it is, is not known here.
        yield ("", *(node.attrs if isinstance(node, pst.HasAttr) else (node.attr,)))
    for child in _children(node):
        yield from _reads(child)


def _asks(node: object) -> Iterator[Path]:
    """Every attribute chain below `node` whose presence is asked."""
    if isinstance(node, pst.HasAttr) and (base := _chain(node.base)) is not None:
        yield (*base, *node.attrs)
    for child in _children(node):
        yield from _asks(child)


def _reads_ancestors(node: object) -> bool:
    match node:
        case pst.BinaryOp(op="in"):
            return True
        case pst.Is(in_expr=within) if within is not None:
            return True
        case _:
            return any(_reads_ancestors(child) for child in _children(node))


def reads_ancestors(bundle: Bundle) -> frozenset[str]:
    """Return which of `principal` and `resource` some policy may ask the ancestors of."""
    return atoms_of(bundle).ancestors


def leaves_of(tree: Node | Atom) -> Iterator[Atom]:
    """Yield a policy's atoms in Cedar's order; the first is its scope."""
    if isinstance(tree, Atom):
        yield tree
    else:
        for part in tree.parts:
            yield from leaves_of(part)


def _children(node: object) -> Iterator[object]:
    if isinstance(node, tuple | list):
        yield from node
    elif isinstance(node, dict):
        yield from node.values()
    elif is_dataclass(node) and not isinstance(node, type):
        yield from (getattr(node, each.name) for each in fields(node))
