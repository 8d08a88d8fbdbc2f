# SPDX-License-Identifier: Apache-2.0
"""A proof is of these programs, this kernel and this machine: with anything else there is none."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import pytest

from harness.errors import SetupError
from harness.vm.cache import Cache
from harness.vm.fast_qemu.build import FastQemu
from harness.vm.fast_qemu.stamp import is_proven, keep_proof
from harness.vm.qemu_command import Machine


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Machine:
    """What is booted; Debian's own QEMU is a file in a directory of PATH."""
    for name in ("Image", "initrd", "qemu-system-aarch64", "fast"):
        (tmp_path / name).write_text(name)
        (tmp_path / name).chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    return Machine("t", tmp_path / "Image", tmp_path / "initrd", "cortex-a72", "virt", 512, 64, "", deterministic=True)


def test_a_proof_ends_with_any_change_of_what_it_is_about(tmp_path: Path, machine: Machine) -> None:
    cache, fast = Cache(tmp_path / "cache"), FastQemu(tmp_path / "fast", "7.2.22", "1:7.2")
    assert not is_proven(cache, fast, machine)
    keep_proof(cache, fast, machine, lambda: {"scenarios": 3})
    assert is_proven(cache, fast, machine)
    assert not is_proven(cache, fast, replace(machine, cpu="max"))
    for name in ("Image", "initrd", "qemu-system-aarch64", "fast"):
        (tmp_path / name).write_text("another one")
        assert not is_proven(cache, fast, machine), name
        (tmp_path / name).write_text(name)
        assert is_proven(cache, fast, machine)


def test_a_comparison_that_failed_leaves_no_proof(tmp_path: Path, machine: Machine) -> None:
    cache, fast = Cache(tmp_path / "cache"), FastQemu(tmp_path / "fast", "7.2.22", "1:7.2")

    def prove() -> Mapping[str, object]:
        raise SetupError("they differ")

    with pytest.raises(SetupError, match="they differ"):
        keep_proof(cache, fast, machine, prove)
    assert not is_proven(cache, fast, machine)


def test_a_program_that_is_gone(tmp_path: Path, machine: Machine) -> None:
    with pytest.raises(SetupError, match="gone: No such file"):
        is_proven(Cache(tmp_path / "cache"), FastQemu(tmp_path / "gone", "7.2.22", "1:7.2"), machine)
