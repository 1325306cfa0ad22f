"""`redecide approvals`: from what waits to the call that runs, as the people do it who are not the agent."""

from __future__ import annotations

import io
import json
import os
import pwd
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from runtime import Blocked
from workbench.cli import main

if TYPE_CHECKING:
    from collections.abc import Iterator

LOGIN = pwd.getpwuid(os.getuid()).pw_name


class Said(NamedTuple):
    code: int
    out: str
    err: str


class Command:
    """The command, in this process."""

    def __init__(self, desk: Any, folder: Path, capsys: Any, monkeypatch: Any) -> None:
        self.desk, self.folder, self._capsys, self._monkeypatch = desk, folder, capsys, monkeypatch
        monkeypatch.chdir(folder)

    def __call__(self, *words: str, stdin: str = "") -> Said:
        self._monkeypatch.setattr(sys, "argv", ["redecide", "approvals", *words])
        self._monkeypatch.setattr(sys, "stdin", io.StringIO(stdin))
        with pytest.raises(SystemExit) as ended:
            main()
        out, err = self._capsys.readouterr()
        return Said(ended.value.code or 0, out, err)  # type: ignore[arg-type]  # an integer, as we exit

    @property
    def lake(self) -> str:
        return str(self.desk.lake)


@pytest.fixture
def command(tmp_path: Path, make_desk: Any, capsys: Any, monkeypatch: Any) -> Iterator[Command]:
    desk = make_desk(tmp_path / "lake", clock=None, authenticators=())
    private = Ed25519PrivateKey.generate()
    (tmp_path / "fin.pem").write_bytes(
        private.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
    )
    public = private.public_key().public_bytes(
        serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    (tmp_path / "fin.pub.pem").write_bytes(public)
    (tmp_path / "approvers.toml").write_text(f"""version = 1
[[key]]
id = "fin"
algorithm = "Ed25519"
public_key_file = "fin.pub.pem"
subjects = ["User::fin"]
roles = ["Role::finance"]
tenants = ["acme"]
[[os_user]]
login = "{LOGIN}"
uid = "User::cfo"
tenants = ["acme"]
""")
    yield Command(desk, tmp_path, capsys, monkeypatch)
    desk.runtime.ledger.close()


def sign(command: Command, ident: str, *more: str) -> Said:
    who = ("--as", "User::fin", "--role", "Role::finance")
    return command("sign", command.lake, ident, "--key", "fin.pem", "--key-id", "fin", *who, *more)


def test_from_the_list_to_the_call_that_runs(command: Command) -> None:
    ident = command.desk.ask(500)
    listed = command("list", command.lake)
    assert listed.code == 0
    for part in ("pending", ident, 'Agent::"bot" for User::"ana"', "acme", "pay", "500", "`large` asks Role"):
        assert part in listed.out
    token = sign(command, ident)
    assert (token.code, token.out.count("\n")) == (0, 1)
    done = command("grant", command.lake, ident, "--token", "-", stdin=token.out)
    assert (done.code, done.err) == (0, "")
    assert "granted" in done.out
    assert '`large` granted by User::"fin"' in done.out
    assert command("list", command.lake).out == "no approval is pending\n"
    assert "granted" in command("list", command.lake, "--state", "all", "--tenant", "acme").out
    assert command.desk.session().resume(ident) == 500
    replayed = command("grant", command.lake, ident, "--token", token.out.strip())
    assert (replayed.code, replayed.out) == (2, "")
    assert "was used before" in replayed.err


def test_the_user_of_the_operating_system_answers(command: Command) -> None:
    granted, denied = command.desk.ask(500), command.desk.ask(600)
    ledger = str(command.desk.runtime.ledger.path)
    assert command("grant", ledger, granted, "--as-os-user", "--policy", "large").code == 0
    said = command("deny", ledger, denied, "--as-os-user", "--reason", "no \x1b[31m")
    assert said.code == 0
    assert said.out.startswith("denied")
    assert command.desk.session().resume(granted) == 500
    with pytest.raises(Blocked):
        command.desk.session().resume(denied)


def test_one_approval_whole(command: Command) -> None:
    ident = command.desk.ask(500)
    shown = command("show", command.lake, ident)
    for part in ("facts", "{}", "why", "needs the approval", "action", "policies"):
        assert part in shown.out
    told = json.loads(command("show", command.lake, ident, "--json").out)
    assert (told["id"], told["args"]["cents"], told["facts"]) == (ident, 500, {})
    (listed,) = json.loads(command("list", command.lake, "--json").out)
    assert listed == {name: value for name, value in told.items() if name != "facts"}
    assert listed["needs"] == [
        {"policy": "large", "approvers": ['Role::"finance"', 'User::"cfo"'], "granted_by": None}
    ]


def test_an_argument_neither_styles_nor_moves_the_terminal(command: Command) -> None:
    from runtime import ApprovalRequired

    with pytest.raises(ApprovalRequired):
        command.desk.session().call("pay", order_id="[bold]x[/] \x9b2J \u202e :smile:", cents=500)
    listed = command("list", command.lake).out
    assert "[bold]x[/]" in listed
    assert ":smile:" in listed
    assert all(char.isprintable() or char == "\n" for char in listed)


REFUSED: dict[str, tuple[tuple[str, ...], str]] = {
    "nobody": ((), "either --token TOKEN, or --as-os-user"),
    "two": (("--token", "x", "--as-os-user"), "either --token TOKEN, or --as-os-user"),
    "no token": (("--token", "User::fin"), "three base64url parts"),
    "an empty one": (("--token", "-"), "three base64url parts"),
    "an unknown policy": (
        ("--as-os-user", "--policy", "x"),
        "is not asked for by policy 'x'; it is by large",
    ),
    "no such file": (("--as-os-user", "--approvers", "gone.toml"), "gone.toml: cannot be read"),
}


@pytest.mark.parametrize(("words", "why"), REFUSED.values(), ids=REFUSED)
def test_what_is_refused_is_one_line(command: Command, words: tuple[str, ...], why: str) -> None:
    ident = command.desk.ask(500)
    said = command("grant", command.lake, ident, *words)
    assert (said.code, said.out, said.err.count("\n")) == (2, "", 1)
    assert why in said.err
    assert command.desk.approvals.get(ident).state == "pending"


def test_what_is_not_there(command: Command) -> None:
    command.desk.ask(500)
    for words, why in (
        (("show", command.lake, "x"), "no approval 'x'"),
        (("list", str(command.folder / "nowhere")), "no ledger at"),
        (("list", "s3://bucket/lake"), "name the ledger's file"),
    ):
        said = command(*words)
        assert (said.code, said.err.count("\n")) == (2, 1)
        assert why in said.err


def test_a_token_says_no_more_than_its_key_may(command: Command) -> None:
    ident = command.desk.ask(5000)
    boss = sign(command, ident, "--role", "Role::board").out.strip()
    assert "may not speak for role" in command("grant", command.lake, ident, "--token", boss).err
    denial = sign(command, ident, "--deny").out.strip()
    assert "says 'denied'" in command("grant", command.lake, ident, "--token", denial).err
    assert command("deny", command.lake, ident, "--token", denial).code == 0
    assert "nothing is left to sign" in sign(command, ident).err


def test_it_runs_as_a_command(command: Command) -> None:
    ident = command.desk.ask(500)
    installed = Path(sys.executable).with_name("redecide")
    done = subprocess.run(
        [installed, "approvals", "list", command.lake], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert ident in done.stdout
