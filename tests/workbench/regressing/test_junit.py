"""A night as JUnit XML: red where the exit code is, and XML whatever is in it."""

from __future__ import annotations

from typing import TYPE_CHECKING
from xml.etree import ElementTree as ET

import junitparser
import pytest
from hypothesis import given, settings

from tests.workbench.regressing.nights import candidate, gate, night, nights
from workbench.regressing.reporting.junit import junit
from workbench.regressing.result import Drifted
from workbench.texts import shorten, visible

if TYPE_CHECKING:
    from workbench.regressing.result import Night


def counts(found: Night) -> tuple[int, int, int]:
    """Return failures, errors and skipped cases, as a CI system counts them."""
    read = junitparser.JUnitXml.fromstring(junit(found).encode())
    return read.failures, read.errors, read.skipped


@pytest.mark.parametrize(
    ("state", "expected"),
    [("met", (0, 0, 0)), ("failed", (1, 0, 0)), ("open", (0, 0, 1)), (None, (0, 1, 0))],
)
def test_a_case_a_gate(state: str | None, expected: tuple[int, int, int]) -> None:
    assert counts(night(candidate(state))) == expected


def test_a_suite_a_candidate_with_its_version_and_why() -> None:
    one = candidate(
        "failed", gates=(gate("failed"), gate("met", text="other <= 1"), gate("open", text="third <= 1"))
    )
    root = ET.fromstring(junit(night(one, candidate(None, name="gone", notes=("no bundle there",)))).encode())
    assert root.attrib["name"] == "nightly support"
    first, second = root.findall("testsuite")
    assert [case.attrib["name"] for case in first.findall("testcase")] == [
        "harm_through_share <= 0.05", "other <= 1", "third <= 1"
    ]  # fmt: skip
    failure = first.find("testcase/failure")
    assert failure is not None
    assert failure.attrib == {"message": "why it is failed", "type": "regression"}
    assert {each.attrib["name"]: each.attrib["value"] for each in first.iter("property")}[
        "version"
    ] == "ab" * 32
    error = second.find("testcase/error")
    assert error is not None
    assert "no bundle there" in error.attrib["message"]


def test_two_candidates_that_look_alike_are_two_suites() -> None:
    assert counts(night(candidate("failed"), candidate("failed"))) == (2, 0, 0)


def test_drift_is_a_suite() -> None:
    window = candidate().window
    assert window is not None
    moved = Drifted(
        verdict="don't ship", night=2, before=window, after=window, gates=(gate("failed", text="drifted <= 0"),),
        rows=(), uncovered=(), numbers={}, headline=("`amount` moved.",),
    )  # fmt: skip
    root = ET.fromstring(junit(night(drift=moved)).encode())
    assert [suite.attrib["name"] for suite in root.findall("testsuite")] == ["drift"]
    assert counts(night(drift=moved)) == (1, 0, 0)


def test_a_job_that_judged_nothing_is_an_error_and_says_why() -> None:
    found = night(problems=("no lake at `/lake`",))
    assert counts(found) == (0, 1, 0)
    assert "no lake at `/lake`" in junit(found)


@settings(max_examples=100, deadline=None)
@given(nights)
def test_it_is_red_where_the_exit_code_is(found: Night) -> None:
    text = junit(found)
    root = ET.fromstring(text.encode())
    failures, errors, skipped = counts(found)
    match found.exit_code:
        case 0:
            assert (failures, errors, skipped) == (0, 0, 0)
        case 1:
            assert failures
        case 2:
            assert skipped
            assert not failures + errors
        case 3:
            assert errors
            assert not failures
    for suite, each in zip(root.findall("testsuite"), found.candidates, strict=False):
        assert suite.attrib["name"] == visible(shorten(each.name, 2_000))
        assert len(suite.findall("testcase")) >= len(each.gates)
