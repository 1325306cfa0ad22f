"""The columnar engine: cases in, verdict masks out, exactly as Cedar decides.

One rule: a row is decided here, or it is handed over with the reason; nothing is guessed. Handed over are rows whose
request or entities Cedar would refuse (or that are not read here), and rows in the scope of a policy that the
compiler does not take.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

import polars as pl

from workbench.columnar.compiler import literal_column
from workbench.columnar.decoding import Decoded, Ref, Unfit, decode, fields
from workbench.columnar.frames import WORD, Group, GroupKey, compile_group, frame_of, masks, with_literals
from workbench.columnar.policies import Policies, read_policies
from workbench.columnar.slices import action_ref, check_enum, ref_of, view_of
from workbench.columnar.world import World
from workbench.errors import UnsupportedPolicy

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import cedarpy
    from cedarpy import pst

    from runtime.entities import Slice
    from runtime.policy import Case
    from runtime.schema import ActionType, CedarSchema
    from workbench.columnar.slices import View


@dataclass(frozen=True, slots=True)
class ColumnarAnswer:
    """What Cedar says of one case."""

    decision: Literal["Allow", "Deny"]
    reasons: tuple[str, ...]
    """Satisfied permits on Allow, satisfied forbids on Deny; sorted."""
    errors: tuple[str, ...]
    """Ids of the policies that raised an error; sorted."""
    permitted: bool
    """Whether any permit is satisfied."""


@dataclass(frozen=True, slots=True)
class Verdicts:
    """Masks over the policies, a row a case, in order."""

    policies: tuple[str, ...]
    """Ids by bit number."""
    frame: pl.DataFrame
    """`decided_columnar` (Boolean), and `satisfied_<w>` and `errored_<w>`: UInt64, bit n of word w is policy
    64 w + n. Never null; zero where not decided."""


@dataclass(frozen=True, slots=True)
class ColumnarAnswers:
    """The answers to a list of cases."""

    verdicts: Verdicts
    effects: tuple[pst.Effect, ...]
    """Effect of each policy, by bit number."""
    handed_over: Mapping[int, str]
    """Reason by row."""
    policies_handed_over: Mapping[str, str]
    """Reason by policy, for policies that were not compiled in some group whose rows they may apply to."""

    def answer(self, row: int) -> ColumnarAnswer:
        """Return the answer to one case.

        Raises:
            LookupError: it was handed over; names the reason.
        """
        if row in self.handed_over:
            raise LookupError(f"case {row} was handed over: {self.handed_over[row]}")
        satisfied, errored = self._numbers("satisfied", row), self._numbers("errored", row)
        names = self.verdicts.policies
        permits = sorted(names[n] for n in satisfied if self.effects[n] == "permit")
        forbids = sorted(names[n] for n in satisfied if self.effects[n] == "forbid")
        allowed = bool(permits) and not forbids
        return ColumnarAnswer(
            "Allow" if allowed else "Deny",
            tuple(permits if allowed else forbids),
            tuple(sorted(names[n] for n in errored)),
            bool(permits),
        )

    def _numbers(self, title: str, row: int) -> list[int]:
        words = range((len(self.effects) + WORD - 1) // WORD)
        values = [int(self.verdicts.frame.item(row, f"{title}_{word}")) for word in words]
        return [n for n in range(len(self.effects)) if values[n // WORD] >> (n % WORD) & 1]


def decide_cases(
    cases: Sequence[Case],
    policies: cedarpy.PolicySet | pst.PolicySet,
    *,
    schema: CedarSchema | None,
    strict: bool = False,
) -> ColumnarAnswers:
    """Decide cases in columns.

    Args:
        cases: each with its own entities; one entity may come in many versions.
        policies: keyed by id. Links are decided under their own ids.
        schema: types of contexts and entities; every case must fit it. Null: types are those that occur.
        strict: refuse policies that cannot be compiled, instead of handing their rows over.

    Raises:
        UnsupportedPolicy: `strict`, and a policy in the scope of some case is not taken.
    """
    read = read_policies(policies)
    run = _Run(read, schema)
    for row, case in enumerate(cases):
        try:
            run.add(row, case)
        except Unfit as exc:
            run.handed_over[row] = str(exc)
    run.decide(strict=strict)
    return run.answers(len(cases))


@dataclass(slots=True)
class _Run:
    policies: Policies
    schema: CedarSchema | None
    world: World = field(init=False)
    actions: dict[Ref, ActionType] = field(default_factory=dict)
    groups: dict[GroupKey, Group] = field(default_factory=dict)
    handed_over: dict[int, str] = field(default_factory=dict)
    refused: dict[str, str] = field(default_factory=dict)
    parts: list[pl.DataFrame] = field(default_factory=list)
    _views: dict[int, tuple[Slice, View | str]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.world = World(self.policies.names)
        if self.schema is not None:
            self.actions = {action_ref(action): action for action in self.schema.actions.values()}
        for ref in sorted(self.policies.literals):
            self.world.code(ref)

    def add(self, row: int, case: Case) -> None:
        """Decode one case into its group."""
        seen = self._view(case.slice)
        principal, action, resource = map(ref_of, (case.principal, case.action, case.resource))
        context = self._context(principal, action, resource, case)
        index = self.world.row(action, seen)
        key = GroupKey(action.type, index, principal.type, resource.type)
        group = self.groups.setdefault(key, Group())
        group.rows.append(row)
        group.principals.append(self.world.row(principal, seen))
        group.resources.append(self.world.row(resource, seen))
        group.contexts.append({name: self.world.bind(value, seen) for name, value in context.items()})
        group.views.append(seen)

    def _view(self, entities: Slice) -> View:
        known = self._views.get(id(entities))
        if known is None:
            known = self._views[id(entities)] = (entities, self._read(entities))
        if isinstance(known[1], str):
            raise Unfit(known[1])
        return known[1]

    def _read(self, entities: Slice) -> View | str:
        try:
            seen = view_of(entities, self.schema)
        except Unfit as exc:
            return f"entities: {exc}"
        for ref in self.policies.literals:
            self.world.row(ref, seen)
        return seen

    def _context(self, principal: Ref, action: Ref, resource: Ref, case: Case) -> dict[str, Decoded]:
        """The context's members, those that policies name.

        Raises:
            Unfit: Cedar would refuse the request.
        """
        if self.schema is None:
            decoded = decode(dict(case.context), None)
            if not isinstance(decoded, dict):
                raise Unfit("the context is no record")
        else:
            declared = self.actions.get(action)
            if declared is None:
                raise Unfit(f"action `{action.id}` is not declared")
            if principal.type not in declared.principals or resource.type not in declared.resources:
                raise Unfit(
                    f"action `{action.id}` does not apply to `{principal.type}` and `{resource.type}`"
                )
            check_enum(principal, self.schema)
            check_enum(resource, self.schema)
            decoded = fields(case.context, declared.context)
        kept = self.policies.names
        return {n: v for n, v in decoded.items() if self.policies.whole_context or n in kept}

    def decide(self, *, strict: bool) -> None:
        """Decide every group."""
        self.world.freeze()
        literals = {literal_column(ref): ref for ref in self.policies.literals}
        for key, group in self.groups.items():
            frame = frame_of(key, group)
            try:
                kernel = compile_group(key, frame.context, self.policies.every, self.world)
                columns = with_literals(frame.columns, group.views, literals)
                found = masks(kernel, columns, len(self.policies.every))
            except (pl.exceptions.PolarsError, RecursionError) as exc:
                self.handed_over |= dict.fromkeys(group.rows, f"{type(exc).__name__}: {str(exc)[:200]}")
                continue
            for number, why in kernel.refused.items():
                policy = self.policies.every[number].id
                self.refused[policy] = f"{why.node}: {why}"
                if strict:
                    raise UnsupportedPolicy(str(why), policy_id=policy, node=why.node)
            self._keep(group, found)

    def _keep(self, group: Group, found: pl.DataFrame) -> None:
        found = found.with_columns(pl.Series("row", group.rows, dtype=pl.UInt32))
        for row, number in found.filter(pl.col("refused") > 0).select("row", "refused").iter_rows():
            policy = self.policies.every[number - 1].id
            self.handed_over[row] = f"policy `{policy}`: {self.refused[policy]}"
        self.parts.append(found.filter(pl.col("refused") == 0).drop("refused"))

    def answers(self, count: int) -> ColumnarAnswers:
        """Put the groups back into the order of the cases."""
        every = self.policies.every
        words = range((len(every) + WORD - 1) // WORD)
        names = [f"{title}_{word}" for title in ("satisfied", "errored") for word in words]
        empty = pl.DataFrame(schema={**dict.fromkeys(names, pl.UInt64), "row": pl.UInt32})
        rows = pl.DataFrame({"row": pl.int_range(count, dtype=pl.UInt32, eager=True)})
        frame = (
            rows.join(pl.concat([empty, *self.parts]), on="row", how="left", maintain_order="left")
            .with_columns(
                pl.Series(
                    "decided_columnar", [row not in self.handed_over for row in range(count)], pl.Boolean
                )
            )
            .with_columns(pl.col(names).fill_null(0))
            .select("decided_columnar", *names)
        )
        return ColumnarAnswers(
            Verdicts(tuple(policy.id for policy in every), frame),
            tuple(policy.template.effect for policy in every),
            self.handed_over,
            self.refused,
        )
