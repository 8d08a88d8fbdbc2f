# SPDX-License-Identifier: Apache-2.0
"""Describe the machine that QEMU runs, as a value, and build QEMU's command line for it: pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from harness.vm.plugins.plugin import Map, Plugin
from harness.vm.qemu_versions import QEMU

RAM_BASE = 0x4000_0000
"""Base address of RAM of ``-M virt`` (QEMU hw/arm/virt.c, base_memmap)."""
MIB = 1 << 20
TRANSLATED_MIB = 64
"""Size of QEMU's translation cache in MiB; the default is 1 GiB, which a night of new scenarios fills."""
RING = bytes(8)
"""The bytes that wake the agent for a request: this number makes Linux's port interrupt at once (8250_port.c,
PORT_16550A)."""
DETERMINISTIC: tuple[str, ...] = (
    # Time is the number of instructions, 4 ns each: the host's tick comes every million instructions, soon enough even
    # for a guest whose every instruction faults.  An idle machine does not wait: its time jumps to the next timer.
    *("-icount", "shift=2,sleep=off"),
    *("-seed", "1"),
    *("-device", "pvpanic-pci,addr=1", "-action", "panic=pause"),
)


@dataclass(frozen=True, slots=True)
class Machine:
    """The machine that QEMU runs.

    ``memory_mib`` is all RAM, its last ``shared_mib`` are the mailbox; ``cmdline`` is appended to the words that every
    target needs; ``qemu`` are the first words of the command.  A ``deterministic`` machine executes the same
    instructions after the same requests: its time is the number of instructions, and it is stopped between requests.
    More than one of ``cpus`` is for recorded programs; a scenario runs on one.
    """

    name: str
    kernel: Path
    initrd: Path
    cpu: str
    machine: str
    memory_mib: int
    shared_mib: int
    cmdline: str
    qemu: tuple[str, ...] = (QEMU,)
    deterministic: bool = False
    cpus: int = 1

    @property
    def linux_mib(self) -> int:
        """RAM that the kernel uses, in MiB."""
        return self.memory_mib - self.shared_mib

    @property
    def mailbox_base(self) -> int:
        """Guest physical address of the mailbox."""
        return RAM_BASE + self.linux_mib * MIB


@dataclass(frozen=True, slots=True)
class Files:
    """File descriptors that QEMU inherits; ``state``, if set, is the saved state that a clone starts from.

    ``bell`` is the host's end of a serial port, over which the fuzzer and a machine that is not deterministic wake each
    other.
    """

    ram: int
    mailbox: int
    console: int
    qmp: int
    bell: int
    state: int | None = None

    @property
    def all(self) -> tuple[int, ...]:
        """All file descriptors."""
        always = self.ram, self.mailbox, self.console, self.qmp, self.bell
        return always if self.state is None else (*always, self.state)


def command_line(machine: Machine, files: Files, plugins: Sequence[Plugin[Map]] = ()) -> list[str]:
    """Return QEMU's argv."""
    watch = [word for p in plugins for word in ("-plugin", f"{p.library},map=/proc/self/fd/{p.map.fd}")]
    kernel_args = (
        # DAMON_STAT samples all memory from boot on (Debian since 7.2 at the latest) and clears access flags of stage 2
        # for it, which causes faults without a step of the guest: 1 500 of them in a Linux boot.
        "damon_stat.enabled=N "
        # nokaslr: addresses in reports are those of the symbols.  Every oops is a panic, every panic an immediate
        # reset, and with -no-reboot -no-shutdown a reset stops the machine, so that its state can be read.
        # loglevel=5 prints warnings, which harness/vm/alarms.py searches for; printk.time gives them a time stamp.
        f"console=ttyAMA0 loglevel=5 printk.time=1 nokaslr oops=panic panic=-1 mem={machine.linux_mib}M "
        f"SF_BASE={machine.mailbox_base:#x} SF_SIZE={machine.shared_mib * MIB:#x} {machine.cmdline}"
        f"{' SF_BRAKE=1' if machine.deterministic else ''}"
    )
    clone = files.state is not None
    # Both write to the same file; with stdio the machine also receives input (harness/vm/fetch_storm.py).
    # append: QEMU's own messages go to the same file through another descriptor; since 9.1 each clone prints one.
    to_file = f"file,id=console,path=/proc/self/fd/{files.console},append=on"
    console = "stdio,id=console,signal=off" if machine.deterministic else to_file
    return [
        # QEMU is killed when the thread that started it ends, for any reason.
        *("setpriv", "--pdeathsig", "KILL", "--"),
        *machine.qemu,
        *("-M", f"{machine.machine},dtb-randomness=off" if machine.deterministic else machine.machine),
        *("-accel", f"tcg,tb-size={TRANSLATED_MIB}"),
        *("-cpu", machine.cpu, "-smp", str(machine.cpus), "-m", f"{machine.memory_mib}M"),
        # Two adjacent blocks: a clone shares a template's RAM copy-on-write, but has its own mailbox.
        *_memory("ram", machine.linux_mib, files.ram, "off" if clone else "on"),
        *_memory("mailbox", machine.shared_mib, files.mailbox, "on"),
        # Without -nodefaults QEMU needs a network ROM; the target has no network.
        *("-nodefaults", "-nic", "none", "-display", "none", "-no-reboot", "-no-shutdown"),
        *("-sandbox", "on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny"),
        *("-chardev", console, "-serial", "chardev:console"),
        *("-chardev", f"socket,id=qmp,fd={files.qmp}", "-mon", "chardev=qmp,mode=control"),
        *("-kernel", str(machine.kernel), "-initrd", str(machine.initrd)),
        *("-append", kernel_args),
        *watch,
        # The date, which the kernel reads once, at boot.  Loading a clone arms its clock's alarm decades ahead: with
        # clock=vm an idle machine without other timers would jump there.
        *(("-rtc", f"base=2024-01-01,clock={'rt' if clone else 'vm'}") if machine.deterministic else ()),
        *(DETERMINISTIC if machine.deterministic else _bell(files.bell)),
        *(("-incoming", "defer") if clone else ()),
    ]


def _bell(file: int) -> tuple[str, ...]:
    return ("-chardev", f"socket,id=bell,fd={file}", "-device", "pci-serial,chardev=bell")


def _memory(name: str, mib: int, file: int, share: str) -> tuple[str, ...]:
    backend = f"memory-backend-file,id={name},size={mib}M,share={share},mem-path=/proc/self/fd/{file}"
    return ("-object", backend, "-numa", f"node,memdev={name}")
