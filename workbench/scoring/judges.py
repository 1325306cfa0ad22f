"""A judge: a language model behind an OpenAI-compatible address, as DeepEval's `DeepEvalBaseLLM`.

One rule: an answer that cannot be read is no answer. What is empty, cut off, no JSON, of another shape than asked, or
did not come at all raises `JudgeFailed` for that one case; it is never a score.

The library `openai` makes the call and retries it (429, 408, 409, 5xx, timeouts and dropped connections, with
back-off; `Retry-After` is honoured). Around it: proxies and addresses from the environment are not used, redirects
not followed, and of the headers only those that the call needs are sent; the prompt passes `workbench.masking`. What
refuses the key, the model or the address refuses every case: after the first such answer nothing more is asked. An
answer that cannot be read is asked for once more, with what was wrong with it.

At temperature 0 an equal prompt is asked once in a judge's life, also by several threads at the same time.

`version` names what judged: the model, and a hash of address, parameters and the caller's own `version`. The server's
fingerprint is not part of it: it is known only after a call, and several machines may answer under one name, so that
a judge's rows could never be used again. Which fingerprints answered is in `fingerprints`.
"""

from __future__ import annotations

import asyncio
import inspect
import os
import threading
from collections import OrderedDict
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from copy import copy
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeVar, cast

from runtime.canonical import content_hash
from workbench.errors import JudgeFailed, ScoringInvalid, need
from workbench.masking import leaving
from workbench.scoring.answers import MAX_SAID, completion_of, read, text_of
from workbench.scoring.offline import deepeval
from workbench.texts import shorten, visible

deepeval()  # before the import below: it would load it with its telemetry on

from deepeval.models import DeepEvalBaseLLM  # noqa: E402

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from runtime.canonical import Json

    Metric = TypeVar("Metric")

__all__ = ["Judge", "NoJudge", "judge", "judged_by"]

MAX_KEPT = 4096
"""Answers that are kept for prompts that come again."""
THREADS = 64
"""Calls that may wait at once, for coroutines."""
HEADERS = frozenset(
    {"host", "accept", "accept-encoding", "connection", "content-type", "content-length", "authorization"}
)
"""What is sent. The library would add what machine and interpreter it runs on, and what the environment says."""
FINAL = frozenset({401, 403, 404})
"""Statuses that every case would get."""
AGAIN = frozenset({408, 409, 429, *range(500, 600)})
"""Statuses that a later try may not get."""
_JSON = "Your last answer was not the JSON that was asked for ({}). Answer with that JSON object and nothing else."


@dataclass(slots=True)
class _State:
    """What a judge and its copies share: `wb.score` copies the model of a metric."""

    lock: threading.Lock = field(default_factory=threading.Lock)
    answers: OrderedDict[str, Future[str]] = field(default_factory=OrderedDict)
    refused: str | None = None
    threads: ThreadPoolExecutor | None = None
    fingerprints: dict[str, int] = field(default_factory=dict)
    calls: int = 0
    kept: int = 0


