"""Signed approvals: a compact token that says who grants or denies exactly which action, and until when.

One rule: nothing in a token chooses how it is verified. The key's configuration says with which algorithm; a token
whose header says another is refused before any mathematics.

The form is JWS in compact serialization (RFC 7515) with `EdDSA` (RFC 8037) or `HS256` (RFC 7518) and a `typ` of its
own, as RFC 8725 advises, so that any JWT library can make one and no other token of the same key passes for one.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import re
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, Final, Literal, Protocol

import msgspec

from runtime.canonical import Json, canonical, new_id
from runtime.errors import ApproversError, GrantRefused

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from runtime.entities import EntityUid

Algorithm = Literal["Ed25519", "HMAC-SHA256"]
"""`Ed25519`: who verifies cannot sign. `HMAC-SHA256`: one secret does both; keep it from the agent."""

TYPE: Final = "redecide-approval+jwt"
MAX_CHARS: Final = 8_192
"""Longest token that is looked at."""

_ALG: Final[dict[Algorithm, str]] = {"Ed25519": "EdDSA", "HMAC-SHA256": "HS256"}
_PARTS: Final = re.compile(r"([A-Za-z0-9_-]+)\.([A-Za-z0-9_-]+)\.([A-Za-z0-9_-]+)")


@dataclass(frozen=True, slots=True)
class SignedToken:
    """The credential: a token as its signer sent it."""

    text: str = field(repr=False)

    def __post_init__(self) -> None:
        if type(self.text) is not str:
            raise GrantRefused(f"a token is text, got {type(self.text).__name__}")


class _Header(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    alg: str
    kid: str
    typ: str


class Claims(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What a token says. Names that RFC 7519 has are as there."""

    iss: str
    sub: str
    """Uid of the approver."""
    roles: list[str]
    """Uids of roles they hold."""
    tenants: list[str]
    approval: str
    """Id of the approval it answers."""
    action_hash: str
    """Of the action they saw."""
    decision: Literal["granted", "denied"]
    policy: str | None = None
    """The only policy it answers for; null: every one they may."""
    iat: int
    """Seconds since the epoch."""
    exp: int
    jti: str


@dataclass(frozen=True, slots=True)
class Token:
    """A token taken apart. Its claims mean nothing before `verify`."""

    algorithm: str
    key_id: str
    claims: Claims
    signed: bytes
    signature: bytes

    def verify(self, algorithm: Algorithm, key: bytes) -> None:
        """Check the signature with a key and the algorithm that this key is for.

        Raises:
            GrantRefused: another algorithm, or the signature is not of this key.
        """
        if self.algorithm != _ALG[algorithm]:
            raise GrantRefused(
                f"token says algorithm {self.algorithm!r:.40}, key {self.key_id!r} is for {_ALG[algorithm]!r}"
            )
        holds = _verify_ed25519 if algorithm == "Ed25519" else _verify_hmac
        if not holds(key, self.signed, self.signature):
            raise GrantRefused(f"token is not signed by key {self.key_id!r}, or was changed")


def read_token(credential: SignedToken) -> Token:
    """Take a token apart, believing nothing.

    Raises:
        GrantRefused: it is no token of ours; the message says where.
    """
    text = credential.text
    if len(text) > MAX_CHARS:
        raise GrantRefused(f"a token is a string of at most {MAX_CHARS} characters")
    found = _PARTS.fullmatch(text.strip())
    if found is None:
        raise GrantRefused("a token is three base64url parts with dots between them; was it cut, or wrapped?")
    try:
        header = msgspec.json.decode(_unpacked(found[1]), type=_Header)
        claims = msgspec.json.decode(_unpacked(found[2]), type=Claims)
        signature = _unpacked(found[3])
    except (ValueError, RecursionError) as exc:  # msgspec's errors are ValueErrors
        raise GrantRefused(f"token cannot be read: {exc}") from exc
    if header.typ != TYPE:
        raise GrantRefused(f"token is of type {header.typ!r:.40}; an approval is of type {TYPE!r}")
    return Token(header.alg, header.kid, claims, f"{found[1]}.{found[2]}".encode(), signature)


