"""The facts that AgentDojo's sessions are decided with, as Delta tables.

One rule: facts come from the structured fields of the *clean* environment and from the user's own prompt. Nothing is
taken from a body, a page, a file's content or a subject line, where an attacker can write.

Directory tables hold rows of every tenant, keyed by `tenant_id` and an id; `requests` has one row a session. Who
counts as known is what the user did (paid, wrote to, met, shared a file with), never who wrote to the user.

Reading a prompt is plain pattern matching, documented by `TOKENS` and `INTENTS`: small, deterministic, and wrong at
times. Where it is wrong the policies ask a person; the data card counts how often.
"""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from runtime.canonical import Json, canonical
from workbench.agentdojo.scripts import SUITES, VERSION, clean_environment

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    import pyarrow as pa

    from workbench.agentdojo.scripts import SessionScript

_MONTHS = (
    "january", "february", "march", "april", "may", "june",
    "july", "august", "september", "october", "november", "december",
)  # fmt: skip
_QUOTED = re.compile(r"(?<!\w)'([^'\n]+)'(?!\w)|\"([^\"\n]+)\"")
_CAPITALISED = re.compile(r"\b[A-Z][\w.&-]*\w(?:\s+[A-Z][\w.&-]*\w)*")
_DAY = re.compile(
    rf"(?P<iso>\d{{4}}-\d{{2}}-\d{{2}})"
    rf"|\b(?P<month>{'|'.join(_MONTHS)})\s+(?P<day>\d{{1,2}})(?:st|nd|rd|th)?\b(?:,?\s+(?P<year>\d{{4}}))?",
    re.IGNORECASE,
)
_NUMBER = re.compile(r"(?<![\w.,:-])(\d{1,3}(?:,\d{3})+|\d+)(?:\.(\d{1,2}))?(?![\w:-]|[.,]\d)")
_ENUMERATOR = re.compile(r"(?:^|(?<=[:.?!] ))\d{1,2}\. ")

TOKENS: Mapping[str, re.Pattern[str]] = {
    "emails": re.compile(r"[\w.+-]+@[\w-]+(?:\.[\w-]+)+"),
    "accounts": re.compile(r"\b[A-Z]{2}\d{2}[A-Z0-9]{8,30}\b"),
    "urls": re.compile(r"(?:(?<=://)|\b(?=www\.))[a-z0-9-]+(?:\.[a-z0-9-]+)+(?:/[\w./-]*\w)?"),
    "files": re.compile(r"\b[\w-]+\.(?:txt|docx|xlsx|pptx|pdf|csv|md)\b"),
}
"""What a prompt names, by column of `requests`. `names` (quoted text and runs of capitalised words, and their words),
`dates` (ISO days), `numbers` and `amounts_cents` are read by functions below. Urls come without their scheme, as
AgentDojo's tools take them."""


@dataclass(frozen=True, slots=True)
class Intent:
    """A sentence asks for it if one of `verbs` stands in it and, where given, one of `nouns` follows."""

    verbs: str
    """Alternatives of a regular expression, whole words."""
    nouns: str = ""
    """The same; empty: the verb is enough."""

    def found(self, sentence: str) -> bool:
        """Whether a sentence, lower case and without its quoted parts, asks for it."""
        follows = rf".*\b(?:{self.nouns})\b" if self.nouns else ""
        return re.search(rf"\b(?:{self.verbs})\b{follows}", sentence, re.DOTALL) is not None


_CREATE = "create|add|schedule|set up|make|put"
_WRITE = r"write(?! (?:permission|access|right))"

INTENTS: Mapping[str, Intent] = {
    "asks_for_own_details": Intent(
        "my", r"passport\w*|id|identity|details|profile|phone|credit card|bank account"
    ),
    "asks_for_write_access": Intent("rw|write|edit|editing", "permissions?|access|rights"),
    "asks_to_add": Intent("add"),
    "asks_to_book": Intent("book|reserve|reservation"),
    "asks_to_browse": Intent("articles?|websites?|webpages?|web pages?|pages?|links?|blogs?|sites?"),
    "asks_to_cancel": Intent("cancel|call off", "events?|meetings?|appointments?|lunch|dinner|class"),
    "asks_to_change_order": Intent(
        "adjust|update|change|modify|redirect", "orders?|rent|payments?|transactions?"
    ),
    "asks_to_change_password": Intent("update|change|set|reset", "password"),
    "asks_to_change_profile": Intent(
        "update|change|correct", "account information|address|profile|name|details"
    ),
    "asks_to_create_file": Intent("create|write|make", "files?|documents?|spreadsheets?"),
    "asks_to_delete_email": Intent("delete|remove|erase", "e?mails?|messages?"),
    "asks_to_delete_file": Intent("delete|remove|erase", "files?|documents?"),
    "asks_to_edit_file": Intent("add|append|edit|extend|complete", "files?|documents?|lists?"),
    "asks_to_invite": Intent("invite"),
    "asks_to_pay": Intent("pay|send|refund|transfer|wire|reimburse|set up|schedule"),
    "asks_to_post": Intent(f"post|publish|{_WRITE}|reply|announce"),
    "asks_to_remove": Intent("remove|kick"),
    "asks_to_reschedule": Intent("reschedule|move|postpone|shift"),
    "asks_to_schedule": Intent(_CREATE, "events?|calendar|reminders?|appointments?|meetings?"),
    "asks_to_send": Intent(
        f"send|{_WRITE}|reply|forward|(?:please|and|then) e-?mail|message (?:them|him|her)"
    ),
    "asks_to_share": Intent("share"),
    "delegates": Intent("do|follow|execute|carry out", "actions?|tasks?|instructions|to-?dos?"),
}
"""What a prompt asks for, by column of `requests`. `delegates`: it hands over to a document ("do the actions
specified in the email from …"), so what it asks for cannot be read from the prompt."""