class Judge(DeepEvalBaseLLM):  # type: ignore[misc]  # deepeval ships no annotations
    """A model behind an address. Made by `judge`; may be used by several threads and loops at once."""

    version: str
    """Names what judged."""

    def __init__(
        self, client: Any, model: str, body: Mapping[str, Json], *, retries: int, version: str
    ) -> None:
        self._client, self._body, self._retries, self.version = client, dict(body), retries, version
        self._state = _State()
        super().__init__(model)
        self.name = model

    @property
    def fingerprints(self) -> Mapping[str, int]:
        """Answers by the fingerprint that the server gave (empty: none)."""
        return dict(self._state.fingerprints)

    @property
    def calls(self) -> int:
        """Requests that were answered with a completion."""
        return self._state.calls

    @property
    def kept(self) -> int:
        """Prompts that were not asked again."""
        return self._state.kept

    def load_model(self, *_args: object, **_kwargs: object) -> Any:
        """Return the client: there is nothing to load."""
        return self._client

    def get_model_name(self, *_args: object, **_kwargs: object) -> str:
        """Return the model's name, as it was given."""
        return str(self.name)

    def generate(self, prompt: str, schema: Any = None) -> Any:
        """Ask.

        Args:
            prompt: the text.
            schema: a pydantic model that the answer must be JSON of; None: any text is an answer.

        Returns:
            The text, or an instance of `schema`.

        Raises:
            JudgeFailed: there was no answer, or none that can be read, after all tries.
        """
        if schema is None:
            return self._asked([prompt], lambda text: text)
        return self._asked([prompt], lambda text: read(text, schema))

    async def a_generate(self, prompt: str, schema: Any = None) -> Any:
        """Ask as `generate`, in a thread: the loop goes on, and a call that is given up ends by its timeout."""
        with self._state.lock:
            if self._state.threads is None:
                self._state.threads = ThreadPoolExecutor(THREADS, thread_name_prefix="judge")
            threads = self._state.threads
        return await asyncio.get_running_loop().run_in_executor(threads, self.generate, prompt, schema)

    def close(self) -> None:
        """Close connections and threads; calls that still wait fail."""
        if self._state.threads is not None:
            self._state.threads.shutdown(wait=False, cancel_futures=True)
        self._client.close()

    def _asked(self, prompts: list[str], read: Callable[[str], Any]) -> Any:
        """Ask; if the answer cannot be read, ask once more, with what was wrong."""
        try:
            return self._read_once(prompts, read)
        except ValueError as exc:
            first = str(exc)
        try:
            return self._read_once([*prompts, _JSON.format(first)], read)
        except ValueError as exc:
            raise _failed(f"judge {self.name} answered nonsense, twice: {exc}") from None

    def _read_once(self, prompts: list[str], read: Callable[[str], Any]) -> Any:
        try:
            return read(self._once(prompts))
        except ValueError:
            with self._state.lock:  # not kept: whoever asks again may get an answer
                self._state.answers.pop(content_hash(list(prompts)), None)
            raise

    def _once(self, prompts: list[str]) -> str:
        """Return the text for a prompt; of equal ones at temperature 0, the first one's."""
        if self._body.get("temperature") != 0:
            return self._said(prompts)
        key = content_hash(list(prompts))
        with self._state.lock:
            mine = key not in self._state.answers
            answer = self._state.answers.setdefault(key, Future())
            self._state.kept += not mine
            while len(self._state.answers) > MAX_KEPT:
                self._state.answers.popitem(last=False)
        if mine:
            self._settle(key, answer, prompts)
        return answer.result()

    def _settle(self, key: str, answer: Future[str], prompts: list[str]) -> None:
        try:
            answer.set_result(self._said(prompts))
        except BaseException as exc:
            with self._state.lock:
                self._state.answers.pop(key, None)  # a failure is not kept: the next one asks again
            answer.set_exception(exc)
            raise

    def _said(self, prompts: list[str]) -> str:
        """Make the call; ValueError where the answer is none."""
        if self._state.refused is not None:
            raise _failed(self._state.refused)
        messages = [{"role": "user", "content": leaving(prompt)} for prompt in prompts]
        found = completion_of(self._sent(messages))
        fingerprint = found.system_fingerprint or ""
        with self._state.lock:
            self._state.calls += 1
            self._state.fingerprints[fingerprint] = self._state.fingerprints.get(fingerprint, 0) + 1
        return text_of(found)

    def _sent(self, messages: list[dict[str, str]]) -> bytes:
        openai = need("openai")
        try:
            # Not by `chat.completions`: that reads an answer of any shape as one, with what is not there as None.
            raw = self._client.post(
                "/chat/completions",
                cast_to=need("httpx2").Response,
                body={"messages": messages, **self._body},
            )
        except openai.APIStatusError as exc:
            said = f"judge {self.name} answered {exc.status_code}: {self._without_key(exc)}"
            if exc.status_code in FINAL:
                self._state.refused = said
            again = exc.status_code in AGAIN and not self._retries
            raise _failed(
                said, final=not again, after=exc.response.headers
            ) from None  # its text may hold the key
        except openai.APITimeoutError:
            raise _failed(f"judge {self.name} did not answer in time", final=bool(self._retries)) from None
        except openai.OpenAIError as exc:
            said = f"judge {self.name} cannot be reached: {self._without_key(exc)}"
            raise _failed(said, final=bool(self._retries)) from None
        return bytes(raw.content)

    def _without_key(self, exc: Exception) -> str:
        cause = f"{exc}" if exc.__cause__ is None else f"{exc} ({exc.__cause__})"
        key = str(self._client.api_key)
        return visible(shorten(cause.replace(key, "…") if key else cause, MAX_SAID))


class NoJudge(DeepEvalBaseLLM):  # type: ignore[misc]  # deepeval ships no annotations
    """Stands where a metric of DeepEval's demands a model that it does not ask; asked after all, it fails."""

    version = "none"

    def load_model(self, *_args: object, **_kwargs: object) -> Any:
        """Return nothing."""
        return None

    def get_model_name(self, *_args: object, **_kwargs: object) -> str:
        """Return what it is."""
        return "no judge"

    def generate(self, *_args: object, **_kwargs: object) -> str:
        """Fail.

        Raises:
            JudgeFailed: always.
        """
        raise JudgeFailed(
            "this metric asks a judge here, and none is configured: give one, as `judge = { url = … }`"
        )

    async def a_generate(self, *_args: object, **_kwargs: object) -> str:
        """Fail, as `generate`."""
        return self.generate()


