"""The columnar engine: cases in, verdict masks out, exactly as Cedar decides.

One rule: a row is decided here, or it is handed over with the reason; nothing is guessed. Handed over are rows whose
request or entities Cedar would refuse (or that are not read here). A policy that the compiler does not take in some
group is asked of Cedar, that policy alone, for the group's rows in its scope; the answers say which rows these are.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

import cedarpy
import polars as pl

from workbench.columnar.compiler import literal_column
from workbench.columnar.decoding import Decoded, Ref, Unfit, decode, fields, names_entities
from workbench.columnar.frames import WORD, Group, GroupKey, compile_group, frame_of, masks, with_literals
from workbench.columnar.handover import ask
from workbench.columnar.policies import Policies, never, read_policies
from workbench.columnar.slices import SliceReader, action_ref, check_enum, ref_of
from workbench.columnar.values import Unsupported
from workbench.columnar.world import World
from workbench.errors import UnsupportedPolicy

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from cedarpy import pst

    from runtime.entities import Slice
    from runtime.policy import Case
    from runtime.schema import ActionType, CedarSchema
    from workbench.columnar.frames import Frame
    from workbench.columnar.policies import Policy
    from workbench.columnar.slices import View

_FAILURES = (pl.exceptions.PolarsError, pl.exceptions.PanicException, RecursionError)
"""What a policy can run into that is compiled, but too large or too deep to run."""


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
    """`decided_columnar` (Boolean: every policy was), `policies_asked` (UInt32, how many policies Cedar was asked of
    instead), and `satisfied_<w>` and `errored_<w>`: UInt64, bit n of word w is policy 64 w + n. Never null; the bits
    are zero where the row was handed over."""


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
    asked: Mapping[int, tuple[str, ...]] = field(default_factory=dict)
    """By row: the policies Cedar was asked of, because they were not compiled for its group."""

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
        values = [int(self.verdicts.frame.item(row, f"{title}_{word}")) for word in _words(len(self.effects))]
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
        strict: refuse policies that cannot be compiled, instead of asking Cedar of them.

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
    run.decide(cases, strict=strict)
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
    asked: dict[int, tuple[str, ...]] = field(default_factory=dict)
    parts: list[pl.DataFrame] = field(default_factory=list)
    _naming: dict[Ref, frozenset[str]] = field(default_factory=dict)
    _reader: SliceReader = field(init=False)
    _views: dict[int, tuple[Slice, View | str]] = field(default_factory=dict)
    """By the slice's identity: what shares an object is looked up once."""

    def __post_init__(self) -> None:
        self._reader = SliceReader(self.schema, self.policies.names)
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
        bound = self._with_entities(action)
        group.contexts.append(
            {n: self.world.bind(v, seen) if bound is None or n in bound else v for n, v in context.items()}
        )
        group.views.append(seen)

    def _with_entities(self, action: Ref) -> frozenset[str] | None:
        """Members of an action's context that may name entities; null: any may."""
        if self.schema is None:
            return None
        if action not in self._naming:
            members = self.actions[action].context.attrs.items()
            self._naming[action] = frozenset(name for name, each in members if names_entities(each.type))
        return self._naming[action]

    def _view(self, entities: Slice) -> View:
        known = self._views.get(id(entities))
        if known is None:
            known = self._views[id(entities)] = (entities, self._read(entities))
        if isinstance(known[1], str):
            raise Unfit(known[1])
        return known[1]

    def _read(self, entities: Slice) -> View | str:
        try:
            seen = self._reader.view(entities)
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

    def decide(self, cases: Sequence[Case], *, strict: bool) -> None:
        """Decide every group."""
        self.world.freeze()
        literals = {literal_column(ref): ref for ref in self.policies.literals}
        for key, group in self.groups.items():
            frame = frame_of(key, group)
            columns = with_literals(frame.columns, group.views, literals)
            found, refused = self._computed(key, frame, columns)
            for number, why in refused.items():
                policy = self.policies.every[number].id
                self.refused[policy] = f"{why.node}: {why}"
                if strict:
                    raise UnsupportedPolicy(str(why), policy_id=policy, node=why.node)
            self._keep(group, self._with_asked(group, found, refused, cases))

    def _computed(
        self, key: GroupKey, frame: Frame, columns: pl.DataFrame
    ) -> tuple[pl.DataFrame, Mapping[int, Unsupported]]:
        """What columns say of a group's rows, and the policies they say nothing of."""
        every = self.policies.every
        try:
            return self._run(key, frame, columns, every)
        except _FAILURES:
            failed = {n: why for n in range(len(every)) if (why := self._failure(key, frame, columns, n))}
            others = [never(each) if n in failed else each for n, each in enumerate(every)]
        found, refused = self._run(key, frame, columns, others)
        return found.with_columns(refused=pl.lit(1, pl.UInt64)), {**refused, **failed}

    def _failure(self, key: GroupKey, frame: Frame, columns: pl.DataFrame, number: int) -> Unsupported | None:
        try:
            self._run(key, frame, columns, [self.policies.every[number]])
        except _FAILURES as exc:
            return Unsupported(str(exc)[:200], type(exc).__name__)
        return None

    def _run(
        self, key: GroupKey, frame: Frame, columns: pl.DataFrame, policies: Sequence[Policy]
    ) -> tuple[pl.DataFrame, Mapping[int, Unsupported]]:
        kernel = compile_group(key, frame.context, policies, self.world)
        return masks(kernel, columns, len(policies)), kernel.refused

    def _with_asked(
        self,
        group: Group,
        found: pl.DataFrame,
        refused: Mapping[int, Unsupported],
        cases: Sequence[Case],
    ) -> pl.DataFrame:
        """Merge in what Cedar says of the policies that were not compiled."""
        places = (found["refused"] > 0).arg_true().to_list()
        if not places:
            return found
        policies = {number: self.policies.every[number] for number in refused}
        names = tuple(sorted(policy.id for policy in policies.values()))
        told = ask([cases[group.rows[place]] for place in places], policies, self._handle())
        for number, place in enumerate(places):
            if number in told.refused:
                self.handed_over[group.rows[place]] = told.refused[number]
            else:
                self.asked[group.rows[place]] = names
        return found.with_columns(
            pl.col(f"{title}_{word}") | _scattered(found.height, places, bits, word)
            for title, bits in (("satisfied", told.satisfied), ("errored", told.errored))
            for word in _words(len(self.policies.every))
        )

    def _handle(self) -> cedarpy.Schema | None:
        return (
            None if self.schema is None else cedarpy.Schema.from_json_str(json.dumps(self.schema.to_json()))
        )

    def _keep(self, group: Group, found: pl.DataFrame) -> None:
        rows = pl.Series("row", group.rows, dtype=pl.UInt32)
        kept = [row not in self.handed_over for row in group.rows]
        self.parts.append(found.drop("refused").with_columns(rows).filter(pl.Series(kept, dtype=pl.Boolean)))

    def answers(self, count: int) -> ColumnarAnswers:
        """Put the groups back into the order of the cases."""
        every = self.policies.every
        names = [f"{title}_{word}" for title in ("satisfied", "errored") for word in _words(len(every))]
        empty = pl.DataFrame(schema={**dict.fromkeys(names, pl.UInt64), "row": pl.UInt32})
        rows = pl.DataFrame({"row": pl.int_range(count, dtype=pl.UInt32, eager=True)})
        asked = [len(self.asked.get(row, ())) for row in range(count)]
        whole = [row not in self.handed_over and row not in self.asked for row in range(count)]
        frame = (
            rows.join(pl.concat([empty, *self.parts]), on="row", how="left", maintain_order="left")
            .with_columns(pl.col(names).fill_null(0))
            .with_columns(
                pl.Series("decided_columnar", whole, pl.Boolean),
                pl.Series("policies_asked", asked, pl.UInt32),
            )
            .select("decided_columnar", "policies_asked", *names)
        )
        return ColumnarAnswers(
            Verdicts(tuple(policy.id for policy in every), frame),
            tuple(policy.template.effect for policy in every),
            self.handed_over,
            self.refused,
            self.asked,
        )


def _words(policies: int) -> range:
    return range((policies + WORD - 1) // WORD)


def _scattered(height: int, places: Sequence[int], bits: Sequence[int], word: int) -> pl.Series:
    """One word of the bits, at their places; zero elsewhere."""
    values = [0] * height
    for place, each in zip(places, bits, strict=True):
        values[place] = each >> (word * WORD) & (1 << WORD) - 1
    return pl.Series(values, dtype=pl.UInt64)
