# SPDX-License-Identifier: Apache-2.0
"""Ends of machines from their consoles, recorded from crashed kernels; reports as text."""

from __future__ import annotations

import pytest

from harness.errors import Dump, Remains
from harness.vm.crash import Report, Reproduction, end_of, from_text, panic_address, to_text

OOPS = """\
[    2.0] Internal error: BRK handler: 00000000f2000000 [#1] SMP
[    2.0] pc : kvm_handle_mmio_return+0x0/0x270
[    2.0] lr : kvm_arch_vcpu_ioctl_run+0x178/0x800
[    2.0] Kernel panic - not syncing: BRK handler: Fatal exception
"""
EL2 = """\
[    5.6] kvm [1]: nVHE hyp panic at: [<ffff800080dcf168>] __kvm_nvhe_kvm_hyp_handle_memory_fault+0x30/0x30!
[    5.6] Kernel panic - not syncing: HYP panic:
[    5.6] PS:600003c9 PC:0000d20660fcf168 ESR:0000000096000010
"""
EL2_VHE = "Kernel panic - not syncing: HYP panic:\nPS:600003c9 PC:ffff800008bcc7d0 ESR:0000000002000000\n"
INIT = "[ 1.9] Kernel panic - not syncing: Attempted to kill init! exitcode=0x00000100\n"
AGENT = "shadowfuzz agent: /dev/kvm: No such file or directory\n" + INIT


@pytest.mark.parametrize(
    ("reason", "console", "places", "signature"),
    [
        (
            "x: the kernel panicked or powered off",
            OOPS,
            {"pc": "psci_sys_reset+0x4"},
            ("oops", "Internal error: BRK handler: N [#N] SMP", "kvm_handle_mmio_return"),
        ),
        ("x: gone", EL2, {"console": "f+0x0"}, ("el2-panic", "exception class 0x25", "f")),
        ("x: gone", EL2_VHE, {}, ("el2-panic", "exception class 0x0")),
        ("x: gone", INIT, {"pc": "f+0x0"}, ("panic", "Attempted to kill init! exitcode=N")),
        ("x: gone", AGENT, {}, ("agent", "shadowfuzz agent: /dev/kvm: No such file or directory")),
        (
            "x: no answer to a scenario within 10 s",
            "",
            {"pc": "f+0x8"},
            ("hang", "x: no answer to a scenario within N s"),
        ),
        ("x: QMP did not answer within 5 s", "", {}, ("qemu-hang", "x: QMP did not answer within N s")),
        ("x: QEMU ended with status -9", "", {}, ("qemu-death", "x: QEMU ended with status -N")),
        ("x: something new", "", {}, ("lost", "x: something new")),
    ],
)
def test_ends(reason: str, console: str, places: dict[str, str], signature: tuple[str, ...]) -> None:
    assert end_of(reason, console, Remains(places=places)).signature == signature


def test_the_place_of_a_hang_is_reported_but_not_in_its_signature() -> None:
    places, samples = {"pc": "irq+0x4"}, {"irq+0x4": 1, "f+0x8": 3, "vectors+0x280": 5}
    end = end_of("x: no answer to a scenario within 10 s", "", Remains(places=places, samples=samples))
    assert end.sentence == "the target hung in f+0x8: x: no answer to a scenario within 10 s"
    other = end_of("x: no answer to a scenario within 10 s", "", Remains(places={"pc": "g+0x4"}))
    assert other.place == "g+0x4"
    irq = Remains(places={"pc": "vectors+0x280", "ELR_EL1": "g+0x4"}, samples={"vectors+0x280": 9})
    assert end_of("x: no answer to a scenario within 10 s", "", irq).place == "g+0x4"
    assert end.signature == other.signature


def test_the_address_of_a_panic_at_el2() -> None:
    assert panic_address(EL2) == 0xFFFF_8000_80DC_F168
    assert panic_address(EL2_VHE) == 0xFFFF_8000_08BC_C7D0
    assert panic_address(OOPS) is None


def test_a_report_survives_its_text() -> None:
    remains = Remains({"pc": 1 << 63}, {"pc": "f+0x0"}, {"f+0x0": 9}, Dump("dumps/x", 2, 1, 0.5), ("no symbols",))
    for again in (None, Reproduction((0, 3), (2, 3), 4)):
        report = Report("oops", "words", "f+0x0", "reason", remains, again)
        assert from_text(to_text(report)) == report
    assert Reproduction((0, 3), (2, 3), 4).hits == 2 and Reproduction((3, 3), (0, 0), 0).hits == 3


@pytest.mark.parametrize("text", ["", "{}", "[]", '{"version": 2}', '{"version": 1, "remains": {}}'])
def test_what_is_no_report(text: str) -> None:
    with pytest.raises(ValueError):
        from_text(text)
