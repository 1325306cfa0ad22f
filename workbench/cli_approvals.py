"""Commands about approvals: what waits, and how people answer it.

One rule: a command shows or does what `Runtime.approvals` would, over the same ledger; who answers is known by what
`approvers.toml` configures, never by an option that names somebody. `list`, `show` and `sign` only look at the
ledger's file; `grant` and `deny` write to it.

Exit code 2, with one line on standard error: it was refused; nothing was granted or denied.
"""

from __future__ import annotations

import json
import sys
from datetime import timedelta
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, get_args

import typer

from runtime import EntityUid, OsUser, SignedToken, SigningKey, load_approvers, sign_approval
from runtime.approval import State, denial_text, need_text, shown
from runtime.approvals import Approvals
from runtime.approvals_read import look_at_approvals
from runtime.approvers import APPROVERS_FILE
from runtime.ledger import Ledger
from runtime.values import timestamp
from workbench.cli_ledger import ledger_file
from workbench.errors import WorkbenchError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from runtime import Approval
    from runtime.approval import Denial
    from runtime.approvals_read import RecordedApprovals
    from runtime.canonical import Json

app = typer.Typer(help="See what waits for approval, and answer it.", no_args_is_help=True)


class Held(StrEnum):
    """States that `list` shows; see `runtime.approval.State`."""

    pending = "pending"
    granted = "granted"
    denied = "denied"
    expired = "expired"
    consumed = "consumed"
    all = "all"


_STATES: Mapping[Held, State | None] = {Held.all: None} | {Held(name): name for name in get_args(State)}

