"""Who acts, for whom, in which tenant, with which scopes: checked once, when a session opens.

One rule: an identity that could not be recorded, or that was written down wrongly, opens no session.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from runtime.arguments import shown
from runtime.canonical import new_id
from runtime.entities import EntityUid
from runtime.errors import RecordRefused, RegistrationError
from runtime.evidence import check_partition

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from runtime.canonical import Json

MAX_CHARS = 4096
"""Longest name of a tenant, session, principal, user or scope."""
EVERY_TENANT = "*"
"""In a list of tenants that an approver may approve in: all. No tenant may be called so, or its approvers were those
of every other."""
MAX_LABEL_CHARS = 64 * 1024
"""Longest text of a label."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Identity:
    """Who acts: the same for every call of a session."""

    session_id: str
    tenant: str
    principal: EntityUid
    on_behalf_of: EntityUid | None
    scopes: tuple[str, ...]
    acts_as: str = field(init=False, compare=False, repr=False)
    """The principal's uid as text."""
    owner: str = field(init=False, compare=False, repr=False)
    """Whose session it is: nobody else may continue it."""

    def __post_init__(self) -> None:
        """Write once what every call of a session needs."""
        behalf = f" for {self.on_behalf_of}" if self.on_behalf_of else ""
        object.__setattr__(self, "acts_as", str(self.principal))
        object.__setattr__(self, "owner", f"{self.acts_as}{behalf}")


def identity_of(
    *,
    principal: str | EntityUid,
    tenant: str,
    on_behalf_of: str | EntityUid | None,
    scopes: Iterable[str],
    session_id: str | None,
) -> Identity:
    """Check and build an identity; `session_id=None` gives a fresh one.

    Raises:
        RegistrationError: naming what was given and what is allowed.
    """
    identity = Identity(
        session_id=new_id() if session_id is None else _text("session_id", session_id),
        tenant=_text("tenant", tenant),
        principal=_uid("principal", principal),
        on_behalf_of=None if on_behalf_of is None else _uid("on_behalf_of", on_behalf_of),
        scopes=scope_names(scopes),
    )
    if not identity.session_id:
        raise _refused("`session_id` must not be empty; leave it out for a fresh one")
    if identity.tenant == EVERY_TENANT:
        raise _refused(f"`tenant` must not be {EVERY_TENANT!r}: approvers of every tenant are written so")
    try:
        check_partition("tenant", identity.tenant)
    except ValueError as exc:
        raise _refused(str(exc)) from exc
    return identity


def scope_names(scopes: Iterable[str]) -> tuple[str, ...]:
    """Return scopes sorted, each once.

    Raises:
        RegistrationError: one string (whose letters would be taken for scopes), or a member that is none.
    """
    if isinstance(scopes, str):
        raise RegistrationError(f"scopes are a list of names, got the text {scopes!r}; write [{scopes!r}]")
    return tuple(sorted({_text("scopes", name) for name in scopes}))


def _uid(what: str, value: str | EntityUid) -> EntityUid:
    try:
        uid = value if isinstance(value, EntityUid) else EntityUid.parse(_text(what, value))
    except (ValueError, TypeError) as exc:
        raise exc if isinstance(exc, RegistrationError) else _refused(f"`{what}`: {exc}") from exc
    return EntityUid(_text(what, uid.type), _text(what, uid.id))


def _text(what: str, value: object) -> str:
    """Return plain text: of a subclass what it holds, which is not always what its own methods say."""
    if not isinstance(value, str):
        raise _refused(f"`{what}` must be text, got {shown(value):.80}")
    plain = str.__str__(value)
    if len(plain) > MAX_CHARS:
        raise _refused(f"`{what}` must have at most {MAX_CHARS} characters, got {len(plain)}")
    try:
        plain.encode()
    except UnicodeEncodeError as exc:
        raise _refused(f"`{what}` must be valid Unicode: {exc}") from exc
    return plain


def _refused(why: str) -> RegistrationError:
    return RegistrationError(f"a session cannot be opened under this identity: {why}")


def checked_label(
    row: Mapping[str, Json], find: Callable[[str], Mapping[str, Json] | None]
) -> dict[str, Json]:
    """Return the row of a label in plain text; refuse what cannot be recorded, or reaches into another tenant.

    Args:
        row: of `outcomes`.
        find: returns the row of a decision, where this ledger has it.

    Raises:
        RecordRefused: naming what was given and what is allowed.
    """
    texts = {name: _label_text(name, row[name]) for name in ("label", "value", "source")}
    named = row["decision_id"]
    if named is not None:
        named = texts["decision_id"] = _label_text("decision_id", named)
        decision = find(named)
        if decision is not None and decision["tenant"] != row["tenant"]:
            raise RecordRefused(
                f"decision {named!r} is of another tenant than the session; label it in a session of its own tenant"
            )
    return {**row, **texts}


def _label_text(name: str, value: object) -> str:
    if not isinstance(value, str) or len(value) > MAX_LABEL_CHARS:
        raise RecordRefused(
            f"a label's `{name}` must be text of at most {MAX_LABEL_CHARS} characters, got {shown(value):.80}"
        )
    plain = str.__str__(value)
    try:
        plain.encode()
    except UnicodeEncodeError as exc:
        raise RecordRefused(f"a label's `{name}` must be valid Unicode: {exc}") from exc
    return plain
