# SPDX-License-Identifier: Apache-2.0
"""Configuration symbols that a kernel needs to be a target, as rows, each with its reason."""

from __future__ import annotations

import re
from collections.abc import Container, Iterator, Mapping
from enum import Enum
from typing import NamedTuple


class Use(Enum):
    """The use that needs a symbol."""

    BOOT = "to boot"
    RECORD = "to record"
    PROTECTED = "for protected mode"


ALWAYS = (Use.BOOT, Use.RECORD)
"""Uses of every target."""


class Symbol(NamedTuple):
    """A symbol that must be ``y``: its use, the reason, and its definition in the kernel's sources."""

    name: str
    use: Use
    why: str
    source: str


NEEDED: tuple[Symbol, ...] = (
    Symbol("PRINTK", Use.BOOT, "alarms and the end of a kernel are read from its log", "init/Kconfig"),
    Symbol("BINFMT_ELF", Use.BOOT, "the agent is an ELF program", "fs/Kconfig.binfmt"),
    Symbol("BLK_DEV_INITRD", Use.BOOT, "the agent is in an initramfs", "usr/Kconfig"),
    Symbol("SYSFS", Use.BOOT, "the module's parameters are files in /sys", "fs/sysfs/Kconfig"),
    Symbol("TTY", Use.BOOT, "the console and the requests use serial ports", "drivers/tty/Kconfig"),
    Symbol("SERIAL_AMBA_PL011", Use.BOOT, "the serial port of QEMU's virt machine", "drivers/tty/serial/Kconfig"),
    Symbol("SERIAL_AMBA_PL011_CONSOLE", Use.BOOT, "it prints the kernel's log", "drivers/tty/serial/Kconfig"),
    Symbol("PCI", Use.BOOT, "requests come through a PCI serial port", "drivers/pci/Kconfig"),
    Symbol("PCI_HOST_GENERIC", Use.BOOT, "the PCI bus of QEMU's virt machine", "drivers/pci/controller/Kconfig"),
    Symbol("SERIAL_8250", Use.BOOT, "the driver of that serial port", "drivers/tty/serial/8250/Kconfig"),
    Symbol("SERIAL_8250_PCI", Use.BOOT, "the PCI part of that driver", "drivers/tty/serial/8250/Kconfig"),
    Symbol("DEVMEM", Use.BOOT, "agent and host share memory through /dev/mem", "drivers/char/Kconfig"),
    Symbol("VIRTUALIZATION", Use.BOOT, "the menu of KVM", "arch/arm64/kvm/Kconfig"),
    Symbol("KVM", Use.BOOT, "it is tested", "arch/arm64/kvm/Kconfig"),
    Symbol("MODULES", Use.RECORD, "the recording module is a kernel module", "kernel/module/Kconfig"),
    Symbol("KPROBES", Use.RECORD, "the module finds KVM's functions and replaces exit codes", "arch/Kconfig"),
    Symbol("KALLSYMS", Use.RECORD, "kprobes are placed by name; reports name functions", "init/Kconfig"),
    Symbol("FTRACE", Use.RECORD, "the menu of the options that select TRACEPOINTS", "kernel/trace/Kconfig"),
    Symbol(
        "TRACEPOINTS",
        Use.RECORD,
        "the module hooks kvm_entry, kvm_exit and kvm_userspace_exit",
        "init/Kconfig; selected by kernel/trace/Kconfig TRACING",
    ),
    Symbol(
        "JUMP_LABEL",
        Use.PROTECTED,
        "without it EL2 reads static keys from host memory, which it has not mapped, and panics at its first call "
        "(handle_host_hcall, arch/arm64/kvm/hyp/nvhe/hyp-main.c)",
        "arch/Kconfig",
    ),
)

FORBIDDEN: tuple[Symbol, ...] = (
    Symbol("MODULE_SIG_FORCE", Use.RECORD, "the recording module is not signed", "kernel/module/Kconfig"),
    Symbol(
        "LOCK_DOWN_KERNEL_FORCE_INTEGRITY",
        Use.RECORD,
        "neither /dev/mem nor an unsigned module is allowed",
        "security/lockdown/Kconfig",
    ),
    Symbol(
        "LOCK_DOWN_KERNEL_FORCE_CONFIDENTIALITY",
        Use.RECORD,
        "neither /dev/mem nor an unsigned module is allowed",
        "security/lockdown/Kconfig",
    ),
    Symbol("CPU_BIG_ENDIAN", Use.BOOT, "the agent is a little-endian program", "arch/arm64/Kconfig"),
)
"""Symbols that must not be ``y``."""

