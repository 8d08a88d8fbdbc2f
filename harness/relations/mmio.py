# SPDX-License-Identifier: Apache-2.0
"""What KVM owes userspace when a guest's MMIO access becomes its affair: address, length, direction, data to write."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from harness.arch import exceptions
from harness.arch.exits import DABT
from harness.relations.save_restore import Divergence
from harness.trace.events import Switch
from harness.trace.rounds import EXIT_MMIO, Round

WRITE = 0x100
"""Mark of a write in the record's ``mmio_len`` (harness/protocol.py)."""


def owed(exit_: Switch) -> tuple[int, int, int | None]:
    """Return address, length with mark, and data that ``kvm_run.mmio`` owes for a data abort with a valid syndrome.

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
    return address, size | WRITE, value


def told_of(round_: Round) -> Switch | None:
    """Return the return to userspace that tells of the access that the turn began with, None if none does."""
    exit_ = round_.exit
    if exit_ is None or not round_.users or exit_.forged:
        return None
    if round_.exit_class != "DABT_LOW" or not DABT["ISV"].get(exit_.esr):
        return None
    return next((user for user in round_.users if user.code == EXIT_MMIO and not user.error), None)


def compare_handed(round_: Round) -> Iterable[Divergence]:
    """Return what userspace was told wrongly of the access that the turn began with; relation ``host.mmio_*``."""
    exit_, told = round_.exit, told_of(round_)
    return () if exit_ is None or told is None else _compare(round_, exit_, told)


def _compare(round_: Round, exit_: Switch, told: Switch) -> Iterator[Divergence]:
    address, length, data = owed(exit_)
    where = round_.label, round_.first, round_.entry.step
    if told.mmio_addr != address:
        yield Divergence("host", "mmio_addr", address, told.mmio_addr, *where)
    if told.mmio_len != length:
        yield Divergence("host", "mmio_len", length, told.mmio_len, *where)
    elif data is not None and (seen := told.mmio_data & ((1 << 8 * (length & ~WRITE)) - 1)) != data:
        yield Divergence("host", "mmio_data", data, seen, *where)
