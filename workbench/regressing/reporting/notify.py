"""Telling somebody: a line in a file, and a request to a webhook, for the verdicts that were asked for.

```toml
[notify]
on = ["regression", "error"]         # default: regression, inconclusive, error; there is ship, too
file = "nights.jsonl"                # beside the job's file
[notify.webhook]
url_env = "OPS_WEBHOOK"              # an address is often a secret; or url = "https://ops.example/hook"
secret_env = "OPS_SECRET"            # signs the body
headers_env = { Authorization = "OPS_TOKEN" }
timeout = 10                         # seconds a try
retries = 3                          # after the first
```

One rule: a notification that fails is a problem of the night, never a lost night: `send` raises nothing of the kind,
and returns what went wrong.

The body is JSON: what `message` returns. The header `Idempotency-Key` (and `key` in the body) is the same for the
same result, so that a receiver can drop the second after a crash between sending and noting it; a file is looked at
before it is appended to. With a secret, `X-Redecide-Signature-256: sha256=…` is the HMAC-SHA256 of the body, in hex.
No decision, argument or label is sent: counts, verdicts, and the words of the night.

Accepted: proxies are those of the environment; redirects are not followed, a webhook that moved is told.
"""

from __future__ import annotations

import hashlib
import json
import os
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, cast, get_args

from workbench.errors import JobInvalid, MissingExtra
from workbench.regressing.job_keys import Keys
from workbench.regressing.reporting.as_json import as_dict
from workbench.regressing.reporting.delivering import (
    NotDelivered,
    Webhook,
    append,
    post,
    unset,
    unusable,
    variables,
)
from workbench.regressing.reporting.markdown import sentence
from workbench.regressing.reporting.sections import capital, headline
from workbench.texts import visible
from workbench.tracking import shown

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from runtime.canonical import Json
    from workbench.regressing.result import Night, Verdict

Event = Literal["regression", "inconclusive", "error", "ship"]
"""What a night may be told for. `error`: it could not run, or something went wrong beside the verdict."""

EVENTS: tuple[Event, ...] = get_args(Event)
DEFAULT: tuple[Event, ...] = ("regression", "inconclusive", "error")
_EVENT_OF: Mapping[Verdict, Event] = {
    "don't ship": "regression",
    "inconclusive": "inconclusive",
    "could not run": "error",
    "ship": "ship",
}

SCHEMA, VERSION = "redecide.notification", 1
MAX_RETRIES = 10
MAX_TIMEOUT = 120.0
_WORDS = 400
"""Characters of a sentence of `text`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Notify:
    """Who is told, and of what. Made by `read_notify`."""

    on: tuple[Event, ...] = DEFAULT
    file: str | None = None
    """Path, relative to the job's folder."""
    webhook: Webhook | None = None

    def send(self, night: Night, *, folder: Path | None = None) -> tuple[str, ...]:
        """Tell of a night, where it is asked for; each once, also if it is sent again.

        Args:
            night: as it was found; its `problems` so far are told, too.
            folder: what `file` is relative to; None: the working directory.

        Returns:
            What went wrong, a sentence each; empty: all was delivered, or there was nothing to tell.
        """
        events = _events(night)
        if not events & set(self.on):
            return ()
        found = message(night)
        problems: list[str] = []
        if self.file is not None:
            problems += _problem("file", partial(append, found, (folder or Path()) / self.file))
        if self.webhook is not None:
            problems += _problem("webhook", partial(post, found, self.webhook))
        return tuple(problems)

    def missing(self) -> tuple[str, ...]:
        """Return what would go wrong already now: environment variables that are not set."""
        names = () if self.webhook is None else variables(self.webhook)
        return tuple(f"notification: {unset(name)}" for name in names if not os.environ.get(name))


def read_notify(table: Mapping[str, Any], where: str = "[notify]") -> Notify:
    """Read the table `[notify]` of a job.

    Args:
        table: as TOML gives it.
        where: its name in messages.

    Raises:
        JobInvalid: naming table and key, and the closest that is known; all that is wrong, one sentence each.
    """
    keys = Keys(table, where)
    on = keys.texts("on", DEFAULT, such_as='["regression", "error"]')
    for each in on:
        if each not in EVENTS:
            keys.wrong("on", f"names `{visible(each)}`; it may name {', '.join(EVENTS)}")
    file = keys.text("file", such_as="nights.jsonl")
    webhook = _webhook(keys, where)
    if not keys.has("file") and not keys.has("webhook"):
        keys.problems.append(f"{where} tells nobody; give `file` or `[notify.webhook]`, or leave it out")
    keys.done()
    if keys.problems:
        raise JobInvalid("; ".join(keys.problems))
    return Notify(on=cast("tuple[Event, ...]", on), file=file or None, webhook=webhook)


