"""Delivering a notification: a line appended to a file, a body posted to a webhook; each once, or told why not.

One rule: no address is told in full, because it may hold a secret: of a webhook only its host is named.
"""

from __future__ import annotations

import fcntl
import hashlib
import hmac
import json
import os
import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, cast
from urllib.parse import urlsplit

from workbench.errors import WorkbenchError, need
from workbench.masking import leaving
from workbench.texts import shorten, visible

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from runtime.canonical import Json

MAX_PAUSE = 30.0
"""Seconds between two tries, whatever `Retry-After` says."""
_ERRNO = re.compile(r"\[Errno -?\d+\] ")
_TAIL = 1 << 20
"""Bytes at the end of a file in which a line of the same key is looked for."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Webhook:
    """Where to, and how."""

    url: str | None = None
    url_env: str | None = None
    """Environment variable that holds the address; one of the two is given."""
    secret_env: str | None = None
    """Environment variable that holds the key bodies are signed with; None: they are not."""
    headers_env: Mapping[str, str] = field(default_factory=dict)
    """Headers whose values stand in environment variables."""
    timeout: float = 10.0
    """Seconds to connect, and to wait for each piece of the answer."""
    retries: int = 3
    """Further tries, where nobody answers or the answer is 429 or 5xx."""


class NotDelivered(WorkbenchError):  # noqa: N818 - what happened
    """Why a notification did not arrive; `pause` seconds before it is worth another try, None: it is not."""

    def __init__(self, message: str, *, pause: float | None = None) -> None:
        super().__init__(message)
        self.pause = pause


def unusable(url: str) -> str | None:
    """Say why an address cannot be used; None: it can."""
    try:
        parts = urlsplit(url)
        usable = parts.scheme in ("http", "https") and bool(parts.hostname) and (parts.port or 1) > 0
    except ValueError:
        usable = False
    if usable and visible(url) == url and " " not in url:
        return None
    return "is no address; it begins with `https://` or `http://` and a host"


def append(found: Mapping[str, Json], path: Path) -> None:
    """Append a line of JSON, unless one of that `key` is there; on the disk when this returns.

    Several processes may append at once. Looks at the last MiB of the file.

    Raises:
        OSError: the file cannot be written.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    line = leaving(json.dumps(found, ensure_ascii=False, separators=(",", ":"), allow_nan=False))
    with path.open("a+b") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        size = file.seek(0, os.SEEK_END)
        file.seek(max(0, size - _TAIL))
        tail = file.read()
        if any(_key_in(each) == found["key"] for each in tail.splitlines()):
            return
        torn = (
            b"" if not tail or tail.endswith(b"\n") else b"\n"
        )  # somebody was stopped in the middle of a line
        file.write(torn + line.encode() + b"\n")
        file.flush()
        os.fsync(file.fileno())


def _key_in(line: bytes) -> object:
    try:
        told = json.loads(line)
    except ValueError:
        return None
    return told.get("key") if isinstance(told, dict) else None


def variables(webhook: Webhook) -> Iterator[str]:
    """Yield the environment variables that a webhook needs."""
    yield from filter(None, (webhook.url_env, webhook.secret_env, *webhook.headers_env.values()))


def unset(name: str) -> str:
    """Say that a variable is not there."""
    return f"the environment variable `{visible(name)}` is not set"


def _value_of(name: str) -> str:
    found = os.environ.get(name)
    if not found:
        raise NotDelivered(unset(name))
    return found.strip()


def post(found: Mapping[str, Json], webhook: Webhook) -> None:
    """Send a body, as often as it takes; returns when the receiver said 2xx.

    Raises:
        NotDelivered: it did not, after all tries, or a variable is not set.
        MissingExtra: `httpx` or `tenacity` is not installed.
    """
    url = webhook.url or _value_of(cast("str", webhook.url_env))
    if why := unusable(url):
        raise NotDelivered(f"its address {why}")
    body = leaving(json.dumps(found, ensure_ascii=False, allow_nan=False)).encode()
    headers = {name: _value_of(variable) for name, variable in webhook.headers_env.items()}
    headers |= {
        "Content-Type": "application/json",
        "Idempotency-Key": str(found["key"]),
        "User-Agent": "redecide-regress",
    }
    if webhook.secret_env is not None:
        secret = _value_of(webhook.secret_env).encode()
        headers["X-Redecide-Signature-256"] = f"sha256={hmac.new(secret, body, hashlib.sha256).hexdigest()}"
    tenacity, httpx = need("tenacity"), need("httpx")
    tries = tenacity.Retrying(
        stop=tenacity.stop_after_attempt(webhook.retries + 1),
        retry=tenacity.retry_if_exception(lambda exc: getattr(exc, "pause", None) is not None),
        wait=_pause,
        reraise=True,
    )
    with httpx.Client(timeout=webhook.timeout, follow_redirects=False) as client:
        tries(_try, client, url, body, headers)


def _pause(state: Any) -> float:
    """Seconds before the next try: what the receiver asked for, else twice as long each time."""
    asked = float(state.outcome.exception().pause)
    return min(MAX_PAUSE, max(asked, 0.5 * 2.0 ** int(state.attempt_number - 1)))


def _try(client: Any, url: str, body: bytes, headers: Mapping[str, str]) -> None:
    httpx = need("httpx")
    host = urlsplit(url).netloc.rpartition("@")[2]  # the rest of an address may be a secret
    try:
        with client.stream("POST", url, content=body, headers=headers) as answer:
            status, after = answer.status_code, answer.headers.get("Retry-After", "")
    except httpx.TimeoutException as exc:
        raise NotDelivered(f"{host} did not answer in time", pause=0) from exc
    except (httpx.HTTPError, httpx.InvalidURL, OSError) as exc:
        said = shorten(_ERRNO.sub("", str(exc).replace(url, host)), 200) or type(exc).__name__
        raise NotDelivered(f"{host}: {said}", pause=0) from exc
    if status == httpx.codes.TOO_MANY_REQUESTS or status >= httpx.codes.INTERNAL_SERVER_ERROR:
        raise NotDelivered(f"{host} answered {status}", pause=float(after) if after.isdecimal() else 0)
    if not httpx.codes.is_success(status):
        raise NotDelivered(f"{host} answered {status}; it does not take it so, and is not asked again")
