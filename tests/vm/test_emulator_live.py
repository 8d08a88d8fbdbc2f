# SPDX-License-Identifier: Apache-2.0
"""Another QEMU and other CPU models: the same findings, and a verdict that is measured on them."""

from __future__ import annotations

import os
from dataclasses import replace

import pytest

from fuzz.targets import prepared_side
from fuzz.targets.observation import signatures
from fuzz.targets.options import TargetOptions
from fuzz.targets.target_set import open_targets
from fuzz.triage import other_emulators
from fuzz.triage.confirm import stages_of
from fuzz.triage.other_emulators import EmulatorSweep, measure_on_emulators, queries_of
from harness.arch import exceptions
from harness.arch.cpu_models import Cpu, cpu_model
from harness.findings.finding import Tries
from harness.findings.verdict import classify, evidence, first_of
from harness.scenario.scenario import load, parse
from harness.vm import alarms
from harness.vm.build.prepare import prepare
from harness.vm.cache import Cache, default_root
from harness.vm.config import DEFAULT_TARGET, load_config
from harness.vm.qemu import Qemu
from harness.vm.qemu_versions import Emulator, begins, installed, obtain, offered, present, upstream
from harness.vm.target import machine_of
from tests.vm.running import REGRESSIONS, findings, run_all, two_at_a_time
from tests.vm.test_alarms_live import PROTECTED, SEED, WORDS

SCENARIOS = {name: REGRESSIONS[name] for name in ("mmio_load_signed_byte_x", "reset_with_mmio_pending")}
PAN = parse(b"shadowfuzz-scenario 1\nabout A bit of PSTATE that Armv8.0 lacks.\nreg pstate 0x4003c5\nhvc 0x0\n")


@pytest.fixture(scope="module")
def other() -> Emulator:
    """A QEMU of another series than the machine's own: one that is here, or that of the release's backports."""
    cache, own = Cache(default_root(os.environ)), installed().series
    here = [emulator for emulator in present(cache) if emulator.series != own]
    if here:
        return here[0]
    versions = [upstream(package.version) for package in offered(cache)]
    others = [version for version in versions if not begins(version, own)]
    if not others:
        pytest.skip("Debian's archive offers no other QEMU to this release")
    return obtain(cache, others[-1])


def test_a_machine_runs_on_the_qemu_of_its_name(other: Emulator) -> None:
    config = load_config(f"{DEFAULT_TARGET}%{other.name}%cortex-a57")
    with Qemu(machine_of(config, prepare(config))) as qemu:
        version = qemu.execute("query-version")
        models = qemu.execute("qom-get", {"path": "/machine/unattached/device[0]", "property": "type"})
    assert isinstance(version, dict)
    numbers = version["qemu"]
    assert f"{numbers['major']}.{numbers['minor']}.{numbers['micro']}" == other.version != installed().version
    assert str(models).startswith("cortex-a57-")


def test_a_clone_has_the_kernels_first_words(other: Emulator, monkeypatch: pytest.MonkeyPatch) -> None:
    """QEMU warns of how a clone is started, from 9.1 on, in the same file as what the target's kernel prints."""
    monkeypatch.setattr(alarms, "INTENDED", ())
    with open_targets(TargetOptions(f"{PROTECTED}%{other.name}", "spec", cold=False)) as targets:
        found = targets.run_and_check(load(SEED))
    assert [alarm.words for alarm in found.alarms] == [WORDS]


def test_other_emulators_show_the_same_findings(other: Emulator) -> None:
    names = (DEFAULT_TARGET, f"{DEFAULT_TARGET}%{other.name}", f"{DEFAULT_TARGET}%cortex-a53")
    shown = two_at_a_time([lambda name=name: run_all(name, SCENARIOS) for name in names])  # type: ignore[misc]
    found = [{name: findings(checked) for name, checked in each.items()} for each in shown]
    assert found[0] == found[1] == found[2] and all(found[0].values())


def test_the_verdict_emulator_is_measured(other: Emulator, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the row that Cortex-A72 has no PSTATE.PAN: the divergence vanishes on Neoverse N1, not on another
    QEMU."""

    def forgetful(name: str) -> Cpu:
        cpu = cpu_model(name)
        return replace(cpu, masks={index: mask for index, mask in cpu.masks.items() if index != exceptions.PSTATE})

    monkeypatch.setattr(prepared_side, "cpu_model", forgetful)
    monkeypatch.setattr(other_emulators, "emulator_names", lambda *_: ("cortex-a57", "neoverse-n1", other.name))
    config = load_config(DEFAULT_TARGET)
    options = TargetOptions(DEFAULT_TARGET, "spec")
    with open_targets(options) as targets:
        # An interrupt of the host may end the guest's run before the call: another exit class.
        tries = (targets.run_and_check(PAN) for _ in range(10))
        seen = next(one for one in tries if "IRQ" not in one.checked.exits)
        trace, checked = seen.trace, seen.checked
        (key,) = (found for found in signatures(checked) if found[:2] == ("switch", "pstate"))
        stages = stages_of(targets, PAN, (key,), 5, 3)[key]
        queries = queries_of(targets, PAN, (key,))
    (places,) = measure_on_emulators(EmulatorSweep(config, options), queries, (), lambda line: None)
    same = {place.name: place.same for place in places}
    assert (same["neoverse-n1"], {tries.runs for tries in same.values()}) == (Tries(0, 10), {10})
    # On a busy machine an interrupt may end a run early.
    assert min(same["cortex-a57"].hits, same[other.name].hits) >= 8
    divergence = first_of(checked, key)
    assert divergence is not None
    verdict = classify(evidence(trace, checked, divergence, stages, places))
    assert verdict.name == "emulator" and "another -cpu" in verdict.why
