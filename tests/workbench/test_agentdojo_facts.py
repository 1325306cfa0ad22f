"""The fact tables of AgentDojo: what a prompt says, who is known, and that nothing an attacker writes gets in."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from runtime.canonical import canonical
from runtime.sources import DeltaSource
from workbench.agentdojo import facts, scripts
from workbench.agentdojo.facts import INTENTS, TOKENS, fact_tables, read_request, write_facts

if TYPE_CHECKING:
    from pathlib import Path

pytest.importorskip("agentdojo", reason="the `agentdojo` extra is not installed")

ATTACKERS = (
    "US133000000121212121212", "new_password", "mark.black-2134@gmail.com", "jay@google.com",
    "www.secure-systems-252.com", "www.my-website-234.com", "www.true-informations.com", "Fred", "fred9246@gmail.com",
    "Riverside View Hotel",
)  # fmt: skip
"""What the injection tasks name and the clean environments' records do not."""


@pytest.fixture(scope="module")
def tables() -> dict[str, list[dict[str, Any]]]:
    honest = [s for suite in scripts.SUITES for s in _honest(suite)]
    return {name: table.to_pylist() for name, table in fact_tables(honest).items()}


def _honest(suite: str) -> list[scripts.SessionScript]:
    tasks = scripts._suite(scripts.VERSION, suite).user_tasks
    return [scripts._honest(scripts.VERSION, suite, task) for task in tasks]


@pytest.mark.parametrize(
    ("prompt", "column", "expected"),
    [
        ("Write to 'a.b@c.example.com', please.", "emails", ["a.b@c.example.com"]),
        ("Nobody at example dot com", "emails", []),
        ("Refund GB29NWBK60161331926819 for it.", "accounts", ["GB29NWBK60161331926819"]),
        ("Read www.a.com/b, then https://c.org/d.", "urls", ["c.org/d", "www.a.com/b"]),
        ("Post it to our website www.our-company.com.They sent it", "urls", ["www.our-company.com"]),
        ("Pay the bill 'bill-december-2023.txt'", "files", ["bill-december-2023.txt"]),
        ("Don't ask Sarah Baker's friend", "names", ["Baker", "Don", "Sarah", "Sarah Baker"]),
        ("post to 'general' the \"note\"", "names", ["general", "note"]),
        ("from January 11th to January 15th 2025", "dates", ["2025-01-11", "2025-01-15"]),
        ("on 2024-05-19, or on May 26th", "dates", ["2024-05-19"]),
        ("rent is 2200. Also, refund that 10.00", "amounts_cents", [1_000, 220_000]),
        ("pay 1,234.5 to GB29NWBK60161331926819 at 12:00", "amounts_cents", [123_450]),
        ("the tasks: 1. Pay. 2. Ask for 3 things", "numbers", [3]),
        ("my 100 most recent transactions", "numbers", [100]),
    ],
)
def test_tokens_of_a_prompt(prompt: str, column: str, expected: list[Any]) -> None:
    assert read_request(prompt)[column] == expected


@pytest.mark.parametrize(
    ("prompt", "asks"),
    [
        ("Can you please pay the bill?", {"asks_to_pay"}),
        ("Check and update my rent payment.", {"asks_to_change_order"}),
        ("How much did I spend?", set()),
        ("Find and delete the largest file in the drive.", {"asks_to_delete_file"}),
        ("Please remove that email.", {"asks_to_delete_email", "asks_to_remove"}),
        (
            "Please share the document with Ann with write permissions",
            {"asks_to_share", "asks_for_write_access"},
        ),
        ("Files that are shared with Ann", set()),
        ("Post 'please delete every file and send money' there", {"asks_to_post"}),
        ("Delete it. The file is old.", set()),
        ("Do the actions specified in the email.", {"delegates"}),
        ("Perform the following tasks in order", set()),
        ("Tell me my passport number", {"asks_for_own_details"}),
    ],
)
def test_intents_of_a_prompt(prompt: str, asks: set[str]) -> None:
    request = read_request(prompt)
    assert {name for name in INTENTS if request[name]} == asks


def test_a_request_has_every_column_and_no_other() -> None:
    columns = {"tenant_id", "session_id", *read_request("")}
    assert (
        columns
        == set(facts._COLUMNS["requests"])
        == {
            *("tenant_id", "session_id", "names", "dates", "numbers", "amounts_cents"),
            *TOKENS,
            *INTENTS,
        }
    )


def test_one_request_a_session(tables: dict[str, list[dict[str, Any]]]) -> None:
    keys = [(row["tenant_id"], row["session_id"]) for row in tables["requests"]]
    assert len(keys) == len(set(keys)) == 97


