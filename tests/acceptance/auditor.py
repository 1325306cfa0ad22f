"""An auditor: answers for every effect from the lake's tables alone. Run as `python auditor.py LAKE`; prints JSON.

It knows Delta, JSON and Cedar, and imports nothing of ours: what it cannot find in the tables is not there.
"""

from __future__ import annotations

import json
import sys
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import cedarpy
import polars as pl


@dataclass(frozen=True)
class Account:
    """Everything to be said about one effect."""

    what: str
    who: str
    for_whom: str
    tenant: str
    authority: list[str]
    """Policies that permitted it, in Cedar's own answer."""
    approved_by: list[str]
    facts: dict[str, Any]
    facts_from: dict[str, Any]
    """Source and version of each fact."""
    text: str
    """Of the policies in force, comments included."""
    recorded: str
    decided_again: str


class Auditor:
    """Reads a lake."""

    def __init__(self, lake: Path) -> None:
        self._tables = {
            name: pl.read_delta(str(lake / name))
            for name in ("decisions", "outcomes", "policies", "contexts", "entities", "slices")
        }

    def effects(self) -> list[Account]:
        """Account for everything that took effect, in the order it did."""
        done = self._tables["outcomes"].filter(kind="execution", status="succeeded")
        rows = self._tables["decisions"].join(done.select("decision_id"), on="decision_id", how="semi")
        return [self._account(row) for row in rows.sort("position").iter_rows(named=True)]

    def _account(self, row: dict[str, Any]) -> Account:
        facts = json.loads(self._one("contexts", context_hash=row["context_hash"])["context"])["facts"]
        text = self._policies(row["bundle_version"])
        answer = self._decide(row, text, facts)
        return Account(
            what=f"{row['tool']} {row['enforced_args']}",
            who=f"{row['principal_type']}::{row['principal_id']}",
            for_whom=f"{row['on_behalf_of_type']}::{row['on_behalf_of_id']}",
            tenant=row["tenant"],
            authority=sorted(answer.diagnostics.id_annotations_by_reason.values()),
            approved_by=self._approvers(row),
            facts={name: fact["value"] for name, fact in facts.items()},
            facts_from={name: (fact["source"], fact["version"]) for name, fact in facts.items()},
            text=text,
            recorded=row["verdict"],
            decided_again=answer.decision.value,
        )

    def _one(self, table: str, **key: str) -> dict[str, Any]:
        (row,) = self._tables[table].filter(**key).unique().iter_rows(named=True)
        return dict(row)

    def _policies(self, bundle: str) -> str:
        files = self._tables["policies"].filter(bundle_version=bundle).unique("file").sort("file")
        return "\n".join(files.filter(pl.col("file").str.ends_with(".cedar"))["text"])

    def _decide(self, row: dict[str, Any], text: str, facts: dict[str, Any]) -> Any:
        """Ask Cedar again, of a text in which what people lifted no longer forbids."""
        lifted = json.loads(row["approval"])["lifted"] if row["approval"] else []
        request = {
            "principal": {"type": row["principal_type"], "id": row["principal_id"]},
            "action": {"type": "Action", "id": row["tool"]},
            "resource": {"type": row["resource_type"], "id": row["resource_id"]},
            "context": self._context(row, facts),
        }
        return cedarpy.is_authorized(request, _without(text, lifted), self._entities(row["slice_hash"]))

    def _context(self, row: dict[str, Any], facts: dict[str, Any]) -> dict[str, Any]:
        now = row["evaluated_at"].strftime("%Y-%m-%dT%H:%M:%S.%f")[:-3] + "Z"
        context = {name: fact["value"] for name, fact in facts.items() if fact["into"] == "context"}
        context |= {
            "args": json.loads(row["projection"]),
            "now": {"__extn": {"fn": "datetime", "arg": now}},
            "scopes": row["scopes"],
            "session": json.loads(row["session_state"]),
            "tenant": row["tenant"],
        }
        if row["on_behalf_of_type"]:
            entity = {"type": row["on_behalf_of_type"], "id": row["on_behalf_of_id"]}
            context["on_behalf_of"] = {"__entity": entity}
        if row["approval"]:
            context["approval"] = json.loads(row["approval"])["approval"]
        return context

    def _entities(self, slice_hash: str) -> list[Any]:
        hashes = self._one("slices", slice_hash=slice_hash)["entity_hashes"]
        found = self._tables["entities"].filter(pl.col("entity_hash").is_in(hashes)).unique("entity_hash")
        assert sorted(found["entity_hash"]) == hashes
        return [json.loads(entity) for entity in found["entity"]]

    def _approvers(self, row: dict[str, Any]) -> list[str]:
        grants = self._tables["outcomes"].filter(pl.col("outcome_id").is_in(row["grants"] or []))
        return grants.sort("position")["source"].to_list()


def _without(text: str, lifted: list[str]) -> str:
    """Return the policies but those of these ids, by Cedar's own reading of the text."""
    policies = json.loads(cedarpy.policies_to_json_str(text))
    kept = {
        name: policy
        for name, policy in policies["staticPolicies"].items()
        if policy["annotations"]["id"] not in lifted
    }
    return cedarpy.policies_from_json_str(json.dumps({**policies, "staticPolicies": kept}))


if __name__ == "__main__":
    accounts = [asdict(account) for account in Auditor(Path(sys.argv[1])).effects()]
    assert not {name.partition(".")[0] for name in sys.modules} & {"runtime", "workbench"}
    sys.stdout.write(json.dumps(accounts))
