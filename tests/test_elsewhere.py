# SPDX-License-Identifier: Apache-2.0
"""Divergences on other emulators: where they are tried, what counts as the same, what a matrix over emulators shows."""

from __future__ import annotations

from pathlib import Path

import pytest

from fuzz.store.emulator_results import from_text, to_text
from fuzz.targets.options import TargetOptions
from fuzz.triage import other_emulators
from fuzz.triage.bisect import split_target, target_name
from fuzz.triage.emulator_matrix import EmulatorTable, Explained, read_explained
from fuzz.triage.matrix import CLEAN, DIVERGES, Cell, emulations, match_targets
from fuzz.triage.other_emulators import EmulatorQuery, compare, places, variant
from harness.errors import InputError
from harness.findings.checked import signature
from harness.findings.finding import Tries
from harness.findings.verdict import EmulatorResult
from harness.vm.config import PROJECT, load_config
from harness.vm.qemu_versions import Emulator
from tests.test_worker import DIVERGENCE, SCENARIO, checked

HERE = (Emulator("7.2.22", ("qemu",)), Emulator("10.0.2", ("other",)))
KEY = signature(DIVERGENCE)


def test_places_are_the_other_cpus_of_the_mode_and_the_other_qemus() -> None:
    nvhe = places(load_config("kvm-nvhe"), HERE)
    assert "cortex-a72" not in nvhe and {"cortex-a53", "cortex-a76", "max"} < set(nvhe) and nvhe[-1] == "qemu-10.0"
    assert places(load_config("kvm-vhe"), HERE) == ("neoverse-n1", "max", "qemu-10.0")
    assert places(load_config("kvm-vhe%qemu-10.0%max"), HERE) == ("cortex-a76", "neoverse-n1", "qemu-7.2")
    assert places(load_config("kvm-vhe"), HERE[:1]) == ("neoverse-n1", "max")


def test_the_same_divergence_has_the_same_values() -> None:
    one = variant(checked(DIVERGENCE), KEY)
    other = frozenset({("x1", 0, "0x1", "0x2")})
    assert len(one) == 1 and variant(checked(), KEY) == frozenset()
    exact = EmulatorQuery(SCENARIO, KEY, frozenset({one}))
    assert compare("max", exact, [one, other, frozenset()]) == EmulatorResult("max", Tries(1, 3), changed=1)
    loose = EmulatorQuery(SCENARIO, KEY, frozenset({one, other}))
    third = frozenset({("x1", 0, "0x1", "0x3")})
    assert compare("max", loose, [one, third, frozenset()]) == EmulatorResult("max", Tries(2, 3)), (
        "its values vary anyway"
    )
    assert compare("max", exact, []).why == "no run ended well"


def test_what_is_kept_with_a_finding() -> None:
    found = (
        EmulatorResult("max", Tries(1, 3), 2),
        EmulatorResult("qemu-10.0", Tries(0, 0), why="it is gone", unlike="less"),
    )
    assert from_text(to_text(found)) == found
    for damaged in ("", "{", "[1]", '[{"name": "max"}]', "null"):
        assert from_text(damaged) == ()


def test_a_place_that_does_not_come_up_is_not_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    def gone(*_: object, **__: object) -> None:
        raise InputError("target", None, "is gone")

    monkeypatch.setattr(other_emulators, "prepare_side", gone)
    asked = [EmulatorQuery(SCENARIO, KEY, frozenset())] * 2
    said: list[str] = []
    sweep = other_emulators.EmulatorSweep(load_config("kvm-vhe"), TargetOptions("kvm-vhe", "spec"))
    rows = other_emulators.measure(sweep, asked, HERE, said.append)
    assert len(rows) == 2 and len(said) == 3
    assert all(place.same == Tries(0, 0) and "is gone" in place.why for row in rows for place in row)


# ---- the matrix over emulators -----------------------------------------------------------------------------------


def test_patterns_over_emulators() -> None:
    assert match_targets(["kvm-vhe"], (), HERE) == ("kvm-vhe",)
    assert not [name for name in match_targets(["*"], (), HERE) if "%" in name]
    assert match_targets(["kvm-vhe%qemu-*%*"], (), HERE) == tuple(
        f"kvm-vhe%{qemu}%{cpu}" for qemu in ("qemu-7.2", "qemu-10.0") for cpu in ("cortex-a76", "neoverse-n1", "max")
    )
    assert match_targets(["kvm-vhe%neo*"], (), HERE) == ("kvm-vhe%neoverse-n1",)
    names = list(emulations(load_config("kvm-nvhe"), HERE))
    assert len(set(names)) == len(names) == 2 + 7 + 14
    assert [load_config(name).name for name in names] == names


def cell(target: str, scenario: str, *findings: str) -> Cell:
    return Cell(target, scenario, "", DIVERGES if findings else CLEAN, findings)


def test_a_difference_has_an_explanation_or_says_so() -> None:
    own, other, qemu = "kvm-vhe%qemu-7.2%cortex-a76", "kvm-vhe%qemu-7.2%max", "kvm-vhe%qemu-10.0%cortex-a76"
    cells = [cell(target, "same", "host.pc") for target in (own, other, qemu)]
    cells += [cell(own, "cpu"), cell(other, "cpu", "switch.pstate"), cell(qemu, "cpu")]
    cells += [cell(own, "qemu", "host.x0"), cell(other, "qemu", "host.x0"), cell(qemu, "qemu")]
    rows = (Explained(("cpu",), ("*%max",), "it has more of them", "a manual"),)
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
    rows = read_explained(PROJECT / "corpus" / "emulators.toml")
    names = {path.stem for path in (PROJECT / "corpus").glob("*/*.scn")}
    assert rows and all(set(row.scenarios) <= names and row.why and row.source for row in rows)
    (tmp_path / "wrong.toml").write_text("[[difference]]\nwhy = 1\n")
    with pytest.raises(InputError, match="no list of differences"):
        read_explained(tmp_path / "wrong.toml")


def test_the_page_of_emulators_explains_every_difference() -> None:
    text = (PROJECT / "docs" / "emulators.md").read_text()
    assert "NO EXPLANATION" not in text and "qemu-10.0" in text


def test_a_kernel_and_an_emulator_in_one_name() -> None:
    for name in ("kvm-nvhe@6.12.117", "kvm-nvhe@6.12.117%qemu-10.0", "kvm-vhe@7.3%qemu-10.0%max"):
        config, version = split_target(name)
        assert "@" not in config and target_name(config, version) == name == load_config(name).name
