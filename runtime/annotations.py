"""What annotations make of a forbid: `@verdict`, `@patch`, `@approvers`.

One rule: an annotation that would not do what its author meant is an error when the bundle is loaded, never a
silence when a call is decided. A plain Cedar engine ignores them all, and then denies.
"""

from __future__ import annotations

import difflib
import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from runtime.canonical import Json, NotCanonical, canonical, without_doubles
from runtime.errors import PolicyError
from runtime.patches import REF_ROOTS
from runtime.policy_files import parse_uids

if TYPE_CHECKING:
    from collections.abc import Iterator

    from runtime.policy_files import Statement

PolicyVerdict = Literal["plain", "approve", "modify"]
"""`plain` the effect as Cedar has it; `approve` a grant lifts the forbid; `modify` its patch does."""

KNOWN = frozenset(
    {"id", "verdict", "patch", "approvers", "tune", "doc", "description", "severity", "owner", "tags"}
)
"""Annotations that mean something here. Others are the author's own, unless they look like a misspelling."""

_REFINING = ("verdict", "patch", "approvers")
_CLOSE = 0.7  # `@aprovers`, `@path` and `@Id` are above; `@note`, `@title` and `@reason` below


@dataclass(frozen=True, slots=True, kw_only=True)
class Refinement:
    """What a policy's annotations say."""

    verdict: PolicyVerdict = "plain"
    patch: Json | None = None
    """JSON merge patch on the arguments; only with `modify`."""
    approvers: tuple[str, ...] = ()
    """Entity uids whose members may lift the forbid, canonical text; only with `approve`."""


def refinement(statement: Statement) -> Refinement:
    """Read and check a statement's annotations.

    Raises:
        PolicyError: with file, line and policy, and what to write instead.
    """
    found = statement.annotations
    for why in _misspelt(found):
        raise policy_error(statement, why)
    present = [key for key in _REFINING if key in found]
    if statement.json["effect"] == "permit" and present:
        raise policy_error(
            statement,
            f"`@{present[0]}` stands on a permit; only a forbid can be lifted, so move it to a forbid or remove it",
        )
    verdict = _verdict(statement)
    _check_company(statement, verdict)
    return Refinement(
        verdict=verdict,
        patch=_patch(statement) if verdict == "modify" else None,
        approvers=_approvers(statement) if "approvers" in found else (),
    )


def policy_error(statement: Statement, message: str) -> PolicyError:
    """Return an error about a statement, with file, line and policy."""
    ident = statement.annotations.get("id") or None
    return PolicyError(message, file=statement.file, line=statement.line, policy=ident)


def _misspelt(found: dict[str, str]) -> Iterator[str]:
    for key in sorted(set(found) - KNOWN):
        close = difflib.get_close_matches(key.lower(), KNOWN, n=1, cutoff=_CLOSE)
        if close:
            yield (
                f"unknown annotation `@{key}`, did you mean `@{close[0]}`? "
                "an annotation of your own needs a name less like it"
            )


def _verdict(statement: Statement) -> PolicyVerdict:
    match statement.annotations.get("verdict"):
        case None:
            return "plain"
        case "approve" | "modify" as verdict:
            return verdict
        case other:
            raise policy_error(
                statement,
                f'`@verdict` must be "approve" or "modify", got {other!r}; remove it for a plain forbid',
            )


def _check_company(statement: Statement, verdict: PolicyVerdict) -> None:
    """`@patch` belongs to modify, which needs it; `@approvers` to approve."""
    found = statement.annotations
    if verdict == "modify" and "patch" not in found:
        raise policy_error(
            statement, '`@verdict("modify")` needs a `@patch`, such as `@patch("{\\"limit\\": 10}")`'
        )
    if verdict != "modify" and "patch" in found:
        raise policy_error(
            statement, '`@patch` does nothing without `@verdict("modify")`; add it, or remove the patch'
        )
    if verdict != "approve" and "approvers" in found:
        raise policy_error(
            statement,
            '`@approvers` does nothing without `@verdict("approve")`; add it, or remove the approvers',
        )


def _patch(statement: Statement) -> Json:
    text = statement.annotations["patch"]
    try:
        patch = json.loads(text, parse_constant=_refuse_constant, object_pairs_hook=without_doubles)
        canonical(patch)
    except (ValueError, NotCanonical) as exc:
        raise policy_error(statement, f"`@patch` is not JSON: {exc}; got {text!r}") from exc
    if not isinstance(patch, dict) or "$ref" in patch:
        raise policy_error(
            statement, f'`@patch` must be a JSON object of arguments, such as {{"limit": 10}}, got {text!r}'
        )
    for why in _bad_refs(patch):
        raise policy_error(statement, why)
    return patch


def _refuse_constant(text: str) -> None:
    raise ValueError(f"`{text}` is no JSON number")


def _bad_refs(value: Json) -> Iterator[str]:
    match value:
        case {"$ref": target, **rest}:
            parts = target.split(".") if isinstance(target, str) else []
            if rest or len(parts) < 2 or parts[0] not in REF_ROOTS or not all(parts):  # noqa: PLR2004 - root and member
                yield (
                    f"`@patch` has the reference {json.dumps(value)}, which must be "
                    f'`{{"$ref": "context.…"}}` alone, rooted in `context.`, `resource.` or `principal.`'
                )
        case dict():
            for item in value.values():
                yield from _bad_refs(item)
        case list():
            for item in value:
                yield from _bad_refs(item)


def _approvers(statement: Statement) -> tuple[str, ...]:
    text = statement.annotations["approvers"]
    try:
        return tuple(str(uid) for uid in parse_uids(text))
    except ValueError as exc:
        raise policy_error(
            statement,
            f'`@approvers` must name entities, such as `@approvers("Role::\\"finance\\"")`, '
            f"several separated by commas: {exc}",
        ) from exc