Target = Annotated[str, typer.Argument(metavar="LEDGER|LAKE", help="A ledger's file, or the lake it is in.")]
Ident = Annotated[str, typer.Argument(metavar="APPROVAL", help="Id, as `list` shows it.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]
Token = Annotated[
    str | None,
    typer.Option("--token", help="A signed token; `-` reads it from standard input, out of sight."),
]
AsOsUser = Annotated[bool, typer.Option("--as-os-user", help="Answer as the user who runs this command.")]
ApproversFile = Annotated[
    Path, typer.Option("--approvers", envvar="REDECIDE_APPROVERS", help="Who may be believed.")
]


@app.command(name="list")
def list_approvals(
    target: Target,
    tenant: Annotated[str | None, typer.Option(help="Only of this tenant.")] = None,
    state: Annotated[Held, typer.Option(help="Only in this state.")] = Held.pending,
    as_json: AsJson = False,
) -> None:
    """Show what waits: who asks, what would run, and whose approval it needs."""
    found = look_at_approvals(ledger_file(target), lambda here: here.list(tenant, _STATES[state]))
    if as_json:
        _print_json([_told(each) for each in found])
        return
    for each in found:
        _print(_lines(each))
    if not found:
        which = "is recorded" if state is Held.all else f"is {state.value}"
        print(f"no approval {which}" + (f" in tenant {shown(tenant)}" if tenant else ""))


@app.command()
def show(target: Target, approval: Ident, as_json: AsJson = False) -> None:
    """Show one approval whole: all arguments, the facts it rests on, and who granted what."""

    def look(here: RecordedApprovals) -> tuple[Approval, Json]:
        found = here.get(approval)
        return found, here.facts(found)

    found, facts = look_at_approvals(ledger_file(target), look)
    if as_json:
        _print_json(_told(found) | {"facts": facts})
        return
    more = [("why", str(found.row["reason"])), ("facts", json.dumps(facts, ensure_ascii=False))]
    more += [("action", found.action_hash), ("policies", str(found.row["policy_hash"]))]
    _print([*_lines(found, whole=True), *more])


@app.command()
def grant(
    target: Target,
    approval: Ident,
    token: Token = None,
    as_os_user: AsOsUser = False,
    policy: Annotated[
        str | None, typer.Option(help="Only what this policy asks. Default: all you may.")
    ] = None,
    approvers: ApproversFile = Path(APPROVERS_FILE),
) -> None:
    """Grant an approval, or your part of it."""
    _answer(target, approvers, token, as_os_user, lambda here, who: here.grant(approval, who, policy))


@app.command()
def deny(
    target: Target,
    approval: Ident,
    token: Token = None,
    as_os_user: AsOsUser = False,
    reason: Annotated[str | None, typer.Option(help="Recorded with the denial.")] = None,
    approvers: ApproversFile = Path(APPROVERS_FILE),
) -> None:
    """Deny an approval, also one that is granted and not used yet."""
    _answer(target, approvers, token, as_os_user, lambda here, who: here.deny(approval, who, reason))


@app.command()
def sign(
    target: Target,
    approval: Ident,
    key: Annotated[
        Path, typer.Option(help="Your private key in PEM (Ed25519), or the secret's file (HMAC).")
    ],
    key_id: Annotated[str, typer.Option(help="Its id in approvers.toml.")],
    approver: Annotated[str, typer.Option("--as", metavar="UID", help="Who you are: User::fin.")],
    hmac: Annotated[bool, typer.Option("--hmac", help="The key is a secret for HMAC-SHA256.")] = False,
    role: Annotated[list[str] | None, typer.Option(help="A role you hold; repeat for several.")] = None,
    denied: Annotated[bool, typer.Option("--deny", help="Sign a denial.")] = False,
    policy: Annotated[str | None, typer.Option(help="Only what this policy asks.")] = None,
    minutes: Annotated[int, typer.Option(min=1, help="How long the token can be presented.")] = 10,
    issuer: Annotated[str, typer.Option(help="As approvers.toml has it.")] = "redecide",
) -> None:
    """Print a signed token that answers one approval of one action, for `grant --token` or `deny --token`."""
    found = look_at_approvals(ledger_file(target), lambda here: here.get(approval))
    if found.state not in ("pending", "granted"):
        raise WorkbenchError(f"approval {approval} is {found.state}; nothing is left to sign")
    signed = sign_approval(
        found,
        key=SigningKey.from_file(key_id, key, algorithm="HMAC-SHA256" if hmac else "Ed25519", issuer=issuer),
        approver=_uid(approver),
        roles=[_uid(each) for each in role or ()],
        decision="denied" if denied else "granted",
        policy=policy,
        lifetime=timedelta(minutes=minutes),
    )
    print(signed.text)


def _answer(
    target: str,
    approvers: Path,
    token: str | None,
    as_os_user: bool,
    act: Callable[[Approvals, object], Approval],
) -> None:
    if as_os_user == (token is not None):
        raise WorkbenchError("say who answers: either --token TOKEN, or --as-os-user")
    text = sys.stdin.readline() if token == "-" else token  # noqa: S105 - a dash
    known = load_approvers(approvers)
    with _ledger(target) as ledger:
        found = act(Approvals(ledger, known), OsUser() if text is None else SignedToken(text.strip()))
    _print(_lines(found))


def _ledger(target: str) -> Ledger:
    return Ledger.open(ledger_file(target), create=False)


def _uid(text: str) -> EntityUid:
    try:
        return EntityUid.parse(text)
    except ValueError as exc:
        raise WorkbenchError(str(exc)) from exc


_COLOURS = {"pending": "yellow", "granted": "green", "denied": "red", "expired": "red", "consumed": "dim"}
_ARGS_CHARS = 300


def _lines(found: Approval, *, whole: bool = False) -> list[tuple[str, str]]:
    """What a person reads of an approval: a label and a text each; the first is the heading."""
    args = (
        found.args
        if whole or len(found.args) <= _ARGS_CHARS
        else f"{found.args[:_ARGS_CHARS]}… (`show` has all)"
    )
    return [
        (found.state, f"{found.id}  until {timestamp(found.expires_at)}"),
        ("who", f"{found.owner} in tenant {found.tenant}"),
        ("runs", f"{found.tool} {args}"),
        *(("asks", need_text(need)) for need in found.needs),
        *(() if found.denial is None else (("said no", denial_text(found.denial)),)),
    ]


def _print(lines: list[tuple[str, str]]) -> None:
    from rich.console import Console
    from rich.text import Text

    console = Console()
    for label, text in lines:
        colour = _COLOURS.get(label)
        # Text, never markup: what an agent put into an argument must not style, link or move anything.
        head = Text(label, style=f"bold {colour}") if colour else Text(f"  {label:<8}", style="dim")
        console.print(Text.assemble(head, " ", shown(text)), soft_wrap=True)


def _told(found: Approval) -> dict[str, Any]:
    return {
        "id": found.id,
        "state": found.state,
        "tenant": found.tenant,
        "principal": found.principal,
        "on_behalf_of": found.on_behalf_of,
        "tool": found.tool,
        "args": json.loads(found.args),
        "asked_at": timestamp(found.asked_at),
        "expires_at": timestamp(found.expires_at),
        "action_hash": found.action_hash,
        "context_hash": found.context_hash,
        "needs": [
            {
                "policy": need.policy,
                "approvers": list(need.approvers),
                "granted_by": None if need.grant is None else need.grant.approver,
            }
            for need in found.needs
        ],
        "denied": None if found.denial is None else _denied(found.denial),
    }


def _denied(denial: Denial) -> dict[str, str | None]:
    return {"by": denial.approver, "at": timestamp(denial.denied_at), "reason": denial.reason}


def _print_json(value: object) -> None:
    print(json.dumps(value, indent=2))
