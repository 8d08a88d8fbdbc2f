# SPDX-License-Identifier: Apache-2.0
"""A target's machine with a given program as PID 1, without agent and recording module."""

from __future__ import annotations

import subprocess
from collections.abc import Mapping
from pathlib import Path

from harness.vm.build.initramfs import character_device, directory, file, write_cpio
from harness.vm.build.prepare import prepare
from harness.vm.config import load_config
from harness.vm.target import machine_of

MEMORY = "512M"


def run_as_init(target: str, init: bytes, work: Path, files: Mapping[str, bytes] | None = None) -> str:
    """Boot a target's kernel with ``init`` as PID 1 and ``files`` in /programs; return its output."""
    initrd = work / "initrd"
    members = [directory("dev"), character_device("dev/console", 5, 1), file("init", init, executable=True)]
    members.append(directory("programs"))
    members += (file(f"programs/{name}", data, executable=True) for name, data in (files or {}).items())
    initrd.write_bytes(write_cpio(members))
    config = load_config(target)
    machine = machine_of(config, prepare(config))
    argv = ["setpriv", "--pdeathsig", "KILL", "--", "qemu-system-aarch64", "-M", machine.machine, "-cpu", machine.cpu]
    argv += ["-m", MEMORY, "-nodefaults", "-nic", "none", "-display", "none", "-no-reboot", "-serial", "stdio"]
    argv += ["-kernel", str(machine.kernel), "-initrd", str(initrd)]
    argv += ["-append", f"console=ttyAMA0 loglevel=3 panic=-1 {machine.cmdline}"]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=170, check=False)
    return done.stdout
