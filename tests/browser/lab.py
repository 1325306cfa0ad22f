"""A real JupyterLab in a real browser: a server on loopback, Chromium through Playwright, notebooks that run in it.

One rule: nothing outside this machine is reached. The server asks nobody for news; the browser resolves no name and
sends whatever is not loopback to a proxy that is not there; what it asked for nevertheless is kept, and fails the test.

The notebook's own commands run it (`notebook:run-all-cells`), so a cell passes the kernel, its comms and JupyterLab's
rendering as it does for a user. What a user clicks is for the tests to click.
"""

from __future__ import annotations

import ast
import json
import os
import re
import secrets
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import nbformat

if TYPE_CHECKING:
    from collections.abc import Sequence

    from playwright.sync_api import Browser, ConsoleMessage, Error, Locator, Page, WebSocket

ROOT = Path(__file__).resolve().parent.parent.parent
WIDTH, HEIGHT = 1280, 900
"""Pixels of the browser's window: the narrowest that the views must work at."""
_FRAME, _TALLEST = 150, 6_000
"""Pixels of JupyterLab's own above and below a notebook; of the tallest picture."""
SECONDS = 120.0
"""For a server to start, or a notebook to run: the machine may be shared."""
PATIENCE = 30.0
"""For something to appear."""
INSTALL = "apt-get install --no-install-recommends chromium"
Theme = Literal["light", "dark"]

_THEMES = {"light": "JupyterLab Light", "dark": "JupyterLab Dark"}
_ELSEWHERE = re.compile(r"^(?!https?://127\.0\.0\.1[:/]|wss?://127\.0\.0\.1[:/]|data:|blob:|about:)")
CHROMIUM = (
    "--no-sandbox", "--disable-gpu", "--disable-background-networking", "--no-first-run",
    "--disable-component-update", "--disable-dev-shm-usage", "--host-resolver-rules=MAP * ~NOTFOUND , EXCLUDE 127.0.0.1",
)  # fmt: skip
_SETTINGS = {
    "apputils-extension/notification": {"fetchNews": "false", "checkForUpdates": False},
    "docmanager-extension/plugin": {"autosave": False},
}
_LABS_OWN = re.compile(r"removeChild.*at http://127[^ ]*/static/lab/jlab_core", re.DOTALL)
"""JupyterLab 4.6 says so when the dialog of a restart closes, whatever the notebook holds."""
_UNSAFE = re.compile(r"[^A-Za-z0-9_.-]+")
_HARMLESS = re.compile(
    r"favicon\.ico|Failed to load resource: the server responded with a status of 404 .*/api/(workspaces|settings)"
)


class KernelError(AssertionError):
    """A cell of a notebook raised; the message is the kernel's traceback."""


def chromium() -> str | None:
    """Return the browser's path: Debian's, or the one `REDECIDE_CHROMIUM` names; None: there is none."""
    named = os.environ.get("REDECIDE_CHROMIUM")
    return named or shutil.which("chromium") or shutil.which("chromium-browser")


@dataclass(frozen=True)
class Server:
    """A running JupyterLab; everything it keeps is below `root`."""

    root: Path
    port: int
    token: str
    process: subprocess.Popen[bytes]

    @property
    def notebooks(self) -> Path:
        """The folder it shows."""
        return self.root / "notebooks"

    def url(self, path: str) -> str:
        """Return an address of the server, with its token."""
        return f"http://127.0.0.1:{self.port}/{path}{'&' if '?' in path else '?'}token={self.token}"

    def stop(self) -> None:
        """Stop it and its kernels."""
        self.process.terminate()
        try:
            self.process.wait(20)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()


def start(root: Path) -> Server:
    """Start JupyterLab on a free port of loopback; returns when it answers.

    Raises:
        RuntimeError: it ended or did not answer within `SECONDS`; the message has the end of its log.
    """
    for name in ("notebooks", "home"):
        (root / name).mkdir(parents=True)
    for name, values in _SETTINGS.items():
        place = root / "settings" / "@jupyterlab" / f"{name}.jupyterlab-settings"
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_text(json.dumps(values), encoding="utf-8")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    token = secrets.token_hex(16)
    log = root / "server.log"
    with log.open("wb") as file:
        process = subprocess.Popen(
            _command(root, port, token), env=_environment(root), stdout=file, stderr=file, cwd=root
        )
    found = Server(root, port, token, process)
    _wait(found, log)
    return found


