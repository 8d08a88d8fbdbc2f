# SPDX-License-Identifier: Apache-2.0
"""Compare a run of the guest, entry to exit, with what its instructions do by the Arm ARM; relation ``switch.*``."""

from __future__ import annotations

from collections.abc import Iterator

from harness.arch import a64, exceptions, exits
from harness.arch.exceptions import State
from harness.arch.registers import NAMES
from harness.guest import debug_stops, el2_errata, pkvm_calls, stage1_faults, syndrome
from harness.guest.context import GuestContext
from harness.guest.execute import RaiseException, Undetermined, sources
from harness.guest.instruction_fetch import as_code, fetched
from harness.guest.memory import RunMemory
from harness.guest.predict_run import PredictedRun, undetermined_bits
from harness.guest.stage1 import is_on
from harness.guest.syndrome import TrappedInstruction
from harness.guest.walk import FROM_UNKNOWN
from harness.relations.divergence import Divergence, Unchecked, any_divergence, different
from harness.trace.events import Switch


def compare_run(run: PredictedRun, context: GuestContext) -> Iterator[Divergence | Unchecked]:
    """Yield the divergences of one run of the guest; relation ``switch.*``.

    ``context`` is that of the prediction, its memory as it is at the exit.
    """
    exit_, path, observed = run.exit, run.path, run.exit.values
    where = (exit_.exit_class, run.event, run.entry.step)
    for name in run.refused:
        yield Divergence("switch", name, "executed", "refused", *where)
    if path.state is None:
        if path.certain:
            yield Divergence("switch", "pc", path.why, run.target, *where)
        else:
            yield Unchecked("switch", path.why)
        return
    expected = path.state
    pending = exit_.hcr & exceptions.HCR_VIRTUAL
    left = el2_errata.returned(path.hcr, run.entry.hcr, as_code(context.code).protected, context.errata)
    if pending != left:
        # A virtual SError that was taken is no longer pending, any other interrupt still is (Arm ARM D17.2.48).
        yield Divergence("switch", "hcr_el2", left, pending, *where)
    if exit_.forged:
        yield Unchecked("switch", "fault registers of a forged exit")
    elif exit_.trapped:
        word = fetched(expected, run.target, context)
        if path.unknown and any(register in path.unknown for register in _deciding(word or 0)):
            yield Unchecked("switch", FROM_UNKNOWN)
        elif (
            exit_.exit_class == "DABT_LOW"
            and as_code(context.code).protected
            and pkvm_calls.may_request_page(expected, word)
        ):
            yield Unchecked("switch", pkvm_calls.PAGE_FIRST)
        else:
            found = tuple(_compare_fault(_expected_fault(run, expected, word, context), exit_, where))
            if expected[:31] != observed[:31] and any_divergence(found):
                # The consequences of a wrong register are not divergences of their own.
                had = (*observed[:31], *expected[31:])
                follows = tuple(_compare_fault(_expected_fault(run, had, word, context), exit_, where))
                found = found if any_divergence(follows) else follows
            yield from found
    if run.call:
        expected = (*expected[: exceptions.PC], observed[exceptions.PC], *expected[exceptions.PC + 1 :])
    for i in different(expected, observed):
        want, got = expected[i], observed[i]
        bits, why = undetermined_bits(i, path, run.entry.stepped, context.cpu)
        zeroed = context.cpu.zeroed(i, want, got)
        if zeroed:  # as required
            continue
        if (want ^ got) & ~bits or (zeroed is False and i not in path.unknown):
            yield Divergence("switch", NAMES[i], want, got, *where)
        else:
            yield Unchecked("switch", why)


def _deciding(word: int) -> frozenset[int]:
    """Return the registers that decide the syndrome of an instruction's trap."""
    access = a64.decode_access(word)
    return sources(word) if access is None else frozenset({access.rn})


def _expected_fault(
    run: PredictedRun, state: State, word: int | None, context: GuestContext
) -> syndrome.Fault | RaiseException | Undetermined | None:
    """Return the fault registers that the instruction ``word``, which trapped in ``state``, requires."""
    seen, exit_ = run.seen, run.exit
    if run.debugger is not None:
        trap = TrappedInstruction(state, word, exit_)
        first = fetched(seen, seen[exceptions.PC], context)
        if (stop := debug_stops.expected_debug_stop(trap, run.debugger, run.entry, first)) is not None:
            return stop
    if is_on(state) or is_on(seen):
        trap = TrappedInstruction(state, word, exit_)
        memory = RunMemory.after(context.memory, run.path.stored)
        return stage1_faults.expected_fault(trap, seen, memory, context.cpu)
    is_fetch = exits.ec_of(exit_.esr) == exits.EC_BY_NAME["IABT_LOW"]
    return syndrome.expected_syndrome(state, word, context.memory, is_fetch=is_fetch)


def _compare_fault(
    fault: syndrome.Fault | RaiseException | Undetermined | None, exit_: Switch, where: tuple[str, int, int]
) -> Iterator[Divergence | Unchecked]:
    """Compare the fault registers of a trap with the expected ones."""
    if fault is None:
        return
    if isinstance(fault, Undetermined):
        yield Unchecked("switch", fault.why)
        return
    if isinstance(fault, RaiseException):
        what = f"a stage-1 fault (status {fault.iss:#04x}), which the guest takes itself"
        yield Divergence("switch", "pc", what, exit_.values[exceptions.PC], *where)
        return
    if (fault.esr ^ exit_.esr) & ~fault.esr_free:
        yield Divergence("switch", "esr_el2", fault.esr, exit_.esr, *where)
    if fault.far is not None and fault.far != exit_.far:
        yield Divergence("switch", "far_el2", fault.far, exit_.far, *where)
    if fault.hpfar is not None and fault.hpfar != exit_.hpfar:
        yield Divergence("switch", "hpfar_el2", fault.hpfar, exit_.hpfar, *where)
