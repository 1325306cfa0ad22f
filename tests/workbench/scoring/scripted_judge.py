"""A judge on loopback: a real HTTP server that speaks the OpenAI chat protocol and answers from a table.

What a prompt is answered with is the first entry of the table whose text occurs in it. An answer is a text, a value
(sent as JSON text), or a `Trouble`: a status, headers, a body of any kind, a connection that is dropped, or a wait until the
test says so. A list is used up one a call, its last entry for ever.
"""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, cast


@dataclass(frozen=True, kw_only=True)
class Trouble:
    """What a judge does instead of answering."""

    status: int = 200
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes | None = None
    """Sent as it is; None: a JSON error."""
    dropped: bool = False
    """Close the connection without a word."""
    until: threading.Event | None = None
    """Wait for it, then close."""


Said = str | Mapping[str, Any] | Trouble
Answer = Said | Sequence[Said] | Callable[[str], Said]


@dataclass
class ScriptedJudge:
    """The server. `asked` holds what came in: one mapping a request, with `prompt`, `headers`, `body`."""

    table: dict[str, Answer]
    fingerprint: str | None = "fp_1"
    asked: list[dict[str, Any]] = field(default_factory=list)
    url: str = ""
    at_once: int = 0
    """The most requests that were open together."""
    _open: int = 0
    _used: dict[str, int] = field(default_factory=dict)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    @property
    def prompts(self) -> list[str]:
        return [each["prompt"] for each in self.asked]

    def take(self, request: dict[str, Any]) -> Said:
        with self._lock:
            self.asked.append(request)
            prompt = request["prompt"]
            key = next((text for text in self.table if text in prompt), None)
            if key is None:
                return Trouble(status=400, body=b'{"error": {"message": "nothing in the table fits"}}')
            answer = self.table[key]
            at = self._used.get(key, 0)
            self._used[key] = at + 1
        if callable(answer):  # outside the lock: it may wait for other calls
            return answer(prompt)
        return answer if isinstance(answer, str | Mapping | Trouble) else answer[min(at, len(answer) - 1)]

    @contextmanager
    def counted(self) -> Iterator[None]:
        with self._lock:
            self._open += 1
            self.at_once = max(self.at_once, self._open)
        try:
            yield
        finally:
            with self._lock:
                self._open -= 1


def completion(text: str | None, fingerprint: str | None = "fp_1", **choice: Any) -> bytes:
    """Return what the protocol has for an answer."""
    found = {"index": 0, "message": {"role": "assistant", "content": text}, "finish_reason": "stop"} | choice
    body = {"id": "c-1", "object": "chat.completion", "created": 1, "model": "scripted", "choices": [found]}
    usage = {"prompt_tokens": 3, "completion_tokens": 2, "total_tokens": 5}
    return json.dumps(body | {"usage": usage, "system_fingerprint": fingerprint}).encode()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        judge = cast("_Server", self.server).judge
        body = json.loads(self.rfile.read(int(self.headers["content-length"])))
        prompt = "\n".join(str(message["content"]) for message in body.get("messages", ()))
        with judge.counted():
            said = judge.take(
                {"prompt": prompt, "headers": dict(self.headers), "body": body, "path": self.path}
            )
            self._answer(judge, said)

    def _answer(self, judge: ScriptedJudge, said: Said) -> None:
        match said:
            case Trouble(dropped=True):
                self._drop()
            case Trouble(until=threading.Event() as event):
                event.wait(60)
                self._drop()
            case Trouble():
                error = json.dumps({"error": {"message": f"status {said.status}"}}).encode()
                self._send(said.status, error if said.body is None else said.body, said.headers)
            case str():
                self._send(200, completion(said, judge.fingerprint), {})
            case _:
                self._send(200, completion(json.dumps(said), judge.fingerprint), {})

    def _send(self, status: int, body: bytes, headers: Mapping[str, str]) -> None:
        try:
            self.send_response(status)
            for name, value in ({"content-type": "application/json"} | dict(headers)).items():
                self.send_header(name, value)
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)
        except OSError:  # the client went away
            self.close_connection = True

    def _drop(self) -> None:
        self.close_connection = True
        self.connection.shutdown(socket.SHUT_RDWR)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the library's name
        """Say nothing."""


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    judge: ScriptedJudge

    def shutdown_request(self, request: Any) -> None:
        try:
            super().shutdown_request(request)
        except OSError:
            request.close()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that went away is no error of the judge's."""


@contextmanager
def scripted_judge(table: dict[str, Answer], **options: Any) -> Iterator[ScriptedJudge]:
    """Serve a table on loopback; `.url` is what `judge(url=…)` takes.

    Args:
        table: answers by a text that occurs in the prompt, the first that fits.
        options: fields of `ScriptedJudge`.
    """
    judge = ScriptedJudge(table, **options)
    with _Server(("127.0.0.1", 0), _Handler) as server:
        server.judge = judge
        judge.url = f"http://127.0.0.1:{server.server_address[1]}/v1"
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
        thread.start()
        try:
            yield judge
        finally:
            server.shutdown()
            thread.join()
