"""A bundle: policies, schema, context spec and limits of one version, loaded, checked and addressed.

One rule: a bundle that loads can decide. Whatever is wrong with it is an error here, naming file, line, policy
and the fix; nothing is repaired or skipped.

Files: `*.cedar` at any depth, `links.json` (template links), `schema.cedarschema` (required), `context.toml`,
`limits.toml` (both optional). Others in the folder are ignored. Texts are UTF-8 with LF; a byte order mark and CR
are removed before anything is hashed, so that a checkout with other line ends is the same version.

Accepted: loading validates each policy apart (about a millisecond each), so that an error names the policy.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import cedarpy

from runtime.annotations import PolicyVerdict, Refinement, policy_error, refinement
from runtime.canonical import Json, content_hash
from runtime.chains import policy_set
from runtime.errors import BundleError, PolicyError, PolicySchemaError
from runtime.limits_file import check_limits, parse_limits
from runtime.links import LINKS_FILE, Link, parse_links
from runtime.narrowing import Narrowing
from runtime.plan import Plans
from runtime.policy_files import Statement, canonical_text, offset_of_name, read_text, statements
from runtime.schema import SCHEMA_FILE, CedarSchema, parse_schema, with_standard_context
from runtime.session_reads import session_reads
from runtime.spec import SPEC_FILE, ContextSpec, check_spec, parse_spec
from runtime.spec_check import unfillable
from runtime.tunables import Tunable, read_tunables

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from runtime.limits import Limits

LIMITS_FILE = "limits.toml"
_NAMED_FILES = frozenset({LINKS_FILE, SCHEMA_FILE, SPEC_FILE, LIMITS_FILE})


@dataclass(frozen=True, slots=True, kw_only=True)
class PolicyInfo:
    """One policy that decides: written as it is, or linked from a template."""

    id: str
    """`@id`; of a linked policy, the link's id."""
    effect: Literal["permit", "forbid"]
    verdict: PolicyVerdict
    """`plain`, or what lifts the forbid: `approve`, `modify`."""
    patch: Json | None
    """JSON merge patch of a `modify` forbid."""
    approvers: tuple[str, ...]
    """Entity uids, canonical text, of an `approve` forbid; empty: none were named."""
    annotations: Mapping[str, str]
    file: str
    line: int
    """Where its text starts (a linked policy's: the template's)."""
    text: str
    template: bool
    """Linked from a template."""


