# SPDX-License-Identifier: Apache-2.0
"""A matrix over emulators: every difference is shown with its explanation, or marked as unexplained."""

from __future__ import annotations

from pathlib import Path

import pytest

from fuzz.triage.emulator_matrix import EmulatorTable, ExplainedDifference, read_explained_differences
from fuzz.triage.matrix import CLEAN, DIVERGES, Cell
from harness.errors import InputError
from harness.vm.config import PROJECT


def cell(target: str, scenario: str, *findings: str) -> Cell:
    return Cell(target, scenario, "", DIVERGES if findings else CLEAN, findings)


def test_a_difference_has_an_explanation_or_is_marked() -> None:
    own, other, qemu = "kvm-vhe%qemu-7.2%cortex-a76", "kvm-vhe%qemu-7.2%max", "kvm-vhe%qemu-10.0%cortex-a76"
    cells = [cell(target, "same", "host.pc") for target in (own, other, qemu)]
    cells += [cell(own, "cpu"), cell(other, "cpu", "switch.pstate"), cell(qemu, "cpu")]
    cells += [cell(own, "qemu", "host.x0"), cell(other, "qemu", "host.x0"), cell(qemu, "qemu")]
    rows = (ExplainedDifference(("cpu",), ("*%max",), "it has more of them", "a manual"),)
    by_place = {(c.target, c.scenario): c for c in cells}
    table = EmulatorTable(by_place, (other, own, qemu), ["same", "cpu", "qemu"], rows)
    text = "\n".join(table.lines()).replace("\n    ", " ")
    assert "kvm-vhe: 1 scenarios clean, 2 diverge on qemu-7.2, cortex-a76" in text
    assert "cpu: switch.pstate instead of clean: it has more of them (a manual) on kvm-vhe%qemu-7.2%max" in text
    assert "qemu: clean instead of host.x0: NO EXPLANATION on kvm-vhe%qemu-10.0%cortex-a76" in text
    assert table.unexplained() == [(qemu, "qemu")]
    assert [line.split() for line in text.splitlines() if line.startswith("  qemu-")] == [
        ["qemu-7.2", "1", "."],
        ["qemu-10.0", "not", "run", "1"],
    ]


def test_the_projects_own_explanations(tmp_path: Path) -> None:
    rows = read_explained_differences(PROJECT / "corpus" / "emulators.toml")
    names = {path.stem for path in (PROJECT / "corpus").glob("*/*.scn")}
    assert rows and all(set(row.scenarios) <= names and row.why and row.source for row in rows)
    (tmp_path / "wrong.toml").write_text("[[difference]]\nwhy = 1\n")
    with pytest.raises(InputError, match="no list of differences"):
        read_explained_differences(tmp_path / "wrong.toml")


def test_the_page_of_emulators_explains_every_difference() -> None:
    text = (PROJECT / "docs" / "emulators.md").read_text()
    assert "NO EXPLANATION" not in text and "qemu-10.0" in text
