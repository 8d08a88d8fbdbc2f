# SPDX-License-Identifier: Apache-2.0
"""Divergences on other emulators: the list of emulators, and which divergences count as the same."""

from __future__ import annotations

import pytest

from fuzz.targets.options import TargetOptions
from fuzz.triage import other_emulators
from fuzz.triage.matrix import emulations, match_targets
from fuzz.triage.other_emulators import EmulatorQuery, compare_runs, emulator_names, variant
from harness.errors import InputError
from harness.findings.checked import signature
from harness.findings.finding import Tries
from harness.findings.verdict import EmulatorResult
from harness.vm.config import load_config
from harness.vm.qemu_versions import Emulator
from tests.support.fake_worker import DIVERGENCE, SCENARIO, checked

HERE = (Emulator("7.2.22", ("qemu",)), Emulator("10.0.2", ("other",)))
KEY = signature(DIVERGENCE)


def test_emulators_are_the_other_cpus_of_the_mode_and_the_other_qemus() -> None:
    nvhe = emulator_names(load_config("kvm-nvhe"), HERE)
    assert "cortex-a72" not in nvhe and {"cortex-a53", "cortex-a76", "max"} < set(nvhe) and nvhe[-1] == "qemu-10.0"
    assert emulator_names(load_config("kvm-vhe"), HERE) == ("neoverse-n1", "max", "qemu-10.0")
    assert emulator_names(load_config("kvm-vhe%qemu-10.0%max"), HERE) == ("cortex-a76", "neoverse-n1", "qemu-7.2")
    assert emulator_names(load_config("kvm-vhe"), HERE[:1]) == ("neoverse-n1", "max")


def test_the_same_divergence_has_the_same_values() -> None:
    one = variant(checked(DIVERGENCE), KEY)
    other = frozenset({("x1", 0, "0x1", "0x2")})
    assert len(one) == 1 and variant(checked(), KEY) == frozenset()
    exact = EmulatorQuery(SCENARIO, KEY, frozenset({one}))
    assert compare_runs("max", exact, [one, other, frozenset()]) == EmulatorResult("max", Tries(1, 3), changed=1)
    loose = EmulatorQuery(SCENARIO, KEY, frozenset({one, other}))
    third = frozenset({("x1", 0, "0x1", "0x3")})
    assert compare_runs("max", loose, [one, third, frozenset()]) == EmulatorResult("max", Tries(2, 3)), (
        "its values vary anyway"
    )
    assert compare_runs("max", exact, []).why == "no run ended without an error"


def test_an_emulator_that_does_not_boot_is_not_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    def gone(*_: object, **__: object) -> None:
        raise InputError("target", None, "is gone")

    monkeypatch.setattr(other_emulators, "prepare_side", gone)
    asked = [EmulatorQuery(SCENARIO, KEY, frozenset())] * 2
    said: list[str] = []
    sweep = other_emulators.EmulatorSweep(load_config("kvm-vhe"), TargetOptions("kvm-vhe", "spec"))
    rows = other_emulators.measure_on_emulators(sweep, asked, HERE, said.append)
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
