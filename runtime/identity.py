"""Who acts, for whom, in which tenant, with which scopes: checked once, when a session opens.

One rule: an identity that could not be recorded, or that was written down wrongly, opens no session.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from runtime.canonical import new_id
from runtime.entities import EntityUid
from runtime.errors import RegistrationError
from runtime.evidence import check_partition

if TYPE_CHECKING:
    from collections.abc import Iterable


@dataclass(frozen=True, slots=True, kw_only=True)
class Identity:
    """Who acts: the same for every call of a session."""

    session_id: str
    tenant: str
    principal: EntityUid
    on_behalf_of: EntityUid | None
    scopes: tuple[str, ...]

    @property
    def owner(self) -> str:
        """Whose session it is: nobody else may continue it."""
        return f"{self.principal}{f' for {self.on_behalf_of}' if self.on_behalf_of else ''}"


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
        session_id=new_id() if session_id is None else session_id,
        tenant=tenant,
        principal=_uid("principal", principal),
        on_behalf_of=None if on_behalf_of is None else _uid("on_behalf_of", on_behalf_of),
        scopes=scope_names(scopes),
    )
    _check_text("tenant", tenant)
    _check_text("session_id", identity.session_id)
    if not identity.session_id:
        raise _refused("`session_id` must not be empty; leave it out for a fresh one")
    try:
        check_partition("tenant", tenant)
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
    names = tuple(scopes)
    for name in names:
        _check_text("scopes", name)
    return tuple(sorted(set(names)))


def _uid(what: str, value: str | EntityUid) -> EntityUid:
    try:
        uid = value if isinstance(value, EntityUid) else EntityUid.parse(value)
    except (ValueError, TypeError) as exc:
        raise _refused(f"`{what}`: {exc}") from exc
    _check_text(what, uid.type)
    _check_text(what, uid.id)
    return uid


def _check_text(what: str, value: object) -> None:
    if not isinstance(value, str):
        raise _refused(f"`{what}` must be text, got {value!r:.80}")
    try:
        value.encode()
    except UnicodeEncodeError as exc:
        raise _refused(f"`{what}` must be valid Unicode: {exc}") from exc


def _refused(why: str) -> RegistrationError:
    return RegistrationError(f"a session cannot be opened under this identity: {why}")
