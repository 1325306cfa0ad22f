"""Policies over a part of a chunk: rows whose policies are compiled together, as the fold takes them.

One rule: what a group evaluates is what Cedar would be asked for each of its rows, the row's own facts included; rows
for which the columns do not hold all of it are held back before.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import lru_cache
from typing import TYPE_CHECKING

import polars as pl

from runtime.schema import EntityRef, type_text
from runtime.spec import RESERVED
from workbench.atoms import atoms_of
from workbench.columnar.compiler import literal_column
from workbench.columnar.frames import kernel_of, masks
from workbench.columnar.json_columns import typed
from workbench.columnar.layouts import Layout, ScalarShape, SetShape, view
from workbench.columnar.lowering import lower
from workbench.columnar.nodes import FALSE, TRUE, and_, column, gather
from workbench.columnar.policies import document_tree, read_policies
from workbench.columnar.values import EntityData, Member, RecordData, Scalar, total
from workbench.history.chunk import fact_table
from workbench.history.contexts import fact_column
from workbench.history.facts import with_codes
from workbench.history.holding import Holding
from workbench.history.limiting import amount
from workbench.history.world import HistoryWorld

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from cedarpy import pst

    from runtime.bundle import Bundle
    from runtime.schema import Record
    from workbench.columnar.decoding import Ref
    from workbench.columnar.frames import Kernel
    from workbench.columnar.json_columns import Typed
    from workbench.columnar.json_leaves import Leaves, Path
    from workbench.columnar.nodes import DType, Node
    from workbench.columnar.policies import Policies
    from workbench.columnar.values import Value
    from workbench.history.chunk import Chunk, Part


def _standard(kind: str, name: str) -> Layout:
    return Layout(((None, ScalarShape(kind, name)),), missing=False)  # type: ignore[arg-type]  # a scalar kind


_LAYOUTS: Mapping[str, Layout] = {
    "now": _standard("datetime", "now"),
    "tenant": _standard("string", "tenant"),
    "scopes": Layout(((None, SetShape("string", "scopes")),), missing=False),
}
"""Members of the context that every decision has."""

_LINKED = "a policy goes through a reference to the principal or the resource"
_CIRCLE = "principal and resource are above each other, or themselves"


@dataclass(slots=True)
class Compiled:
    """One bundle's policies over the columns of a part."""

    part: Part
    bundle: Bundle
    policies: Policies
    world: HistoryWorld
    variables: Mapping[pst.VarName, Value]
    kernel: Kernel
    literals: Mapping[str, int]
    holding: Holding
    """Why rows of the part are not decided by these policies in columns."""
    walks: Mapping[str, Node]
    """Where policies need more of entities than a part has, by what that is; it may hang on arguments."""
    atoms: Compiled | None = None
    """The policies' atoms, compiled when they are first asked for."""

    def walking(self, why: str, frame: pl.DataFrame) -> pl.Series:
        """Rows (Boolean) of a frame of the part's columns in which policies need more."""
        return lower({"where": self.walks[why]}, self.world.column).collect(frame)["where"]


def compile_part(part: Part, chunk: Chunk, bundle: Bundle) -> Compiled:
    """Compile a bundle's policies for a part.

    Raises:
        PolarsError, RecursionError: a policy is too large for an expression.
        ValueError: it nests deeper than Cedar's syntax tree goes.
    """
    return compiled_part(part, chunk, bundle, policies_of(_Source((bundle.policy_hash, "whole"), bundle)))


@dataclass(frozen=True, slots=True)
class _Source:
    """Whose policies to read, known by its key alone."""

    key: tuple[str, str]
    bundle: Bundle = field(compare=False)


@lru_cache(maxsize=128)
def policies_of(source: _Source) -> Policies:
    """Read a bundle's policies, or the atoms of them; kept, because every part of every chunk asks."""
    if source.key[1] == "atoms":
        return read_policies(atoms_of(source.bundle).engine)
    return read_policies(document_tree(source.bundle.document))


