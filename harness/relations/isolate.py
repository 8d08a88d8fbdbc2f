# SPDX-License-Identifier: Apache-2.0
"""Check that neither another vCPU nor the host changes a vCPU's registers while it does not run (relation isolate)."""

from __future__ import annotations

from collections.abc import Iterator

from harness.arch import exceptions, exits
from harness.arch.registers import NAMES
from harness.protocol import OP_ABORT, OP_FINISH, OP_SERROR
from harness.relations.divergence import Divergence, different
from harness.trace.rounds import EXCEPTION, EXIT_MMIO, Round, was_aarch32


def compare_isolation(round_: Round) -> Iterator[Divergence]:
    """Yield the registers of a vCPU that changed while others ran; relation ``isolate.*``.

    Between its return to userspace and its next entry, only its own userspace may change it: register writes,
    an MMIO access to be completed, an exception that it asks for, a reset (which ``host.*`` compares).
    """
    if not round_.other_vcpu_ran or not round_.userspace_exits or round_.reset:
        return
    last, entry = round_.userspace_exits[-1], round_.entry
    finished = any(host.op in (OP_FINISH, OP_ABORT) for host in round_.host_actions)
    excepted = round_.action.inject and any(host.op == OP_SERROR for host in round_.host_actions)
    load = last.code == EXIT_MMIO and not exits.DABT["WNR"].get(last.esr)
    loaded = exits.DABT["SRT"].get(last.esr) if load else -1
    narrowed = exceptions.AARCH32_STATE if was_aarch32(round_) else ()
    for i in different(last.values, entry.values):
        if i in round_.host_wrote or i == loaded or (finished and i > 30):
            continue
        if entry.pending & EXCEPTION and i in (exceptions.ESR, exceptions.FAR):
            continue
        if excepted and i in exceptions.EXCEPTION:
            continue
        if i == exceptions.MDSCR and exceptions.os_locked(last.values[i], entry.values[i]):
            continue
        if i in narrowed and entry.values[i] == last.values[i] & 0xFFFF_FFFF:
            continue
        yield Divergence("isolate", NAMES[i], last.values[i], entry.values[i], round_.label, round_.first, entry.step)
