# SPDX-License-Identifier: Apache-2.0
"""Define the rules that entries of the catalogue name: the exact value of a known divergence.  Pure."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Final

from harness.arch import exceptions, exits, reset_values
from harness.arch.exceptions import State
from harness.arch.registers import INDEX, MASK64
from harness.arch.sysregs import ExpectedResult
from harness.model.prediction import Prediction
from harness.protocol import OP_FINISH, PENDING
from harness.relations import contract, mmio
from harness.relations.errata import NONE
from harness.relations.exit_handling import sign_extended
from harness.relations.expected_outcome import expected_outcomes, moves_on
from harness.relations.expected_state import ExpectedState
from harness.relations.host import expected_entry_states
from harness.relations.save_restore import ALL_GPRS
from harness.relations.userspace_actions import apply_userspace, orders_of
from harness.trace import pending
from harness.trace.events import Switch
from harness.trace.rounds import Round, was_aarch32

NAMED: Final = "named"
"""A rule of names: the entry's helpers and outcomes are the two values, and the contract allows the outcome."""
_MPIDR: Final = INDEX["mpidr_el1"]


@dataclass(frozen=True)
class Case:
    """The input of a rule: the round, KVM's action, the host's writes, the prediction.

    ``lossy`` holds, by index, the bits of registers that were in the CPU when they were recorded, and that the CPU
    does not keep.  ``errata``: the rules of :mod:`harness.relations.errata` that are switched on.
    """

    round: Round
    prediction: Prediction
    lossy: Mapping[int, int]
    errata: frozenset[str] = NONE
    _allowed: list[frozenset[str] | None] = field(default_factory=list, init=False, repr=False, compare=False)

    @property
    def allowed(self) -> frozenset[str] | None:
        """How the contract allows KVM to end the exit (:mod:`harness.relations.expected_outcome`)."""
        if not self._allowed:
            self._allowed.append(expected_outcomes(self.round, self.errata))
        return self._allowed[0]

    @property
    def ends_as_it_may(self) -> bool:
        """Whether KVM ended it so, or the contract says nothing: what KVM did wrong explains no flag and no PC."""
        return self.allowed is None or self.round.action.outcome in self.allowed

    def same(self, index: int, required: int, observed: int) -> bool:
        """Whether ``observed`` equals ``required``, except for bits that the CPU does not keep."""
        return not (required ^ observed) & ~self.lossy.get(index, 0)

    def pc_after(self, pc: int) -> frozenset[int]:
        """Return PC after the instruction at ``pc``, in the execution state of the exit or in that of the entry."""
        states = self.exit_state[exceptions.PSTATE], self.round.entry.values[exceptions.PSTATE]
        return frozenset(exceptions.state_after_instruction(pc, pstate, self.round.wide)[0] for pstate in states)

    @property
    def exit_state(self) -> State:
        """The registers at the exit; before the first entry, those of the entry itself."""
        return self.round.exit.values if self.round.exit is not None else self.round.entry.values


Rule = Callable[[Case, int, int, int], bool]
"""(case, index of the register, expected, observed) to whether the rule explains exactly this."""


def _host_wrote(case: Case, index: int, expected: int, observed: int) -> bool:
    wrote, entry = case.round.host_wrote, case.round.entry
    if not wrote:
        return False
    if entry.pending & PENDING["exception"] and index in (
        exceptions.PC,
        exceptions.PSTATE,
        exceptions.ELR,
        exceptions.SPSR,
    ):
        # Exception entry comes after the host's writes, and uses their values.
        wrote_source = not wrote.keys().isdisjoint(
            (exceptions.PC, exceptions.PSTATE, exceptions.VBAR, exceptions.SCTLR)
        )
        return wrote_source and pending.apply_pending(entry.values, entry.pending)[index] == observed
    lower = index in exceptions.AARCH32_STATE and observed == wrote.get(index, expected) & 0xFFFF_FFFF
    if lower and was_aarch32(case.round):
        return True
    value = wrote.get(index)
    if value is None:
        return False
    if index in (exceptions.PC, exceptions.PSTATE):
        finished = observed != value and any(host.op == OP_FINISH for host in case.round.host_actions)
        if finished or entry.pending & PENDING["increment_pc"]:
            # The completion of an MMIO exit runs after the host's write, and advances PC from there, in the execution
            # state of then: PSTATE may be written later.
            if index == exceptions.PC:
                narrow = case.pc_after(value & 0xFFFF_FFFF) if was_aarch32(case.round) else frozenset()
                return observed in case.pc_after(value) | narrow
            return observed == exceptions.state_after_instruction(value, value, case.round.wide)[1]
    if index == exceptions.MDSCR and (not (value ^ observed) & 0xFFFF_FFFF or exceptions.os_locked(value, observed)):
        return True  # RES0 above; while userspace debugs the guest 6.1 keeps 32 bits (guest_debug_preserved)
    return case.same(index, value, observed)


