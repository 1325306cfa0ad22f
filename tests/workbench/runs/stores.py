"""Real MLflow stores for tests: a file, a server on loopback, and a proxy before it that loses what it is told to."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.request
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

ROOT = Path(__file__).resolve().parents[3]


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class Children:
    """The process that forks those that are killed."""

    def __init__(self) -> None:
        self.process = subprocess.Popen(
            [sys.executable, str(Path(__file__).with_name("sending_child.py"))],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
            env=os.environ | {"PYTHONPATH": str(ROOT), "MLFLOW_DISABLE_TELEMETRY": "true", "DO_NOT_TRACK": "true"},
        )  # fmt: skip

    def run(self, *cases: dict[str, Any]) -> list[dict[str, Any]]:
        """Run cases at the same time."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(json.dumps(cases) + "\n")
        self.process.stdin.flush()
        answer: list[dict[str, Any]] = json.loads(self.process.stdout.readline())
        return answer

    def killed(self, case: dict[str, Any], fatal: int) -> None:
        (end,) = self.run(case | {"fatal": fatal})
        assert end["signal"] == signal.SIGKILL, end

    def points(self, case: dict[str, Any]) -> int:
        """How many points a case comes to, undisturbed."""
        (end,) = self.run(case)
        assert end["signal"] == 0, end
        return int(end["said"])

    def close(self) -> None:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.close()
        self.process.wait(timeout=30)
        self.process.stdout.close()


@contextlib.contextmanager
def server(folder: Path) -> Iterator[str]:
    """Run `mlflow server` until the block ends; gives its address."""
    port = free_port()
    output = folder / "server.log"
    arguments = [
        *("--host", "127.0.0.1", "--port", str(port), "--workers", "1"),
        f"--backend-store-uri=sqlite:///{folder / 'server.db'}",
        f"--artifacts-destination={folder / 'served'}",
    ]
    with output.open("wb") as file:
        process = subprocess.Popen(
            [sys.executable, "-m", "mlflow", "server", *arguments],
            cwd=folder, stdout=file, stderr=file, start_new_session=True,
            env=os.environ | {"MLFLOW_DISABLE_TELEMETRY": "true", "DO_NOT_TRACK": "true"},
        )  # fmt: skip
    try:
        _await(f"http://127.0.0.1:{port}", process, output)
        yield f"http://127.0.0.1:{port}"
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait(timeout=30)


def _await(uri: str, process: subprocess.Popen[bytes], output: Path) -> None:
    deadline = time.monotonic() + 180
    while time.monotonic() < deadline:
        with contextlib.suppress(OSError), urllib.request.urlopen(f"{uri}/health", timeout=2):
            return
        assert process.poll() is None, output.read_text()
        time.sleep(0.2)
    raise AssertionError(output.read_text())


class Proxy:
    """Passes requests on to a server; `rule` says of each (method, path, number) what becomes of it.

    `pass`; `lose`: the server does it, and its answer is lost; `refuse`: the server never hears of it;
    (status, text): the answer in its place.
    """

    def __init__(self, uri: str) -> None:
        self.rule: Callable[[str, str, int], object] = lambda method, path, number: "pass"
        self.seen: list[str] = []
        proxy = self

        class Handler(BaseHTTPRequestHandler):
            def handle_any(self) -> None:
                proxy._pass_on(self, uri.removeprefix("http://"))

            do_GET = do_POST = do_PUT = do_PATCH = do_DELETE = handle_any  # noqa: N815 - what the library calls

            def log_message(self, format: str, *args: object) -> None:  # noqa: A002
                pass

        self.http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.uri = f"http://127.0.0.1:{self.http.server_port}"
        self.thread = threading.Thread(target=self.http.serve_forever, daemon=True)
        self.thread.start()

    def _pass_on(self, request: BaseHTTPRequestHandler, host: str) -> None:
        path = request.path.partition("?")[0]
        self.seen.append(f"{request.command} {path}")
        rule = self.rule(request.command, path, len(self.seen))
        body = request.rfile.read(int(request.headers.get("Content-Length", 0)))
        request.close_connection = True
        if rule == "refuse":
            return
        if isinstance(rule, tuple):
            status, content, headers = rule[0], rule[1].encode(), []
        else:
            server = http.client.HTTPConnection(host, timeout=60)
            server.request(request.command, request.path, body, dict(request.headers))
            answer = server.getresponse()
            status, content, headers = answer.status, answer.read(), answer.getheaders()
            server.close()
        if rule == "lose":
            return
        request.send_response(status)
        for name, value in headers:
            if name.lower() not in ("transfer-encoding", "content-length", "connection"):
                request.send_header(name, value)
        request.send_header("Content-Length", str(len(content)))
        request.end_headers()
        request.wfile.write(content)

    def close(self) -> None:
        self.http.shutdown()
        self.http.server_close()
        self.thread.join(timeout=30)
