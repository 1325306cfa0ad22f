"""Aliases: the log, who may move them from where, and runtimes that follow them while they work."""

from __future__ import annotations

import json
import shutil
import threading
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import pytest

from runtime import Blocked, Runtime, load_bundle
from runtime.aliases import (
    Alias,
    bundle_of,
    check_alias,
    current,
    find_alias,
    is_alias,
    move_alias,
    read_aliases,
)
from runtime.bundle import bundle_from_files
from runtime.errors import (
    AliasMoved,
    AliasUnknown,
    BundleError,
    CommitConflict,
    GovernanceError,
    LedgerError,
    RegistrationError,
)
from runtime.lake import LakeStore
from runtime.trace import ALIASES, POLICIES

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from runtime.bundle import Bundle

SCHEMA = """
entity Agent; entity Order;
action "pay" appliesTo { principal: [Agent], resource: [Order], context: { args: { order_id: String, cents: Long } } };
"""
PERMIT = '@id("permit") permit(principal, action, resource);\n'
NOW = datetime(2026, 11, 23, tzinfo=UTC)


def version(most: int, *, schema: str = SCHEMA, limits: str = "") -> Bundle:
    over = f'@id("over") forbid(principal, action, resource) when {{ context.args.cents > {most} }};\n'
    files = {"p.cedar": PERMIT + over, "schema.cedarschema": schema, "limits.toml": limits}
    return bundle_from_files(files, f"up-to-{most}")


LOW, HIGH = version(10), version(1000)


@pytest.fixture
def store(tmp_path: Path) -> LakeStore:
    """A lake that holds two versions."""
    made = LakeStore(tmp_path / "lake", write=True)
    made.append(POLICIES, [row for each in (LOW, HIGH) for row in each.row_dicts()])
    return made


def moved(store: LakeStore, to: Bundle, expected: Bundle | None = None, **more: Any) -> Alias:
    given: dict[str, Any] = {"actor": "eve", "reason": "because", "now": NOW, "alias": "champion"} | more
    name = given.pop("alias")
    return move_alias(
        store, name, to.version, expected=None if expected is None else expected.version, **given
    )


def opened(store: LakeStore, bundle: Any = "champion", **more: Any) -> Runtime:
    runtime = Runtime.open(bundle, lake=store.uri, look_every=3600, **more)
    runtime.tool(lambda order_id, cents: cents, name="pay", resource="Order::{order_id}")
    return runtime


def pay(runtime: Runtime, cents: int) -> int:
    return int(runtime.session(principal="Agent::bot", tenant="acme").call("pay", order_id="o", cents=cents))


def look(runtime: Runtime) -> str | None:
    assert runtime.follower is not None
    return runtime.follower.look().problem


# -- the log -------------------------------------------------------------------------------------------------------


def test_the_log_is_the_history_and_its_last_row_holds(store: LakeStore) -> None:
    first = moved(store, LOW)
    second = moved(store, HIGH, LOW, reason="better")
    back = moved(store, LOW, HIGH, reason="worse after all")
    other = moved(store, HIGH, alias="challenger")
    log = read_aliases(store)
    assert [each for each in log if each.alias == "champion"] == [first, second, back]
    assert [each.previous_version for each in log if each.alias == "champion"] == [
        None,
        LOW.version,
        HIGH.version,
    ]
    assert find_alias(store, "champion") == current(log, "champion") == back
    assert find_alias(store, "challenger") == other


def test_order_does_not_rest_on_the_clock(store: LakeStore) -> None:
    moved(store, LOW, now=NOW)
    moved(store, HIGH, LOW, now=NOW - timedelta(days=30))
    assert find_alias(store, "champion").bundle_version == HIGH.version


def test_it_moves_only_from_where_it_was_believed_to_be(store: LakeStore) -> None:
    moved(store, LOW)
    with pytest.raises(
        AliasMoved, match=f"stands for {LOW.version[:12]}, not for nothing: it was moved by eve: because"
    ):
        moved(store, HIGH)
    with pytest.raises(AliasMoved, match=f"not for {HIGH.version[:12]}"):
        moved(store, HIGH, HIGH)
    assert [each.bundle_version for each in read_aliases(store)] == [LOW.version]