def _call_result(case: Case, index: int, expected: int, observed: int) -> bool:
    exit_ = case.round.exit
    if exit_ is None or index not in (1, 2, 3):
        return False
    required = contract.call_result(exit_, index)
    return required is None or required == observed


def _is_chosen(round_: Round, exit_: Switch) -> bool:
    """Whether userspace chose what the call does, so that its result is not determined."""
    return round_.world.chose_call(*exit_.values[:2])


def _call_status(case: Case, index: int, expected: int, observed: int) -> bool:
    exit_ = case.round.exit
    if exit_ is None or index != 0:
        return False
    if _is_chosen(case.round, exit_):
        return True
    owed = contract.call_status(exit_, case.round.world.vcpus)
    return owed is None or observed in owed


def _load_completed(case: Case, index: int, expected: int, observed: int) -> bool:
    exit_, entry = case.round.exit, case.round.entry
    if exit_ is None or exits.DABT["WNR"].get(exit_.esr) or index != exits.DABT["SRT"].get(exit_.esr):
        return False
    # In the byte order of the access, or in the one that userspace has set since: either is possible
    # (harness.relations.host).
    return observed in (mmio.mmio_data(exit_, entry.mmio_data, at) for at in (exit_.values, entry.values))


def _moved_on(case: Case, index: int, expected: int, observed: int) -> bool:
    return index == exceptions.PC and expected == case.exit_state[exceptions.PC] and observed in case.pc_after(expected)


def _moved_less(case: Case, index: int, expected: int, observed: int) -> bool:
    pc = case.exit_state[exceptions.PC]
    return index == exceptions.PC and expected == pc + 4 & MASK64 and observed in case.pc_after(pc)


def _step_ended(case: Case, index: int, expected: int, observed: int) -> bool:
    return index == exceptions.PSTATE and observed == exceptions.state_after_instruction(0, expected)[1]


def _abort_taken(case: Case, index: int, expected: int, observed: int) -> bool:
    exit_ = case.round.exit
    if exit_ is None or not case.round.action.inject:
        return False
    if index == exceptions.ESR:
        required = (
            contract.walk_abort_syndromes(exit_) if contract.is_walk(exit_) else {contract.abort_state(exit_)[index]}
        )
        return any(_same(exit_, index, sign_extended(each, case.errata), observed) for each in required)
    return _same(exit_, index, contract.abort_state(exit_)[index], observed)


def _asked_for(case: Case, index: int, expected: int, observed: int) -> bool:
    due = expected_entry_states(case.round, None, case.errata)
    if any(not state.undetermined and state.allows(index, observed) for state in due):
        return True
    if not all(state.undetermined for state in due):
        return False
    # Of a pending exception these two are set already.
    is_abort = index in (exceptions.ESR, exceptions.FAR) and _abort_taken(case, index, expected, observed)
    return is_abort or _taken_as_left(case, index, observed)


def _taken_as_left(case: Case, index: int, observed: int) -> bool:
    """Whether a register is as userspace's actions leave it if KVM itself did nothing for the exit."""
    exit_ = case.round.exit
    if exit_ is None or not case.round.action.inject:
        return False
    for order in orders_of(case.round):
        state = ExpectedState(list(exit_.values), None, case.errata, case.round.wide)
        apply_userspace(state, case.round, order)
        if state.allows(index, observed):
            return True
    return False


def _same(exit_: Switch, index: int, required: int, observed: int) -> bool:
    """Whether a register has the value required after an abort.

    Of a 16-bit instruction IL is 0; of an abort without a syndrome it is 1 (Arm ARM D17.2.37), but not up to 6.12.
    """
    free = exits.IL_BIT if index == exceptions.ESR and exit_.values[exceptions.PSTATE] & exceptions.AARCH32 else 0
    return not (required ^ observed) & ~free


def _reset_state(case: Case, index: int, expected: int, observed: int) -> bool:
    if _host_wrote(case, index, expected, observed):  # a pending exception uses the written values
        return True
    if index in case.round.host_wrote:
        return False
    if index in reset_values.HOST_RESET_INDEX:
        return True
    if index == _MPIDR:
        return observed == case.round.world.mpidr
    required = reset_values.RESET_BY_INDEX.get(index)
    return required is not None and case.same(index, required, observed)


def _moved_too_far(case: Case, index: int, expected: int, observed: int) -> bool:
    return index == exceptions.PC and expected == observed + 4 & MASK64 and case.ends_as_it_may


def _flag_set(case: Case, index: int, expected: int, observed: int) -> bool:
    return (expected, observed) == (0, 1) and moves_on(case.round) is not False and case.ends_as_it_may


def _all_visible(case: Case, index: int, expected: int, observed: int) -> bool:
    return observed == ALL_GPRS


def _os_lock(case: Case, index: int, expected: int, observed: int) -> bool:
    return index == exceptions.MDSCR and exceptions.os_locked(expected, observed)


def _flag_clear(case: Case, index: int, expected: int, observed: int) -> bool:
    return (expected, observed) == (1, 0) and moves_on(case.round) is not True and case.ends_as_it_may