def write_facts(
    folder: str | Path, scripts: Iterable[SessionScript], version: str = VERSION
) -> dict[str, str]:
    """Write every fact table under `folder`, one Delta table each, and return table name → location.

    A table whose rows are already those is left as it is, so that its version, and what was compiled from it, stays.

    Args:
        folder: where the tables go; created if missing.
        scripts: the sessions that need a row in `requests`; a session that has none asks for nothing.
        version: AgentDojo's benchmark version, for the directory tables.

    Raises:
        deltalake.exceptions.DeltaError: the folder cannot be written.
    """
    tables = fact_tables(scripts, version)
    return {name: _write(Path(folder) / name, table) for name, table in tables.items()}


def fact_tables(scripts: Iterable[SessionScript], version: str = VERSION) -> dict[str, pa.Table]:
    """Return every fact table by name, rows sorted, as Arrow; see the data card for the columns."""
    rows: dict[str, list[dict[str, Json]]] = {name: [] for name in _COLUMNS}
    rows["requests"] = [
        {"tenant_id": s.tenant, "session_id": s.session_id, **read_request(s.prompt)} for s in scripts
    ]
    for suite in SUITES:
        for name, found in _DIRECTORIES[suite](clean_environment(suite, version)).items():
            rows[name] += [{"tenant_id": suite, **row} for row in found]
    return {name: _arrow(name, found) for name, found in rows.items()}


def read_request(prompt: str) -> dict[str, Json]:
    """Return what a prompt names and asks for: the columns of `requests` beside its keys.

    Example:
        >>> request = read_request("Please send an email to ann@example.com about 'Lunch'.")
        >>> request["emails"], request["asks_to_send"], request["asks_to_delete_file"]
        (['ann@example.com'], True, False)
    """
    found: dict[str, Json] = {name: _sorted(pattern.findall(prompt)) for name, pattern in TOKENS.items()}
    numbers = list(_numbers(prompt))
    found |= {
        "names": _sorted(_names(prompt)),
        "dates": _sorted(_dates(prompt)),
        "numbers": _sorted(whole for whole, cents in numbers if cents == 0),
        "amounts_cents": _sorted(whole * 100 + cents for whole, cents in numbers),
    }
    spoken = _QUOTED.sub(" ", prompt).lower()
    sentences = re.split(r"[.?!](?:\s|$)", spoken)
    return found | {name: any(map(intent.found, sentences)) for name, intent in INTENTS.items()}


def _sorted(values: Iterable[Any]) -> list[Any]:
    return sorted(set(values))


def _names(prompt: str) -> Iterable[str]:
    for single, double in _QUOTED.findall(prompt):
        yield single or double
    for run in _CAPITALISED.findall(prompt):
        yield run
        yield from run.split()


def _dates(prompt: str) -> Iterable[str]:
    """ISO days. In "January 11th to January 15th 2025" a day without a year takes that of the next one with it."""
    year: str | None = None
    for match in reversed(list(_DAY.finditer(prompt))):
        if match["iso"]:
            yield match["iso"]
            continue
        year = match["year"] or year
        if year is not None:
            yield f"{year}-{_MONTHS.index(match['month'].lower()) + 1:02}-{int(match['day']):02}"


def _numbers(prompt: str) -> Iterable[tuple[int, int]]:
    """(whole, cents) of each number that is no part of a date, a time, an address, a name or a list's numbering."""
    bare = _DAY.sub(" ", _ENUMERATOR.sub(" ", prompt))
    for pattern in TOKENS.values():
        bare = pattern.sub(" ", bare)
    for whole, fraction in _NUMBER.findall(bare):
        yield int(whole.replace(",", "")), int((fraction or "0").ljust(2, "0"))


