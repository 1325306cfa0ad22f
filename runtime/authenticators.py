"""Who approves: what an approver presents, and who it proves to be.

One rule: an approver's identity comes from an authenticator that was configured and that verified something, never
from a name that somebody passed; and what is presented for one approval is worth nothing for another.

Shipped are signed tokens (`SignedTokens`, made by `runtime.tokens.sign_approval`) and the user of the operating
system (`OsUsers`); both are read from a file by `runtime.approvers.load_approvers`. Others implement `Authenticator`.

Accepted trade-off: `OsUsers` trusts every process of a mapped user. An agent must run as another user than the
people who approve what it does.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Final, Literal, Protocol

from runtime.canonical import canonical
from runtime.entities import EntityUid
from runtime.errors import ApproversError, GrantExpired, GrantRefused, GrantStale, NotAnApprover
from runtime.tokens import Claims, SignedToken, read_token

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from datetime import datetime

    from runtime.tokens import Algorithm

ANY: Final = "*"
"""In a list of what a key may speak for: everything."""

Answer = Literal["granted", "denied"]
"""What an approver may say."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Matter:
    """What an approver is asked to answer."""

    approval_id: str
    tenant: str
    action_hash: str
    """Of the action that waits."""
    answer: Answer
    now: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class Approver:
    """Somebody an authenticator knows."""

    uid: EntityUid
    roles: frozenset[EntityUid]
    tenants: frozenset[str]
    """Where they may approve; `ANY` among them: everywhere."""
    method: str
    """Which kind of authenticator said so: `signed_token`, `os_user` …"""
    credential_id: str
    """What was presented, for the record; no secret."""
    single_use: bool = False
    """Whether a credential of this id counts once."""
    policy: str | None = None
    """The only policy the credential answers for; None: every one its holder may."""

    def works_in(self, tenant: str) -> bool:
        """Whether they may approve in a tenant."""
        return tenant in self.tenants or ANY in self.tenants


class Authenticator(Protocol):
    """Tells who presents a credential. Called outside of any transaction; may be slow, must not write."""

    @property
    def takes(self) -> type:
        """The class of credentials it reads; no other is given to it."""

    def authenticate(self, credential: Any, for_: Matter) -> Approver:
        """Return who it is.

        Raises:
            GrantRefused: it is not believed, or is for something else.
            NotAnApprover: it is believed, and is nobody who may approve.
        """


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenKey:
    """A key that tokens are verified with, and what its holder may say with it."""

    id: str
    algorithm: Algorithm
    material: bytes = field(repr=False)
    """Ed25519: the 32 bytes of the public key. HMAC-SHA256: the secret, of 32 bytes or more."""
    subjects: frozenset[str]
    """Uids, canonical text, it may sign for; `ANY`: whomever. A person's own key names that person alone."""
    roles: frozenset[str]
    """Roles it may assert of them."""
    tenants: frozenset[str]
    """Tenants it may assert of them."""
    issuer: str = "redecide"

    def __post_init__(self) -> None:
        size = len(self.material)
        if self.algorithm == "Ed25519" and size != ED25519_BYTES:
            raise ApproversError(
                f"key {self.id!r}: an Ed25519 public key has {ED25519_BYTES} bytes, got {size}"
            )
        if self.algorithm == "HMAC-SHA256" and size < MIN_SECRET_BYTES:
            raise ApproversError(
                f"key {self.id!r}: a secret has {MIN_SECRET_BYTES} bytes or more, got {size}"
            )


ED25519_BYTES: Final = 32
MIN_SECRET_BYTES: Final = 32


class SignedTokens:
    """Verifies tokens of `runtime.tokens` with any of several keys. To rotate one, add another, later drop it."""

    takes: type = SignedToken

    def __init__(
        self,
        keys: Iterable[TokenKey],
        *,
        clock_skew: timedelta = timedelta(seconds=30),
        max_lifetime: timedelta = timedelta(days=1),
    ) -> None:
        """Take the keys.

        Args:
            keys: by distinct ids.
            clock_skew: how far the signer's clock and ours may be apart; at most five minutes.
            max_lifetime: longest time between `iat` and `exp`; a token that lives longer is refused.

        Raises:
            ApproversError: two keys of one id, or a skew beyond what keeps `exp` meaningful.
        """
        self._keys: dict[str, TokenKey] = {}
        for key in keys:
            if self._keys.setdefault(key.id, key) is not key:
                raise ApproversError(f"two keys have the id {key.id!r}; give the new one an id of its own")
        if not timedelta(0) <= clock_skew <= timedelta(minutes=5):
            raise ApproversError(f"clock skew must be between 0 and 300 s, got {clock_skew}")
        self._skew, self._lifetime = clock_skew, max_lifetime

    def authenticate(self, credential: SignedToken, for_: Matter) -> Approver:
        """Verify a token; see `Authenticator.authenticate`."""
        token = read_token(credential)
        key = self._keys.get(token.key_id)
        if key is None:
            raise GrantRefused(
                f"token names key {token.key_id!r:.80}, which is not among the configured ones"
            )
        token.verify(key.algorithm, key.material)
        claims = token.claims
        self._check_time(claims, for_)
        _check_matter(claims, for_)
        return _approver(claims, key)

    def _check_time(self, claims: Claims, for_: Matter) -> None:
        now, skew = for_.now.timestamp(), self._skew.total_seconds()
        if claims.exp <= claims.iat or claims.exp - claims.iat > self._lifetime.total_seconds():
            raise GrantRefused(
                f"token lives {claims.exp - claims.iat} s, allowed are 1 to {self._lifetime.total_seconds():g}"
            )
        if claims.iat > now + skew:
            raise GrantRefused(f"token is issued {claims.iat - now:.0f} s in the future; check both clocks")
        if claims.exp <= now - skew:
            raise GrantExpired(f"token expired {now - claims.exp:.0f} s ago; sign another")