class Waiting(Protocol):
    """What a token is signed for; `runtime.approvals.Approval` is one."""

    @property
    def id(self) -> str:
        """Of the approval."""

    @property
    def tenant(self) -> str:
        """Where the action would take place."""

    @property
    def action_hash(self) -> str:
        """Of the action that waits."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SigningKey:
    """A key that signs."""

    id: str
    """Under which the verifier knows it."""
    algorithm: Algorithm
    material: bytes = field(repr=False)
    """Ed25519: the 32 bytes of the private key. HMAC-SHA256: the secret."""
    issuer: str = "redecide"

    @classmethod
    def from_file(
        cls, ident: str, path: Path, *, algorithm: Algorithm = "Ed25519", issuer: str = "redecide"
    ) -> SigningKey:
        """Read an Ed25519 private key in PEM, or the bytes of an HMAC secret.

        Raises:
            ApproversError: the file cannot be read, or is no key for the algorithm.
        """
        try:
            data = path.read_bytes()
        except OSError as exc:
            raise ApproversError(f"cannot read key {ident!r} from {str(path)!r}: {exc}") from exc
        pem = data.lstrip().startswith(b"-----BEGIN")
        if pem != (algorithm == "Ed25519"):
            what = (
                "a PEM key, no secret for HMAC"
                if pem
                else "no private key in PEM; a secret for HMAC is said to be one"
            )
            raise ApproversError(f"key {ident!r}: {str(path)!r} holds {what}")
        material = private_bytes(data, str(path)) if pem else data.strip()
        return cls(id=ident, algorithm=algorithm, material=material, issuer=issuer)


def sign_approval(
    approval: Waiting,
    *,
    key: SigningKey,
    approver: EntityUid,
    roles: Iterable[EntityUid] = (),
    decision: Literal["granted", "denied"] = "granted",
    policy: str | None = None,
    lifetime: timedelta = timedelta(minutes=10),
    now: datetime | None = None,
) -> SignedToken:
    """Sign an answer to one approval of one action, in its tenant.

    Args:
        approval: what waits, as the approver has seen it.
        key: the signer's.
        approver: who answers; the key must be allowed to say so where the token is verified.
        roles: that they hold.
        decision: what they say.
        policy: the only policy it answers for; None: every one they may.
        lifetime: how long it can be presented. The grant itself lasts as long as its approval.
        now: default the current time.
    """
    issued = int((now or datetime.now(UTC)).timestamp())
    claims: dict[str, Json] = {
        "iss": key.issuer,
        "sub": str(approver),
        "roles": [*sorted(map(str, roles))],
        "tenants": [approval.tenant],
        "approval": approval.id,
        "action_hash": approval.action_hash,
        "decision": decision,
        **({} if policy is None else {"policy": policy}),
        "iat": issued,
        "exp": issued + int(lifetime.total_seconds()),
        "jti": new_id(),
    }
    return SignedToken(encode_token(claims, key))


def encode_token(claims: dict[str, Json], key: SigningKey) -> str:
    """Sign claims as they are given."""
    header: dict[str, Json] = {"alg": _ALG[key.algorithm], "kid": key.id, "typ": TYPE}
    signed = f"{_packed(canonical(header).encode())}.{_packed(canonical(claims).encode())}"
    sign = _sign_ed25519 if key.algorithm == "Ed25519" else _sign_hmac
    return f"{signed}.{_packed(sign(key.material, signed.encode()))}"


def _packed(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def _unpacked(text: str) -> bytes:
    return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))


def _sign_hmac(secret: bytes, data: bytes) -> bytes:
    return hmac.digest(secret, data, hashlib.sha256)


def _verify_hmac(secret: bytes, data: bytes, signature: bytes) -> bool:
    return hmac.compare_digest(_sign_hmac(secret, data), signature)


def _sign_ed25519(private: bytes, data: bytes) -> bytes:
    from cryptography.hazmat.primitives.asymmetric import ed25519  # noqa: PLC0415 - 30 ms that no call needs

    return ed25519.Ed25519PrivateKey.from_private_bytes(private).sign(data)


def _verify_ed25519(public: bytes, data: bytes, signature: bytes) -> bool:
    from cryptography.exceptions import InvalidSignature  # noqa: PLC0415 - as above
    from cryptography.hazmat.primitives.asymmetric import ed25519  # noqa: PLC0415 - as above

    try:
        ed25519.Ed25519PublicKey.from_public_bytes(public).verify(signature, data)
    except InvalidSignature:
        return False
    return True


def public_bytes(pem: bytes, what: str) -> bytes:
    """Return the 32 bytes of an Ed25519 public key in PEM.

    Raises:
        ApproversError: it is none.
    """
    from cryptography.hazmat.primitives import serialization  # noqa: PLC0415 - as above
    from cryptography.hazmat.primitives.asymmetric import ed25519  # noqa: PLC0415 - as above

    key = _loaded(serialization.load_pem_public_key, pem, what)
    if not isinstance(key, ed25519.Ed25519PublicKey):
        raise ApproversError(f"{what} holds a {type(key).__name__}; an Ed25519 public key is needed")
    return key.public_bytes_raw()


def private_bytes(pem: bytes, what: str) -> bytes:
    """Return the 32 bytes of an Ed25519 private key in PEM, not encrypted.

    Raises:
        ApproversError: it is none.
    """
    from cryptography.hazmat.primitives import serialization  # noqa: PLC0415 - as above
    from cryptography.hazmat.primitives.asymmetric import ed25519  # noqa: PLC0415 - as above

    key = _loaded(lambda data: serialization.load_pem_private_key(data, password=None), pem, what)
    if not isinstance(key, ed25519.Ed25519PrivateKey):
        raise ApproversError(f"{what} holds a {type(key).__name__}; an Ed25519 private key is needed")
    return key.private_bytes_raw()


def _loaded(load: Any, pem: bytes, what: str) -> Any:
    from cryptography.exceptions import UnsupportedAlgorithm  # noqa: PLC0415 - as above

    try:
        return load(pem)
    except (ValueError, TypeError, UnsupportedAlgorithm) as exc:
        raise ApproversError(
            f"{what} is no key in PEM: {exc}; `openssl genpkey -algorithm ed25519` makes a private key, "
            "`openssl pkey -pubout` its public one"
        ) from exc


__all__ = [
    "Algorithm",
    "Claims",
    "SignedToken",
    "SigningKey",
    "Token",
    "Waiting",
    "encode_token",
    "private_bytes",
    "public_bytes",
    "read_token",
    "sign_approval",
]
