"""Who an approver proves to be: tokens forged, stale, confused and damaged; the user of the operating system."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import os
import pwd
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from hypothesis import given
from hypothesis import strategies as st

from runtime import (
    ApproversError,
    EntityUid,
    GrantExpired,
    GrantRefused,
    GrantStale,
    Matter,
    NotAnApprover,
    OsIdentity,
    OsUser,
    OsUsers,
    SignedToken,
    SignedTokens,
    SigningKey,
    TokenKey,
    load_approvers,
    sign_approval,
)
from runtime.tokens import MAX_CHARS, TYPE, encode_token

NOW = datetime(2026, 11, 23, 12, tzinfo=UTC)
_PRIVATE = ed25519.Ed25519PrivateKey.from_private_bytes(bytes(range(32)))
PUBLIC = _PRIVATE.public_key().public_bytes_raw()
SECRET = b"s" * 32
DESK = SigningKey(id="desk", algorithm="Ed25519", material=_PRIVATE.private_bytes_raw())
"""Speaks for anybody, everywhere."""
HMAC = SigningKey(id="hmac", algorithm="HMAC-SHA256", material=SECRET)
KEYS = {"desk": PUBLIC, "hmac": SECRET}
ANYBODY = {"subjects": frozenset({"*"}), "roles": frozenset({"*"}), "tenants": frozenset({"*"})}


def token_key(key: SigningKey, **changes: Any) -> TokenKey:
    return TokenKey(
        **{"id": key.id, "algorithm": key.algorithm, "material": KEYS[key.id]} | ANYBODY | changes
    )


def tokens() -> SignedTokens:
    return SignedTokens([token_key(DESK), token_key(HMAC)])


def says(approval: Any, who: str, *roles: str, key: SigningKey = DESK, **more: Any) -> Any:
    """Return a token by which somebody grants, or denies."""
    given: dict[str, Any] = {
        "approver": EntityUid.parse(who),
        "roles": [EntityUid.parse(role) for role in roles],
    } | more
    return sign_approval(approval, key=key, **given)


WAITING = SimpleNamespace(id="a-1", tenant="acme", action_hash="h-1")
MATTER = Matter(approval_id="a-1", tenant="acme", action_hash="h-1", answer="granted", now=NOW)
PERSON = {
    "subjects": frozenset({'User::"fin"'}),
    "roles": frozenset({'Role::"finance"'}),
    "tenants": frozenset({"acme"}),
}


def token(**more: Any) -> SignedToken:
    found: SignedToken = says(WAITING, "User::fin", "Role::finance", **({"now": NOW} | more))
    return found


def claims(**changes: Any) -> dict[str, Any]:
    return {
        "iss": "redecide", "sub": "User::fin", "roles": [], "tenants": ["acme"], "approval": "a-1",
        "action_hash": "h-1", "decision": "granted", "iat": int(NOW.timestamp()),
        "exp": int(NOW.timestamp()) + 60, "jti": "j",
    } | changes  # fmt: skip


def packed(value: Any) -> str:
    data = value if isinstance(value, bytes) else json.dumps(value).encode()
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def forged(header: dict[str, Any], secret: bytes, **changes: Any) -> SignedToken:
    """A token as an attacker makes it: any header, HMAC with any bytes."""
    signed = f"{packed(header)}.{packed(claims(**changes))}"
    return SignedToken(f"{signed}.{packed(hmac.digest(secret, signed.encode(), hashlib.sha256))}")


@pytest.mark.parametrize("key", [DESK, HMAC], ids=lambda key: key.algorithm)
def test_a_token_says_who_answers(key: SigningKey) -> None:
    found = tokens().authenticate(token(key=key), MATTER)
    assert (found.uid, found.roles) == (EntityUid("User", "fin"), frozenset({EntityUid("Role", "finance")}))
    assert (found.method, found.single_use, found.policy) == ("signed_token", True, None)
    assert found.works_in("acme")
    assert not found.works_in("evil")


def test_any_library_for_jws_can_make_one() -> None:
    """Nothing of ours: header and claims in another order, signed by `cryptography` alone."""
    private = ed25519.Ed25519PrivateKey.from_private_bytes(bytes(range(32)))
    signed = (
        f"{packed({'typ': TYPE, 'kid': 'desk', 'alg': 'EdDSA'})}.{packed(dict(reversed(claims().items())))}"
    )
    made = SignedToken(f"{signed}.{packed(private.sign(signed.encode()))}")
    assert tokens().authenticate(made, MATTER).uid == EntityUid("User", "fin")


HEADER = {"alg": "HS256", "kid": "hmac", "typ": TYPE}
FORGED = {
    "the public key as an HMAC secret": forged(HEADER | {"kid": "desk"}, PUBLIC),
    "the public key in PEM as an HMAC secret": forged(
        HEADER | {"kid": "desk"},
        ed25519.Ed25519PublicKey.from_public_bytes(PUBLIC).public_bytes(
            serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
        ),
    ),
    "no algorithm": forged(HEADER | {"alg": "none"}, SECRET),
    "the other algorithm's name": forged(HEADER | {"alg": "EdDSA"}, SECRET),
    "another secret": forged(HEADER, b"t" * 32),
    "an unknown key": forged(HEADER | {"kid": "k"}, SECRET),
    "a key id that is a path": forged(HEADER | {"kid": "../../dev/null"}, SECRET),
    "another type of token": forged(HEADER | {"typ": "JWT"}, SECRET),
    "a key in its header": forged(HEADER | {"jwk": {"k": "x"}}, SECRET),
    "a claim nobody knows": forged(HEADER, SECRET, admin=True),
    "another issuer": forged(HEADER, SECRET, iss="evil"),
    "a subject that is no uid": forged(HEADER, SECRET, sub="fin"),
    "time as text": forged(HEADER, SECRET, exp="never"),
    "time as a float": forged(HEADER, SECRET, exp=1e18),
    "no end": forged(HEADER, SECRET, exp=2**62),
    "an end before its start": forged(HEADER, SECRET, exp=int(NOW.timestamp()) - 1),
    "from the future": forged(HEADER, SECRET, iat=int(NOW.timestamp()) + 31, exp=int(NOW.timestamp()) + 60),
    "a list": SignedToken(f"{packed([])}.{packed([])}.{packed(b'x')}"),
    "nesting": SignedToken(f"{packed(b'[' * 4000)}.{packed(b'[' * 1000)}.{packed(b'x')}"),
    "too long": SignedToken("a" * (MAX_CHARS + 1)),
    "empty": SignedToken(""),
    "two parts": SignedToken("a.b"),
    "another alphabet": SignedToken("a+/.b.c"),
    "look-alike letters": SignedToken("а.b.c"),
    "no UTF-8": SignedToken(f"{packed(bytes([255]))}.{packed(b'{}')}.{packed(b'x')}"),
}


@pytest.mark.parametrize("made", FORGED.values(), ids=FORGED)
def test_forged_tokens_are_refused(made: SignedToken) -> None:
    with pytest.raises(GrantRefused) as refused:
        tokens().authenticate(made, MATTER)
    assert refused.value.kind == "grant_refused"


@given(st.data())
def test_a_token_with_any_bit_changed_is_refused(data: st.DataObject) -> None:
    header, body, signature = token(key=HMAC).text.split(".")
    parts = [base64.urlsafe_b64decode(part + "=" * (-len(part) % 4)) for part in (header, body, signature)]
    which = data.draw(st.integers(0, 2))
    place, bit = data.draw(st.integers(0, len(parts[which]) - 1)), data.draw(st.integers(0, 7))
    changed = bytearray(parts[which])
    changed[place] ^= 1 << bit
    parts[which] = bytes(changed)
    with pytest.raises(GrantRefused):
        tokens().authenticate(SignedToken(".".join(map(packed, parts))), MATTER)


STALE = {
    "another approval": ({"approval_id": "a-2"}, GrantStale),
    "another action": ({"action_hash": "h-2"}, GrantStale),
    "a denial": ({"answer": "denied"}, GrantRefused),
    "too late": ({"now": NOW + timedelta(minutes=10, seconds=31)}, GrantExpired),
}


@pytest.mark.parametrize(("changes", "error"), STALE.values(), ids=STALE)
def test_a_token_is_for_one_answer_to_one_action_in_its_time(
    changes: dict[str, Any], error: type[GrantRefused]
) -> None:
    tokens().authenticate(token(), MATTER)
    with pytest.raises(error) as refused:
        tokens().authenticate(token(), replace(MATTER, **changes))
    assert refused.value.kind == error.kind


def test_clocks_may_be_a_little_apart() -> None:
    within = [NOW - timedelta(seconds=30), NOW + timedelta(minutes=10, seconds=29)]
    for now in within:
        tokens().authenticate(token(), replace(MATTER, now=now))
    strict = SignedTokens([token_key(DESK)], clock_skew=timedelta(0))
    with pytest.raises(GrantRefused):
        strict.authenticate(token(), replace(MATTER, now=within[0]))
    with pytest.raises(ApproversError, match="clock skew"):
        SignedTokens([token_key(DESK)], clock_skew=timedelta(hours=1))


BEYOND: dict[str, dict[str, Any]] = {
    "somebody else": {"approver": EntityUid("User", "boss")},
    "another role": {"roles": [EntityUid("Role", "admin")]},
    "another tenant": {},
}


@pytest.mark.parametrize("what", BEYOND)
def test_a_key_speaks_only_for_whom_it_may(what: str) -> None:
    own = SignedTokens([token_key(DESK, **PERSON)])
    assert own.authenticate(token(), MATTER).uid == EntityUid("User", "fin")
    there = SimpleNamespace(
        id="a-1", tenant="evil" if what == "another tenant" else "acme", action_hash="h-1"
    )
    with pytest.raises(GrantRefused, match="may not speak for"):
        own.authenticate(says(there, "User::fin", **({"now": NOW} | BEYOND[what])), MATTER)


def test_a_star_is_nothing_a_token_can_claim() -> None:
    own = SignedTokens([token_key(HMAC, **PERSON)])
    for changes in ({"tenants": ["*"]}, {"roles": ["*"]}, {"sub": "*"}):
        with pytest.raises(GrantRefused):
            own.authenticate(SignedToken(encode_token(claims(**changes), HMAC)), MATTER)


def test_keys_rotate() -> None:
    new = ed25519.Ed25519PrivateKey.generate()
    signing = SigningKey(id="desk-2", algorithm="Ed25519", material=new.private_bytes_raw())
    later = replace(token_key(DESK), id="desk-2", material=new.public_key().public_bytes_raw())
    both = SignedTokens([token_key(DESK), later])
    found = [both.authenticate(token(key=key), MATTER) for key in (DESK, signing)]
    assert {each.uid for each in found} == {EntityUid("User", "fin")}
    with pytest.raises(GrantRefused, match="not among the configured"):
        SignedTokens([later]).authenticate(token(), MATTER)
    with pytest.raises(ApproversError, match="two keys have the id"):
        SignedTokens([token_key(DESK), token_key(DESK)])


def test_secrets_are_in_no_repr() -> None:
    for value in (token(), DESK, HMAC, token_key(HMAC)):
        assert "sss" not in repr(value)
        assert token().text[:20] not in repr(value)
    with pytest.raises(ApproversError, match="32 bytes or more"):
        token_key(HMAC, material=b"short")
    with pytest.raises(GrantRefused, match="a token is text"):
        SignedToken(5)  # type: ignore[arg-type]


LOGIN = pwd.getpwuid(os.getuid()).pw_name
ANN = OsIdentity(uid=EntityUid("User", "ann"), tenants=frozenset({"acme"}))


def test_the_operating_system_says_who_runs_this() -> None:
    import grp

    group = grp.getgrgid(pwd.getpwuid(os.getuid()).pw_gid).gr_name
    role = EntityUid("Role", "finance")
    found = OsUsers({LOGIN: ANN}, {group: frozenset({role}), "no-such-group": frozenset()}).authenticate(
        OsUser(), MATTER
    )
    assert (found.uid, found.roles, found.method) == (ANN.uid, frozenset({role}), "os_user")
    assert not found.single_use
    with pytest.raises(NotAnApprover, match=f"login '{LOGIN}'"):
        OsUsers({"somebody-else": ANN}).authenticate(OsUser(), MATTER)


def test_a_user_without_a_name_is_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "getuid", lambda: 2**31 - 7)
    with pytest.raises(GrantRefused, match="no login name"):
        OsUsers({LOGIN: ANN}).authenticate(OsUser(), MATTER)


PEM = (
    ed25519.Ed25519PublicKey.from_public_bytes(PUBLIC)
    .public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
    .decode()
)
OTHER_PEM = (
    ec.generate_private_key(ec.SECP256R1())
    .public_key()
    .public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
    .decode()
)
GOOD = f'''version = 1
[[key]]
id = "desk"
algorithm = "Ed25519"
public_key = """{PEM}"""
subjects = ["User::fin"]
roles = ["Role::finance"]
tenants = ["acme"]
[[key]]
id = "hmac"
algorithm = "HMAC-SHA256"
secret_file = "hmac.secret"
subjects = ["*"]
tenants = ["*"]
[[os_user]]
login = "{LOGIN}"
uid = "User::ann"
tenants = ["acme"]
'''


@pytest.fixture
def file(tmp_path: Path) -> Path:
    (tmp_path / "hmac.secret").write_bytes(SECRET + b"\n")
    (tmp_path / "hmac.secret").chmod(0o600)
    (tmp_path / "approvers.toml").write_text(GOOD)
    return tmp_path / "approvers.toml"


def test_a_file_configures_them(file: Path) -> None:
    signed, os_users = load_approvers(file)
    assert signed.authenticate(token(), MATTER).uid == EntityUid("User", "fin")
    assert signed.authenticate(says(WAITING, "User::x", key=HMAC, now=NOW), MATTER).uid == EntityUid(
        "User", "x"
    )
    assert os_users.authenticate(OsUser(), MATTER).uid == ANN.uid
    with pytest.raises(GrantRefused, match="may not speak for role"):
        signed.authenticate(token(key=HMAC), MATTER)  # this key was given no roles


MISTAKES = {
    "no version": ("version = 1\n", "", r"`version` must be 1"),
    "not TOML": ("version = 1", "version = ", r"approvers.toml:1: not valid TOML"),
    "a misspelt key": (
        "subjects = [",
        "subject = [",
        r"approvers.toml:\d+: key 1: unknown key `subject`",
    ),
    "no subjects": ('subjects = ["User::fin"]\n', "", "needs `subjects`"),
    "no tenants": ('uid = "User::ann"\ntenants = ["acme"]', 'uid = "User::ann"', "needs `tenants`"),
    "a uid that is none": ('"User::fin"', '"fin"', "`subjects`: entity uid must be"),
    "an unknown algorithm": ('"HMAC-SHA256"', '"RS256"', "`algorithm` must be Ed25519 or HMAC-SHA256"),
    "another kind of key": (PEM, OTHER_PEM, "an Ed25519 public key is needed"),
    "no key": (PEM, "x", "is no key in PEM"),
    "a secret that is not there": ("hmac.secret", "gone.secret", "cannot read it"),
    "two keys of one name": ('id = "hmac"', 'id = "desk"', "is taken"),
    "a public key for HMAC": ("Ed25519", "HMAC-SHA256", "has no public key"),
    "an endless skew": ("version = 1\n", "version = 1\nclock_skew_seconds = 900\n", "from 0 to 300"),
}


@pytest.mark.parametrize(("old", "new", "why"), MISTAKES.values(), ids=MISTAKES)
def test_a_mistake_in_the_file_is_told_with_its_place(file: Path, old: str, new: str, why: str) -> None:
    text = file.read_text()
    assert old in text
    file.write_text(text.replace(old, new, 1))
    with pytest.raises(ApproversError, match=why):
        load_approvers(file)


def test_a_secret_that_others_can_read_is_refused(file: Path) -> None:
    secret = file.parent / "hmac.secret"
    secret.chmod(0o640)
    with pytest.raises(ApproversError, match="chmod 600"):
        load_approvers(file)
    secret.chmod(0o600)
    secret.write_text(PEM)  # the confusion of algorithms, by configuration
    with pytest.raises(ApproversError, match="holds a PEM key"):
        load_approvers(file)


def test_a_file_that_names_nobody_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "approvers.toml"
    for text, why in (("version = 1\n", "names no approver"), (None, "cannot be read")):
        if text is not None:
            path.write_text(text)
        else:
            path.unlink()
        with pytest.raises(ApproversError, match=why):
            load_approvers(path)


def test_a_private_key_comes_from_a_file(tmp_path: Path) -> None:
    private = ed25519.Ed25519PrivateKey.from_private_bytes(DESK.material)
    pem = private.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    (tmp_path / "k.pem").write_bytes(pem)
    assert SigningKey.from_file("desk", tmp_path / "k.pem") == DESK
    with pytest.raises(ApproversError, match="no secret for HMAC"):
        SigningKey.from_file("desk", tmp_path / "k.pem", algorithm="HMAC-SHA256")
    (tmp_path / "k.bin").write_bytes(b"\x30\x2e\x02")
    with pytest.raises(ApproversError, match="no private key in PEM"):
        SigningKey.from_file("desk", tmp_path / "k.bin")
    (tmp_path / "k.pem").write_text(PEM)
    with pytest.raises(ApproversError, match="is no key in PEM"):
        SigningKey.from_file("desk", tmp_path / "k.pem")
    with pytest.raises(ApproversError, match="cannot read key"):
        SigningKey.from_file("desk", tmp_path / "gone.pem")
