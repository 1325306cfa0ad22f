"""A night as an executed notebook: `09_a_night.ipynb` run on what the night left, kept with its outputs and as HTML.

One rule: it replays nothing and needs no lake: it reads `night.json`, `nights.json` and `changed.parquet`. The HTML
runs no script and loads nothing: a browser is told so by the page itself.

Accepted: a kernel takes some seconds to start; a job that is in a hurry leaves the notebook out.
"""

from __future__ import annotations

import json
from copy import deepcopy
from pathlib import Path
from tempfile import NamedTemporaryFile
from typing import TYPE_CHECKING, Any

from workbench.errors import JobStateError, need
from workbench.faces import written
from workbench.regressing.reporting.as_json import as_dict, dumps, night_of, read
from workbench.shipped import shipped
from workbench.texts import shorten

if TYPE_CHECKING:
    from collections.abc import Sequence

    from workbench.regressing.result import Night

NOTEBOOK = "09_a_night.ipynb"
EXECUTED, PAGE, NIGHT, NIGHTS = "notebook.ipynb", "notebook.html", "night.json", "nights.json"
"""Files of a night's folder."""
SECONDS = 300
"""How long a cell, and a kernel's start, may take."""

_FOLDED = """{%- extends 'basic/index.html.j2' -%}
{% block input_group %}<details class="rd-source"><summary>code</summary>{{ super() }}</details>{% endblock %}"""


def execute(night: Night, folder: Path, *, earlier: Sequence[Night] = (), seconds: int = SECONDS) -> Path:
    """Run the notebook about a night.

    Args:
        night: what it came to; each candidate's `files` may hold a `changed.parquet`.
        folder: the night's; `night.json` and `nights.json` are written there, then `notebook.ipynb` and
            `notebook.html`, each whole or not at all.
        earlier: nights of the same job before it, the oldest first.
        seconds: how long a cell may take.

    Returns:
        The path of the HTML page.

    Raises:
        JobStateError: a cell failed, or the kernel did; says which and how.
        MissingExtra: papermill or nbconvert is not installed.
    """
    keep(night, folder, earlier=earlier)
    return run(shipped(f"notebooks/{NOTEBOOK}"), folder, {"folder": str(folder.resolve())}, seconds=seconds)


def keep(night: Night, folder: Path, *, earlier: Sequence[Night] = ()) -> None:
    """Write a night, and those before it, into `folder`, which is made: all that the notebook reads."""
    written(dumps(night) + "\n", folder / NIGHT)
    written(json.dumps([as_dict(each) for each in earlier], allow_nan=False) + "\n", folder / NIGHTS)


def run(notebook: Path, folder: Path, parameters: dict[str, Any], *, seconds: int = SECONDS) -> Path:
    """Execute a notebook in `folder`, keep it there and write its page; see `execute`."""
    done = _executed(notebook, folder, parameters, seconds)
    nbformat = need("nbformat")
    written(nbformat.writes(done), folder / EXECUTED)
    return written(page(done, title=folder.resolve().name), folder / PAGE)


def nights(folder: str | Path) -> list[Night]:
    """Return the nights that a night's folder tells of, the oldest first, the folder's own last.

    Raises:
        JobStateError: a file cannot be read.
    """
    path = Path(folder) / NIGHTS
    try:
        before = json.loads(path.read_text(encoding="utf-8")) if path.exists() else []
    except (OSError, ValueError) as exc:
        raise JobStateError(f"{path}: {exc}") from exc
    return [*map(night_of, before), read(Path(folder) / NIGHT)]


def page(notebook: Any, *, title: str) -> str:
    """Return an executed notebook as one self-contained HTML page, light and dark: no scripts, no network."""
    from workbench.report import rendered  # noqa: PLC0415 - it draws with Altair, which takes a second

    exporter = need("nbconvert").HTMLExporter(
        raw_template=_FOLDED,
        exclude_input_prompt=True,
        exclude_output_prompt=True,
        exclude_anchor_links=True,
    )
    body, _ = exporter.from_notebook_node(_without_blanks(notebook))
    colours = {"light": _highlight("default"), "dark": _highlight("github-dark")}
    return rendered("notebook_page.html.j2", {"body": body, "title": title, **colours})


def _without_blanks(notebook: Any) -> Any:
    """The notebook without outputs that show nothing: progress that is over leaves some."""
    found = deepcopy(notebook)
    for cell in found.cells:
        if cell.cell_type == "code":
            cell.outputs = [each for each in cell.outputs if any(map(str.strip, _texts(each)))]
    return found


def _texts(output: Any) -> list[str]:
    if output.output_type not in ("display_data", "execute_result"):
        return [output.get("text", output.output_type)]
    return [str(each) for each in output.data.values()]


def _executed(notebook: Path, folder: Path, parameters: dict[str, Any], seconds: int) -> Any:
    papermill = need("papermill")
    with NamedTemporaryFile(dir=folder, prefix=".notebook.", suffix=".ipynb") as unfinished:
        try:
            return papermill.execute_notebook(
                notebook, unfinished.name, parameters, cwd=folder, kernel_name="python3", progress_bar=False,
                log_output=False, execution_timeout=seconds, start_timeout=seconds, config=_sockets(),
            )  # fmt: skip
        except (papermill.exceptions.PapermillException, RuntimeError, TimeoutError, OSError) as exc:
            raise JobStateError(f"the notebook {notebook.name} did not run: {_said(exc)}") from exc


def _sockets() -> Any:
    """Talk to the kernel through files of this user's, not through ports that others on the machine could reach."""
    return need("traitlets.config").Config({"KernelManager": {"transport": "ipc"}})


def _said(exc: BaseException) -> str:
    """What failed: of a cell, its exception, not its traceback."""
    name, value = getattr(exc, "ename", None), getattr(exc, "evalue", None)
    told = f"{name}: {value}" if name else str(exc) or type(exc).__name__
    return shorten(" ".join(told.split()), 400)


def _highlight(style: str) -> str:
    formatters = need("pygments.formatters")
    found: str = formatters.HtmlFormatter(style=style).get_style_defs(".highlight")
    return found