def judge(
    *,
    url: str,
    model: str,
    api_key_env: str | None = None,
    temperature: float | None = 0,
    seed: int | None = 0,
    timeout: float = 60.0,
    retries: int = 2,
    proxy: str | None = None,
    options: Mapping[str, Json] | None = None,
    version: str | None = None,
) -> Judge:
    """Return a judge behind an OpenAI-compatible address, for any metric of DeepEval's.

    Args:
        url: up to what comes before `/chat/completions`, as `http://127.0.0.1:8000/v1`.
        model: as the server calls it.
        api_key_env: environment variable that holds the key; None: none is sent.
        temperature: None: the server's own. At 0, an equal prompt is asked once.
        seed: None: none is sent.
        timeout: seconds a try.
        retries: tries after the first, of a call that failed; 0 where `wb.score` tries again, which knows what waits.
        proxy: address of a proxy; the environment's is not used.
        options: more members of the request, as `{"max_tokens": 500}`.
        version: of yours, beside: a model behind the same name was exchanged.

    Returns:
        The judge. Nothing is sent before it is asked.

    Raises:
        ScoringInvalid: the address is none, a number is out of range, or the key's variable is not set.
        MissingExtra: `openai` is not installed.
    """
    _require(url, model, timeout, retries)
    key = _key(api_key_env)
    asked = {"model": model, "temperature": temperature, "seed": seed}
    body: dict[str, Any] = {name: value for name, value in asked.items() if value is not None}
    body |= dict(options or {})
    marks = content_hash({"url": url.rstrip("/"), "body": body, "version": version})
    return Judge(
        _client(url, key, timeout, retries, proxy),
        model,
        body,
        retries=retries,
        version=f"{model}@{marks[:12]}",
    )


def judged_by(metric: Metric, llm: DeepEvalBaseLLM) -> Metric:
    """Return a copy of a metric that asks this model; also one that was made without any.

    Raises:
        ScoringInvalid: the metric asks no model.
    """
    if "model" not in inspect.signature(type(metric).__init__).parameters:
        raise ScoringInvalid(f"{type(metric).__name__} asks no model: it needs no judge")
    own: Any = copy(metric)
    own.model, own.using_native_model, own.evaluation_model = llm, False, llm.get_model_name()
    found: Metric = own
    return found


def _require(url: str, model: str, timeout: float, retries: int) -> None:
    if not url.startswith(("http://", "https://")) or "://" not in url or not url.partition("://")[2]:
        raise ScoringInvalid(f"judge: `url` is {url!r}; give an address, as http://127.0.0.1:8000/v1")
    if "@" in url.partition("://")[2].partition("/")[0]:
        raise ScoringInvalid("judge: `url` holds a password; name the variable that has it by `api_key_env`")
    if not model:
        raise ScoringInvalid("judge: `model` is empty; give the model's name")
    if not timeout > 0:
        raise ScoringInvalid(f"judge: `timeout` is {timeout!r}; give seconds, more than 0")
    if type(retries) is not int or retries < 0:
        raise ScoringInvalid(f"judge: `retries` is {retries!r}; give a number, 0 or more")


def _key(variable: str | None) -> str:
    if variable is None:
        return ""
    if not (found := os.environ.get(variable)):
        raise ScoringInvalid(
            f"judge: `api_key_env` names {variable}, which is not set; export it, or leave the key out"
        )
    return found


def _client(url: str, key: str, timeout: float, retries: int, proxy: str | None) -> Any:
    openai = need("openai")

    def sending(request: Any) -> None:
        for name in [name for name in request.headers if name.lower() not in HEADERS]:
            del request.headers[name]
        if key:
            request.headers["authorization"] = f"Bearer {key}"
        else:
            request.headers.pop("authorization", None)

    http = openai.DefaultHttpxClient(
        trust_env=False,
        proxy=proxy,
        follow_redirects=False,
        timeout=timeout,
        event_hooks={"request": [sending]},
    )
    return openai.OpenAI(
        base_url=url, api_key=key or "none", timeout=timeout, max_retries=retries, http_client=http
    )


def _failed(said: str, *, final: bool = True, after: Mapping[str, str] | None = None) -> JudgeFailed:
    """Return what is raised, with what `workbench.scoring.waiting` reads: whether to try again, and when."""
    found: Any = JudgeFailed(said)
    found.final = final
    with suppress(ValueError):  # a date is not read: the usual pause then
        found.retry_after = float((after or {}).get("retry-after", ""))
    return cast("JudgeFailed", found)
