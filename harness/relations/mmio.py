# SPDX-License-Identifier: Apache-2.0
"""Check an MMIO access: the report of KVM_EXIT_MMIO, and the guest's registers after the access is completed."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Literal

from harness.arch import exceptions, exits
from harness.arch.exceptions import is_big_endian
from harness.arch.exits import DABT
from harness.arch.registers import MASK64
from harness.protocol import MMIO_WRITE
from harness.relations import contract
from harness.relations.divergence import Divergence
from harness.relations.errata import LOSES_SIGN
from harness.relations.expected_state import ExpectedState, skip
from harness.trace.environment import SCENARIO_VM, VmEnvironment
from harness.trace.events import Switch
from harness.trace.rounds import EXIT_MMIO, Round


def expected_mmio_exit(exit_: Switch) -> tuple[int, int, int | None]:
    """Return address, length with mark and data that ``kvm_run.mmio`` must have for a data abort with valid syndrome.

    Data is None for a read.  Its bytes are those that would be in memory, in the guest's byte order (KVM API 5,
    KVM_EXIT_MMIO; Arm ARM D17.2.37 ISS encoding for a Data Abort).
    """
    address = exit_.address
    size = 1 << DABT["SAS"].get(exit_.esr)
    if not DABT["WNR"].get(exit_.esr):
        return address, size, None
    register = DABT["SRT"].get(exit_.esr)
    value = 0 if register == 31 else exit_.values[register] & ((1 << 8 * size) - 1)
    if exceptions.is_big_endian(exit_.values):
        value = int.from_bytes(value.to_bytes(size, "little"), "big")
    return address, size | MMIO_WRITE, value


def mmio_exit_of(round_: Round) -> Switch | None:
    """Return the return to userspace that reports the access of the round's exit, None if none does."""
    exit_ = round_.exit
    if exit_ is None or not round_.userspace_exits or exit_.forged:
        return None
    if round_.exit_class != "DABT_LOW" or not DABT["ISV"].get(exit_.esr):
        return None
    return next((user for user in round_.userspace_exits if user.code == EXIT_MMIO and not user.error), None)


def compare_mmio_exit(round_: Round) -> Iterable[Divergence]:
    """Return the errors in the report to userspace of the access of the round's exit; relation ``host.mmio_*``."""
    exit_, reported = round_.exit, mmio_exit_of(round_)
    return () if exit_ is None or reported is None else _compare(round_, exit_, reported)


def _compare(round_: Round, exit_: Switch, reported: Switch) -> Iterator[Divergence]:
    address, length, data = expected_mmio_exit(exit_)
    where = round_.label, round_.first, round_.entry.step
    if reported.mmio_addr != address:
        yield Divergence("host", "mmio_addr", address, reported.mmio_addr, *where)
    if reported.mmio_len != length:
        yield Divergence("host", "mmio_len", length, reported.mmio_len, *where)
    elif data is not None and reported.mmio_bytes != data:
        yield Divergence("host", "mmio_data", data, reported.mmio_bytes, *where)


def mmio_data(exit_: Switch, data: int, at: Sequence[int] = ()) -> int | None:
    """Return the register value that a load which trapped as MMIO must get for ``data``; None: no valid syndrome.

    ``data`` is ``kvm_run.mmio.data`` as a little-endian number; its first bytes are those in memory (KVM API 5,
    KVM_EXIT_MMIO).  They are read in the guest's byte order and sign- or zero-extended to 32 (upper half zero) or 64
    bits: Arm ARM C6.2 LDR*, D17.2.37 ISS encoding for a Data Abort.  ``at``: the registers that determine the byte
    order (those of the exit).
    """
    if not exits.DABT["ISV"].get(exit_.esr):
        return None
    size = 1 << exits.DABT["SAS"].get(exit_.esr)
    bits = 8 * size
    order: Literal["big", "little"] = "big" if is_big_endian(at or exit_.values) else "little"
    value = int.from_bytes(data.to_bytes(8, "little")[:size], order)
    if exits.DABT["SSE"].get(exit_.esr) and value >> (bits - 1):
        value -= 1 << bits
    return value & (MASK64 if exits.DABT["SF"].get(exit_.esr) else 0xFFFF_FFFF)


def is_beyond(exit_: Switch, world: VmEnvironment) -> bool:
    return bool(exit_.page >> world.ipa_bits)


def is_mmio(exit_: Switch, world: VmEnvironment = SCENARIO_VM) -> bool:
    """Whether a data abort is an MMIO access: outside every slot, or a store to a read-only one (KVM API 4.35)."""
    if exits.exit_class(exit_.code, exit_.esr) != "DABT_LOW" or contract.is_walk(exit_):
        return False
    slot = world.slot(exit_.page)
    return slot is None or (slot.read_only and bool(DABT["WNR"].get(exit_.esr)))


def complete(state: ExpectedState, exit_: Switch, data: int) -> None:
    target = DABT["SRT"].get(exit_.esr)
    if LOSES_SIGN in state.errata:
        exit_ = exit_._replace(esr=exit_.esr & ~DABT["SSE"].mask)
    if not DABT["WNR"].get(exit_.esr) and target != 31:
        expected, other = mmio_data(exit_, data), mmio_data(exit_, data, state.values)
        state.put(target, expected if expected is not None else state.values[target])
        if expected is not None and other is not None and other != expected:
            # Userspace changed the byte order meanwhile: which one applies is not specified.
            state.allowed[target] = frozenset({expected, other})
    skip(state)