@dataclass(frozen=True, kw_only=True, repr=False)
class Bundle:
    """A loaded bundle. Equal versions decide equally."""

    name: str
    files: Mapping[str, str]
    """Path in the bundle → canonical text."""
    policies: Mapping[str, PolicyInfo]
    """By id. Templates are not among them; their links are."""
    schema: CedarSchema
    """With the standard context."""
    spec: ContextSpec
    limits: Limits
    policy_hash: str
    """Of Cedar files, schema and links."""
    context_spec_hash: str
    limits_hash: str
    version: str
    """Hash of the three hashes."""
    document: Mapping[str, Any] = field(compare=False)
    """Cedar's JSON policy set, keyed by id."""
    cedar_schema: cedarpy.Schema = field(compare=False)
    """The engine's handle of `schema`."""
    tunables: Mapping[str, Tunable] = field(default_factory=dict)
    """Literals that `@tune` declares in what decides, by `policy.name`."""
    _subsets: dict[frozenset[str], cedarpy.PolicySet] = field(default_factory=dict, init=False, compare=False)

    def __repr__(self) -> str:
        return f"<Bundle {self.name} {self.version[:12]}: {len(self.policies)} policies>"

    @cached_property
    def policy_set(self) -> cedarpy.PolicySet:
        """The engine's handle of all policies; reasons and errors carry their ids."""
        return self.without(frozenset())

    @cached_property
    def permit_set(self) -> cedarpy.PolicySet:
        """The permits only: says whether a permit is satisfied where a forbid is, too."""
        return self.without(frozenset(i for i, policy in self.policies.items() if policy.effect == "forbid"))

    @cached_property
    def narrowing(self) -> Narrowing:
        """How requests are narrowed to what the policies can read."""
        return Narrowing(self.document, self.schema, self.cedar_schema)

    @cached_property
    def plans(self) -> Plans:
        """What deciding works out once."""
        return Plans(self.schema, self.policies)

    def without(self, ids: frozenset[str]) -> cedarpy.PolicySet:
        """Return the policy set without some policies. Cached by `ids`.

        Raises:
            KeyError: an id that is not in the bundle.
        """
        found = self._subsets.get(ids)
        if found is None:
            if unknown := ids - self.policies.keys():
                raise KeyError(f"bundle {self.name!r} has no policies {sorted(unknown)}")
            found = self._subsets[ids] = policy_set(self.document, ids, self.policies)
        return found

    def row_dicts(self) -> list[dict[str, Json]]:
        """Return one row of `trace.POLICIES` for each file, sorted by file."""
        hashes: dict[str, Json] = {
            "bundle_version": self.version,
            "policy_hash": self.policy_hash,
            "context_spec_hash": self.context_spec_hash,
            "limits_hash": self.limits_hash,
            "name": self.name,
        }
        return [
            {
                "row_hash": content_hash({"bundle_version": self.version, "file": file}),
                **hashes,
                "file": file,
                "text": text,
            }
            for file, text in self.files.items()
        ]


def load_bundle(path: str | Path) -> Bundle:
    """Load a bundle from its folder. It is named after the folder.

    Raises:
        BundleError: anything wrong with it; see `bundle_from_files`.
    """
    folder = Path(path)
    if not folder.is_dir():
        raise BundleError(
            f"no bundle at {str(path)!r}: a bundle is a folder with `*.cedar` files and `{SCHEMA_FILE}`"
        )
    found = (file for file in folder.rglob("*") if file.is_file())
    names = {file.relative_to(folder).as_posix(): file for file in found}
    texts = {name: read_text(file, name) for name, file in names.items() if _belongs(name)}
    return bundle_from_files(texts, folder.resolve().name)


def _belongs(name: str) -> bool:
    return name.endswith(".cedar") or name in _NAMED_FILES


def bundle_from_files(files: Mapping[str, str], name: str) -> Bundle:
    """Build a bundle from the texts of its files.

    Args:
        files: path in the bundle, `/` between parts → text. Files that are no part of a bundle are ignored.
        name: what to call it; no part of its version.

    Raises:
        PolicySyntaxError: a policy does not parse.
        PolicySchemaError: the schema is unusable, or a policy does not validate against it.
        PolicyError: ids, annotations or links are wrong, or there is no policy.
        ContextSpecError: `context.toml` is wrong.
        LimitsError: `limits.toml` is wrong.
    """
    try:
        return _built(files, name)
    except RecursionError as exc:
        why = "a condition is too deep to be read, as hundreds of `||` are; use a set: `[…].contains(x)`"
        raise PolicyError(why) from exc


def _built(files: Mapping[str, str], name: str) -> Bundle:
    texts = {file: canonical_text(files[file]) for file in sorted(files) if _belongs(file)}
    schema, cedar_schema = _schema(texts)
    loaded = Policies(texts)
    loaded.require_some()
    loaded.validate(cedar_schema)
    spec = parse_spec(texts.get(SPEC_FILE, ""), SPEC_FILE)
    check_spec(spec, schema, SPEC_FILE)
    limits = parse_limits(texts.get(LIMITS_FILE, ""), LIMITS_FILE)
    check_limits(limits, schema, LIMITS_FILE)
    policy_hash, version = hashes_of(texts, spec, limits)
    limits = replace(limits, watched=session_reads(loaded.document()))
    found = Bundle(
        name=name,
        files=texts,
        policies=loaded.infos(),
        schema=schema,
        spec=spec,
        limits=limits,
        policy_hash=policy_hash,
        context_spec_hash=spec.hash,
        limits_hash=limits.hash,
        version=version,
        document=loaded.document(),
        cedar_schema=cedar_schema,
        tunables=loaded.tunables(),
    )
    _ = found.policy_set  # what loads can decide: Cedar's parser takes deeper conditions than its engine
    return found


