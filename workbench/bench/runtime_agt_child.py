"""Agent-governance-toolkit's side of `redecide bench runtime`: run by its own interpreter, told what to do on stdin.

One rule: nothing of ours is imported here, and nothing of theirs is left out that a governed call needs: its policy
evaluator decides, its audit logger records the decision before the tool and the result after it.

A call is what its own guides show: `PolicyEvaluator.evaluate` on a context of tool, agent and arguments, then
`GovernanceAuditLogger`. Audit entries hold what is needed to answer for the call (agent, tool, rule, arguments,
result), and not the evaluator's own snapshot of the same, which would only cost it more.

* `ships`: its `JsonlFileBackend`, as it is: lines are in Python's buffer, and a crash loses them.
* `durable`: the same backend behind its `AuditBackend` protocol, with `flush` and `os.fsync` in `write`: the decision
  is on disk before the tool runs, its result before the call returns, as with us. What it still does not do, and we
  do: two processes on one log, idempotency keys, session counters, a chain of hashes, facts, the projection of
  arguments, a patch, an approval.

Rules are those of `workbench.bench.runtime_cases`: the permit has the lowest priority, so all others are looked at
first, as Cedar looks at every policy.
"""

from __future__ import annotations

import itertools
import json
import os
import sys
import threading
import time
from pathlib import Path
from typing import Any

from agent_os.audit_logger import (  # type: ignore[import-not-found]  # of the other interpreter
    AuditEntry,
    GovernanceAuditLogger,
    JsonlFileBackend,
)
from agent_os.policies.evaluator import PolicyEvaluator  # type: ignore[import-not-found]  # as above
from agent_os.policies.schema import (  # type: ignore[import-not-found]  # as above
    PolicyAction,
    PolicyCondition,
    PolicyDefaults,
    PolicyDocument,
    PolicyOperator,
    PolicyRule,
)

_MANY = 100


class DurableBackend(JsonlFileBackend):  # type: ignore[misc]  # of the other interpreter
    """Its own backend, synced: an entry is on disk when `write` returns."""

    def write(self, entry: Any) -> None:
        """Append one entry."""
        super().write(entry)
        self.flush()
        os.fsync(self._file.fileno())


def _rule(name: str, on: str, how: Any, value: object, action: Any, priority: int) -> Any:
    condition = PolicyCondition(field=on, operator=how, value=value)
    return PolicyRule(name=name, condition=condition, action=action, priority=priority)


def _document(rules: str) -> Any:
    made = [_rule("base", "amount_cents", PolicyOperator.LT, 100_000, PolicyAction.ALLOW, 0)]
    for i in range(1, 1 if rules == "one" else _MANY):
        on, how, value = (
            ("amount_cents", PolicyOperator.GT, 200_000 + i)
            if rules == "hundred"
            else ("tool_name", PolicyOperator.EQ, f"tool_{i}")
        )
        made += [_rule(f"rule-{i}", on, how, value, PolicyAction.DENY, _MANY)]
    return PolicyDocument(name=rules, rules=made, defaults=PolicyDefaults(action=PolicyAction.DENY))


def _tool(order_id: str, amount_cents: int) -> object:  # noqa: ARG001 - what the other side's tool takes, too
    """The tool: empty."""
    return None


class Governed:
    """A tool behind its evaluator and its audit logger."""

    def __init__(self, rules: str, audit: str, path: Path) -> None:
        self._evaluator = PolicyEvaluator([_document(rules)])
        self._audit = GovernanceAuditLogger()
        self._audit.add_backend({"ships": JsonlFileBackend, "durable": DurableBackend}[audit](path))
        self._ids = itertools.count()

    def call(self) -> None:
        """Make one governed call."""
        args: dict[str, Any] = {"order_id": f"o-{next(self._ids)}", "amount_cents": 4_200}
        began = time.perf_counter()
        decision = self._evaluator.evaluate(
            {"tool_name": "refund", "agent_id": "bot", "tenant": "acme", **args}
        )
        took = (time.perf_counter() - began) * 1_000
        self._audit.log_decision(
            "bot", "refund", decision.action, decision.reason, took, rule=decision.matched_rule, args=args
        )
        if not decision.allowed:
            raise RuntimeError(f"a call that must be allowed was not: {decision.reason}")
        result = _tool(**args)
        self._audit.log(
            AuditEntry(event_type="tool_result", agent_id="bot", action="refund", metadata={"result": result})
        )


def _timed(made: Governed, calls: int) -> dict[str, Any]:
    taken, used = [], time.process_time()
    for _ in range(calls):
        began = time.perf_counter_ns()
        made.call()
        taken.append(time.perf_counter_ns() - began)
    return {"ns": taken, "cpu": time.process_time() - used}


def _threads(made: Governed, threads: int, seconds: float) -> dict[str, Any]:
    counts = [0] * threads
    until = time.perf_counter() + seconds

    def work(index: int) -> None:
        while time.perf_counter() < until:
            made.call()
            counts[index] += 1

    began = time.perf_counter()
    running = [threading.Thread(target=work, args=(i,)) for i in range(threads)]
    for thread in running:
        thread.start()
    for thread in running:
        thread.join()
    return {"calls": sum(counts), "seconds": time.perf_counter() - began}


def main(folder: Path) -> None:
    """Obey one JSON object a line until the input ends."""
    made: dict[tuple[str, str], Governed] = {}
    for line in sys.stdin:
        asked = json.loads(line)
        which = asked["rules"], asked["audit"]
        if which not in made:
            made[which] = Governed(*which, folder / f"agt-{which[0]}-{which[1]}.jsonl")
        if "threads" in asked:
            found = _threads(made[which], asked["threads"], asked["seconds"])
        else:
            found = _timed(made[which], asked["calls"])
        sys.stdout.write(json.dumps(found) + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