def _command(root: Path, port: int, token: str) -> list[str]:
    options = {
        "ServerApp.root_dir": root / "notebooks", "ServerApp.ip": "127.0.0.1", "ServerApp.port": port,
        "ServerApp.port_retries": 0, "ServerApp.open_browser": False, "ServerApp.allow_root": True,
        "IdentityProvider.token": token, "LabApp.news_url": None, "LabApp.expose_app_in_browser": True,
        "LabApp.check_for_updates_class": "jupyterlab.NeverCheckForUpdate",
        "LanguageServerManager.autodetect": False, "ServerApp.terminals_enabled": False,
    }  # fmt: skip
    return [sys.executable, "-m", "jupyterlab", *(f"--{name}={value}" for name, value in options.items())]


def _environment(root: Path) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("JUPYTER", "PYTEST"))}
    own = {"JUPYTER_CONFIG_DIR": "config", "JUPYTER_DATA_DIR": "data", "JUPYTER_RUNTIME_DIR": "runtime"}
    own |= {"JUPYTERLAB_SETTINGS_DIR": "settings", "JUPYTERLAB_WORKSPACES_DIR": "workspaces"}
    own |= {"IPYTHONDIR": "ipython", "HOME": "home"}
    return kept | {name: str(root / folder) for name, folder in own.items()} | {"NO_PROXY": "127.0.0.1"}


def _wait(server: Server, log: Path) -> None:
    deadline = time.monotonic() + SECONDS
    while time.monotonic() < deadline and server.process.poll() is None:
        try:
            urllib.request.urlopen(server.url("api/status"), timeout=5).close()
        except OSError:
            time.sleep(0.05)
        else:
            return
    server.stop()
    said = log.read_text(encoding="utf-8", errors="replace")[-3000:]
    raise RuntimeError(f"JupyterLab did not start:\n{said}")