def hashes_of(texts: Mapping[str, str], spec: ContextSpec, limits: Limits) -> tuple[str, str]:
    """Return `policy_hash` and `version`."""
    of_policy: dict[str, Json] = {f: t for f, t in texts.items() if f not in {SPEC_FILE, LIMITS_FILE}}
    policy_hash = content_hash(of_policy)
    hashes: dict[str, Json] = {"policy": policy_hash, "context_spec": spec.hash, "limits": limits.hash}
    return policy_hash, content_hash(hashes)


def _schema(texts: Mapping[str, str]) -> tuple[CedarSchema, cedarpy.Schema]:
    if SCHEMA_FILE not in texts:
        raise PolicySchemaError(
            f"the bundle has no `{SCHEMA_FILE}`; declare its entities and one action for each tool, such as "
            "`action send_money appliesTo { principal: [Agent], resource: [Account], "
            "context: { args: { amount: decimal } } };`",
            file=SCHEMA_FILE,
        )
    schema = with_standard_context(parse_schema(texts[SCHEMA_FILE], SCHEMA_FILE), SCHEMA_FILE)
    for key, declared in schema.actions.items():
        if declared.namespace and declared.principals:
            raise PolicySchemaError(
                f"action `{key}` is declared in a namespace, but a tool is asked for as "
                f'`Action::"{declared.name}"`; declare it outside of `namespace {declared.namespace}` '
                "(entity types and action groups may stay)",
                file=SCHEMA_FILE,
                line=schema.lines.get(key),
            )
    for action, type_, attribute in unfillable(schema):
        raise PolicySchemaError(
            f"entity type `{type_}` requires attribute `{attribute}`; a fact may be none, so every call of "
            f"`{action}` without it would be blocked; declare `{attribute}?:`",
            file=SCHEMA_FILE,
        )
    return schema, cedarpy.Schema.from_json_str(json.dumps(schema.to_json()))