def _atoms_of(bundle: Bundle) -> Policies:
    return policies_of(_Source((bundle.policy_hash, "atoms"), bundle))


def compiled_part(part: Part, chunk: Chunk, bundle: Bundle, policies: Policies) -> Compiled:
    """Compile policies for the rows of a part."""
    world = _world(chunk)
    variables = _variables(part, chunk, world)
    kernel = kernel_of(variables, policies.every, world)
    literals = {literal_column(ref): _row_of(world, ref) for ref in policies.literals}
    walks = {
        why: where
        for where, why in ((world.circular(), _CIRCLE), (world.linked(), _LINKED))
        if where is not FALSE
    }
    compiled = Compiled(
        part, bundle, policies, world, variables, kernel, literals, Holding(part.rows.height), walks
    )
    _hold(compiled, with_literals(part.frame, literals))
    return compiled


def _hold(compiled: Compiled, frame: pl.DataFrame) -> None:
    """Hold rows that policies would need more for than a part has."""
    holding, kernel, every = compiled.holding, compiled.kernel, compiled.policies.every
    for why in compiled.walks:
        holding.add(compiled.walking(why, frame), why)
    if kernel.refused:
        first = masks(kernel, frame, len(every))["refused"]
        for number, why_not in kernel.refused.items():
            holding.add(first == number + 1, f"policy `{every[number].id}`: {why_not.node}: {why_not}")


def _world(chunk: Chunk) -> HistoryWorld:
    return HistoryWorld(
        names=frozenset(),
        tables=dict(chunk.tables),
        schema=chunk.schema,
        ids=chunk.ids,
        action_rows=chunk.action_rows,
    )


def _row_of(world: HistoryWorld, ref: Ref) -> int:
    """What stands in the column of a literal: an action's row, anybody else's code."""
    row = world.action_rows.get(ref)
    return world.code(ref) if row is None else row


def with_literals(frame: pl.DataFrame, literals: Mapping[str, int]) -> pl.DataFrame:
    """Add a column for each literal that policies compare codes with."""
    return frame.with_columns(pl.lit(code, pl.UInt32).alias(name) for name, code in literals.items())


def _index(name: str) -> Node:
    return column(name, "code", nullable=False)


def _prefixed(prefix: str) -> Callable[[str, DType, bool], Node]:
    def reader(name: str, dtype: DType, nullable: bool) -> Node:  # noqa: FBT001 - the signature of `Reader`
        return column(f"{prefix}{name}", dtype, nullable=nullable)

    return reader


def _variables(part: Part, chunk: Chunk, world: HistoryWorld) -> dict[pst.VarName, Value]:
    key = part.key
    principal = EntityData(key.principal_type, _index("principal"), _index("principal uid"))
    resource = EntityData(str(key.resource_type), _index("resource"), _index("resource uid"))
    world.begin(principal, resource)
    return {
        "principal": total(principal),
        "action": total(world.action(part.action)),
        "resource": total(resource),
        "context": total(RecordData(_context(part, chunk, world))),
    }


def _context(part: Part, chunk: Chunk, world: HistoryWorld) -> dict[str, Member]:
    """The members of the context, those the schema declares and the record has."""
    members = {
        name: view(layout, _prefixed(""), world.entity)
        for name, layout in _LAYOUTS.items()
        if name in part.action.context.attrs
    }
    for name, layouts in (("args", part.args.layouts), ("session", part.session.layouts)):
        reader = _prefixed(f"{name} ")
        below = {member: view(layout, reader, world.entity) for member, layout in layouts.items()}
        members[name] = Member(TRUE, total(RecordData(below)))
    behalf = part.action.context.attrs.get("on_behalf_of")
    if behalf is not None and isinstance(behalf.type, EntityRef) and part.key.on_behalf_of_type is not None:
        members["on_behalf_of"] = Member(TRUE, total(world.entity(behalf.type.type, _index("on_behalf_of"))))
    return members | _facts(part, chunk, world)


