"""Telling of a night: a real receiver on loopback, a real file; each once, and what fails is a sentence."""

from __future__ import annotations

import hashlib
import hmac
import json
import socket
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any

import pytest

from tests.workbench.regressing.nights import candidate, night
from workbench.errors import JobInvalid
from workbench.regressing.reporting.notify import EVENTS, key_of, message, read_notify
from workbench.regressing.result import Reopened

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@dataclass
class Receiver:
    """What a receiver was sent, and what it answers: the statuses in order, then 200."""

    answers: list[tuple[int, dict[str, str]]] = field(default_factory=list)
    got: list[tuple[str, dict[str, str], bytes]] = field(default_factory=list)
    url: str = ""


@contextmanager
def receiver(*answers: tuple[int, dict[str, str]]) -> Iterator[Receiver]:
    """Run a receiver on loopback."""
    found = Receiver(answers=list(answers))

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            found.got.append((self.path, dict(self.headers), body))
            status, headers = found.answers.pop(0) if found.answers else (200, {})
            self.send_response(status)
            for name, value in headers.items():
                self.send_header(name, value)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    found.url = f"http://127.0.0.1:{server.server_port}/hook/token-of-the-address"
    thread = threading.Thread(target=server.serve_forever, args=(0.02,))
    thread.start()
    try:
        yield found
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


REGRESSION = night(candidate("failed"))