def _system_register(case: Case, index: int, expected: int, observed: int) -> bool:
    exit_ = case.round.exit
    if exit_ is None:
        return False
    access = contract.system_access(exit_.esr)
    held = INDEX.get(access.row.name) if access.row is not None else None
    if access.is_read:
        if access.expected is ExpectedResult.ZERO:
            return index == access.rt and observed == 0
        return index == access.rt and (
            access.expected is not ExpectedResult.STATE or held is None or observed == exit_.values[held]
        )
    stored = exit_.values[access.rt] if access.rt != 31 else 0
    if index == exceptions.MDSCR and exceptions.os_locked(stored, observed):
        return index == held
    return index == held and case.same(index, stored, observed)


def _undefined_taken(case: Case, index: int, expected: int, observed: int) -> bool:
    exit_ = case.round.exit
    return exit_ is not None and case.round.action.inject and contract.undefined_state(exit_)[index] == observed


def _pstate_in_x8(case: Case, index: int, expected: int, observed: int) -> bool:
    before = case.exit_state
    return index == 8 and (expected, observed) == (before[exceptions.PSTATE], before[index])


def _secure_call(case: Case, index: int, expected: int, observed: int) -> bool:
    exit_ = case.round.exit
    if exit_ is None or not 0 <= index <= 3:
        return False
    if _is_chosen(case.round, exit_):
        return True
    owed = contract.secure_call_results(exit_, case.round.world.vcpus)[index]
    return owed is None or observed in owed


def _step_shows(case: Case, index: int, expected: int, observed: int) -> bool:
    exit_ = case.round.exit
    if exit_ is None or not exit_.stepped or not case.round.action.inject:
        return False
    return index == exceptions.SPSR and not (observed ^ exit_.values[exceptions.PSTATE]) & ~exceptions.SS


def _step_waits(case: Case, index: int, expected: int, observed: int) -> bool:
    exit_ = case.round.exit
    if index != exceptions.PSTATE or exit_ is None or not case.round.action.inject:
        return False
    waits = contract.step_waits(exit_.stepped, exit_.values[exceptions.PSTATE], observed)
    return waits and observed == contract.abort_state(exit_)[index] | exceptions.SS


def _named_by_conditions(case: Case, index: int, expected: int, observed: int) -> bool:
    return False  # a helper and an outcome are names; explain() does not come here with numbers


@dataclass(frozen=True, slots=True)
class RuleRow:
    """A rule that entries name."""

    name: str
    rule: Rule
    what: str


RULES: Final[Mapping[str, RuleRow]] = MappingProxyType(
    {
        row.name: row
        for row in (
            RuleRow("host_wrote", _host_wrote, "observed is what the host last wrote there (then KVM's SKIP, if any)"),
            RuleRow("call_result", _call_result, "observed is the result in x1, x2, x3 that SMCCC requires"),
            RuleRow("call_status", _call_status, "observed is the result in x0 that PSCI or SMCCC requires"),
            RuleRow("load_completed", _load_completed, "the register is the load's, observed is the data for it"),
            RuleRow("moved_on", _moved_on, "observed is PC after the instruction, expected is PC at it"),
            RuleRow("moved_less", _moved_less, "observed is PC after an instruction of 16 bits, expected is 4 more"),
            RuleRow("step_ended", _step_ended, "observed is PSTATE after an instruction: SS and BTYPE are clear"),
            RuleRow("abort_taken", _abort_taken, "observed is as entry to an external abort requires"),
            RuleRow("asked_for", _asked_for, "observed is required after the exceptions that userspace asked for"),
            RuleRow("reset_state", _reset_state, "observed is the reset value, or what the host wrote after the reset"),
            RuleRow("moved_too_far", _moved_too_far, "observed is PC, expected is 4 more"),
            RuleRow("flag_set", _flag_set, "KVM's flag is set, as the exit requires, the model's is not"),
            RuleRow("all_visible", _all_visible, "the host sees x0..x30, all of them"),
            RuleRow("os_lock", _os_lock, "MDSCR_EL1, except bits that KVM hides while the OS Lock is set"),
            RuleRow("flag_clear", _flag_clear, "the model's flag is set, KVM's is not, as the exit requires"),
            RuleRow("system_register", _system_register, "the register that the trapped access reads into or writes"),
            RuleRow(
                "undefined_taken", _undefined_taken, "observed is what entry to an undefined exception requires there"
            ),
            RuleRow("pstate_in_x8", _pstate_in_x8, "the register is x8 as it was, expected is PSTATE at the exit"),
            RuleRow("secure_call", _secure_call, "observed is what an SMC requires in x0..x3"),
            RuleRow("step_shows", _step_shows, "SPSR_EL1 of an exception, with the SS of userspace's step"),
            RuleRow("step_waits", _step_waits, "PSTATE of an exception, with the SS that the guest has of its own"),
            RuleRow(
                NAMED,
                _named_by_conditions,
                "helpers and outcomes of the entry are the two values; where the contract says how KVM may "
                "end the exit, the outcome is one of these",
            ),
        )
    }
)
