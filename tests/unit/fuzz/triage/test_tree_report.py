# SPDX-License-Identifier: Apache-2.0
"""The report on a checked kernel: text, JSON, JUnit."""

from __future__ import annotations

from dataclasses import replace
from xml.etree import ElementTree

from fuzz.paths import KEPT as EXPECTED
from fuzz.triage.tree_change import ScenarioChange
from fuzz.triage.tree_check import TreeCheck
from fuzz.triage.tree_report import report_json, report_junit, report_lines
from harness.findings.finding import Subject
from harness.findings.regressions import load_regressions

KERNEL = Subject("kvm-6.12-nvhe@/home/me/linux", "6.12.117-mine", "ab" * 32, "spec")
BASE = Subject("kvm-6.12-nvhe", "6.12.117+deb12-cloud-arm64", "cd" * 32, "spec")
NOTHING = TreeCheck(
    KERNEL, BASE, (ScenarioChange("a"), ScenarioChange("b")), (), 0, 12.3, (), known=load_regressions(EXPECTED)
)
KEPT = "host.xN/DABT_LOW"
MUCH = replace(
    NOTHING,
    corpus=(
        ScenarioChange("a", new=frozenset(f"host.r{i}/HVC64" for i in range(20))),
        ScenarioChange("b", fixed=frozenset({KEPT}), changed=frozenset({"against.x1/HVC64"})),
        ScenarioChange("c", changed=frozenset({"against.x2/HVC64"}), intended=frozenset({"row"})),
    ),
    campaign=(ScenarioChange("divergence-1", new=frozenset({"switch.pc"})),),
    scenarios=1234,
    undecided=(("odd", "both were lost\x1b"),),
)


def test_nothing_changed() -> None:
    lines = list(report_lines(NOTHING))
    assert lines[-1] == "no change"
    assert lines[0] == "kernel         kvm-6.12-nvhe@/home/me/linux, Linux 6.12.117-mine"
    assert NOTHING.exit_status == 0


def test_the_text_always_fits_one_screen() -> None:
    lines = list(report_lines(MUCH))
    assert len(lines) <= 24 and not any("\x1b" in line for line in lines)
    assert "fixed          1" in lines
    assert "  host.xN/DABT_LOW: 1 scenario, first b; like mmio-load-loses-sign or aborted-access-completes" in lines
    assert "  and 15 more (--json has all)" in lines
    assert "intended       row (1)" in lines
    assert lines[-1] == "21 new problems, 1 fixed, 1 other change"


def test_skipped_scenarios_are_reported() -> None:
    assert "not run        200 scenarios and the campaign: enough differs" in report_lines(replace(MUCH, left=200))


def test_exit_statuses() -> None:
    assert MUCH.exit_status == 1
    fixed = ScenarioChange("b", fixed=frozenset({KEPT}), changed=frozenset({"against.x1"}))
    assert replace(NOTHING, corpus=(fixed,)).exit_status == 0
    assert replace(NOTHING, corpus=(ScenarioChange("c", intended=frozenset({"row"})),)).exit_status == 0
    assert replace(NOTHING, corpus=(ScenarioChange("c", changed=frozenset({"against.x1"})),)).exit_status == 1
    assert replace(NOTHING, undecided=(("odd", "both were lost"),)).exit_status == 3


def test_junit() -> None:
    suite = ElementTree.fromstring(report_junit(MUCH))
    assert {name: suite.get(name) for name in ("tests", "failures", "errors")} == {
        "tests": "5",
        "failures": "3",
        "errors": "1",
    }
    kinds = {case.get("name"): [child.get("type") or child.tag for child in case] for case in suite}
    assert kinds == {
        "a": ["new problem"],
        "b": ["system-out"],
        "c": ["other change"],
        "divergence-1": ["new problem"],
        "odd": ["error"],
    }


def test_kept_findings_are_named_by_cause() -> None:
    assert NOTHING.kept(f"{KEPT} (mmio-load-loses-sign)") == ("mmio-load-loses-sign",)
    for new in ("another cause", "mmio-load-loses-sign (seen on a release where it was thought fixed)"):
        assert NOTHING.kept(f"{KEPT} ({new})") == ()
    assert NOTHING.kept("warn.what is (not) a cause (x)") == ()


def test_json() -> None:
    document = report_json(MUCH)
    kept = ("mmio-load-loses-sign", "aborted-access-completes")
    assert document["fixed"] == [{"signature": KEPT, "scenarios": ("b",), "kept": kept}]
    assert (document["scenarios"], document["exit_status"]) == ({"corpus": 3, "campaign": 1234, "left": 0}, 1)
