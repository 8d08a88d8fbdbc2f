# SPDX-License-Identifier: Apache-2.0
"""Symbols that are read from images are those that the kernels print."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from harness.errors import SetupError, VmLost
from harness.vm.build.prepare import prepare
from harness.vm.config import list_configs, load_config
from harness.vm.kernels.kallsyms import LOAD_OFFSET, read_symbols
from harness.vm.qemu import Qemu
from harness.vm.qemu_command import RAM_BASE
from harness.vm.target import machine_of


@pytest.mark.parametrize("target", list_configs())
def test_every_target_has_symbols(target: str) -> None:
    symbols = read_symbols(prepare(load_config(target)).kernel)
    assert len(symbols.names) > 40_000
    at = symbols.address("handle_exit")
    assert at is not None and symbols.at(at + 8) == ("handle_exit", 8) and symbols.text(at + 8) == "handle_exit+0x8"
    hyp = symbols.address("__kvm_nvhe___kvm_vcpu_run")
    assert hyp is not None
    assert symbols.of_physical(RAM_BASE + LOAD_OFFSET + hyp - symbols.base, RAM_BASE) == hyp
    assert symbols.at(symbols.base - 1) is None and symbols.text(1 << 63) == ""


def test_the_kernel_agrees(tmp_path: Path) -> None:
    """A panic's call trace has symbols and offsets: a BRK at a known place must give that place."""
    config = load_config("kvm-nvhe")
    prepared = prepare(config)
    symbols = read_symbols(prepared.kernel)
    at = symbols.address("kvm_arm_init") or symbols.address("kvm_arch_init")
    assert at is not None
    image = bytearray(prepared.kernel.read_bytes())
    image[at - symbols.base : at - symbols.base + 4] = (0xD420_0000).to_bytes(4, "little")  # brk #0
    patched = tmp_path / "Image"
    patched.write_bytes(image)
    with pytest.raises(VmLost) as lost, Qemu(replace(machine_of(config, prepared), kernel=patched)):
        pass
    assert f"pc : {symbols.at(at)[0]}+0x0/" in lost.value.console_tail  # type: ignore[index]


def test_what_is_no_kernel(tmp_path: Path) -> None:
    path = tmp_path / "Image"
    path.write_bytes(b"".join(bytes([digit]) + b"\0" for digit in b"0123456789") * 3)
    with pytest.raises(SetupError, match="no kallsyms"):
        read_symbols(path)
    with pytest.raises(SetupError, match="cannot be read"):
        read_symbols(tmp_path / "none")