def _banking(environment: Any) -> dict[str, list[dict[str, Json]]]:
    account = environment.bank_account
    own = {account.iban, "me"}
    paid = [t for t in (*account.transactions, *account.scheduled_transactions) if t.sender in own]
    largest: Counter[str] = Counter()
    for each in paid:
        largest[each.recipient] = max(largest[each.recipient], _cents(each.amount))
    payments = Counter(each.recipient for each in account.transactions if each.sender in own)
    return {
        "accounts": [{"iban": account.iban, "balance_cents": _cents(account.balance)}],
        "payees": [
            {"account": payee, "payments": payments[payee], "largest_cents": cents}
            for payee, cents in largest.items()
        ],
        "standing_orders": [
            {"id": t.id, "recipient": t.recipient, "amount_cents": _cents(t.amount), "recurring": t.recurring}
            for t in account.scheduled_transactions
        ],
    }


def _slack(environment: Any) -> dict[str, list[dict[str, Json]]]:
    return {"members": [{"name": user} for user in environment.slack.users]}


def _workspace(environment: Any) -> dict[str, list[dict[str, Json]]]:
    files = environment.cloud_drive.files.values()
    me = environment.inbox.account_email
    shared = {email: "shared_with" for file in files if file.owner == me for email in file.shared_with}
    return {
        "contacts": _contacts(environment, shared),
        "files": [{"file_id": f.id_, "filename": f.filename, "owner": f.owner} for f in files],
    }


def _travel(environment: Any) -> dict[str, list[dict[str, Json]]]:
    hotels = environment.hotels.hotel_list
    return {
        "contacts": _contacts(environment, {}),
        "hotels": [{"name": h.name, "city": h.city, "price_max_cents": _cents(h.price_max)} for h in hotels],
    }


def _contacts(environment: Any, others: Mapping[str, str]) -> list[dict[str, Json]]:
    """Whom the user wrote to, met, or shared a file with; not who wrote to the user."""
    inbox = environment.inbox
    met = {email: "met" for event in environment.calendar.events.values() for email in event.participants}
    sent = [mail for mail in inbox.emails.values() if mail.sender == inbox.account_email]
    wrote = {email: "wrote_to" for mail in sent for email in (*mail.recipients, *mail.cc, *mail.bcc)}
    known = {**others, **met, **wrote, inbox.account_email: "own"}
    return [{"email": email, "via": via} for email, via in known.items()]


_DIRECTORIES = {"banking": _banking, "slack": _slack, "travel": _travel, "workspace": _workspace}


def _cents(amount: float) -> int:
    """Cents of an amount with at most two decimals.

    Raises:
        ValueError: it has more.
    """
    cents = round(amount * 100)
    if cents / 100 != amount:
        raise ValueError(f"amount must have at most two decimals, got {amount!r}")
    return cents


_COLUMNS: Mapping[str, Mapping[str, str]] = {
    "requests": {
        "tenant_id": "string", "session_id": "string",
        **dict.fromkeys(("emails", "accounts", "urls", "files", "names", "dates"), "list<string>"),
        **dict.fromkeys(("numbers", "amounts_cents"), "list<int64>"),
        **dict.fromkeys(INTENTS, "bool"),
    },
    "accounts": {"tenant_id": "string", "iban": "string", "balance_cents": "int64"},
    "payees": {"tenant_id": "string", "account": "string", "payments": "int64", "largest_cents": "int64"},
    "standing_orders": {
        "tenant_id": "string", "id": "int64", "recipient": "string", "amount_cents": "int64", "recurring": "bool",
    },
    "members": {"tenant_id": "string", "name": "string"},
    "contacts": {"tenant_id": "string", "email": "string", "via": "string"},
    "files": {"tenant_id": "string", "file_id": "string", "filename": "string", "owner": "string"},
    "hotels": {"tenant_id": "string", "name": "string", "city": "string", "price_max_cents": "int64"},
}  # fmt: skip
"""Column → type of each fact table."""


def _arrow(name: str, rows: Sequence[Mapping[str, Json]]) -> pa.Table:
    import pyarrow as pa  # noqa: PLC0415 - costs 0.3 s, and only writing needs it

    types = {
        "string": pa.string(), "bool": pa.bool_(), "int64": pa.int64(),
        "list<string>": pa.list_(pa.string()), "list<int64>": pa.list_(pa.int64()),
    }  # fmt: skip
    schema = pa.schema([pa.field(column, types[kind]) for column, kind in _COLUMNS[name].items()])
    return pa.Table.from_pylist(sorted((dict(row) for row in rows), key=canonical), schema=schema)


def _write(path: Path, table: pa.Table) -> str:
    from deltalake import DeltaTable, write_deltalake  # noqa: PLC0415 - imports pyarrow

    uri = str(path)
    if DeltaTable.is_deltatable(uri):
        held = DeltaTable(uri).to_pyarrow_table().select(table.column_names)
        if sorted(map(canonical, held.to_pylist())) == sorted(map(canonical, table.to_pylist())):
            return uri
    path.mkdir(parents=True, exist_ok=True)
    write_deltalake(uri, table, mode="overwrite", schema_mode="overwrite")
    return uri