@dataclass
class Lab:
    """A server and a browser window on it; notebooks open in it one after the other."""

    server: Server
    page: Page
    console: list[str] = field(default_factory=list)
    """Errors of the console and uncaught exceptions since the last notebook was opened."""
    elsewhere: list[str] = field(default_factory=list)
    """Addresses outside this machine that were asked for; none was reached."""
    received: int = 0
    """Bytes that kernels have sent to the page."""
    loaded: bool = False

    @classmethod
    def open(cls, server: Server, browser: Browser) -> Lab:
        """Open a window."""
        # A proxy that is not there: names are not resolved, and addresses go nowhere either.
        context = browser.new_context(
            viewport={"width": WIDTH, "height": HEIGHT},
            proxy={"server": "http://127.0.0.1:9", "bypass": "127.0.0.1"},
            reduced_motion="reduce",
        )
        context.set_default_timeout(PATIENCE * 1000)
        lab = cls(server, context.new_page())
        context.on("request", lambda request: lab._asked(request.url))
        lab.page.on("websocket", lab._connected)
        lab.page.on("console", lab._said)
        lab.page.on("pageerror", lab._raised)
        lab.page.on("dialog", lambda dialog: dialog.accept())  # "leave this page?"
        return lab

    def _raised(self, error: Error) -> None:
        """Keep an error of the page, unless JupyterLab's core took a cell apart twice, with no line of ours above it.

        Seen once in some hundred notebooks on a busy machine, when one notebook was closed as the next was opened.
        """
        places = re.findall(r"at .*", error.stack or "")
        of_core = places and all("/static/lab/jlab_core." in place for place in places)
        if not (of_core and "'removeChild' on 'Node'" in error.message):
            self.console.append(f"{error.name}: {error.message}\n{error.stack}")

    def close(self) -> None:
        """Close the window and end its kernels."""
        if self.loaded:
            self.page.evaluate(_CLOSE)
        self.page.context.close()

    def _connected(self, socket: WebSocket) -> None:
        self._asked(socket.url)
        socket.on("framereceived", self._received)

    def _received(self, payload: str | bytes) -> None:
        self.received += len(payload)

    def _asked(self, url: str) -> None:
        if _ELSEWHERE.match(url):
            self.elsewhere.append(url)

    def _said(self, message: ConsoleMessage) -> None:
        text = f"{message.text} ({message.location.get('url', '')})"
        if message.type == "error" and not _HARMLESS.search(text):
            self.console.append(text)

    def notebook(self, cells: Sequence[str], name: str = "notebook") -> Book:
        """Write a notebook of code cells and open it; it has not run yet. The one before is closed, its kernel ended.

        Args:
            cells: their sources.
            name: of its file, without ending; a number is added if there is one already.
        """
        taken = sum(1 for _ in self.server.notebooks.glob(f"{name}*.ipynb"))
        path = self.server.notebooks / f"{name}{f'-{taken + 1}' if taken else ''}.ipynb"
        book = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(source) for source in cells])
        book.metadata.kernelspec = {"name": "python3", "display_name": "Python 3", "language": "python"}
        nbformat.write(book, path)
        self._ready()
        self.page.evaluate(_CLOSE)
        self.console.clear()
        self.page.evaluate(_OPEN, path.name)
        return Book(self, path)

    def _ready(self) -> None:
        """Load JupyterLab once; again only if a test left it with a dialog or crashed."""
        if self.loaded and not self.page.locator(".jp-Dialog").count() and self.page.evaluate(_IS_UP):
            return
        self.page.goto(self.server.url("lab?reset"))
        self.page.wait_for_function(_IS_UP)
        self.page.evaluate("window.jupyterapp.restored")
        self.page.evaluate("window.jupyterapp.commands.execute('application:toggle-left-area')")
        self.loaded = True

    def theme(self, theme: Theme) -> None:
        """Switch JupyterLab's theme."""
        self.page.evaluate(
            "name => jupyterapp.commands.execute('apputils:change-theme', {theme: name})", _THEMES[theme]
        )
        light = str(theme == "light").lower()
        self.page.wait_for_function(f"document.body.dataset.jpThemeLight === '{light}'")

    def shot(self, name: str, of: Locator | None = None) -> Path:
        """Save a picture of the window, or of a part of it, named by the theme too; returns its path.

        The folder is `REDECIDE_SCREENSHOTS`, or `build/screenshots`.
        """
        folder = Path(os.environ.get("REDECIDE_SCREENSHOTS", ROOT / "build" / "screenshots"))
        light = self.page.evaluate("document.body.dataset.jpThemeLight") == "true"
        path = folder / f"{_UNSAFE.sub('-', name)}-{'light' if light else 'dark'}.png"
        box = of.bounding_box() if of else None
        tall = box is not None and box["height"] > HEIGHT - _FRAME
        if tall and box:  # else JupyterLab's own frame covers the rest of it
            self.page.set_viewport_size(
                {"width": WIDTH, "height": min(int(box["height"]), _TALLEST) + _FRAME}
            )
        (of or self.page).screenshot(path=path, animations="disabled")
        if tall:
            self.page.set_viewport_size({"width": WIDTH, "height": HEIGHT})
        return path


