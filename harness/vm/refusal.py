# SPDX-License-Identifier: Apache-2.0
"""Find out why a kernel did not reach the agent's first request, if the cause is its configuration: pure.

No scenario has run by then, so it is not a crash of KVM.
"""

from __future__ import annotations

import re
from typing import NamedTuple


class Refusal(NamedTuple):
    """A pattern of the console's text, its meaning, and the configuration symbols that are needed (may be empty).

    A group of the pattern is the reason, in the words of the kernel or the C library.
    """

    pattern: re.Pattern[str]
    means: str
    symbols: tuple[str, ...] = ()


def _agent(words: str) -> re.Pattern[str]:
    return re.compile(rf"shadowfuzz agent: {re.escape(words)}: (.*)")


_MODULE = "the recording module does not load"
_INIT_ENDED = "Attempted to kill init!"
"""kernel/exit.c do_exit."""

REFUSALS: tuple[Refusal, ...] = (
    # guest/mailbox.h map_mailbox, guest/agent.c main, guest/request.h.
    Refusal(_agent("loading probe.ko"), _MODULE),
    Refusal(_agent("/dev/mem"), "the kernel has no /dev/mem", ("DEVMEM",)),
    Refusal(_agent("mapping the mailbox"), "/dev/mem does not give access to the mailbox", ("DEVMEM",)),
    Refusal(_agent("/dev/kvm"), "the kernel has no KVM, or was not started at EL2", ("VIRTUALIZATION", "KVM")),
    Refusal(
        _agent("the serial port that brings requests"),
        "the kernel has no driver for the serial port of the requests",
        ("PCI_HOST_GENERIC", "SERIAL_8250_PCI"),
    ),
    Refusal(
        _agent("the device that stops the machine"),
        "the kernel does not expose the device that stops the machine",
        ("PCI_HOST_GENERIC", "SYSFS"),
    ),
    # init/do_mounts.c mount_root_generic, init/main.c run_init_process and kernel_init.
    Refusal(
        re.compile(r"(VFS: Unable to mount root fs.*)"),
        "the kernel does not support an initramfs",
        ("BLK_DEV_INITRD",),
    ),
    Refusal(
        re.compile(r"(Failed to execute /init \(error -8\))"),
        "the kernel does not support ELF programs",
        ("BINFMT_ELF",),
    ),
)

_LOADING = re.compile(
    # kernel/module/main.c check_modinfo, elf_validity_check, verify_namespace_is_imported, simplify_symbols;
    # kernel/module/version.c check_version; kernel/module/signing.c module_sig_check.
    # The kernel can also print messages about a module that it loads.
    r"\] (?:module )?probe: (?!loading out-of-tree|module verification failed)(.*)|"
    r"(Loading of .*module.* is rejected.*)"
)


def refusal(console: str) -> str:
    """Return in one line why a kernel cannot run the agent, from its console; empty: no known reason."""
    for row in REFUSALS:
        found = row.pattern.search(console)
        if found is None:
            continue
        reason = (_refused_module(console) if row.means == _MODULE else "") or found[1]
        needs = ", ".join(f"CONFIG_{name}" for name in row.symbols)
        return f"{row.means}: {reason.strip()}" + (f" (needs {needs})" if needs else "")
    # The agent's own line is lost if the kernel panics before a slow serial port has sent it.
    module = _refused_module(console) if _INIT_ENDED in console else ""
    return f"{_MODULE}: {module}" if module else ""


def _refused_module(console: str) -> str:
    """Return the kernel's message about the module that it refused; empty: none."""
    return next((next(filter(None, found.groups())).strip() for found in _LOADING.finditer(console)), "")