def test_of_two_that_move_at_once_one_is_told(store: LakeStore, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another one commits after we have read the log, and before our commit."""
    moved(store, LOW)
    append, raced = store.append, list[Alias]()

    def late(*given: Any, **more: Any) -> int:
        if not raced:
            monkeypatch.setattr(store, "append", append)
            raced.append(moved(store, HIGH, LOW, actor="ann"))
        return append(*given, **more)

    monkeypatch.setattr(store, "append", late)
    with pytest.raises(AliasMoved, match="moved by ann"):
        moved(store, LOW, LOW, actor="bob")
    assert [each.actor for each in read_aliases(store)] == ["eve", "ann"]


def test_others_that_move_other_names_are_in_nobodys_way(store: LakeStore) -> None:
    names = [f"team-{number}" for number in range(8)]
    moved(store, LOW)
    failed: list[BaseException] = []

    def work(name: str) -> None:
        try:
            moved(LakeStore(store.uri, write=True), HIGH, alias=name)
        except BaseException as exc:  # noqa: BLE001 - told to the test
            failed.append(exc)

    threads = [threading.Thread(target=work, args=(name,)) for name in names]
    for each in threads:
        each.start()
    for each in threads:
        each.join()
    assert failed == []
    assert {each.alias for each in read_aliases(store)} == {*names, "champion"}


def test_a_lost_acknowledgement_is_read_back(store: LakeStore, monkeypatch: pytest.MonkeyPatch) -> None:
    append = store.append

    def lost(*given: Any, **more: Any) -> int:
        append(*given, **more)
        raise LedgerError("the connection was reset")

    monkeypatch.setattr(store, "append", lost)
    found = moved(store, LOW)
    assert read_aliases(store) == [found]


def test_a_refused_write_is_an_error_and_no_row(store: LakeStore, monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(*_: Any, **__: Any) -> int:
        raise LedgerError("no space left")

    monkeypatch.setattr(store, "append", refused)
    with pytest.raises(LedgerError, match="no space left"):
        moved(store, LOW)
    assert read_aliases(store) == []


def test_conflicts_without_end_are_given_up(store: LakeStore, monkeypatch: pytest.MonkeyPatch) -> None:
    def conflict(*_: Any, **__: Any) -> int:
        raise CommitConflict("again")

    monkeypatch.setattr(store, "append", conflict)
    with pytest.raises(CommitConflict, match="20 times in a row; safe to retry"):
        moved(store, LOW)


@pytest.mark.parametrize(
    "name", ["", "Champion", "a/b", "-x", "x y", "beef", "a" * 64, "été", "x\n", "a.b", "latest", "v2"]
)
def test_names_that_could_be_a_path_or_a_version_are_refused(name: str) -> None:
    assert not is_alias(name)
    with pytest.raises(GovernanceError, match="an alias is 1 to 63 lower-case letters"):
        check_alias(name)


def test_a_version_that_the_lake_does_not_hold_and_a_move_without_reason_are_refused(
    store: LakeStore,
) -> None:
    with pytest.raises(BundleError, match="holds no texts of bundle"):
        moved(store, version(5))
    with pytest.raises(GovernanceError, match="needs a reason"):
        moved(store, LOW, reason=" ")
    with pytest.raises(LedgerError, match="opened for reading"):
        moved(LakeStore(store.uri), LOW)
    assert read_aliases(store) == []


def test_texts_that_were_changed_are_no_version(store: LakeStore) -> None:
    row = HIGH.row_dicts()[0] | {"bundle_version": "f" * 64, "row_hash": "f" * 64}
    store.append(POLICIES, [row])
    with pytest.raises(BundleError):
        bundle_of(store, "f" * 64)


# -- following -----------------------------------------------------------------------------------------------------


def test_a_running_runtime_takes_up_what_was_promoted(store: LakeStore) -> None:
    moved(store, LOW)
    with opened(store) as runtime:
        session = runtime.session(principal="Agent::bot", tenant="acme")
        with pytest.raises(Blocked):
            session.call("pay", order_id="o", cents=500)
        assert look(runtime) is None, "nothing new"
        second = moved(store, HIGH, LOW)
        assert look(runtime) is None
        assert look(runtime) is None, "nothing new"
        assert session.call("pay", order_id="o", cents=500) == 500
        back = moved(store, LOW, HIGH)
        assert look(runtime) is None
        with pytest.raises(Blocked):
            session.call("pay", order_id="o", cents=500)
    rows = decisions(store)
    assert [row["bundle_version"] for row in rows] == [LOW.version, HIGH.version, LOW.version]
    told = [json.loads(row["stage_inputs"])["alias"] for row in rows]
    assert told[0]["confirmed_at"] < told[2]["confirmed_at"]
    assert [each["name"] for each in told] == ["champion"] * 3
    assert [each["row_id"] for each in told][1:] == [second.row_id, back.row_id]
    assert all(each["confirmed_at"] for each in told)


def decisions(store: LakeStore) -> list[dict[str, Any]]:
    from runtime.trace import DECISIONS

    rows = store.read(DECISIONS).to_pylist()
    return sorted(rows, key=lambda row: (row["writer"], row["position"]))


def test_its_thread_looks_by_itself(store: LakeStore) -> None:
    moved(store, LOW)
    runtime = Runtime.open("champion", lake=store.uri, look_every=0.01)
    runtime.tool(lambda order_id, cents: cents, name="pay", resource="Order::{order_id}")
    switched, switch = threading.Event(), runtime.switch

    def told(*given: Any, **more: Any) -> None:
        switch(*given, **more)
        switched.set()

    runtime.switch = told  # type: ignore[method-assign]  # to be told, not to wait
    moved(store, HIGH, LOW)
    assert switched.wait(30)
    assert pay(runtime, 500) == 500
    runtime.close()
    assert not any(thread.name == "redecide alias" for thread in threading.enumerate())


BROKEN: dict[str, tuple[Callable[[], Bundle], str]] = {
    "another parameter": (
        lambda: version(7, schema=SCHEMA.replace("cents: Long", "cents: Long, note: String")),
        "does not fit its schema: only in the tool: none; only in the schema: note",
    ),
    "no action for a tool": (
        lambda: version(7, schema=SCHEMA.replace('action "pay"', 'action "other"')),
        "declares no action for the registered tool 'pay'",
    ),
    "an unbound source": (
        lambda: bundle_from_files(
            {
                "p.cedar": PERMIT,
                "schema.cedarschema": SCHEMA.replace("args:", "order?: { n: Long }, args:"),
                "context.toml": '[sources.orders]\nkind = "callable"\n[[facts]]\nname = "order"\nactions = ["pay"]\n'
                'source = "orders"\nkey = { id = "args.order_id" }\nfields = ["n"]\nshared = true\n',
            },
            "facts",
        ),
        "source `orders`: is not bound",
    ),
}


@pytest.mark.parametrize("what", BROKEN)
def test_a_version_that_cannot_be_enforced_is_refused_and_said(store: LakeStore, what: str) -> None:
    make, message = BROKEN[what]
    bad = make()
    store.append(POLICIES, bad.row_dicts())
    moved(store, LOW)
    with opened(store) as runtime:
        moved(store, bad, LOW)
        assert message in str(look(runtime))
        assert runtime.bundle.version == LOW.version
        assert pay(runtime, 5) == 5
        moved(store, HIGH, bad)
        assert look(runtime) is None
        assert pay(runtime, 500) == 500


def test_it_opens_with_what_it_remembers_where_the_lake_cannot_be_read(
    store: LakeStore, tmp_path: Path
) -> None:
    moved(store, LOW)
    ledger = tmp_path / "ledger.sqlite"
    opened(store, ledger=ledger).close()
    log = tmp_path / "lake" / ALIASES.name
    hidden = shutil.move(log, tmp_path / "hidden")
    log.mkdir()
    (log / "_delta_log").mkdir()
    (log / "_delta_log" / "00000000000000000000.json").write_text("torn")
    with opened(store, ledger=ledger) as runtime:
        assert runtime.follower is not None
        assert "cannot open" in str(runtime.follower.following.problem)
        assert pay(runtime, 5) == 5
        shutil.rmtree(log)
        shutil.move(hidden, log)
        moved(store, HIGH, LOW)
        assert look(runtime) is None
        assert pay(runtime, 500) == 500
    told = [json.loads(row["stage_inputs"])["alias"]["confirmed_at"] for row in decisions(store)]
    assert told[0] is None
    assert told[1] is not None


def test_it_opens_with_what_it_remembers_where_what_was_promoted_cannot_be_enforced(
    store: LakeStore, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """A process that restarts after a bad promotion is as well off as one that runs on."""
    bad = BROKEN["an unbound source"][0]()
    store.append(POLICIES, bad.row_dicts())
    moved(store, LOW)
    ledger = tmp_path / "ledger.sqlite"
    opened(store, ledger=ledger).close()
    moved(store, bad, LOW)
    with opened(store, ledger=ledger) as runtime:
        assert runtime.bundle.version == LOW.version
        assert runtime.follower is not None
        assert "source `orders`: is not bound" in str(runtime.follower.following.problem)
        assert "which the ledger remembers" in caplog.text
        moved(store, HIGH, bad)
        assert look(runtime) is None
        assert runtime.bundle.version == HIGH.version
    shutil.rmtree(tmp_path / "lake" / ALIASES.name)
    with opened(store, ledger=ledger) as runtime:
        assert runtime.bundle.version == HIGH.version, (
            "the log is gone, and this ledger followed it in this lake"
        )
    other = LakeStore(tmp_path / "other", write=True)
    other.append(POLICIES, LOW.row_dicts())
    with pytest.raises(BundleError, match="has no alias"):
        opened(other, ledger=ledger)


def test_whatever_a_look_raises_is_said_and_the_next_look_comes(
    store: LakeStore, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    moved(store, LOW)
    with opened(store) as runtime:
        assert runtime.follower is not None
        for error in (OSError("disk"), KeyboardInterrupt(), MemoryError("panic")):

            def fails(*_: Any, error: BaseException = error) -> Any:
                raise error

            with monkeypatch.context() as broken:
                broken.setattr("runtime.following.find_alias", fails)
                assert type(error).__name__ in str(look(runtime))
                look(runtime)
        assert caplog.text.count("OSError: disk") == 1, "once, not at every look"
        assert look(runtime) is None
        assert "is followed again" in caplog.text


def test_a_look_under_way_does_not_undo_a_pin(store: LakeStore, monkeypatch: pytest.MonkeyPatch) -> None:
    """The pin comes while a look has read the log and has not switched yet."""
    moved(store, LOW)
    pinned = version(77)
    with opened(store) as runtime:
        follower, loaded = runtime.follower, bundle_of
        assert follower is not None
        moved(store, HIGH, LOW)

        def slow(*given: Any) -> Bundle:
            found = loaded(*given)
            runtime.switch(pinned)
            return found

        monkeypatch.setattr("runtime.following.bundle_of", slow)
        follower.look()
        assert runtime.bundle.version == pinned.version
        assert runtime.follower is None


@pytest.mark.parametrize("seconds", ["x", None, 0, -1, float("nan"), float("inf"), True])
def test_a_pause_that_is_no_number_of_seconds_is_refused(store: LakeStore, seconds: Any) -> None:
    moved(store, LOW)
    with pytest.raises(GovernanceError, match="`look_every` is a number of seconds above 0"):
        Runtime.open("champion", lake=store.uri, look_every=seconds)


def test_a_lake_that_is_not_there_is_not_begun(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match="no lake at"):
        Runtime.open("champion", lake=tmp_path / "typo")
    assert not (tmp_path / "typo").exists()


def test_a_name_that_is_no_alias_says_both_ways(store: LakeStore) -> None:
    moved(store, LOW)
    with pytest.raises(
        BundleError, match=r"no folder 'challenger'.* has no alias 'challenger'; it has champion"
    ):
        opened(store, "challenger")
    with pytest.raises(AliasUnknown):
        find_alias(store, "challenger")


def test_a_folder_goes_before_an_alias_and_pins(
    store: LakeStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    moved(store, LOW)
    folder = tmp_path / "champion"
    folder.mkdir()
    for name, text in HIGH.files.items():
        (folder / name).write_text(text)
    monkeypatch.chdir(tmp_path)
    with opened(store) as runtime:
        assert runtime.follower is None
        assert runtime.bundle.version == load_bundle(folder).version
        assert "alias" not in json.loads(one(runtime)["stage_inputs"])


def one(runtime: Runtime) -> dict[str, Any]:
    pay(runtime, 1)
    (row,) = runtime.ledger.query("SELECT row FROM decisions ORDER BY position DESC LIMIT 1")
    return dict(json.loads(row[0]))


def test_switching_by_hand_pins(store: LakeStore) -> None:
    moved(store, LOW)
    with opened(store) as runtime:
        follower = runtime.follower
        assert follower is not None
        runtime.switch(HIGH)
        assert runtime.follower is None
        assert pay(runtime, 500) == 500
        moved(store, HIGH, LOW)
        follower.look()
        assert runtime.enforced.alias is None, "it follows nothing any more"
        with pytest.raises(RegistrationError):
            runtime.switch(BROKEN["another parameter"][0]())
        assert runtime.bundle.version == HIGH.version


def test_no_call_is_decided_by_one_version_and_recorded_as_another(store: LakeStore) -> None:
    """Threads call while versions change: each row's verdict is what the version it names says."""
    moved(store, LOW)
    with opened(store) as runtime:
        ended = threading.Event()
        failed: list[BaseException] = []
        allowed, blocked = list[int](), list[Blocked]()

        def work() -> None:
            session = runtime.session(principal="Agent::bot", tenant="acme")
            while not ended.is_set():
                try:
                    allowed.append(session.call("pay", order_id="o", cents=500))
                except Blocked as said:
                    blocked.append(said)
                except BaseException as exc:  # noqa: BLE001 - told to the test
                    failed.append(exc)
                    return

        threads = [threading.Thread(target=work) for _ in range(4)]
        for each in threads:
            each.start()
        while min(len(allowed), len(blocked)) < 50 and not failed:
            for wanted in (HIGH, LOW):
                runtime.switch(wanted)
        ended.set()
        for each in threads:
            each.join()
    assert failed == []
    rows = decisions(store)
    said = {LOW.version: "block", HIGH.version: "allow"}
    assert {row["bundle_version"] for row in rows} == set(said)
    assert [row["decision_id"] for row in rows if row["verdict"] != said[row["bundle_version"]]] == []
    assert {row["bundle_version"] for row in store.read(POLICIES).to_pylist()} >= set(said)


def test_what_one_version_let_run_is_settled_by_its_limits(store: LakeStore) -> None:
    """A call fails after another version, without breakers, came into force: its own version's breaker opens."""
    careful = version(1000, limits='version = 2\n[[breaker]]\nname = "b"\nlast = 1\nmin_calls = 1\n')
    store.append(POLICIES, careful.row_dicts())
    moved(store, careful)
    with Runtime.open("champion", lake=store.uri, look_every=3600) as runtime:

        def body(order_id: str, cents: int) -> int:
            runtime.switch(HIGH)
            raise ValueError("no")

        runtime.tool(body, name="pay", resource="Order::{order_id}")
        with pytest.raises(ValueError, match="no"):
            pay(runtime, 5)
        runtime.switch(careful)
        with pytest.raises(Blocked) as blocked:
            pay(runtime, 5)
    assert blocked.value.decision.decided_by == "limits"
