# SPDX-License-Identifier: Apache-2.0
"""Kernels that crash: in a copy of the image, one instruction of KVM is replaced on the path of a trapped load."""

from __future__ import annotations

from pathlib import Path

from harness.scenario.scenario import Scenario, parse
from harness.vm.kernels.kallsyms import read_symbols

BRK = 0xD420_0000
UNDEFINED = 0
BRANCH_TO_ITSELF = 0x1400_0000
EL1, EL2 = "kvm_handle_mmio_return", "__kvm_nvhe_kvm_hyp_handle_dabt_low"
"""Functions that run when an MMIO load returns from userspace, and when it traps."""
HARMLESS = parse("shadowfuzz-scenario 1\nabout A call.\nhvc 0x0\n", "here")


def load_of(register: int) -> Scenario:
    """Return a scenario with a load that userspace completes: both functions run."""
    text = f"shadowfuzz-scenario 1\nabout A load.\nreg x1 0x9000000\nldrb w{register}, [x1]\ncomplete 0x55\n"
    return parse(text, "here")


def crashing(image: Path, function: str, word: int, into: Path) -> Path:
    """Write a copy of a kernel image in which ``function`` begins with ``word``; return its path."""
    symbols = read_symbols(image)
    at = symbols.address(function)
    assert at is not None, function
    data = bytearray(image.read_bytes())
    data[at - symbols.base : at - symbols.base + 4] = word.to_bytes(4, "little")
    path = into / "Image"
    path.write_bytes(data)
    return path