def _facts(part: Part, chunk: Chunk, world: HistoryWorld) -> dict[str, Member]:
    members = {}
    for name, declared in part.action.context.attrs.items():
        kind = type_text(declared.type)
        if name not in RESERVED and (name, kind) in chunk.layouts:
            reader = _gathered(fact_table(name, kind), column(fact_column(name), "code", nullable=True))
            members[name] = view(chunk.layouts[name, kind], reader, world.entity)
    return members


def _gathered(table: str, index: Node) -> Callable[[str, DType, bool], Node]:
    def reader(name: str, dtype: DType, nullable: bool) -> Node:  # noqa: FBT001 - the signature of `Reader`
        return gather(table, name, index, dtype, nullable=nullable)

    return reader


@dataclass(slots=True)
class PolicyGroup:
    """Rows of a part that are decided in columns, all lacking the same names; see `workbench.history.fold.Group`."""

    compiled: Compiled
    chunk: Chunk
    rows: pl.Series
    """UInt32: rows of the part."""
    missing: tuple[str, ...]
    bound: frozenset[str]
    room: Mapping[str, pl.Series] = field(default_factory=dict)
    """What budgets leave of arguments that they count, a row a row of the part; see `limiting.Limited`."""
    leaves: Leaves = field(init=False)
    _frame: pl.DataFrame = field(init=False)

    def __post_init__(self) -> None:
        part = self.compiled.part
        self._frame = with_literals(part.frame[self.rows], self.compiled.literals)
        self.leaves = part.leaves.take(self.rows)

    @property
    def bundle(self) -> Bundle:
        """Whose policies decide."""
        return self.compiled.bundle

    @property
    def frame(self) -> pl.DataFrame:
        """What kernels read, a row a row."""
        return self._frame

    @property
    def tool(self) -> str:
        """Tool of all rows."""
        return self.compiled.part.key.tool

    @property
    def record(self) -> Record:
        """Type of the arguments."""
        return self.compiled.part.record

    @property
    def args(self) -> pl.Series:
        """Arguments as recorded, canonical JSON."""
        return self.compiled.part.rows["args"].gather(self.rows)

    @property
    def policy_ids(self) -> Sequence[str]:
        """Ids of the policies, by bit number."""
        return tuple(policy.id for policy in self.compiled.policies.every)

    @property
    def height(self) -> int:
        """Rows."""
        return self.rows.len()

    def masks(self) -> pl.DataFrame:
        """Evaluate every policy."""
        return masks(self.compiled.kernel, self._frame, len(self.compiled.policies.every))

    def again(self, rows: pl.Series, leaves: Leaves) -> tuple[pl.DataFrame, pl.DataFrame]:
        """Evaluate rows with other arguments; see `workbench.history.fold.Group`."""
        frame, bad = self._again(rows, leaves)
        if self.missing:
            atoms = self._compiled_atoms()
            whole = with_literals(frame, atoms.literals)
            bad = pl.concat([bad, *(_where(atoms.walking(why, whole), why) for why in atoms.walks)])
            bad = bad.unique("row", keep="first", maintain_order=True)
        return masks(self.compiled.kernel, frame, len(self.compiled.policies.every)), bad

    def _again(self, rows: pl.Series, leaves: Leaves) -> tuple[pl.DataFrame, pl.DataFrame]:
        args = typed(leaves, self.record, form="arguments")
        coded = with_codes(args.columns, args.refs, self.chunk.ids)
        columns = [coded[name].alias(f"args {name}") for name in coded.columns]
        lost = [_unknown(args.columns[name], coded[name]) for name in args.refs]
        frame = self._frame[rows].with_columns(columns)
        bad = [args.bad, *(_where(each, "a patch names an entity that has no code here") for each in lost)]
        bad += [_where(self.compiled.walking(why, frame), why) for why in self.compiled.walks]
        bad += [
            _where(self._beyond(name, args, rows), f"a patch asks a budget of `{name}`") for name in self.room
        ]
        return frame, pl.concat(bad).unique("row", keep="first", maintain_order=True)

    def _beyond(self, name: str, args: Typed, rows: pl.Series) -> pl.Series:
        """Rows (Boolean) whose new arguments ask budgets for more than is left, or for what is not known here."""
        asks, room = (
            amount(args, self.record, name, rows.len()),
            self.room[name].gather(self.rows.gather(rows)),
        )
        frame = pl.DataFrame({"asks": asks, "room": room})
        fits = frame.select(fits=(pl.col("asks") >= 0) & (pl.col("asks") <= pl.col("room")))["fits"]
        return ~fits.fill_null(value=False)

    def value(self, root: str, path: Path) -> tuple[pl.Series, str] | None:
        """Return a scalar that a reference names; see `workbench.history.fold.Group`."""
        member = self._member(root, path)
        if member is None or len(member.value) != 1:
            return None
        match member.value[0].data:
            case Scalar(kind, node):
                return self._column(node, member.present), kind
            case EntityData(kind, _, uid):
                codes = self._column(uid, member.present)
                return self.chunk.ids.texts(kind).gather(codes), f"entity {kind}"
            case _:
                return None

    def _member(self, root: str, path: Path) -> Member | None:
        found: Member | None = Member(TRUE, self.compiled.variables[root])  # type: ignore[index]  # a root of `REF_ROOTS`
        present = TRUE
        for depth, name in enumerate(path):
            if found is None or len(found.value) != 1:
                return None
            match found.value[0].data:
                case RecordData(members):
                    found = members.get(name)
                case EntityData() as entity if depth == 0:  # a reference stays a reference: `patches._lookup`
                    found = self.compiled.world.attribute(entity, name)
                case _:
                    return None
            if found is not None:
                present = and_(present, found.present)
        return None if found is None else Member(present, found.value)

    def _column(self, node: Node, present: Node) -> pl.Series:
        found = lower({"value": node, "here": present}, self.compiled.world.column).collect(self._frame)
        return found.select(pl.when("here").then("value").alias("value"))["value"]

    @property
    def atom_ids(self) -> Sequence[str]:
        """Ids of the atoms' policies, by bit number."""
        return tuple(policy.id for policy in _atoms_of(self.bundle).every)

    def atoms(self) -> pl.DataFrame:
        """Evaluate the atoms of the policies."""
        return self._atoms(self._frame)

    def atoms_again(self, rows: pl.Series, leaves: Leaves) -> pl.DataFrame:
        """Evaluate the atoms for rows with other arguments."""
        return self._atoms(self._again(rows, leaves)[0])

    def unsure(self) -> pl.Series:
        """Why atoms are not evaluated here (String, one a row; null: they are).

        A policy that is out by its types needs nothing; its conditions, asked one by one, may go through a reference.
        """
        return self._compiled_atoms().holding.why.gather(self.rows)

    def _compiled_atoms(self) -> Compiled:
        if self.compiled.atoms is None:
            policies = _atoms_of(self.bundle)
            self.compiled.atoms = compiled_part(self.compiled.part, self.chunk, self.bundle, policies)
        return self.compiled.atoms

    def _atoms(self, frame: pl.DataFrame) -> pl.DataFrame:
        found = self._compiled_atoms()
        return masks(found.kernel, with_literals(frame, found.literals), len(found.policies.every))


def _unknown(ids: pl.Series, codes: pl.Series) -> pl.Series:
    """Where an id, or one of a list, has no code."""
    if codes.dtype == pl.List:
        return codes.list.eval(pl.element().is_null()).list.any().fill_null(value=False)
    return ids.is_not_null() & codes.is_null()


def _where(found: pl.Series, reason: str) -> pl.DataFrame:
    """`row` and `reason` of rows that are not decided here."""
    rows = pl.DataFrame({"row": found.arg_true().cast(pl.UInt32)})
    return rows.with_columns(reason=pl.lit(reason))
