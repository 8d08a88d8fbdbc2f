# SPDX-License-Identifier: Apache-2.0
"""Release against release: where two kernels' recorded traces of one scenario differ.  No model has a say here.

Compared are exits and what KVM then hands to the guest, step by step; interrupts come when they like and are left out.
After the first difference the two runs are no longer the same run, so only that one counts.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import zip_longest

from harness import arch
from harness.exits import exit_class
from harness.registers import NAMES
from harness.trace import ENTRY, EXIT, USER, Switch, Trace
from harness.vm.versions import linux_version

NEVER_COMPARED: Mapping[str, str] = {
    "afsr0_el1": "IMPLEMENTATION DEFINED (Arm ARM D17.2.15)",
    "afsr1_el1": "IMPLEMENTATION DEFINED (Arm ARM D17.2.17)",
    "amair_el1": "IMPLEMENTATION DEFINED (Arm ARM D17.2.24)",
    # KVM saves it while a guest debugs itself (MDSCR_EL1.MDE or KDE); QEMU's read then gives what was there before.
    "mdccint_el1": "QEMU implements it as a no-op: a read leaves the general-purpose register as it was",
}
"""Registers whose value says nothing about KVM, with the reason."""

NEVER_THE_SAME: Mapping[int, str] = {
    0x8400_0053: "TRNG_RND32 returns random bits (Arm DEN 0098)",
    0xC400_0053: "TRNG_RND64 returns random bits (Arm DEN 0098)",
    0x8600_0001: "the vendor's PTP call returns the time (Documentation/virt/kvm/arm/ptp_kvm.rst)",
}
"""Calls after which a run cannot be compared with another any more, with the reason."""

KIND_NAMES: Mapping[int, str] = {EXIT: "exit", ENTRY: "entry", USER: "user"}


@dataclass(frozen=True, slots=True)
class Difference:
    """The first place where two traces differ: what, after which exit class, at which step, and both values."""

    what: str
    exit_class: str
    step: int
    values: tuple[str, str]

    @property
    def signature(self) -> tuple[str, str]:
        """Names a cluster: the register (general-purpose ones as xN) and the exit class."""
        head, _, register = self.what.rpartition(".")
        return f"{head}.{'xN' if register[:1] == 'x' and register[1:].isdigit() else register}", self.exit_class


def compare(one: Trace, other: Trace, ignored: frozenset[str] = frozenset()) -> tuple[Difference, ...]:
    """Return every difference of the first pair of events that differ; empty if none do.  `ignored` are registers."""
    if one.status != other.status:
        return (Difference("run.status", "", -1, (one.status, other.status)),)
    last = ""
    for a, b in zip_longest(_switches(one), _switches(other)):
        found = a or b
        assert found is not None
        if found.kind == EXIT:
            last = exit_class(found.code, found.esr)
        if a is None or b is None:
            shown = tuple("nothing" if side is None else f"{KIND_NAMES[side.kind]} {last}" for side in (a, b))
            return (Difference("run.length", last, found.step, (shown[0], shown[1])),)
        differing = tuple(d for d in _differences(a, b, last) if d.what.rpartition(".")[2] not in ignored)
        if differing:
            return differing
        if found.kind == EXIT and last == "HVC64" and found.get("x0") & 0xFFFF_FFFF in NEVER_THE_SAME:
            break  # from here on the two runs have other values, and rightly so
    return ()


def _switches(trace: Trace) -> Iterator[Switch]:
    """Yield the records without interrupts: neither the exit nor the entry after it."""
    after_interrupt = False
    for event in trace.events:
        if not isinstance(event, Switch):
            continue
        if event.kind == EXIT:
            after_interrupt = exit_class(event.code, event.esr) == "IRQ"
        if not after_interrupt and not (event.kind == USER and event.error):
            yield event


def _differences(a: Switch, b: Switch, last: str) -> Iterator[Difference]:
    kind = KIND_NAMES[a.kind]
    if a.kind != b.kind:
        yield Difference("run.event", last, a.step, (kind, KIND_NAMES[b.kind]))
        return
    rows = [(name, x, y) for name, x, y in zip(NAMES, _seen(a), _seen(b), strict=True) if name not in NEVER_COMPARED]
    if a.kind == EXIT:
        rows += [("esr_el2", a.esr, b.esr), ("far_el2", a.far, b.far), ("hpfar_el2", a.hpfar, b.hpfar)]
    if a.kind == USER:
        rows += [("exit_reason", a.code, b.code), ("mmio_addr", a.mmio_addr, b.mmio_addr)]
    for name, x, y in rows:
        if x != y:
            yield Difference(f"{kind}.{name}", last, a.step, (f"{x:#x}", f"{y:#x}"))


def _seen(event: Switch) -> Sequence[int]:
    """Return the registers as the guest will see them: releases differ in when they apply what is pending."""
    return arch.apply_pending(event.values, event.pending) if event.kind == ENTRY else event.values


@dataclass(frozen=True, slots=True)
class Intended:
    """A change between releases that was meant: where it shows, from which kernel on, and where that is written."""

    what: str
    exit_class: str
    since: tuple[int, int]
    values: tuple[str, str] | None
    why: str
    source: str


@dataclass(frozen=True, slots=True)
class Moved:
    """A register that is kept in another way from a kernel on, so that its values are not comparable with before."""

    register: str
    since: tuple[int, int]
    source: str


MOVED: tuple[Moved, ...] = (
    # Seen between 6.1.192 and 6.12.43: before, the CPU keeps its four bits; since, KVM keeps all that was written.
    Moved("csselr_el1", (6, 3), 'KVM traps CSSELR_EL1: commit "KVM: arm64: Mask FEAT_CCIDX"; harness/registers.py'),
)


def not_comparable(releases: tuple[str, str]) -> frozenset[str]:
    """Return the registers that are kept in another way in one of two package versions."""
    old, new = sorted(map(linux_version, releases))
    return frozenset(row.register for row in MOVED if old < row.since <= new)


INTENDED: tuple[Intended, ...] = (
    Intended(
        "entry.xN",
        "HVC64",
        (6, 13),
        ("0x10001", "0x10003"),
        "PSCI_VERSION is 1.3 where it was 1.1",
        'commit "KVM: arm64: Add support for PSCI v1.2 and v1.3"; kvm.md, PSCI 1.1 -> 1.3',
    ),
)


def intended(difference: Difference, releases: tuple[str, str]) -> str:
    """Return why a difference between two package versions was meant; empty if no row says so."""
    old, new = sorted(map(linux_version, releases))
    for row in INTENDED:
        fits = difference.signature == (row.what, row.exit_class) and old < row.since <= new
        if fits and (row.values is None or sorted(row.values) == sorted(difference.values)):
            return f"{row.why} ({row.source})"
    return ""
