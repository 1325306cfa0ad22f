"""What the compiler does not take is asked of Cedar: some policies of a set, over some rows.

One rule: an answer here is Cedar's own, of these policies alone. Permits and forbids are asked apart, because Cedar
names nothing but forbids once one is satisfied; so every policy's outcome is seen, never inferred.

Accepted: rows are asked slice by slice, at Cedar's speed (about 30 µs a row and effect). What reaches this is rare.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import cedarpy
from cedarpy import pst

from runtime.cedar import ask_batch
from workbench.columnar.policies import filled
from workbench.columnar.slices import slice_key

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from runtime.entities import Slice
    from runtime.policy import Case
    from runtime.ruling import Answer
    from workbench.columnar.policies import Policy

_EFFECTS: tuple[pst.Effect, ...] = ("permit", "forbid")


@dataclass(frozen=True, slots=True)
class Asked:
    """What Cedar said, a row a case, in order."""

    satisfied: list[int]
    """Bit n: policy n is satisfied."""
    errored: list[int]
    refused: Mapping[int, str]
    """Rows that Cedar does not take, with its reason; their bits are zero."""


def ask(cases: Sequence[Case], policies: Mapping[int, Policy], schema: cedarpy.Schema | None) -> Asked:
    """Ask Cedar of some policies.

    Args:
        cases: each with its own entities.
        policies: by bit number.
        schema: the engine's handle, if cases are checked against one.
    """
    sets = [found for effect in _EFFECTS if (found := _only(policies, effect))]
    refused: dict[int, str] = {}
    asked = Asked([0] * len(cases), [0] * len(cases), refused)
    for rows, store in _stores(cases, schema, refused):
        for policy_set in sets:
            answers = ask_batch([cases[row] for row in rows], store, policy_set, schema)
            for row, answer in zip(rows, answers, strict=True):
                _merge(asked, row, answer, refused)
    return asked


def _only(policies: Mapping[int, Policy], effect: pst.Effect) -> cedarpy.PolicySet | None:
    """The policies of one effect, under their numbers."""
    chosen = {
        str(number): replace(filled(policy.template, policy.slots), id=str(number))
        for number, policy in policies.items()
        if policy.template.effect == effect
    }
    if not chosen:
        return None
    return cedarpy.PolicySet.from_pst(pst.PolicySet(templates={}, static_policies=chosen, template_links=()))


def _stores(
    cases: Sequence[Case], schema: cedarpy.Schema | None, refused: dict[int, str]
) -> Iterator[tuple[list[int], cedarpy.Entities]]:
    """The rows of each slice, and its store."""
    by_slice: dict[tuple[str, ...], tuple[Slice, list[int]]] = {}
    for row, case in enumerate(cases):
        by_slice.setdefault(slice_key(case.slice), (case.slice, []))[1].append(row)
    for entities, rows in by_slice.values():
        try:
            yield rows, cedarpy.Entities.from_json_str(_document(entities), schema)
        except ValueError as exc:
            refused |= dict.fromkeys(rows, f"entities: {exc}")


def _document(entities: Slice) -> str:
    """The slice as Cedar reads it; `Slice.text` has no form for numbers beyond 2^53."""
    return json.dumps([entity.json() for entity in entities.entities])


def _merge(asked: Asked, row: int, answer: Answer, refused: dict[int, str]) -> None:
    if answer.decision == "NoDecision":
        refused[row] = answer.cause
        return
    for number in answer.reasons:
        asked.satisfied[row] |= 1 << int(number)
    for fault in answer.errors:
        asked.errored[row] |= 1 << int(fault.policy)
