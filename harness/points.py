# SPDX-License-Identifier: Apache-2.0
"""The guest's own breakpoints and watchpoints, and MDCR_EL2: what debugging by userspace must leave and must set.

While userspace debugs a guest KVM keeps the guest's debug registers, and loads userspace's in their place.  Debug
exceptions then go to EL2 (MDCR_EL2.TDE), and the guest's accesses trap and reach its own registers.  Otherwise debug
exceptions are the guest's own, and it may have its registers in the CPU (up to 6.12 KVM may put them there all the
same, while userspace has no breakpoints).  Sources: KVM API 4.87; Arm ARM D17.3.18
MDCR_EL2, D17.3.2 DBGBVR<n>_EL1, D17.3.12 DBGWVR<n>_EL1; relations ``switch.*`` and ``host.*``.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from harness import a64, protocol, sysregs
from harness.compare import Divergence, Unchecked
from harness.contract import system_access
from harness.debugger import DEBUG_OPS
from harness.scenario import Scenario
from harness.stops import class_of
from harness.trace import ENTRY, Host, Switch, Trace
from harness.turns import OP_RESET

NAMES: tuple[str, ...] = tuple(word.name for word in protocol.DEBUG_WORDS)
TDE = 1 << 8
"""MDCR_EL2: debug exceptions of EL1 and EL0 go to EL2, and accesses to debug registers trap, whatever TDA says."""
_KEPT = 0x1_FFFF_FFFF_FFFC
"""Bits of an address that a CPU keeps: [1:0] are RES0, the upper ones may be copies of bit 48."""
_WHY = "a debug register that the guest may have written itself"


def wants_points(scenario: Scenario) -> bool:
    """Whether a scenario has to do with debugging, so that its debug registers are worth recording."""
    kinds = {kind for kind, (number, _) in protocol.OPS.items() if number in DEBUG_OPS}
    return any(step.kind in kinds or not {"mdscr_el1", *NAMES}.isdisjoint(step.args) for step in scenario.steps)


def _written(code: Mapping[int, int]) -> frozenset[str]:
    """Return the debug registers that some instruction of the guest writes."""
    names = set()
    for word in code.values():
        plain = a64.decode_plain(word)
        if plain is not None and plain.mnemonic == "msr":
            row = sysregs.BY_ENCODING.get(a64.system_register(word))
            names |= {row.name} if row is not None else set()
    return frozenset(names & set(NAMES))


def compare_points(trace: Trace, code: Mapping[int, int]) -> Iterator[Divergence | Unchecked]:
    """Yield what became of debug registers that should not have; ``code`` is the guest's."""
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
        where = class_of(event) if event.kind != ENTRY else "FIRST", index, event.step
        if event.kind == ENTRY:
            if event.context in last:
                where = class_of(last[event.context][0]), index, event.step
            owed = TDE if event.debugged else 0
            if (values[0] ^ owed) & TDE:
                yield Divergence(relation, "mdcr_el2", owed, values[0] & TDE, *where)
        if event.context in last:
            before, held = last[event.context]
            for name, want, got in zip(NAMES[1:], held[1:], values[1:], strict=True):
                own_write = _trapped_write(before, name)
                want = want if own_write is None else own_write
                if not (want ^ got) & _KEPT:
                    continue
                if event.kind != ENTRY and not event.debugged and name in written:
                    yield Unchecked(relation, _WHY)
                else:
                    yield Divergence(relation, name, want, got, *where)
        last[event.context] = event, values


def _trapped_write(exit_: Switch, name: str) -> int | None:
    """Return what a guest's write that trapped owes a debug register; None: it was no such write."""
    if exit_.kind == ENTRY or exit_.forged or class_of(exit_) != "SYS64":
        return None
    access = system_access(exit_.esr)
    if access.is_read or access.row is None or access.row.name != name:
        return None
    return exit_.values[access.rt] if access.rt != 31 else 0