class Policies:
    """The statements and links of a bundle, by id, while it is being checked: `require_some`, then `validate`."""

    def __init__(self, texts: Mapping[str, str]) -> None:
        self.statements: dict[str, Statement] = {}
        self.refinements: dict[str, Refinement] = {}
        self.tuned: dict[str, tuple[Tunable, ...]] = {}
        for file, text in texts.items():
            if file.endswith(".cedar"):
                for statement in statements(text, file):
                    self.add(statement)
        templates = {ident: s for ident, s in self.statements.items() if s.template}
        self.links = parse_links(texts[LINKS_FILE], templates) if LINKS_FILE in texts else ()
        for link in self.links:
            self.refuse_taken(link)

    def require_some(self) -> None:
        """Refuse a bundle in which nothing decides."""
        if next(self.deciding(), None) is None:
            raise _nothing_decides(self.statements)

    def add(self, statement: Statement) -> None:
        """Take in a statement under its id, annotations checked."""
        ident = _ident(statement)
        if (other := self.statements.get(ident)) is not None:
            raise policy_error(
                statement,
                f"`@id` is taken by {other.file}:{other.line}; an id names one policy, so rename one",
            )
        self.statements[ident] = statement
        self.refinements[ident] = refinement(statement)
        self.tuned[ident] = read_tunables(statement)

    def refuse_taken(self, link: Link) -> None:
        """Refuse a link whose id a policy has."""
        if (other := self.statements.get(link.id)) is not None:
            raise PolicyError(
                f"link id is taken by the policy at {other.file}:{other.line}; rename the link",
                file=LINKS_FILE,
                line=link.line,
                policy=link.id,
            )

    def deciding(self) -> Iterator[tuple[str, str, Statement]]:
        """Yield (id, id of the text, statement) of each policy that decides."""
        for ident, statement in self.statements.items():
            if not statement.template:
                yield ident, ident, statement
        for link in self.links:
            yield link.id, link.template, self.statements[link.template]

    def validate(self, schema: cedarpy.Schema) -> None:
        """Hold every statement and link against the schema."""
        for statement in self.statements.values():
            if why := _invalid(statement.text, schema):
                line = statement.line + offset_of_name(statement.text, why)
                raise PolicySchemaError(why, file=statement.file, line=line, policy=_ident(statement))
        for link in self.links:
            if why := _invalid(link.linked_text(self.statements[link.template]), schema):
                raise PolicySchemaError(why, file=LINKS_FILE, line=link.line, policy=link.id)

    def infos(self) -> dict[str, PolicyInfo]:
        """Return what decides, by id."""
        return {ident: self._info(ident, source, s) for ident, source, s in self.deciding()}

    def _info(self, ident: str, source: str, statement: Statement) -> PolicyInfo:
        refined = self.refinements[source]
        return PolicyInfo(
            id=ident,
            effect=statement.json["effect"],
            verdict=refined.verdict,
            patch=refined.patch,
            approvers=refined.approvers,
            annotations=statement.annotations,
            file=statement.file,
            line=statement.line,
            text=statement.text,
            template=statement.template,
        )

    def tunables(self) -> dict[str, Tunable]:
        """Return the tunables of what decides, by `policy.name`."""
        return {each.key: each for _, source, _ in self.deciding() for each in self.tuned[source]}

    def document(self) -> dict[str, Any]:
        """Return Cedar's JSON policy set, keyed by id."""
        return {
            "staticPolicies": {i: s.json for i, s in self.statements.items() if not s.template},
            "templates": {i: s.json for i, s in self.statements.items() if s.template},
            "templateLinks": [link.json() for link in self.links],
        }


def _ident(statement: Statement) -> str:
    ident = statement.annotations.get("id")
    if not ident:
        raise policy_error(statement, 'policy has no `@id`; write `@id("a-name-of-its-own")` above it')
    return ident


def _nothing_decides(templates: Mapping[str, Statement]) -> PolicyError:
    if templates:
        return PolicyError(f"no policies: templates decide nothing until linked; link them in `{LINKS_FILE}`")
    return PolicyError(
        "no policies: the bundle has no policy in any `*.cedar` file, so nothing would ever be allowed; write a "
        'permit, such as `@id("read") permit (principal, action == Action::"read", resource);`'
    )


_MOST = 3  # one mistake is reported once for every action the policy applies to
_HINTS = {
    "unrecognized": f"declare it in `{SCHEMA_FILE}`, or correct the name",
    "unable to guarantee safety of access": "ask first: `context has x && context.x …`",
    "unable to find an applicable action": f"check principal, action and resource against `{SCHEMA_FILE}`",
    "not found": f"declare it in `{SCHEMA_FILE}`, or correct the name",
    "not compatible": "compare values of one type",
}


def _invalid(text: str, schema: cedarpy.Schema) -> str:
    """Why Cedar's validator refuses a policy, and what to do; empty if it does not."""
    result = cedarpy.validate_policies(text, schema)
    if result.validation_passed:
        return ""
    found = sorted({error.error.removeprefix("for policy `policy0`, ") for error in result.errors})
    hint = next((hint for mark, hint in _HINTS.items() if any(mark in why for why in found)), "")
    more = f"; and {len(found) - _MOST} more like it" if len(found) > _MOST else ""
    return f"does not validate: {'; '.join(found[:_MOST])}{more}" + (f"; {hint}" if hint else "")