EXTRA: tuple[tuple[str, str, str], ...] = (
    # Symbol, value, why: these complete the fragment to a small configuration.
    ("EXPERT", "y", "the following symbols depend on it"),
    ("KALLSYMS_ALL", "y", "the bounds of KVM's code for coverage, and names of data symbols in reports"),
    ("MULTIUSER", "y", "recorded programs may change their user"),
    ("FUTEX", "y", "the C library of recorded programs waits with it"),
    ("ENABLE_DEFAULT_TRACERS", "y", "selects TRACING, and with it TRACEPOINTS"),
    ("SERIAL_8250_NR_UARTS", "4", "places for the PCI serial port"),
    ("SERIAL_8250_RUNTIME_UARTS", "4", "places for the PCI serial port"),
    ("SMP", "y", "without it KVM is not built"),
    ("NR_CPUS", "4", "QEMU has one"),
    ("HIGH_RES_TIMERS", "y", "KVM's timers"),
    ("NO_HZ_IDLE", "y", "fewer interrupts of the host in the middle of a scenario"),
    ("HOTPLUG_CPU", "y", "as Debian's kernels"),
    ("PRINTK_TIME", "y", "the time stamp distinguishes lines of the kernel from those of programs"),
    ("IKCONFIG", "y", "the configuration is in the image"),
    ("RTC_CLASS", "y", "the date of files that programs write"),
    ("RTC_DRV_PL031", "y", "the real-time clock of QEMU's virt machine"),
    ("PREEMPT_VOLUNTARY", "y", "as Debian's kernels"),
    ("BUG", "y", "KVM's WARN and BUG reports are alarms"),
    ("MODULE_UNLOAD", "y", "as Debian's kernels"),
    ("PCI_MSI", "y", "interrupts of PCI devices"),
    ("PROC_FS", "y", "recorded programs look there"),
    ("PROC_SYSCTL", "y", "recorded programs look there"),
    ("TMPFS", "y", "recorded programs write there"),
    ("SHMEM", "y", "memory of recorded programs"),
    ("DEVTMPFS", "y", "recorded programs open /dev/kvm"),
    ("BINFMT_SCRIPT", "y", "recorded programs may start scripts"),
    ("EPOLL", "y", "VMMs wait with it"),
    ("EVENTFD", "y", "VMMs are notified of interrupts with it"),
    ("SIGNALFD", "y", "VMMs read signals with it"),
    ("TIMERFD", "y", "VMMs have timers with it"),
    ("POSIX_TIMERS", "y", "VMMs have timers with it"),
    ("AIO", "y", "VMMs read files with it"),
    ("ADVISE_SYSCALLS", "y", "VMMs advise the kernel on memory use"),
    ("MEMBARRIER", "y", "a part of the C library's threads"),
    ("RSEQ", "y", "a part of the C library's threads"),
    ("MEMFD_CREATE", "y", "VMMs have memory with it"),
    ("USERFAULTFD", "y", "some KVM selftests use it"),
    ("TRANSPARENT_HUGEPAGE", "y", "KVM maps blocks"),
    ("HUGETLBFS", "y", "KVM maps blocks"),
    ("ARM64_PTR_AUTH", "y", "KVM switches its keys"),
    ("ARM64_SVE", "y", "KVM switches its state"),
    ("PERF_EVENTS", "y", "the guest's PMU"),
    ("ARM_PMU", "y", "the guest's PMU"),
    ("ARM_PMUV3", "y", "the guest's PMU"),
    ("HW_PERF_EVENTS", "y", "the guest's PMU"),
)
_SET = re.compile(r"(?m)^CONFIG_([A-Z0-9_]+)=(.*)$")


def symbols_of(config: str) -> Mapping[str, str]:
    """Return the symbols that a ``.config`` sets, with their values; symbols that are "not set" are left out."""
    return dict(_SET.findall(config))


class MissingSymbol(NamedTuple):
    """A configuration error: a row, and the value that its symbol must have."""

    symbol: Symbol
    wanted: str

    @property
    def text(self) -> str:
        """The error in one line."""
        return f"CONFIG_{self.symbol.name}={self.wanted} is needed {self.symbol.use.value}: {self.symbol.why}"


def missing_symbols(config: str, uses: Container[Use] = tuple(Use)) -> tuple[MissingSymbol, ...]:
    """Return the symbols that a ``.config`` lacks for some uses; a driver as a module would be loaded too late."""
    given = symbols_of(config)
    absent = [MissingSymbol(row, "y") for row in NEEDED if row.use in uses and given.get(row.name) != "y"]
    present = [MissingSymbol(row, "n") for row in FORBIDDEN if row.use in uses and given.get(row.name) == "y"]
    return (*absent, *present)


def fragment() -> Iterator[str]:
    """Yield the lines of a configuration fragment with all needed symbols, for a small kernel."""
    for use in Use:
        yield f"# {use.value}"
        for row in NEEDED:
            if row.use is use:
                yield f"# {row.why} ({row.source})"
                yield f"CONFIG_{row.name}=y"
    for row in FORBIDDEN:
        yield f"# {row.why} ({row.source})"
        yield f"# CONFIG_{row.name} is not set"
    yield "# for a small kernel from allnoconfig"
    for name, value, why in EXTRA:
        yield f"# {why}"
        yield f"CONFIG_{name}={value}"
