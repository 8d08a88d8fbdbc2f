# SPDX-License-Identifier: Apache-2.0
"""Compare debug registers: KVM_SET_GUEST_DEBUG must preserve the guest's values and set MDCR_EL2.TDE.

While userspace debugs a guest, KVM keeps the guest's debug registers in memory and loads userspace's into the CPU.
Debug exceptions are then routed to EL2 (MDCR_EL2.TDE), and the guest's accesses trap and reach its own registers.
Otherwise the guest takes its debug exceptions itself, and its registers may be in the CPU (up to 6.12 also while
userspace debugs it without breakpoints).  Sources: KVM API 4.87; Arm ARM D17.3.18 MDCR_EL2, D17.3.2 DBGBVR<n>_EL1,
D17.3.12 DBGWVR<n>_EL1; relations ``switch.*`` and ``host.*``.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from typing import Final

from harness.arch import a64, sysregs
from harness.guest.debug_stops import class_of
from harness.protocol import DEBUG_NAMES, OP_RESET
from harness.relations.contract import system_access
from harness.relations.divergence import Divergence, Unchecked
from harness.trace.events import ENTRY, Host, Switch, Trace

TDE: Final = 1 << 8
"""MDCR_EL2: debug exceptions of EL1 and EL0 go to EL2, and accesses to debug registers trap, whatever TDA says."""
_KEPT: Final = 0x1_FFFF_FFFF_FFFC
"""Bits of an address that a CPU keeps: [1:0] are RES0, the upper ones may be copies of bit 48."""
_HALVES: Final = 1 << 8 | 1 << 6
"""Bits of DBGBCR<n>_EL1.BAS that may be copies of those below: a breakpoint's instruction is at an address that is a
multiple of 2 (Arm ARM D17.3.1)."""
_WHY: Final = "a debug register that the guest may have written itself"
_FORGED: Final = "a debug register after a forged access, which may be one to it"
_ACCESSES: Final = ("SYS64", "EC0x05")
"""Classes of which KVM emulates accesses to debug registers: AArch64's, and AArch32's MCR and MRC (only forged)."""


def _written(code: Mapping[int, int]) -> frozenset[str]:
    """Return the debug registers that some instruction of the guest writes."""
    names = set()
    for word in code.values():
        plain = a64.decode_plain(word)
        if plain is not None and plain.mnemonic == "msr":
            row = sysregs.BY_ENCODING.get(a64.system_register(word))
            names |= {row.name} if row is not None else set()
    return frozenset(names & set(DEBUG_NAMES))


def compare_debug_registers(
    trace: Trace, code: Mapping[int, int], restarts: Collection[int] = ()
) -> Iterator[Divergence | Unchecked]:
    """Yield the debug registers that have another value than required.

    ``code`` is the guest's; ``restarts``: the exits after which another vCPU restarted this one (PSCI CPU_ON).
    """
    written = _written(code)
    found = {points.event: points.values for points in trace.points}
    last: dict[int, tuple[Switch, tuple[int, ...]]] = {}
    for index, event in enumerate(trace.events):
        if isinstance(event, Host):
            if event.op == OP_RESET:
                last.pop(event.context, None)
            continue
        values = found.get(index)
        if values is None:
            continue
        relation = "host" if event.kind == ENTRY else "switch"
        before, held = last.get(event.context, (None, values))
        last[event.context] = event, values
        if index in restarts:
            del last[event.context]
        expected = TDE if event.debugged else 0
        wrong = event.kind == ENTRY and (values[0] ^ expected) & TDE
        own_write = _trapped_write(before) if before is not None else None
        if not wrong and own_write is None and values[1:] == held[1:]:
            continue
        told_by = before if event.kind == ENTRY else event
        where = class_of(told_by) if told_by is not None else "FIRST", index, event.step
        if wrong:
            yield Divergence(relation, "mdcr_el2", expected, values[0] & TDE, *where)
        for name, want, got in zip(DEBUG_NAMES[1:], held[1:], values[1:], strict=True):
            if own_write is not None and own_write[0] == name:
                want = own_write[1]
            if not (want ^ got) & (_KEPT & ~_HALVES if name.startswith("dbgbcr") else _KEPT):
                continue
            if event.kind != ENTRY and not event.debugged and name in written:
                yield Unchecked(relation, _WHY, index)
            elif event.kind == ENTRY and before is not None and before.forged and class_of(before) in _ACCESSES:
                yield Unchecked(relation, _FORGED, index)
            else:
                yield Divergence(relation, name, want, got, *where)


def _trapped_write(exit_: Switch) -> tuple[str, int] | None:
    """Return the register of a guest's write that trapped, and the value written; None: it was no such write."""
    if exit_.kind == ENTRY or exit_.forged or class_of(exit_) != "SYS64":
        return None
    access = system_access(exit_.esr)
    if access.is_read or access.row is None:
        return None
    return access.row.name, exit_.values[access.rt] if access.rt != 31 else 0
