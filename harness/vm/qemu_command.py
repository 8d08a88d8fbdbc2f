# SPDX-License-Identifier: Apache-2.0
"""What QEMU is to run, as a value, and the command line that makes it run that: pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from harness.vm.plugins.plugin import Map, Plugin
from harness.vm.qemu_versions import QEMU

RAM_BASE = 0x4000_0000
"""Where ``-M virt`` has its RAM (QEMU hw/arm/virt.c, base_memmap)."""
MIB = 1 << 20
TRANSLATED_MIB = 64
"""What QEMU may keep of translated code: left alone it is 1 GiB, which a night of new scenarios fills."""
RING = bytes(8)
"""What tells the agent of a request: so many bytes make Linux's port interrupt at once (8250_port.c, PORT_16550A)."""
DETERMINISTIC: tuple[str, ...] = (
    # Time is the number of instructions, 4 ns each: the host's clock ticks every million, before long even for a
    # guest whose every instruction faults.  An idle machine does not wait for its timers but jumps to the next one.
    *("-icount", "shift=2,sleep=off"),
    *("-seed", "1"),
    *("-device", "pvpanic-pci,addr=1", "-action", "panic=pause"),
)


@dataclass(frozen=True, slots=True)
class Machine:
    """What QEMU is to run.

    ``memory_mib`` is all RAM, its last ``shared_mib`` are the mailbox; ``cmdline`` is appended to what every target
    needs; ``qemu`` are the first words of the command.  A ``deterministic`` machine does the same after the same
    requests, instruction by instruction: its time is the number of instructions, and it stands still between requests.
    Of several ``cpus`` the target must have a use; a scenario runs on one.
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
        """RAM that the kernel knows of."""
        return self.memory_mib - self.shared_mib

    @property
    def mailbox_base(self) -> int:
        """Guest physical address of the mailbox."""
        return RAM_BASE + self.linux_mib * MIB


@dataclass(frozen=True, slots=True)
class Files:
    """File descriptors that QEMU inherits; ``state``, if there is one, is what a clone starts from.

    ``bell`` is the other end of a serial port, over which a machine that is not deterministic and its owner wake each
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
        """All of them."""
        always = self.ram, self.mailbox, self.console, self.qmp, self.bell
        return always if self.state is None else (*always, self.state)


def command_line(machine: Machine, files: Files, plugins: Sequence[Plugin[Map]] = ()) -> list[str]:
    """Return QEMU's argv."""
    watch = [word for p in plugins for word in ("-plugin", f"{p.library},map=/proc/self/fd/{p.map.fd}")]
    kernel_args = (
        # DAMON_STAT samples all memory from boot on (Debian since 7.2 at the latest), and takes access flags of stage 2
        # away for it: faults that come of no step of the guest's, 1 500 of them in a Linux boot.
        "damon_stat.enabled=N "
        # nokaslr: addresses in reports mean something.  Every oops is a panic, every panic a reset at once, and with
        # -no-reboot -no-shutdown a reset stops the machine: there it is, to be looked at.
        # loglevel: warnings are below 5, and what harness/vm/alarms.py looks for is a warning; they have their time.
        f"console=ttyAMA0 loglevel=5 printk.time=1 nokaslr oops=panic panic=-1 mem={machine.linux_mib}M "
        f"SF_BASE={machine.mailbox_base:#x} SF_SIZE={machine.shared_mib * MIB:#x} {machine.cmdline}"
        f"{' SF_BRAKE=1' if machine.deterministic else ''}"
    )
    clone = files.state is not None
    # Both write to the same file; with stdio what the machine's owner writes comes in (harness/vm/fetch_storm.py).
    # append: QEMU's own words come to the same file, through a description of its own; from 9.1 on each clone has some.
    to_file = f"file,id=console,path=/proc/self/fd/{files.console},append=on"
    console = "stdio,id=console,signal=off" if machine.deterministic else to_file
    return [
        # QEMU dies with the thread that started it, whatever kills that.
        *("setpriv", "--pdeathsig", "KILL", "--"),
        *machine.qemu,
        *("-M", f"{machine.machine},dtb-randomness=off" if machine.deterministic else machine.machine),
        *("-accel", f"tcg,tb-size={TRANSLATED_MIB}"),
        *("-cpu", machine.cpu, "-smp", str(machine.cpus), "-m", f"{machine.memory_mib}M"),
        # Two blocks, one behind the other: a clone shares a template's RAM until it writes to it, but has a mailbox of
        # its own.
        *_memory("ram", machine.linux_mib, files.ram, "off" if clone else "on"),
        *_memory("mailbox", machine.shared_mib, files.mailbox, "on"),
        # Without -nodefaults QEMU wants a network ROM; the target has no network at all.
        *("-nodefaults", "-nic", "none", "-display", "none", "-no-reboot", "-no-shutdown"),
        *("-sandbox", "on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny"),
        *("-chardev", console, "-serial", "chardev:console"),
        *("-chardev", f"socket,id=qmp,fd={files.qmp}", "-mon", "chardev=qmp,mode=control"),
        *("-kernel", str(machine.kernel), "-initrd", str(machine.initrd)),
        *("-append", kernel_args),
        *watch,
        # The date, which the kernel reads once, when it boots.  A clone's clock is armed as it is loaded, to ring in
        # decades: a machine without other timers would jump there, if that were its own time.
        *(("-rtc", f"base=2024-01-01,clock={'rt' if clone else 'vm'}") if machine.deterministic else ()),
        *(DETERMINISTIC if machine.deterministic else _bell(files.bell)),
        *(("-incoming", "defer") if clone else ()),
    ]


def _bell(file: int) -> tuple[str, ...]:
    return ("-chardev", f"socket,id=bell,fd={file}", "-device", "pci-serial,chardev=bell")


def _memory(name: str, mib: int, file: int, share: str) -> tuple[str, ...]:
    backend = f"memory-backend-file,id={name},size={mib}M,share={share},mem-path=/proc/self/fd/{file}"
    return ("-object", backend, "-numa", f"node,memdev={name}")
