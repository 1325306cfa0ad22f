"""A judge over real HTTP: what it sends, what it takes for an answer, and what it does with all else."""

from __future__ import annotations

import asyncio
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import pytest
from deepeval.metrics import ExactMatchMetric, GEval
from deepeval.test_case import LLMTestCase, SingleTurnParams
from pydantic import BaseModel

from tests.workbench.scoring.scripted_judge import Trouble, completion, scripted_judge
from workbench.errors import JudgeFailed, ScoringInvalid
from workbench.scoring.judges import NoJudge, judge, judged_by

if TYPE_CHECKING:
    from collections.abc import Iterator

    from workbench.scoring.judges import Judge


class Verdict(BaseModel):
    score: float
    reason: str


GOOD: dict[str, Any] = {"score": 8, "reason": "polite"}


@pytest.fixture
def made() -> Iterator[Any]:
    """Return what makes judges, closed at the end."""
    found: list[Judge] = []

    def make(url: str, **options: Any) -> Judge:
        found.append(judge(url=url, model="m-1", **{"retries": 0, "timeout": 20.0} | options))
        return found[-1]

    yield make
    for each in found:
        each.close()


def test_what_is_sent(made: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing but the call: no proxy, key, header or address of the environment's, and nothing of this machine's."""
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "http_proxy", "all_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    monkeypatch.setenv("NO_PROXY", "")
    monkeypatch.setenv("no_proxy", "")
    for name in ("OPENAI_API_KEY", "OPENAI_ADMIN_KEY", "OPENAI_ORG_ID", "OPENAI_PROJECT_ID"):
        monkeypatch.setenv(name, "theirs")
    monkeypatch.setenv("OPENAI_CUSTOM_HEADERS", "x-theirs: theirs")
    monkeypatch.setenv("OPENAI_BASE_URL", "http://127.0.0.1:9/v1")
    monkeypatch.setenv("MINE", "k-123")
    with scripted_judge({"hello": "hi"}) as server:
        assert made(server.url).generate("hello") == "hi"
        assert made(server.url, api_key_env="MINE", options={"max_tokens": 9}).generate("hello") == "hi"
    plain, keyed = server.asked
    names = {name.lower() for name in plain["headers"]}
    assert names == {"host", "accept", "accept-encoding", "connection", "content-type", "content-length"}
    assert plain["path"] == "/v1/chat/completions"
    messages = [{"role": "user", "content": "hello"}]
    assert plain["body"] == {"model": "m-1", "temperature": 0, "seed": 0, "messages": messages}
    assert {name.lower(): value for name, value in keyed["headers"].items()}[
        "authorization"
    ] == "Bearer k-123"
    assert keyed["body"]["max_tokens"] == 9
    assert "theirs" not in repr(server.asked)


def test_reads_json_with_prose_around(made: Any) -> None:
    said = "<think>{no}</think>".replace("{no}", "hm") + '\n```json\n{"score": 8, "reason": "polite"}\n```'
    with scripted_judge({"a": said}) as server:
        assert made(server.url).generate("a", schema=Verdict) == Verdict(**GOOD)


NONSENSE: dict[str, Any] = {
    "no json": "it is rather good",
    "empty": "",
    "blank": " \n",
    "a list": "[1, 2]",
    "wrong type": {"score": "very", "reason": "x"},
    "missing member": {"score": 1},
    "not a number": '{"score": NaN, "reason": "x"}',
    "infinite": '{"score": 1e999, "reason": "x"}'.replace("1e999", "Infinity"),
    "cut off": Trouble(body=completion('{"score": 1, "reason": "x"}', finish_reason="length")),
    "null": Trouble(body=completion(None)),
    "refused": Trouble(body=completion(None, message={"role": "assistant", "refusal": "I must not"})),
    "no choices": Trouble(body=b'{"choices": []}'),
    "not a completion": Trouble(body=b'{"object": "list"}'),
    "choices of another kind": Trouble(body=b'{"choices": "many"}'),
    "a page": Trouble(body=b"<html>busy</html>", headers={"content-type": "text/html"}),
    "bytes": Trouble(body=b"\xff\xfe\x00"),
}


@pytest.mark.parametrize("said", NONSENSE.values(), ids=NONSENSE.keys())
def test_nonsense_is_no_answer(made: Any, said: Any) -> None:
    """It is asked for once more, with what was wrong; then the case has no score."""
    with (
        scripted_judge({"": said}) as server,
        pytest.raises(JudgeFailed, match="m-1 answered nonsense, twice"),
    ):
        made(server.url).generate("how good?", schema=Verdict)
    first, second = server.prompts
    assert first == "how good?"
    assert second.startswith("how good?\nYour last answer was not the JSON")


@pytest.mark.parametrize("said", NONSENSE.values(), ids=NONSENSE.keys())
def test_one_more_try_mends_it(made: Any, said: Any) -> None:
    with scripted_judge({"": [said, GOOD]}) as server:
        assert made(server.url).generate("how good?", schema=Verdict) == Verdict(**GOOD)


@pytest.mark.parametrize(
    "trouble",
    [
        Trouble(status=429, headers={"retry-after": "0.01"}),
        Trouble(status=500, headers={"retry-after": "0.01"}),
        Trouble(status=503, headers={"retry-after-ms": "5"}),
        Trouble(dropped=True),
    ],
    ids=["429", "500", "503", "dropped"],
)
def test_what_passes_is_tried_again(made: Any, trouble: Trouble) -> None:
    with scripted_judge({"": [trouble, "fine"]}) as server:
        assert made(server.url, retries=1).generate("a") == "fine"
        assert len(server.asked) == 2


def test_says_when_to_come_back(made: Any) -> None:
    """Without tries of its own, whoever scores reads from the error whether and when to try again."""
    with scripted_judge({"": [Trouble(status=429, headers={"retry-after": "7"}), "fine"]}) as server:
        mine = made(server.url)
        with pytest.raises(JudgeFailed, match="answered 429") as failed:
            mine.generate("a")
        assert (failed.value.final, failed.value.retry_after) == (False, 7.0)  # type: ignore[attr-defined]
        assert mine.generate("a") == "fine"


def test_a_judge_that_does_not_answer(made: Any) -> None:
    with scripted_judge({"": Trouble(until=(done := threading.Event()))}) as server:
        with pytest.raises(JudgeFailed, match="did not answer in time"):
            made(server.url, timeout=0.1).generate("a")
        done.set()


def test_nobody_there(made: Any) -> None:
    with scripted_judge({}) as server:
        url = server.url
    with pytest.raises(JudgeFailed, match="cannot be reached"):
        made(url).generate("a")


@pytest.mark.parametrize("status", [401, 403, 404])
def test_who_refuses_every_case_is_asked_once(
    made: Any, status: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MINE", "k-123")
    body = b'{"error": {"message": "bad key k-123\\u001b[2J"}}'
    with scripted_judge({"": Trouble(status=status, body=body)}) as server:
        mine = made(server.url, api_key_env="MINE", retries=3)
        for prompt in ("a", "b"):
            with pytest.raises(JudgeFailed, match=f"answered {status}") as failed:
                mine.generate(prompt)
            assert "k-123" not in str(failed.value)
            assert "\x1b" not in str(failed.value)
        assert len(server.asked) == 1


def test_goes_nowhere_else(made: Any) -> None:
    with scripted_judge({"": "caught"}) as other:
        away = Trouble(status=307, headers={"location": f"{other.url}/chat/completions"})
        with scripted_judge({"": away}) as server, pytest.raises(JudgeFailed, match="307"):
            made(server.url).generate("a")
        assert not other.asked


def test_equal_prompts_are_asked_once(made: Any) -> None:
    """Also by threads that come while the first one waits."""
    arrived, go = threading.Barrier(9), threading.Event()

    def slowly(prompt: str) -> str:
        go.wait(30)
        return "fine"

    def ask(mine: Judge) -> Any:
        arrived.wait(30)
        return mine.generate("a")

    with scripted_judge({"a": slowly, "b": "other"}) as server, ThreadPoolExecutor(8) as pool:
        mine = made(server.url)
        answers = [pool.submit(ask, mine) for _ in range(8)]
        arrived.wait(30)
        go.set()
        assert [each.result(30) for each in answers] == ["fine"] * 8
        assert mine.generate("b") == "other"
        assert server.prompts == ["a", "b"]
        assert (mine.calls, mine.kept, mine.fingerprints) == (2, 7, {"fp_1": 2})


def test_failures_are_not_kept(made: Any) -> None:
    with scripted_judge({"": [Trouble(status=500), "fine"]}) as server:
        mine = made(server.url)
        with pytest.raises(JudgeFailed):
            mine.generate("a")
        assert mine.generate("a") == "fine"


def test_a_warm_judge_is_asked_each_time(made: Any) -> None:
    with scripted_judge({"": ["one", "two"]}) as server:
        mine = made(server.url, temperature=0.7)
        assert (mine.generate("a"), mine.generate("a")) == ("one", "two")


async def test_in_a_running_loop(made: Any) -> None:
    """Coroutines wait side by side: all are at the judge before it answers any."""
    everyone = threading.Barrier(5)

    def together(prompt: str) -> str:
        everyone.wait(30)
        return prompt.upper()

    with scripted_judge({"": together}) as server:
        mine = made(server.url)
        answers = await asyncio.gather(*(mine.a_generate(f"p{at}") for at in range(5)))
    assert answers == ["P0", "P1", "P2", "P3", "P4"]


def test_version_names_what_judges() -> None:
    base: dict[str, Any] = {"url": "http://127.0.0.1:1/v1", "model": "m"}
    same = [judge(**base, **more).version for more in ({}, {"timeout": 3.0}, {"retries": 7})]
    assert len(set(same)) == 1
    assert same[0].startswith("m@")
    others: list[dict[str, Any]] = [
        {"url": "http://127.0.0.1:2/v1"}, {"model": "n"}, {"temperature": 1}, {"seed": 1}, {"seed": None},
        {"options": {"max_tokens": 5}}, {"version": "2026-11"},
    ]  # fmt: skip
    found = [judge(**base | more).version for more in others]
    assert len({*found, same[0]}) == 1 + len(others)


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"url": "127.0.0.1:8000"}, "`url`"),
        ({"url": "http://"}, "`url`"),
        ({"url": "http://me:secret@127.0.0.1/v1"}, "password"),
        ({"model": ""}, "`model`"),
        ({"timeout": 0}, "`timeout`"),
        ({"retries": -1}, "`retries`"),
        ({"api_key_env": "NOT_SET_ANYWHERE"}, "NOT_SET_ANYWHERE, which is not set"),
    ],
)
def test_a_judge_that_cannot_be(wrong: dict[str, Any], said: str) -> None:
    with pytest.raises(ScoringInvalid, match=said) as invalid:
        judge(**{"url": "http://127.0.0.1:1/v1", "model": "m"} | wrong)
    assert "secret" not in str(invalid.value)


CASE = LLMTestCase(input="refund 12", actual_output="refunded 12")


def tone(llm: Any) -> GEval:
    params = [SingleTurnParams.INPUT, SingleTurnParams.ACTUAL_OUTPUT]
    return GEval("tone", evaluation_params=params, criteria="polite", model=llm, async_mode=False)


def test_a_metric_gets_its_judge(made: Any) -> None:
    with scripted_judge({"Evaluation Criteria:": {"steps": ["look"]}, "refund 12": GOOD}) as server:
        dumb = tone(NoJudge())
        metric = judged_by(dumb, made(server.url))
        metric.measure(CASE, _show_indicator=False)
        assert (metric.score, metric.reason, metric.evaluation_model) == (0.8, "polite", "m-1")
    with pytest.raises(JudgeFailed, match="none is configured"):
        dumb.measure(CASE, _show_indicator=False)
    with pytest.raises(ScoringInvalid, match="asks no model"):
        judged_by(ExactMatchMetric(), NoJudge())
