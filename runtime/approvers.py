"""`approvers.toml`: which keys and which users of the operating system may speak for whom.

One rule: whatever would let nobody approve, or somebody whom nobody named, is an error with its line when the file is
read. It is configuration of a machine, not part of a bundle: who may approve *what* is `@approvers` of the policy.

```toml
version = 1
clock_skew_seconds = 30

[[key]]                                   # a person's key: it speaks for that person
id = "fin-2026"
algorithm = "Ed25519"
public_key_file = "fin.pub.pem"           # beside this file; or public_key = \"\"\"-----BEGIN PUBLIC KEY-----…\"\"\"
subjects = ["User::fin"]
roles = ["Role::finance"]
tenants = ["acme"]

[[key]]                                   # a service that knows who people are: it speaks for anybody
id = "approvals-desk"
algorithm = "HMAC-SHA256"
secret_file = "/etc/redecide/desk.secret" # readable by its owner alone
subjects = ["*"]
roles = ["Role::finance", "Role::support"]
tenants = ["*"]
issuer = "desk"

[[os_user]]
login = "ann"
uid = "User::ann"
tenants = ["acme"]

[[os_group]]
group = "finance"
roles = ["Role::finance"]
```
"""

from __future__ import annotations

import tomllib
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING

from runtime.authenticators import ANY, OsIdentity, OsUsers, SignedTokens, TokenKey
from runtime.entities import EntityUid
from runtime.errors import ApproversError
from runtime.tokens import public_bytes
from runtime.toml import TomlLines, TomlTable, line_of

if TYPE_CHECKING:
    from collections.abc import Iterable

    from runtime.authenticators import Authenticator
    from runtime.tokens import Algorithm

APPROVERS_FILE = "approvers.toml"

_KEY = frozenset(
    {
        *("id", "algorithm", "public_key", "public_key_file", "secret_file"),
        *("subjects", "roles", "tenants", "issuer"),
    }
)
_OTHERS = 0o077


def load_approvers(path: str | Path) -> tuple[Authenticator, ...]:
    """Read the authenticators that a file configures.

    Raises:
        ApproversError: it cannot be read, or something in it cannot be meant; with file and line.
    """
    file = Path(path)
    try:
        text = file.read_text("utf-8")
    except (OSError, UnicodeDecodeError) as exc:
        raise ApproversError(
            f"cannot be read: {exc.strerror if isinstance(exc, OSError) else exc}; name it: `authenticators=`, "
            "`--approvers`, REDECIDE_APPROVERS",
            file=str(path),
        ) from exc
    try:
        document = tomllib.loads(text)
    except tomllib.TOMLDecodeError as exc:
        raise ApproversError(f"not valid TOML: {exc}", file=str(path), line=line_of(exc, text)) from exc
    root = TomlTable(document, "approvers", ApproversError, str(path), TomlLines(text))
    root.allow(frozenset({"version", "clock_skew_seconds", "key", "os_user", "os_group"}))
    if document.get("version") != 1:
        given = (
            f"got {document['version']!r}"
            if "version" in document
            else "it is missing: `version = 1` above everything"
        )
        raise root.error(f"`version` must be 1, {given}", "version")
    found = [*_signed_tokens(root, file.parent), *_os_users(root)]
    if not found:
        raise root.error("names no approver; add a `[[key]]` or an `[[os_user]]`")
    return tuple(found)


def as_authenticators(given: str | Path | Iterable[Authenticator]) -> tuple[Authenticator, ...]:
    """Return authenticators given as objects, or as the path of a file."""
    return load_approvers(given) if isinstance(given, str | Path) else tuple(given)


def _signed_tokens(root: TomlTable, folder: Path) -> list[Authenticator]:
    skew = root.table.get("clock_skew_seconds", 30)
    if not isinstance(skew, int) or isinstance(skew, bool) or not 0 <= skew <= 300:  # noqa: PLR2004 - five minutes
        raise root.error(
            f"`clock_skew_seconds` must be an integer from 0 to 300, got {skew!r}", "clock_skew_seconds"
        )
    tables = root.array_of_tables("key", "key")
    keys: dict[str, TokenKey] = {}
    for table in tables:
        key = _key(table, folder)
        if keys.setdefault(key.id, key) is not key:
            raise table.error(f"`id` {key.id!r} is taken; give the new key an id of its own", "id")
    return [SignedTokens(keys.values(), clock_skew=timedelta(seconds=skew))] if keys else []