def _check_matter(claims: Claims, for_: Matter) -> None:
    """A token speaks of one answer to one approval of one action."""
    if claims.approval != for_.approval_id:
        raise GrantStale(f"token is for approval {claims.approval!r:.80}, this is {for_.approval_id!r}")
    if claims.action_hash != for_.action_hash:
        raise GrantStale(
            "token is for another action than the one that waits; look at it again and sign another"
        )
    if claims.decision != for_.answer:
        raise GrantRefused(f"token says {claims.decision!r}, it is presented as {for_.answer!r}")


def _approver(claims: Claims, key: TokenKey) -> Approver:
    """Whom the claims name, as far as the key may speak of them."""
    sub, roles = _uid(claims.sub), frozenset(map(_uid, claims.roles))
    _check_within("subject", {str(sub)}, key.subjects, key)
    _check_within("role", set(map(str, roles)), key.roles, key)
    _check_within("tenant", set(claims.tenants), key.tenants, key)
    if claims.iss != key.issuer:
        raise GrantRefused(f"token is issued by {claims.iss!r:.80}, key {key.id!r} belongs to {key.issuer!r}")
    return Approver(
        uid=sub,
        roles=roles,
        tenants=frozenset(claims.tenants),
        method="signed_token",
        credential_id=canonical([key.issuer, claims.jti]),
        single_use=True,
        policy=claims.policy,
    )


def _check_within(what: str, claimed: set[str], allowed: frozenset[str], key: TokenKey) -> None:
    # A claimed `*` is refused like any other name that the key does not have: only a key may speak for all.
    beyond = claimed - allowed if ANY not in allowed else set()
    if beyond:
        raise GrantRefused(f"key {key.id!r} may not speak for {what} {min(beyond)!r:.80}")


def _uid(text: str) -> EntityUid:
    try:
        return EntityUid.parse(text)
    except ValueError as exc:
        raise GrantRefused(f"token: {exc}") from exc


@dataclass(frozen=True, slots=True)
class OsUser:
    """The credential of whoever runs this process; the kernel says who that is."""


@dataclass(frozen=True, slots=True, kw_only=True)
class OsIdentity:
    """Whom a login stands for."""

    uid: EntityUid
    roles: frozenset[EntityUid] = frozenset()
    """Beside those of its groups."""
    tenants: frozenset[str]


class OsUsers:
    """Takes the real user of the calling process for who the mapping says it is."""

    takes: type = OsUser

    def __init__(
        self, users: Mapping[str, OsIdentity], groups: Mapping[str, frozenset[EntityUid]] | None = None
    ) -> None:
        """Take the mapping.

        Args:
            users: by login name.
            groups: roles of the members of a group of the operating system, by its name.
        """
        self._users, self._groups = dict(users), dict(groups or {})

    def authenticate(self, credential: OsUser, for_: Matter) -> Approver:
        """Ask the kernel; see `Authenticator.authenticate`."""
        del credential, for_
        import pwd  # noqa: PLC0415 - only who approves by the operating system needs it

        number = os.getuid()  # the real one: a set-user-ID program does not lend its owner's authority
        try:
            entry = pwd.getpwuid(number)
        except KeyError:
            raise GrantRefused(f"user {number} of the operating system has no login name") from None
        found = self._users.get(entry.pw_name)
        if found is None:
            raise NotAnApprover(
                f"login {entry.pw_name!r} of the operating system is no approver; "
                f"known are {', '.join(map(repr, sorted(self._users))) or 'none'}"
            )
        member_of = self._groups_of(entry.pw_name, entry.pw_gid)
        return Approver(
            uid=found.uid,
            roles=found.roles.union(*(self._groups[name] for name in member_of)),
            tenants=found.tenants,
            method="os_user",
            credential_id=f"{entry.pw_name} ({number})",
        )

    def _groups_of(self, login: str, primary: int) -> set[str]:
        import grp  # noqa: PLC0415 - as above

        numbers = set(os.getgrouplist(login, primary))
        return {group.gr_name for group in grp.getgrall() if group.gr_gid in numbers} & self._groups.keys()


__all__ = [
    "ANY",
    "Answer",
    "Approver",
    "Authenticator",
    "Matter",
    "OsIdentity",
    "OsUser",
    "OsUsers",
    "SignedTokens",
    "TokenKey",
]
