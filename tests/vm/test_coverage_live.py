# SPDX-License-Identifier: Apache-2.0
"""The plugin in a real QEMU: which of KVM's functions a scenario reaches, by name."""

from __future__ import annotations

import pytest

from harness.scenario import parse
from harness.vm.build import prepare
from harness.vm.config import list_configs, load_config
from harness.vm.coverage import prepare_coverage
from harness.vm.target import boot
from harness.vm.text import EL1, EL2

HEAD = "shadowfuzz-scenario 1\nabout Made up for a test.\n"
HVC = parse(f"{HEAD}reg x0 0x84000000\nhvc 0x0\n".encode())
MMIO = parse(f"{HEAD}reg x1 0x9000000\nldr x3, [x1, 0x10]\ncomplete 0x55\n".encode())


@pytest.mark.parametrize("target", list_configs())
def test_a_scenario_reaches_its_handler_and_no_other(target: str) -> None:
    config = load_config(target)
    prepared = prepare(config)
    coverage = prepare_coverage(prepared)
    plugin = coverage.plugin()
    entered, parts = {}, set()
    with boot(config, prepared, plugin=plugin) as executor:
        assert not plugin.map.reached().edges  # nothing of how the machine booted
        for name, scenario in (("mmio", MMIO), ("hvc", HVC), ("mmio again", MMIO)):
            executor.run(scenario, fresh_vm=False)
            found = [(coverage.text.find(block), block) for _, block in plugin.map.reached().edges]
            entered[name] = {function.name for function, block in found if function and function.begin == block}
            parts |= {function.part for function, _ in found if function}
    own = {"mmio": "io_mem_abort", "mmio again": "io_mem_abort", "hvc": "handle_hvc"}
    for name, function in own.items():
        assert {"handle_exit", function} <= entered[name]
        assert not entered[name] & (set(own.values()) - {function})
    assert {EL1} <= parts
    assert (EL2 in parts) == (target != "kvm-vhe")
    assert plugin.map.word("edges_dropped") == plugin.map.word("blocks_dropped") == 0
    plugin.map.close()
