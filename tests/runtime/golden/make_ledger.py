"""Makes a golden ledger, and the JSON of what its own release reads from it.

Run once with each release whose ledgers must still open, and kept for whoever makes the next one:

    git worktree add /tmp/old COMMIT          # version 1: 020410c, version 2: ef2f532
    cd /tmp && PYTHONPATH=/tmp/old python make_ledger.py FOLDER/ledger_vN.sqlite

In it: two tenants' sessions, one with a name that a path cannot hold; a decision that ended, one in doubt, one that
was blocked, one that was let run and has no outcome because the process died, with its log beside it; contents of
four tables, a label, an idempotency key.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

from runtime.ledger import Claim, Ledger, SessionStep
from runtime.ledgerfile import LEDGER_VERSION
from runtime.testing import blob, context, decision, entity, entity_slice, execution
from runtime.trace import DECISIONS, DRAINED, OUTCOMES

OWNER: Any = {} if str(LEDGER_VERSION) == "1" else {"owner": "Agent::bot"}
SESSIONS = (("acme", "s1"), ("globex/eu é", "s2"))


def main(path: Path) -> None:
    """Write the ledger and die with it open."""
    ledger = Ledger.open(path)
    big = blob(json.dumps("x" * 400))
    for step, status in enumerate(["succeeded", "in_doubt", None]):
        for tenant, session in SESSIONS:
            made = decision(tenant=tenant, session_id=session, step=step)
            who = entity(f"u{step}")
            ledger.commit(
                contents=[context(json.dumps({"step": step})), who, entity_slice([who[1]["entity_hash"]])],
                evidence=[(DECISIONS, made)],
                claim=Claim(f"{tenant}:{step}", "args", made["decision_id"]),
                session=SessionStep(tenant=tenant, session_id=session, expected_step=step, ran=True, **OWNER),
            )
            if status is not None:
                outcome = execution(made, status=status, result_hash=big[1]["blob_hash"])
                ledger.commit(contents=[big], evidence=[(OUTCOMES, outcome)])
    connection: Any = ledger._writer
    connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")  # what is in the log stays small
    blocked = decision(verdict="block", decided_by="limits")
    ledger.commit(evidence=[(DECISIONS, blocked)])
    ledger.commit(evidence=[(OUTCOMES, execution(blocked, kind="label", status=None, label="a", value="b"))])
    path.with_suffix(".json").write_text(json.dumps(expected(ledger), sort_keys=True))
    os._exit(0)


def expected(ledger: Ledger) -> dict[str, object]:
    """Return everything this release reads from its ledger."""
    return {
        "id": ledger.id,
        "version": LEDGER_VERSION,
        "head": ledger.head(),
        "extent": ledger.extent(),
        "sessions": [[*key, *ledger.session(*key)] for key in SESSIONS],
        "claims": [
            [claim.key_hash, claim.args_hash, claim.decision_id]
            for tenant, _ in SESSIONS
            for step in range(3)
            if (claim := ledger.claim(f"{tenant}:{step}"))
        ],
        "unfinished": [row["decision_id"] for row in ledger.unfinished()],
        "rows": {table.name: ledger.rows_after(table, 0, 2**62, 1000) for table in DRAINED},
    }


if __name__ == "__main__":
    main(Path(sys.argv[1]).absolute())
