"""A mapping to start from: what the names of a file's columns suggest.

One rule: it is a guess, and says so; every column that was not used is listed, so that nothing is overlooked.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Final

from workbench.importing.records import read_records

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Sequence

    from workbench.importing.records import Calls

_GUESSES: Final[dict[str, dict[str, Sequence[str]]]] = {
    "call": {
        "session": (
            "session_id",
            "session",
            "run_id",
            "conversation_id",
            "thread_id",
            "trace_id",
            "trajectory_id",
        ),
        "tool": ("tool_name", "tool", "function_name", "function", "action", "name"),
        "tenant": ("tenant", "tenant_id", "customer_id", "org_id", "suite", "domain"),
        "principal": ("agent_id", "agent", "principal", "requestor", "model"),
        "on_behalf_of": ("user_id", "on_behalf_of", "user"),
        "args": ("args_json", "arguments", "args", "input", "parameters", "kwargs", "tool_input"),
        "order": ("step", "call_index", "index", "sequence", "seq", "message_index"),
    },
    "time": {
        "at": ("timestamp", "call_timestamp", "called_at", "started_at", "start_time", "time", "created_at"),
        "session_start": ("run_timestamp", "run_start", "session_start"),
        "ended": ("ended_at", "end_time", "result_timestamp", "finished_at"),
        "duration_ms": ("duration_ms", "latency_ms"),
    },
    "outcome": {
        "executed": ("executed", "ran"),
        "error": ("error", "error_message", "is_error", "exception"),
        "result": ("result", "result_text", "output", "tool_output", "response"),
        "cost": ("cost", "cost_usd"),
        "input_tokens": ("input_tokens", "prompt_tokens"),
        "output_tokens": ("output_tokens", "completion_tokens"),
    },
    "verdict": {
        "column": ("decision", "verdict", "outcome_decision"),
        "reason": ("decision_reason", "verdict_reason", "reason"),
    },
}
"""By key of the mapping, names that a column for it often has; the first that is there is taken."""
_TEMPLATES: Final = {
    "session": "{{{}}}", "tool": "{{{}}}", "tenant": "{{{}}}", "principal": "Agent::{{{}}}",
    "on_behalf_of": "User::{{{}}}",
}  # fmt: skip
_REQUIRED: Final = {"session": "the session", "tool": "the tool", "args": "all arguments"}


def suggest(calls: Calls) -> str:
    """Return a mapping, as TOML, guessed from the names of a file's columns.

    Raises:
        MappingInvalid: the file cannot be read.
    """
    columns = list(read_records(calls, {}).columns)
    lines = ["# A guess from the names of the columns: check every line.", "version = 1"]
    used: set[str] = set()
    for section, keys in _GUESSES.items():
        found = list(_section(keys, columns, used))
        if found:
            lines += ["", f"[{section}]", *found]
        if section == "verdict" and found:
            lines.append('refused = ["deny"]  # values that mean that the call was refused: check')
    rest = [name for name in columns if name not in used]
    if rest:
        lines += ["", "# Not used; what says something of the call or its session can be a label:"]
        lines += [f"# [[labels]]\n# name = {_quoted(name)}\n# column = {_quoted(name)}" for name in rest]
    return "\n".join(lines) + "\n"


def _section(keys: dict[str, Sequence[str]], columns: Collection[str], used: set[str]) -> Iterator[str]:
    known = {name.lower(): name for name in columns if name not in used}
    for key, names in keys.items():
        name = next((known[each] for each in names if each in known and known[each] not in used), None)
        if name is not None:
            used.add(name)
            yield f"{key} = {_quoted(_TEMPLATES.get(key, '{}').format(name))}"
        elif key in _REQUIRED:
            yield f'# {key} = "…"  # not guessed: the column of {_REQUIRED[key]}'


def _quoted(text: str) -> str:
    """A TOML basic string: JSON's escapes are TOML's."""
    return json.dumps(text, ensure_ascii=False)
