"""Microsoft's agent-governance-toolkit beside us: its own virtual environment, its own process, in the same run.

One rule: it is measured as it is at its best, or it is said why it is not there. What one call of it is, and why that
is fair, stands in `workbench.bench.runtime_agt_child`.
"""

from __future__ import annotations

import json
import os
import subprocess
import venv
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Self

from workbench.errors import WorkbenchError

if TYPE_CHECKING:
    from types import TracebackType

PINS: Final = (
    "agent_governance_toolkit==4.1.0",
    "agent_os_kernel==3.7.0",
    "pydantic==2.14.3",
    "PyYAML==6.0.3",
    "click==8.5.1",
)
"""The toolkit, its kernel (where the evaluator and the audit logger are), and what they need."""

_CHILD: Final = Path(__file__).with_name("runtime_agt_child.py")
_INSTALL_SECONDS: Final = 300


class NotInstalled(WorkbenchError, RuntimeError):  # noqa: N818 - the state's own name
    """The toolkit is not there and could not be installed. Carries why."""

    kind = "agt_not_installed"


def default_venv() -> Path:
    """Where the toolkit's environment is kept, in the user's cache."""
    cache = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    return Path(cache).expanduser() / "redecide" / "bench" / "agent-governance-toolkit-4.1.0"


def interpreter(folder: Path, *, install: bool) -> Path:
    """Return the Python of an environment that has the toolkit, made first if it is not there and may be.

    Raises:
        NotInstalled: it is not there and must not be installed, or cannot be.
    """
    python = folder / "bin" / "python"
    if python.exists() and _has_toolkit(python):
        return python
    if not install:
        raise NotInstalled(f"no environment with {PINS[0]} at {str(folder)!r}")
    try:
        venv.create(folder, with_pip=True)
        command = [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check", *PINS]
        done = subprocess.run(  # noqa: S603 - our own arguments
            command, capture_output=True, text=True, check=False, timeout=_INSTALL_SECONDS
        )
    except (OSError, subprocess.SubprocessError) as exc:
        raise NotInstalled(f"{PINS[0]} cannot be installed into {str(folder)!r}: {exc}") from exc
    if done.returncode or not _has_toolkit(python):
        last = (done.stderr.strip().splitlines() or ["pip said nothing"])[-1]
        raise NotInstalled(f"{PINS[0]} cannot be installed into {str(folder)!r}: {last}")
    return python


def _has_toolkit(python: Path) -> bool:
    names = ", ".join(repr(pin.partition("==")[0]) for pin in PINS[:2])
    code = f"from importlib.metadata import version; print([version(name) for name in ({names})])"
    done = subprocess.run([str(python), "-c", code], capture_output=True, text=True, check=False)  # noqa: S603 - ours
    wanted = str([pin.partition("==")[2] for pin in PINS[:2]])
    return done.returncode == 0 and done.stdout.strip() == wanted


class Toolkit:
    """The toolkit's process. Use it as a context manager."""

    def __init__(self, python: Path, folder: Path) -> None:
        self._process = subprocess.Popen(  # noqa: S603 - our own script
            [str(python), "-P", str(_CHILD), str(folder)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._process.stdin is not None  # noqa: S101 - opened above
        self._process.stdin.close()
        self._process.wait(timeout=60)
        if self._process.stdout is not None:
            self._process.stdout.close()

    def ask(self, **what: Any) -> dict[str, Any]:
        """Have something done, and return what it took.

        Raises:
            NotInstalled: the process ended.
        """
        assert self._process.stdin is not None  # noqa: S101 - opened above
        assert self._process.stdout is not None  # noqa: S101 - opened above
        try:
            self._process.stdin.write(json.dumps(what) + "\n")
            self._process.stdin.flush()
            answered = self._process.stdout.readline()
        except OSError:
            answered = ""
        if not answered:
            raise NotInstalled(f"the process of {PINS[0]} ended while it was asked for {what}")
        found: dict[str, Any] = json.loads(answered)
        return found


__all__ = ["PINS", "NotInstalled", "Toolkit", "default_venv", "interpreter"]