def _key(table: TomlTable, folder: Path) -> TokenKey:
    table.allow(_KEY)
    ident = table.required("id")
    table = table.named(f"key `{ident}`")
    algorithm: Algorithm = table.choice("algorithm", ("Ed25519", "HMAC-SHA256"))
    material = _public_key(table, folder) if algorithm == "Ed25519" else _secret(table, folder)
    subjects, roles = _uids(table, "subjects"), _uids(table, "roles")
    if not subjects:
        raise table.error('needs `subjects`: whom it speaks for, such as ["User::fin"], or ["*"] for anybody')
    tenants = _tenants(table)
    try:
        return TokenKey(
            id=ident,
            algorithm=algorithm,
            material=material,
            subjects=subjects,
            roles=roles,
            tenants=tenants,
            issuer=table.text("issuer") or "redecide",
        )
    except ApproversError as exc:
        raise table.error(str(exc)) from exc


def _public_key(table: TomlTable, folder: Path) -> bytes:
    if table.has("secret_file"):
        raise table.error("an Ed25519 key has no secret here; give `public_key_file`", "secret_file")
    text, file = table.text("public_key"), table.text("public_key_file")
    if (text is None) == (file is None):
        raise table.error("needs either `public_key` or `public_key_file`")
    pem = text.encode() if text is not None else _read(table, folder / str(file), "public_key_file")
    try:
        return public_bytes(pem, "the public key")
    except ApproversError as exc:
        raise table.error(str(exc), "public_key" if file is None else "public_key_file") from exc


def _secret(table: TomlTable, folder: Path) -> bytes:
    if table.has("public_key") or table.has("public_key_file"):
        raise table.error("HMAC-SHA256 has no public key; give `secret_file`", "algorithm")
    path = folder / table.required("secret_file")
    data = _read(table, path, "secret_file")
    if path.stat().st_mode & _OTHERS:
        raise table.error(
            f"{str(path)!r} can be read by others, who could then approve; run `chmod 600 {path}`",
            "secret_file",
        )
    if data.lstrip().startswith(b"-----BEGIN"):
        raise table.error(f"{str(path)!r} holds a PEM key; a secret is random bytes", "secret_file")
    return data.strip()


def _read(table: TomlTable, path: Path, key: str) -> bytes:
    try:
        return path.read_bytes()
    except OSError as exc:
        raise table.error(f"cannot read it: {exc}", key) from exc


def _uids(table: TomlTable, key: str) -> frozenset[str]:
    """Uids in canonical text; `ANY` stands for all."""
    return frozenset(text if text == ANY else str(_uid(table, key, text)) for text in table.names(key))


def _uid(table: TomlTable, key: str, text: str) -> EntityUid:
    try:
        return EntityUid.parse(text)
    except ValueError as exc:
        raise table.error(f"`{key}`: {exc}", key) from exc


def _tenants(table: TomlTable) -> frozenset[str]:
    found = frozenset(table.names("tenants"))
    if not found:
        raise table.error('needs `tenants`: where it counts, such as ["acme"], or ["*"] for everywhere')
    return found


def _os_users(root: TomlTable) -> list[Authenticator]:
    users: dict[str, OsIdentity] = {}
    for table in root.array_of_tables("os_user", "os_user"):
        table.allow(frozenset({"login", "uid", "roles", "tenants"}))
        login = table.required("login")
        if login in users:
            raise table.error(f"`login` {login!r} is given twice", "login")
        users[login] = OsIdentity(
            uid=_uid(table, "uid", table.required("uid")),
            roles=_roles(table),
            tenants=_tenants(table),
        )
    groups: dict[str, frozenset[EntityUid]] = {}
    for table in root.array_of_tables("os_group", "os_group"):
        table.allow(frozenset({"group", "roles"}))
        name = table.required("group")
        groups[name] = groups.get(name, frozenset()) | _roles(table)
    if groups and not users:
        raise root.error("`[[os_group]]` gives roles to logins, and there is no `[[os_user]]`", "os_group")
    return [OsUsers(users, groups)] if users else []


def _roles(table: TomlTable) -> frozenset[EntityUid]:
    return frozenset(_uid(table, "roles", text) for text in table.names("roles"))


__all__ = ["APPROVERS_FILE", "as_authenticators", "load_approvers"]
