# SPDX-License-Identifier: Apache-2.0
"""Kernels that cannot run the agent, recognised by their consoles."""

from __future__ import annotations

from pathlib import Path

import pytest

from harness.vm.build.prepare import GUEST_SOURCES
from harness.vm.refusal import REFUSALS, refusal

INIT = "[ 1.9] Kernel panic - not syncing: Attempted to kill init! exitcode=0x00000100\n"
OOPS = "[ 2.0] Internal error: BRK handler: 00000000f2000000 [#1] SMP\n"
AGENT = "shadowfuzz agent: loading probe.ko: "


@pytest.mark.parametrize(
    ("console", "why"),
    [
        # Printed by a kernel of 6.12.117 that was given the module of another build.
        (
            "[ 1.2] module probe: .gnu.linkonce.this_module section size must match the kernel's built struct module "
            f"size at run time\n{AGENT}Exec format error\n{INIT}",
            "the recording module does not load: .gnu.linkonce.this_module section size must match the kernel's built "
            "struct module size at run time",
        ),
        (
            f"[ 1.2] probe: version magic '6.1 SMP' should be '6.12 SMP'\n{AGENT}Exec format error\n",
            "the recording module does not load: version magic '6.1 SMP' should be '6.12 SMP'",
        ),
        (
            f"[ 1.2] probe: Unknown symbol strcmp (err -2)\n{AGENT}No such file or directory\n",
            "the recording module does not load: Unknown symbol strcmp (err -2)",
        ),
        (f"{AGENT}No such file or directory\n", "the recording module does not load: No such file or directory"),
        (
            f"shadowfuzz agent: /dev/mem: No such device or address\n{INIT}",
            "the kernel has no /dev/mem: No such device or address (needs CONFIG_DEVMEM)",
        ),
        (
            "[ 1.1] Kernel panic - not syncing: VFS: Unable to mount root fs on unknown-block(0,0)\n",
            "the kernel does not support an initramfs: VFS: Unable to mount root fs on unknown-block(0,0) "
            "(needs CONFIG_BLK_DEV_INITRD)",
        ),
        # The agent's line was not sent before the panic.
        (
            f"[ 1.2] module probe: .gnu.linkonce.this_module section size must match\n{INIT}",
            "the recording module does not load: .gnu.linkonce.this_module section size must match",
        ),
        # These are faults of the kernel.
        ("[ 1.2] probe: loading out-of-tree module taints kernel.\n" + OOPS, ""),
        (INIT, ""),
        (f"shadowfuzz agent: creating a VM: Out of memory\n{INIT}", ""),
        ("[    5.6] kvm [1]: nVHE hyp panic at: [<ffff800080dcf168>] f+0x30/0x30!\n", ""),
        ("", ""),
    ],
)
def test_why(console: str, why: str) -> None:
    assert refusal(console) == why


def test_the_agent_says_what_the_rows_expect() -> None:
    source = "".join(path.read_text() for path in sorted(Path(GUEST_SOURCES).glob("*.[ch]")))
    for row in REFUSALS:
        words = row.pattern.pattern.removeprefix("shadowfuzz agent: ").removesuffix(": (.*)").replace("\\", "")
        if words != row.pattern.pattern.replace("\\", ""):
            assert f'die("{words}")' in source