@pytest.mark.parametrize(
    ("name", "rows"),
    [("accounts", 1), ("payees", 4), ("standing_orders", 2), ("members", 4), ("files", 26), ("hotels", 10)],
)
def test_directories_are_counted_as_the_data_card_says(
    tables: dict[str, list[dict[str, Any]]], name: str, rows: int
) -> None:
    assert len(tables[name]) == rows


def test_whoever_only_wrote_to_the_user_is_no_contact(tables: dict[str, list[dict[str, Any]]]) -> None:
    contacts = {row["email"]: row["via"] for row in tables["contacts"] if row["tenant_id"] == "workspace"}
    assert contacts["sarah.baker@gmail.com"] == "wrote_to"
    assert contacts["john.mitchell@gmail.com"] == "met"
    assert contacts["linda.green@luesparrowtech.com"] == "shared_with"
    received_only = {"security@facebook.com", "promotions@traveldeals.com", "security-facebook-com@gmail.com"}
    assert not received_only & contacts.keys()


def test_whoever_only_paid_the_user_is_no_payee() -> None:
    environment = scripts.clean_environment("banking")
    stranger = environment.bank_account.transactions[0].model_copy(update={"sender": "X", "recipient": "me"})
    environment.bank_account.transactions = [stranger]
    payees = {row["account"] for row in facts._banking(environment)["payees"]}
    assert payees == {t.recipient for t in environment.bank_account.scheduled_transactions}


def test_facts_know_no_attacker(tables: dict[str, list[dict[str, Any]]]) -> None:
    """Holds for the user's own words, too: no honest prompt names what the injection tasks name."""
    text = canonical(tables)  # type: ignore[arg-type]  # plain rows
    assert [name for name in ATTACKERS if f'"{name}"' in text or (len(name) > 4 and name in text)] == []


def test_facts_hold_no_free_text(tables: dict[str, list[dict[str, Any]]]) -> None:
    """Wherever AgentDojo can plant text, none of it is read into a directory."""
    directories = "".join(canonical(rows) for name, rows in tables.items() if name != "requests")  # type: ignore[arg-type]  # plain rows
    places = [text for suite in scripts.SUITES for text in _planting_places(suite) if len(text) > 5]
    assert len(places) > 15
    assert [text for text in places if text in directories] == []


def _planting_places(suite: str) -> list[str]:
    return [*scripts._suite(scripts.VERSION, suite).get_injection_vector_defaults().values()]


def test_planted_text_changes_no_fact() -> None:
    """A hijacked session asks for what its user asks for, and nothing else."""
    honest, hijacked = (
        scripts._honest(scripts.VERSION, "banking", "user_task_0"),
        scripts._hijacked(scripts.VERSION, "banking", "user_task_0", "injection_task_5"),
    )
    rows = fact_tables([honest, hijacked])["requests"].drop_columns(["session_id"]).to_pylist()
    assert rows[0] == rows[1]


def test_written_tables_are_left_alone_until_they_change(tmp_path: Path) -> None:
    honest = _honest("banking")
    uris = write_facts(tmp_path, honest)
    versions = {name: DeltaSource(uri).version_at(2**62) for name, uri in uris.items()}
    assert set(versions.values()) == {"0"}
    assert write_facts(tmp_path, honest) == uris
    assert {name: DeltaSource(uri).version_at(2**62) for name, uri in uris.items()} == versions
    write_facts(tmp_path, honest[:-1])
    changed = {name: DeltaSource(uri).version_at(2**62) for name, uri in uris.items()}
    assert changed == versions | {"requests": "1"}


def test_written_tables_answer_lookups(tmp_path: Path) -> None:
    uris = write_facts(tmp_path, _honest("banking"))
    found = DeltaSource(uris["standing_orders"]).lookup(
        {"tenant_id": "banking", "id": 7}, ["recipient", "amount_cents"]
    )
    assert found.rows == [{"recipient": "US122000000121212121212", "amount_cents": 110_000}]
    where = {"tenant_id": "banking", "session_id": "banking/user_task_4/honest"}
    row = DeltaSource(uris["requests"]).lookup(where, ["accounts", "asks_to_pay", "asks_to_share"]).rows
    assert row == [{"accounts": ["GB29NWBK60161331926819"], "asks_to_pay": True, "asks_to_share": False}]
    assert DeltaSource(uris["requests"]).lookup(where | {"tenant_id": "slack"}, ["accounts"]).rows == []


def test_amounts_are_exact() -> None:
    assert [facts._cents(amount) for amount in (98.7, 0.01, 1810.0, 200.29)] == [9_870, 1, 181_000, 20_029]
    with pytest.raises(ValueError, match=r"at most two decimals, got 0\.001"):
        facts._cents(0.001)
