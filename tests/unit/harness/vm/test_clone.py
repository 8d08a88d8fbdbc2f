# SPDX-License-Identifier: Apache-2.0
"""Templates: keys depend on all inputs, and a full disk is handled."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from harness.errors import VmLost
from harness.vm import clone
from harness.vm.cache import MANIFEST, Cache
from harness.vm.clone import KEPT, KIND, Clones, template_key
from harness.vm.qemu_command import Machine
from harness.vm.template import CONSOLE, MAILBOX, RAM, STATE


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    program = tmp_path / "qemu"
    program.write_text("#!/bin/sh\n")
    program.chmod(0o755)
    initrd = tmp_path / "initrd"
    initrd.write_bytes(b"an archive")
    return Machine("m", tmp_path / "Image", initrd, "cortex-a72", "virt", 512, 16, "quiet", (str(program),))


def test_the_key_depends_on_all_that_is_in_a_template(machine: Machine, tmp_path: Path) -> None:
    def rewrite(path: Path, data: bytes) -> Callable[[], None]:
        return lambda: (path.write_bytes(data), None)[1]

    keys = {template_key(machine, "hash"), template_key(machine, "another image")}
    changed = {"cpu": "max", "machine": "virt,x=y", "memory_mib": 513, "shared_mib": 17, "cmdline": "loud"}
    keys |= {template_key(replace(machine, **{name: value}), "hash") for name, value in changed.items()}  # type: ignore[arg-type]
    for change in (rewrite(machine.initrd, b"another"), rewrite(Path(machine.qemu[0]), b"#!/bin/sh\n# newer\n")):
        change()
        keys.add(template_key(machine, "hash"))
    assert len(keys) == 2 + len(changed) + 2
    assert template_key(replace(machine, name="other"), "hash") in keys, "the name is not part of the key"


class Saving:
    """A fake machine that boots and is saved."""

    def __init__(self, machine: Machine) -> None:
        self.machine = machine

    def __enter__(self) -> Saving:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def save(self, directory: Path) -> None:
        for name in (RAM, MAILBOX, STATE, CONSOLE):
            (directory / name).write_text(self.machine.cmdline)


def test_what_was_printed_at_boot_is_in_the_template(
    machine: Machine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(clone, "Qemu", Saving)
    made = Clones(Cache(tmp_path / "cache")).template(machine, "hash")
    assert made is not None and made.console == machine.cmdline


def test_a_template_is_made_once_and_old_ones_go(
    machine: Machine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(clone, "Qemu", Saving)
    said: list[str] = []
    clones = Clones(Cache(tmp_path / "cache"), said.append)
    first = clones.template(machine, "hash")
    assert first is not None and first == clones.template(machine, "hash") and len(said) == 1
    for number in range(KEPT + 3):
        made = clones.template(replace(machine, cmdline=f"number {number}"), "hash")
        assert made is not None
        os.utime(made.path / MANIFEST, (1000 + number, 1000 + number))
        clones.template(machine, "hash")  # used each time
    kept = {entry.path for entry in clones.cache.entries(KIND)}
    assert len(kept) == KEPT and first.path in kept and made.path in kept
    clones.discard(first)
    assert not first.path.exists()


@pytest.mark.parametrize(
    ("error", "said"),
    [(OSError(28, "No space left on device"), "no space left"), (VmLost("m", "it died", ""), "it died")],
)
def test_without_a_template_the_machine_boots(
    error: Exception, said: str, machine: Machine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(_self: Saving, directory: Path) -> None:
        (directory / RAM).write_text("half")
        raise error

    monkeypatch.setattr(clone, "Qemu", Saving)
    monkeypatch.setattr(Saving, "save", fail)
    lines: list[str] = []
    clones = Clones(Cache(tmp_path / "cache"), lines.append)
    assert clones.template(machine, "hash") is None
    assert "no template, so it is booted in full" in lines[-1] and said in lines[-1]
    assert list((tmp_path / "cache" / "building").iterdir()) == [], "no partial entry remains"
    assert not list((tmp_path / "cache").glob(f"{KIND}-*"))