def _webhook(keys: Keys, where: str) -> Webhook | None:
    if not keys.has("webhook"):
        return None
    given = keys.get("webhook")
    if not isinstance(given, dict):
        keys.wrong("webhook", 'is a table, as `[notify.webhook]` with `url = "https://…"`')
        return None
    inner = Keys(
        given, f"{where[:-1]}.webhook]" if where.endswith("]") else f"{where} webhook", keys.problems
    )
    url, url_env = (
        inner.text("url", such_as="https://ops.example/hook"),
        inner.text("url_env", such_as="OPS_WEBHOOK"),
    )
    if inner.has("url") == inner.has("url_env"):
        inner.wrong("url", 'or `url_env`: give one of the two, as `url_env = "OPS_WEBHOOK"`')
    if url and (why := unusable(url)):
        inner.wrong("url", why)
    found = Webhook(
        url=url or None,
        url_env=url_env or None,
        secret_env=inner.text("secret_env", such_as="OPS_SECRET") or None,
        headers_env=_headers(inner),
        timeout=_seconds(inner),
        retries=inner.whole("retries", 3, least=0, most=MAX_RETRIES),
    )
    inner.done()
    return found


def _headers(keys: Keys) -> dict[str, str]:
    given = keys.get("headers_env", {})
    told = 'is a table of header to environment variable, as `headers_env = { Authorization = "OPS_TOKEN" }`'
    if not isinstance(given, dict):
        keys.wrong("headers_env", told)
        return {}
    for name, variable in given.items():
        token = name and all(char.isascii() and (char.isalnum() or char in "-_") for char in name)
        if not token or not isinstance(variable, str) or not variable:
            keys.wrong("headers_env", f"has `{visible(str(name))}`; it {told}")
            return {}
    return dict(given)


def _seconds(keys: Keys) -> float:
    given = keys.get("timeout", 10.0)
    if isinstance(given, int | float) and not isinstance(given, bool) and 0 < given <= MAX_TIMEOUT:
        return float(given)
    keys.wrong("timeout", f"is {visible(repr(given))}; give seconds, up to {MAX_TIMEOUT:g}")
    return 10.0


def message(night: Night) -> dict[str, Json]:
    """Return what is sent: verdicts, counts, gates and where the run is; no decision and no label."""
    told = [f"{capital(night.verdict)}, `{night.job}`.", *headline(night)]
    whole = as_dict(night)
    kept = ("name", "bundle", "version", "baseline", "verdict", "night", "window", "changed", "regressed",
            "gates", "headline", "notes", "run_id", "run_url")  # fmt: skip
    parts = cast("list[dict[str, Json]]", whole["candidates"])
    drift = cast("dict[str, Json] | None", whole["drift"])
    return {
        "schema": SCHEMA,
        "version": VERSION,
        "key": key_of(night),
        "event": _EVENT_OF[night.verdict],
        "text": " ".join(sentence(each, _WORDS) for each in told[:20]),
        **{name: whole[name] for name in ("verdict", "exit_code", "job", "lake", "started", "problems")},
        "candidates": [{name: each[name] for name in kept} for each in parts],
        "drift": drift and {name: drift[name] for name in kept if name in drift},
    }


def key_of(night: Night) -> str:
    """Return what names a night's result: the same when it is told again after a crash, 64 hex digits.

    Two nights that looked at nothing new differ by when they started.
    """
    windows = [each.window for each in night.candidates]
    windows += [] if night.drift is None else [night.drift.after]
    looked = any(each is not None and each.decisions for each in windows)
    looked |= any(each.reopened for each in night.candidates)
    found: list[object] = [night.job, shown(night.lake), None if looked else night.started]
    found += [
        (
            each.name,
            each.version,
            each.baseline_version,
            each.verdict,
            each.night,
            each.window and each.window.to,
        )
        for each in night.candidates
    ]
    if night.drift is not None:
        found.append((night.drift.verdict, night.drift.night, dict(night.drift.after.to)))
    text = json.dumps(found, sort_keys=True, default=dict)
    return hashlib.sha256(text.encode()).hexdigest()


def _events(night: Night) -> set[Event]:
    found: set[Event] = {_EVENT_OF[each.verdict] for each in night.candidates}
    return found | {_EVENT_OF[night.verdict]} | ({"error"} if night.problems else set())


def _problem(what: str, tell: Callable[[], None]) -> Iterator[str]:
    """What went wrong with telling, as sentences."""
    try:
        tell()
    except (OSError, ValueError, MissingExtra, NotDelivered) as exc:
        yield f"notification to {what}: {' '.join(visible(str(exc)).split())}"