@dataclass(frozen=True)
class Book:
    """An open notebook."""

    lab: Lab
    path: Path

    @property
    def page(self) -> Page:
        """The browser's page."""
        return self.lab.page

    @property
    def console_errors(self) -> list[str]:
        """Errors that the page reported since this notebook was opened."""
        return self.lab.console

    def run(self, timeout: float = SECONDS) -> Book:
        """Run all cells, and wait until the kernel is idle and what they show is there.

        Raises:
            KernelError: a cell raised.
            TimeoutError: not done after `timeout` seconds.
        """
        self._until_done("notebook:run-all-cells", timeout)
        return self

    def restart_and_run(self, timeout: float = SECONDS) -> Book:
        """Restart the kernel through JupyterLab's own dialog, run all cells and wait as `run` does."""
        self.page.evaluate("window.rdDone = jupyterapp.commands.execute('notebook:restart-run-all'); null")
        self.page.locator(".jp-Dialog button.jp-mod-accept").click()
        self._until_done(None, timeout)
        self.lab.console[:] = [each for each in self.lab.console if not _LABS_OWN.search(each)]
        return self

    def _until_done(self, command: str | None, timeout: float) -> None:
        if command:
            self.page.evaluate("name => { window.rdDone = jupyterapp.commands.execute(name); }", command)
        self.page.set_default_timeout(timeout * 1000)
        try:
            done = self.page.evaluate(_DONE, timeout * 1000)
        finally:
            self.page.set_default_timeout(PATIENCE * 1000)
        if errors := [each for each in self.outputs() if each["output_type"] == "error"]:
            said = "\n".join(errors[0]["traceback"])
            raise KernelError(re.sub(r"\x1b\[[0-9;]*m", "", said))
        if not done:
            raise TimeoutError(f"{self.path.name} was not done after {timeout:.0f} s")

    def outputs(self) -> list[dict[str, Any]]:
        """Return what all cells gave, as it would be saved."""
        cells = self.page.evaluate("jupyterapp.shell.currentWidget.content.model.toJSON().cells")
        return [output for cell in cells for output in cell.get("outputs", [])]

    def cell(self, index: int) -> Locator:
        """Return the outputs of a cell, counted from 0, scrolled into view."""
        self.page.evaluate(_SCROLL, index)
        found = self.page.locator(f".jp-Cell[data-windowed-list-index='{index}'] .jp-Cell-outputArea")
        found.wait_for()
        return found

    def value(self, expression: str) -> Any:
        """Return the value of a Python expression in the notebook's kernel, which must be JSON."""
        told = self.page.evaluate(_EVALUATE, f"__import__('json').dumps({expression})")
        if told["status"] != "ok":
            raise KernelError(f"{expression}: {told.get('ename')}: {told.get('evalue')}")
        # The kernel gives Python's repr of the JSON text.
        return json.loads(ast.literal_eval(told["data"]["text/plain"]))

    def becomes(self, expression: str, wanted: object, timeout: float = PATIENCE) -> None:
        """Wait until an expression in the kernel has a value.

        Raises:
            AssertionError: it had another one after `timeout` seconds.
        """
        deadline = time.monotonic() + timeout
        while (found := self.value(expression)) != wanted:
            assert time.monotonic() < deadline, f"{expression} is {found!r}, not {wanted!r}"
            self.page.wait_for_timeout(30)

    def theme(self, theme: Theme) -> None:
        """Switch JupyterLab's theme."""
        self.lab.theme(theme)

    def shot(self, name: str, of: Locator | None = None) -> Path:
        """Save a picture of the window, or of a part of it; see `Lab.shot`."""
        return self.lab.shot(name, of)


_IS_UP = "() => Boolean(window.jupyterapp && jupyterapp.shell && jupyterapp.commands.hasCommand('notebook:run-all-cells'))"
_CLOSE = """async () => {
  for (const open of [...jupyterapp.shell.widgets("main")]) {
    const session = open.context?.sessionContext;
    if (open.context) open.context.model.dirty = false;
    if (session?.session) await session.shutdown();
    open.dispose();
  }
}"""
_OPEN = """async (path) => {
  const panel = await jupyterapp.commands.execute("docmanager:open", {path, factory: "Notebook"});
  await panel.context.ready;
  await panel.sessionContext.ready;
  await panel.revealed;
  await panel.sessionContext.session.kernel.info;
}"""
_DONE = """async (limit) => {
  const late = new Promise((resolve) => setTimeout(() => resolve(false), limit));
  const run = async () => {
    await window.rdDone;
    const panel = jupyterapp.shell.currentWidget;
    // The kernel's reply comes before the last comm messages are handled: ask it once more.
    await panel.sessionContext.session.kernel.requestKernelInfo();
    await new Promise((resolve) => requestAnimationFrame(() => requestAnimationFrame(resolve)));
    return true;
  };
  return await Promise.race([run(), late]);
}"""
_SCROLL = """async (index) => {
  const notebook = jupyterapp.shell.currentWidget.content;
  await notebook.scrollToItem(index, "start");
}"""
_EVALUATE = """async (expression) => {
  const kernel = jupyterapp.shell.currentWidget.sessionContext.session.kernel;
  const asked = kernel.requestExecute({code: "", silent: true, store_history: false, user_expressions: {value: expression}});
  const reply = await asked.done;
  return reply.content.user_expressions?.value ?? {status: "error", ename: reply.content.status, evalue: ""};
}"""