def test_a_body_is_signed_and_named_and_holds_no_decision(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPS_SECRET", "s3cret")
    monkeypatch.setenv("OPS_TOKEN", "Bearer t0ken")
    with receiver() as there:
        monkeypatch.setenv("OPS_WEBHOOK", there.url)
        told = read_notify(
            {
                "webhook": {
                    "url_env": "OPS_WEBHOOK",
                    "secret_env": "OPS_SECRET",
                    "headers_env": {"Authorization": "OPS_TOKEN"},
                }
            }
        )
        assert told.missing() == ()
        assert told.send(REGRESSION) == ()
    ((path, headers, body),) = there.got
    assert path == "/hook/token-of-the-address"
    expected = hmac.new(b"s3cret", body, hashlib.sha256).hexdigest()
    assert headers["X-Redecide-Signature-256"] == f"sha256={expected}"
    assert headers["Authorization"] == "Bearer t0ken"
    found = json.loads(body)
    assert headers["Idempotency-Key"] == found["key"] == key_of(REGRESSION)
    assert (found["verdict"], found["event"], found["exit_code"]) == ("don't ship", "regression", 1)
    assert found["candidates"][0]["gates"][0]["state"] == "failed"
    assert found["text"].startswith("Don't ship, `nightly support`.")
    for secret in (b"s3cret", b"t0ken", b"d-17", b"amount_cents"):
        assert secret not in body


def test_it_is_tried_again_where_that_may_help() -> None:
    with receiver((503, {}), (429, {"Retry-After": "0"})) as there:
        told = read_notify({"webhook": {"url": there.url, "retries": 2}})
        assert told.send(REGRESSION) == ()
    keys = {headers["Idempotency-Key"] for _, headers, _ in there.got}
    assert (len(there.got), len(keys)) == (3, 1)


@pytest.mark.parametrize(
    ("answer", "tries"),
    [((400, {}), 1), ((302, {"Location": "http://127.0.0.1:1/elsewhere"}), 1), ((500, {}), 2)],
)
def test_what_is_refused_is_a_sentence_without_the_address(
    answer: tuple[int, dict[str, str]], tries: int
) -> None:
    with receiver(answer, answer) as there:
        (problem,) = read_notify({"webhook": {"url": there.url, "retries": 1}}).send(REGRESSION)
    assert len(there.got) == tries
    assert f"answered {answer[0]}" in problem
    assert "token-of-the-address" not in problem


def test_nobody_there_no_answer_and_no_variable_are_sentences() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:  # it takes connections and says nothing
        port = silent.getsockname()[1]
        told = read_notify(
            {"webhook": {"url": f"http://127.0.0.1:{port}/x-secret", "timeout": 0.2, "retries": 0}}
        )
        (problem,) = told.send(REGRESSION)
        assert problem == f"notification to webhook: 127.0.0.1:{port} did not answer in time"
    told = read_notify({"webhook": {"url": f"http://127.0.0.1:{port}/x-secret", "retries": 0}})
    (problem,) = told.send(REGRESSION)
    assert "refused" in problem
    assert "x-secret" not in problem
    told = read_notify({"webhook": {"url_env": "REDECIDE_TEST_NOT_SET"}})
    assert told.missing() == ("notification: the environment variable `REDECIDE_TEST_NOT_SET` is not set",)
    assert "`REDECIDE_TEST_NOT_SET` is not set" in told.send(REGRESSION)[0]


def test_a_file_gets_a_line_a_night_once(tmp_path: Path) -> None:
    told = read_notify({"file": "sub/nights.jsonl", "on": list(EVENTS)})
    later = replace(REGRESSION, started="2026-11-22T04:00:00+00:00", seconds=1.0, resumed=True)
    for each in (REGRESSION, later, night(candidate("met", night=4)), REGRESSION):
        assert told.send(each, folder=tmp_path) == ()
    lines = (tmp_path / "sub" / "nights.jsonl").read_text().splitlines()
    assert [json.loads(line)["verdict"] for line in lines] == ["don't ship", "ship"]


def test_a_line_that_was_cut_short_does_not_swallow_the_next(tmp_path: Path) -> None:
    path = tmp_path / "nights.jsonl"
    whole = json.dumps(message(REGRESSION))
    path.write_text(whole[:100])
    told = read_notify({"file": "nights.jsonl"})
    assert told.send(REGRESSION, folder=tmp_path) == told.send(REGRESSION, folder=tmp_path) == ()
    cut, line = path.read_text().splitlines()
    assert cut == whole[:100]
    assert json.loads(line)["key"] == key_of(REGRESSION)


def test_several_at_once_lose_no_line_and_write_none_twice(tmp_path: Path) -> None:
    told = read_notify({"file": "nights.jsonl"})
    jobs = [night(candidate("failed"), job=f"job-{at % 8}") for at in range(32)]
    with ThreadPoolExecutor(8) as pool:
        assert set(pool.map(lambda each: told.send(each, folder=tmp_path), jobs)) == {()}
    lines = (tmp_path / "nights.jsonl").read_text().splitlines()
    assert sorted(json.loads(line)["job"] for line in lines) == [f"job-{at}" for at in range(8)]


def test_a_file_that_cannot_be_written_is_a_sentence(tmp_path: Path) -> None:
    (tmp_path / "nights.jsonl").mkdir()
    (problem,) = read_notify({"file": "nights.jsonl"}).send(REGRESSION, folder=tmp_path)
    assert problem.startswith("notification to file: ")


@pytest.mark.parametrize(
    ("state", "on", "told"),
    [
        ("met", None, False),
        ("failed", None, True),
        ("open", None, True),
        (None, None, True),
        ("met", ["ship"], True),
        ("failed", ["ship"], False),
        ("open", ["regression"], False),
    ],
)
def test_only_what_was_asked_for(state: str | None, on: list[str] | None, told: bool, tmp_path: Path) -> None:
    table: dict[str, Any] = {"file": "x.jsonl"} | ({} if on is None else {"on": on})
    assert read_notify(table).send(night(candidate(state)), folder=tmp_path) == ()
    assert (tmp_path / "x.jsonl").exists() == told


def test_a_problem_beside_a_good_verdict_is_an_error_that_is_told(tmp_path: Path) -> None:
    told = read_notify({"file": "x.jsonl", "on": ["error"]})
    told.send(night(candidate("met"), problems=("MLflow is away",)), folder=tmp_path)
    assert "MLflow is away" in (tmp_path / "x.jsonl").read_text()


def test_a_key_names_a_result() -> None:
    """The same after a crash; another where anything else was found; nights without news differ by their time."""
    base = candidate("failed")
    assert base.window is not None
    late = (Reopened(night=1, sessions=1, labels=1, outcomes=0, decisions=0, measures={}, watermark=3),)
    found = [
        night(base), night(base, job="other"), night(replace(base, night=4)), night(replace(base, version="ef")),
        night(candidate("open")), night(base, base), night(replace(base, window=replace(base.window, to={"a": 9}))),
    ]  # fmt: skip
    assert len({key_of(each) for each in found}) == len(found)
    assert key_of(replace(found[0], started="later", seconds=9, resumed=True, problems=("x",))) == key_of(
        found[0]
    )
    quiet = night(replace(base, window=replace(base.window, decisions=0)))
    assert key_of(quiet) != key_of(replace(quiet, started="later"))
    reopened = night(replace(quiet.candidates[0], reopened=late))
    assert key_of(reopened) == key_of(replace(reopened, started="later"))


@pytest.mark.parametrize(
    ("table", "said"),
    [
        ({}, r"\[notify\] tells nobody; give `file` or `\[notify.webhook\]`"),
        ({"file": "x", "onn": []}, r"\[notify\] `onn` is no key .*did you mean `on`"),
        ({"file": "x", "on": ["regresion"]}, r"`on` names `regresion`; it may name regression, inconclusive"),
        ({"file": 3}, r"`file` is 3; give a text"),
        ({"webhook": "http://x"}, r"`webhook` is a table"),
        ({"webhook": {}}, r"\[notify.webhook\] `url` or `url_env`: give one of the two"),
        ({"webhook": {"url": "http://x", "url_env": "X"}}, r"give one of the two"),
        ({"webhook": {"url": "ftp://x"}}, r"`url` is no address; it begins with `https://`"),
        ({"webhook": {"url": "http://[::1"}}, r"`url` is no address"),
        (
            {"webhook": {"url": "http://x", "timout": 1}},
            r"\[notify.webhook\] `timout` .*did you mean `timeout`",
        ),
        ({"webhook": {"url": "http://x", "timeout": 0}}, r"`timeout` is 0; give seconds, up to 120"),
        (
            {"webhook": {"url": "http://x", "retries": 99}},
            r"`retries` is 99; give a whole number from 0 to 10",
        ),
        ({"webhook": {"url": "http://x", "headers_env": {"a b": "X"}}}, r"`headers_env` has `a b`"),
    ],
)
def test_what_cannot_be_meant_is_refused_by_name(table: dict[str, Any], said: str) -> None:
    with pytest.raises(JobInvalid, match=said):
        read_notify(table)


def test_all_that_is_wrong_is_told_at_once() -> None:
    with pytest.raises(JobInvalid) as told:
        read_notify({"fil": "x", "on": ["x"], "webhook": {"url": "x"}})
    assert all(name in str(told.value) for name in ("`fil`", "`on`", "`url`"))
