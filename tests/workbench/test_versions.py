"""What people give for an axis of a replay, and what the replay says it was made with."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

import polars as pl
import pytest

from runtime import Runtime
from runtime.bundle import load_bundle
from runtime.errors import BundleError, ContextSpecError
from workbench.compare import compare
from workbench.errors import BundleNotFound
from workbench.lake import open_lake

if TYPE_CHECKING:
    from workbench.lake import Lake

SCHEMA = """
entity Agent;
entity Order;
action "refund" appliesTo {
  principal: [Agent], resource: [Order], context: { args: { cents: Long }, payee?: { known: Bool } }
};
"""
PERMIT = '@id("may") permit (principal, action, resource);\n'
FORBID = PERMIT + '@id("big") forbid (principal, action, resource) when { context.args.cents > 100 };\n'
PAYEE = """
version = 1
[sources.payees]
kind = "delta"
[[facts]]
name = "payee"
actions = ["refund"]
source = "payees"
key = { name = "args.cents" }
fields = ["known"]
shared = true
"""


def bundle(folder: Path, policies: str, context: str = "version = 1\n") -> Path:
    folder.mkdir()
    for name, text in (("p.cedar", policies), ("schema.cedarschema", SCHEMA), ("context.toml", context)):
        (folder / name).write_text(text)
    return folder


@pytest.fixture
def lake(tmp_path: Path) -> Lake:
    """Two refunds, of 50 and 500 cents, that ran."""
    with Runtime.open(bundle(tmp_path / "base", PERMIT), lake=tmp_path / "lake") as runtime:
        runtime.tool(lambda cents: cents, name="refund", resource="Order::o")
        with runtime.session(principal="Agent::bot", tenant="acme") as session:
            for cents in (50, 500):
                session.call("refund", cents=cents)
    return open_lake(tmp_path / "lake")


def test_a_self_replay_says_so_and_checks_both_levels(lake: Lake) -> None:
    replay = lake.replay()
    assert (replay.policy, replay.context) == (("as recorded", "recorded"), "recorded")
    assert replay.counts()["recompilable"] == 2
    assert lake.replay(recompile=False).frame.collect()["recompilable"].null_count() == 2


def test_policies_from_a_folder_a_bundle_or_the_lake(lake: Lake, tmp_path: Path) -> None:
    folder = bundle(tmp_path / "next", FORBID)
    loaded = load_bundle(folder)
    for given in (folder, str(folder), loaded):
        replay = lake.replay(policy=given)
        assert replay.policy == ("next", loaded.version)
        assert replay.frame.collect()["effect"].to_list() == ["same", "prevented"]
        assert replay.frame.collect()["recompilable"].null_count() == 2
    version = lake.bundles.collect()["bundle_version"][0]
    assert lake.replay(policy=version[:10]).policy == ("base", version)


def test_policies_that_are_nowhere(lake: Lake) -> None:
    with pytest.raises(BundleError, match="no bundle at 'policies/nxt'"):
        lake.replay(policy="policies/nxt")
    with pytest.raises(BundleNotFound, match="no bundle of version 'abcdef0'"):
        lake.replay(policy="abcdef0")


def test_contexts_by_a_spec(lake: Lake, tmp_path: Path) -> None:
    spec = tmp_path / "context.toml"
    spec.write_text("version = 1\n")
    loaded = load_bundle(bundle(tmp_path / "next", FORBID))
    again = lake.replay(policy=loaded, context=spec)
    assert again.context.startswith("context.toml ")
    assert again.frame.collect()["effect"].to_list() == ["same", "prevented"]
    assert lake.replay(context=loaded).context.startswith("next ")
    at = datetime(2026, 11, 1, tzinfo=UTC)
    assert lake.replay(at=at).context == "recorded spec, sources at 2026-11-01T00:00:00+00:00"


def test_specs_that_cannot_be_used(lake: Lake, tmp_path: Path) -> None:
    with pytest.raises(ContextSpecError, match=r"none\.toml: cannot read it"):
        lake.replay(context=tmp_path / "none.toml")
    spec = tmp_path / "context.toml"
    spec.write_text(PAYEE.replace("payee", "order"))
    with pytest.raises(ContextSpecError, match="order"):
        lake.replay(policy=bundle(tmp_path / "next", FORBID), context=spec)


def test_limits_are_named(lake: Lake, tmp_path: Path) -> None:
    replay = lake.replay(limits=bundle(tmp_path / "next", FORBID))
    assert replay.context == "recorded, limits of next"
    assert replay.frame.collect()["effect"].to_list() == ["same", "same"]


def test_real_replays_compare(lake: Lake, tmp_path: Path) -> None:
    """The whole way, no part of it by hand: runtime, lake, replays, comparison, report."""
    diff = compare(lake.replay(), lake.replay(policy=bundle(tmp_path / "next", FORBID)))
    assert diff.headline.splitlines()[0].startswith("Stops 1 of 2 calls that ran (50.0 %).")
    assert diff.changed.select("args", "effect", "determining").collect().rows() == [
        ('{"cents":500}', "prevented", ["big"])
    ]
    assert diff.policies.select("policy", "unlabelled_calls_stopped").collect().rows() == [("big", 1)]
    assert "as recorded → next" in diff.to_html(tmp_path / "report.html").read_text()
    assert diff.frame.filter(pl.col("changed")).collect().height == 1
