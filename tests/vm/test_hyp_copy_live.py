# SPDX-License-Identifier: Apache-2.0
"""pKVM's hyp copy of the vCPU, read from memory that its host cannot read: flush and sync on a real kernel."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from harness.arch.cpu_models import cpu_model
from harness.errors import SetupError
from harness.findings.check import check
from harness.findings.checked import CheckResult
from harness.vm.build.prepare import prepare
from harness.vm.config import load_config
from harness.vm.executor import Executor
from harness.vm.plugins.hyp_copy import find_places
from harness.vm.target import boot, hyp_copy_of
from tests.vm.running import CATALOGUE, REGRESSIONS, SEEDS, findings

TARGET = "kvm-7.3-protected"
SOME = (
    *("protected_vm", "host_writes_every_gpr", "host_writes_system_registers", "two_vms_take_turns"),
    *("mmio_load_word", "debug_steps", "two_vcpus_take_turns", "initial_system_registers", "reset_and_restart"),
)
KINDS = {"flush", "sync"}


@pytest.fixture(scope="module")
def executor() -> Iterator[Executor]:
    config = load_config(TARGET)
    prepared = prepare(config)
    with boot(config, prepared, hyp_copy=hyp_copy_of(config, prepared)) as running:
        yield running


def run(executor: Executor, name: str) -> CheckResult:
    scenario = {**SEEDS, **REGRESSIONS}[name]
    trace = executor.run(scenario)
    assert trace.status == "ok"
    return check(scenario, trace, "spec", cpu_model(load_config(TARGET).cpu), CATALOGUE)


@pytest.mark.parametrize("name", SOME)
def test_the_hosts_registers_are_flushed_and_saved_ones_are_synced(executor: Executor, name: str) -> None:
    checked = run(executor, name)
    assert checked.unexplained == ()
    assert checked.relations["flush"] == checked.relations["sync"] == checked.relations["switch"] > 0


@pytest.mark.parametrize(
    ("name", "relation"),
    [("serror_comes_once", "sync.hcr_el2"), ("protected_vm_interrupt_lines", "flush.hcr_el2")],
)
def test_a_lost_register_has_the_right_relation(executor: Executor, name: str, relation: str) -> None:
    assert {found for found in findings(run(executor, name)) if found.split(".")[0] in KINDS} == {relation}


def test_a_kernel_that_runs_the_hosts_own_vcpu_says_so() -> None:
    with pytest.raises(SetupError, match="no vCPUs of its own"):
        find_places(prepare(load_config("kvm-protected")).kernel)
