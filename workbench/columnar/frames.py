"""Groups of rows that share action, principal type and resource type, and the kernel that decides each.

One rule: within a group everything a policy's types depend on is fixed, so scope constraints fold away and policies
of other actions cost nothing.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple

import polars as pl

from workbench.columnar.compiler import Compiler
from workbench.columnar.layouts import Columns, store, view
from workbench.columnar.lowering import lower
from workbench.columnar.masks import WORD, masks
from workbench.columnar.nodes import FALSE, Node, column, literal
from workbench.columnar.values import RecordData, Unsupported, total

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from cedarpy import pst

    from workbench.columnar.decoding import Decoded, Ref
    from workbench.columnar.layouts import Layout
    from workbench.columnar.lowering import Plan
    from workbench.columnar.policies import Policy
    from workbench.columnar.slices import View
    from workbench.columnar.values import Value
    from workbench.columnar.world import World


__all__ = [
    "WORD",
    "Frame",
    "Group",
    "GroupKey",
    "Kernel",
    "compile_group",
    "frame_of",
    "masks",
    "with_literals",
]


class GroupKey(NamedTuple):
    """What the rows of a group share."""

    action_type: str
    action: int
    """Row of the action in its type's table."""
    principal_type: str
    resource_type: str


@dataclass(slots=True)
class Group:
    """Rows, as they are collected."""

    rows: list[int] = field(default_factory=list)
    principals: list[int] = field(default_factory=list)
    resources: list[int] = field(default_factory=list)
    contexts: list[dict[str, Decoded]] = field(default_factory=list)
    views: list[View] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Frame:
    """A group as typed columns."""

    key: GroupKey
    columns: pl.DataFrame
    """`principal` and `resource` (rows of their tables), and the context's columns."""
    context: Mapping[str, Layout]


@dataclass(frozen=True, slots=True)
class Kernel:
    """The policies of one group, ready to run."""

    plan: Plan
    """Columns `s<n>`, `e<n>` (satisfied, in error) and `u<n>` (in scope, not compiled) by number of the policy."""
    refused: Mapping[int, Unsupported]
    """Policies not compiled, by number."""


def frame_of(key: GroupKey, group: Group) -> Frame:
    """Put a group's rows into typed columns."""
    columns = Columns()
    columns.series["principal"] = pl.Series("principal", group.principals, dtype=pl.UInt32)
    columns.series["resource"] = pl.Series("resource", group.resources, dtype=pl.UInt32)
    names = dict.fromkeys(name for context in group.contexts for name in context)
    layouts = {name: store([c.get(name) for c in group.contexts], name, columns) for name in names}
    return Frame(key, pl.DataFrame(columns.series), layouts)


def compile_group(
    key: GroupKey, context: Mapping[str, Layout], policies: Sequence[Policy], world: World
) -> Kernel:
    """Compile the policies for a group.

    Args:
        key: what is fixed.
        context: where the context's members stand.
        policies: in the order of the masks.
        world: entity tables.
    """
    return kernel_of(_variables(key, context, world), policies, world)


def kernel_of(variables: Mapping[pst.VarName, Value], policies: Sequence[Policy], world: World) -> Kernel:
    """Compile policies over what the variables stand for.

    Args:
        variables: `principal`, `action`, `resource` and `context`.
        policies: in the order of the masks.
        world: entity tables.
    """
    outputs: dict[str, Node] = {}
    refused: dict[int, Unsupported] = {}
    for number, policy in enumerate(policies):
        compiler = Compiler(world, variables, policy.slots)
        try:
            value, error = compiler.policy(policy.template)
        except Unsupported as exc:
            refused[number] = exc
            outputs[f"u{number}"] = compiler.scope(policy.template)
            continue
        outputs |= {f"s{number}": value, f"e{number}": error}
    kept = {name: node for name, node in outputs.items() if node is not FALSE}
    used = {int(name[1:]) for name in kept if name.startswith("u")}
    return Kernel(lower(kept, world.column), {n: exc for n, exc in refused.items() if n in used})


def _variables(key: GroupKey, context: Mapping[str, Layout], world: World) -> dict[pst.VarName, Value]:
    def index(name: str) -> Node:
        return column(name, "code", nullable=False)

    def reader(name: str, dtype: str, nullable: bool) -> Node:  # noqa: FBT001 - the signature of `Reader`
        return column(name, dtype, nullable=nullable)  # type: ignore[arg-type]  # a `DType`, as layouts give it

    members = {name: view(layout, reader, world.entity) for name, layout in context.items()}
    action = world.entity(key.action_type, literal(key.action, "code"))
    code = world.tables[key.action_type].rows[key.action].code
    return {
        "principal": total(world.entity(key.principal_type, index("principal"))),
        "action": total(type(action)(action.type, action.index, literal(code, "code"))),
        "resource": total(world.entity(key.resource_type, index("resource"))),
        "context": total(RecordData(members)),
    }


def with_literals(frame: pl.DataFrame, views: Sequence[View], literals: Mapping[str, Ref]) -> pl.DataFrame:
    """Add the rows of entities that policies name, each as the row's own slice has it."""
    return frame.with_columns(
        pl.Series(name, [seen.nodes[ref] for seen in views], dtype=pl.UInt32)
        for name, ref in literals.items()
    )
