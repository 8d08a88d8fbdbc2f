# SPDX-License-Identifier: Apache-2.0
"""Compare what was predicted with what was observed: pure, and without any model or VM.

The trace is cut into rounds and runs (:mod:`harness.turns`).  Each round is compared with a :class:`Prediction`
(relations ``save.*``, ``restore.*``); each run of the guest, ``N .. E``, with the architecture alone (``switch.*``).
Every difference is a :class:`Divergence`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import compress
from operator import ne
from typing import NamedTuple

from harness import a64, arch, exits, faults, pkvm, stops, syndrome
from harness.arch import State
from harness.execute import Raise, Uncertain, sources
from harness.fetch import as_code, fetched
from harness.follow import Followed, free_bits
from harness.guest import FROM_UNKNOWN
from harness.masks import Cpu
from harness.memory import Memory, Run
from harness.registers import NAMES
from harness.stage1 import is_on
from harness.trace import Switch
from harness.turns import EXCEPTION, EXIT_MMIO, IN_KERNEL, OP_ABORT, OP_FINISH, OP_SERROR, Round, was_aarch32
from harness.world import IPA_BITS

_POSITIONS = range(len(NAMES))


class Prediction(NamedTuple):
    """What a level of the model says about a round.

    ``helper`` names what save chose (``none``: it had nothing to do; ``first``: there was no exit;
    ``sysreg``: the deployed code handles it without save; ``panic.restore``:
    it was restore that panicked); ``dirty`` is the flag word that save
    left, without the exceptions that KVM itself chose; ``state`` holds the restored registers, None after a panic;
    ``spsr_0`` the layer's second copy of SPSR_EL1.  ``undefined`` names the precondition that failed: then nothing
    else is said.  ``revealed``: the general-purpose registers that the layer lets the host see, a bit each.
    """

    helper: str
    dirty: int = 0
    state: State | None = None
    spsr_0: int = 0
    undefined: str = ""
    revealed: int = 0
    path: tuple[tuple[str, bool], ...] = ()


class Divergence(NamedTuple):
    """One difference: relation with register (``restore.x3``), values, and where in the trace it was seen."""

    relation: str
    register: str
    expected: int | str
    observed: int | str
    exit_class: str
    event: int
    step: int
    helper: str = ""

    @property
    def name(self) -> str:
        """The relation as reports write it."""
        return f"{self.relation}.{self.register}" if self.register else self.relation


def beyond_judgement(round_: Round) -> str:
    """Say why nobody can tell what a forged exit owes; nothing where somebody can."""
    exit_ = round_.exit
    if exit_ is None or not exit_.forged or round_.exit_class not in ("IABT_LOW", "DABT_LOW"):
        return ""
    odd = exit_.esr & sum(exits.DABT[name].mask for name in ("EA", "CM", "S1PTW"))
    if odd or exit_.esr & exits.FSC_TYPE != exits.FSC_TRANSLATION:
        return "a forged abort that is no plain translation fault"
    if exit_.page >> IPA_BITS:
        return "a forged abort beyond the guest's physical address space"
    if round_.world.protected and round_.world.slot(exit_.page) is not None:
        # For a page that the guest has KVM asks EL2 whether it was taken away; EL2 looks at the CPU's own syndrome
        # (pkvm_pgtable_stage2_map in arch/arm64/kvm/pkvm.c of 7.3).
        return "a forged abort on a protected VM's own memory"
    return ""


_GPRS = range(31)
_DIRTY = tuple(f"dirty.x{i}" for i in _GPRS)


def compare_others(round_: Round) -> Iterator[Divergence]:
    """Yield what changed in a vCPU while others ran; relation ``isolate.*``.

    Between its return to userspace and its next entry, nothing but its own userspace may touch it: register writes,
    an MMIO access to be completed, an exception that it asks for, a reset (which ``host.*`` judges).
    """
    if not round_.others or not round_.users or round_.reset:
        return
    last, entry = round_.users[-1], round_.entry
    finished = any(host.op in (OP_FINISH, OP_ABORT) for host in round_.hosts)
    excepted = round_.action.inject and any(host.op == OP_SERROR for host in round_.hosts)
    load = last.code == EXIT_MMIO and not exits.DABT["WNR"].get(last.esr)
    loaded = exits.DABT["SRT"].get(last.esr) if load else -1
    narrowed = arch.AARCH32_STATE if was_aarch32(round_) else ()
    for i in different(last.values, entry.values):
        if i in round_.host_wrote or i == loaded or (finished and i not in _GPRS):
            continue
        if entry.pending & EXCEPTION and i in (arch.ESR, arch.FAR):
            continue
        if excepted and i in arch.EXCEPTION:
            continue
        if i == arch.MDSCR and arch.os_locked(last.values[i], entry.values[i]):
            continue
        if i in narrowed and entry.values[i] == last.values[i] & 0xFFFF_FFFF:
            continue
        yield Divergence("isolate", NAMES[i], last.values[i], entry.values[i], round_.label, round_.first, entry.step)


ALLOWED: Mapping[str, frozenset[str]] = {
    # What KVM may do where the verified layer chose that helper (docs/spec/kvm.md section 2).
    "none": frozenset({"resume"}),
    "prep_wfx": frozenset({"resume"}),
    "prep_hvc": frozenset({"resume", "user:SYSTEM_EVENT", "user:HYPERCALL"}),
    "prep_abort": frozenset({"resume"}),
    "prep_abort.mmio": frozenset({"user:MMIO", IN_KERNEL}),
    "first": frozenset({"resume"}),
    "sysreg": frozenset({"resume"}),
    "panic": frozenset({"kill"}),
    "panic.restore": frozenset({"kill"}),
}

DIRTY_PC_FLAG, PENDING_EXCEPT_INJECT_FLAG = 1 << 32, 7 << 33
"""Flags of the layer's dirty word (docs/spec/model.md section 2.1)."""


def different(a: State, b: State) -> list[int]:
    """Return where two tuples of one length differ."""
    return [] if a == b else list(compress(_POSITIONS, map(ne, a, b)))


def _donated_before(round_: Round) -> bool:
    """Whether KVM refuses a protected VM a page that it shows twice: it can be donated once.

    Source: Documentation/virt/kvm/arm/pkvm.rst, pages are "unmapped from the stage-2 identity map as part of the
    donation procedure"; __pkvm_host_donate_guest in arch/arm64/kvm/hyp/nvhe/mem_protect.c.
    """
    if round_.action.outcome != "fail:EPERM" or round_.exit is None or not round_.world.protected:
        return False
    return round_.world.shown_twice(round_.exit.page)


def compare_round(round_: Round, prediction: Prediction) -> Iterator[Divergence]:
    """Yield the divergences of one turn of the host; relations ``save.*`` and ``restore.*``."""
    if prediction.undefined:
        return
    entry, done, seen = round_.entry, round_.action, round_.seen
    helper, state, dirty = prediction.helper, prediction.state, prediction.dirty
    label, first, step = round_.label, round_.first, entry.step
    if done.outcome not in ALLOWED[helper] and not _donated_before(round_):
        yield Divergence("save", "class", helper, done.outcome, label, first, step, helper)
    if state is None:
        return
    if round_.exit is not None and not round_.reset:
        before = round_.exit.values
        for i in different(before[:31], entry.values[:31]):
            if not dirty >> i & 1:
                yield Divergence("save", _DIRTY[i], 0, 1, label, first, step, helper)
        # An exception of KVM's own is no divergence: these layers never ask for one.
        # Source: docs/spec/differential.md section 2, step 4.
        if dirty & PENDING_EXCEPT_INJECT_FLAG and not done.inject:
            yield Divergence("save", "inject", 1, 0, label, first, step, helper)
        skip = bool(dirty & DIRTY_PC_FLAG) or helper == "sysreg"
        if skip != done.skip and not done.inject:
            yield Divergence("save", "pc", int(skip), int(done.skip), label, first, step, helper)
    for i in different(state, seen):
        yield Divergence("restore", NAMES[i], state[i], seen[i], label, first, step, helper)
    if prediction.spsr_0 != seen[arch.SPSR]:
        yield Divergence("restore", "spsr_0", prediction.spsr_0, seen[arch.SPSR], label, first, step, helper)


class Unchecked(NamedTuple):
    """Something that could not be compared, and why; counted and shown."""

    what: str
    why: str


def compare_run(run: Followed, code: Mapping[int, int], cpu: Cpu, memory: Memory) -> Iterator[Divergence | Unchecked]:
    """Yield the divergences of one run of the guest; relation ``switch.*``.

    ``memory`` is what its RAM holds at the exit.
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
    pending = exit_.hcr & arch.HCR_VIRTUAL
    if pending != path.hcr:
        # A virtual SError that was taken is no longer pending, any other interrupt still is (Arm ARM D17.2.48).
        yield Divergence("switch", "hcr_el2", path.hcr, pending, *where)
    if exit_.forged:
        yield Unchecked("switch", "fault registers of a forged exit")
    elif exit_.trapped:
        word = fetched(expected, code, run.target, memory, cpu)
        if path.unknown and any(register in path.unknown for register in _deciding(word or 0)):
            yield Unchecked("switch", FROM_UNKNOWN)
        elif exit_.exit_class == "DABT_LOW" and as_code(code).protected and pkvm.asks_for_page(expected, word):
            yield Unchecked("switch", pkvm.PAGE_FIRST)
        else:
            found = tuple(_compare_fault(_owed(run, expected, word, code, memory, cpu), exit_, where))
            if expected[:31] != observed[:31] and _any_divergence(found):
                # What the guest does with a register that is wrong follows from that, and is no divergence of its own.
                had = (*observed[:31], *expected[31:])
                follows = tuple(_compare_fault(_owed(run, had, word, code, memory, cpu), exit_, where))
                found = found if _any_divergence(follows) else follows
            yield from found
    if run.call:
        expected = (*expected[: arch.PC], observed[arch.PC], *expected[arch.PC + 1 :])
    for i in different(expected, observed):
        want, got = expected[i], observed[i]
        bits, why = free_bits(i, path, run.entry.stepped, cpu)
        if (want ^ got) & ~bits:
            yield Divergence("switch", NAMES[i], want, got, *where)
        else:
            yield Unchecked("switch", why)


def _any_divergence(found: Sequence[Divergence | Unchecked]) -> bool:
    return any(isinstance(one, Divergence) for one in found)


ALL_GPRS = (1 << 31) - 1


def compare_reveal(
    round_: Round, run: Followed, prediction: Prediction, held: int | None = None
) -> Iterator[Divergence | Unchecked]:
    """Yield what the host sees at an exit beyond, or short of, what the layer reveals; relation ``save.reveal``.

    ``run`` ended with the round's exit: what the guest did since its entry tells its registers, and those of them that
    the host's copy holds are visible.  ``held`` says so itself, where the hypervisor's own copy is known.  But for
    a protected VM the host's copy is the only one: what is wrong there is wrong, not hidden.  Values are a bit for each
    of x0..x30.
    """
    exit_, path = run.exit, run.path
    visible, unknown = ALL_GPRS if held is None else held, 0
    if held is None and exit_.values[:31] != run.entry.values[:31]:
        if path.state is None:
            yield Unchecked("save.reveal", path.why)
            return
        unknown = sum(1 << i for i in path.unknown if i < 31)
        wrong = sum(1 << i for i in different(path.state[:31], exit_.values[:31]))
        if round_.world.protected:
            visible &= ~wrong
        elif wrong & ~unknown:
            yield Unchecked("save.reveal", "a register that is not what the guest must have: relation switch")
    if (visible ^ prediction.revealed) & ~unknown:
        where = (round_.label, round_.first, exit_.step, prediction.helper)
        yield Divergence("save", "reveal", prediction.revealed, visible | unknown, *where)


def _deciding(word: int) -> frozenset[int]:
    """Return the registers that decide what an instruction traps with."""
    access = a64.decode_access(word)
    return sources(word) if access is None else frozenset({access.rn})


def _owed(
    run: Followed, state: State, word: int | None, code: Mapping[int, int], memory: Memory, cpu: Cpu
) -> syndrome.Fault | Raise | Uncertain | None:
    """Return what the instruction ``word`` that trapped in ``state`` owes the fault registers."""
    seen, exit_ = run.seen, run.exit
    if run.debugger is not None:
        first = fetched(seen, code, seen[arch.PC], memory, cpu)
        if (stop := stops.owed(run.debugger, run.entry, first, state, word, exit_)) is not None:
            return stop
    if is_on(state) or is_on(seen):
        return faults.owed(seen, state, word, exit_, Run.behind(memory, run.path.stored), cpu)
    is_fetch = exits.ec_of(exit_.esr) == exits.EC_BY_NAME["IABT_LOW"]
    return syndrome.owed(state, word, memory, is_fetch=is_fetch)


def _compare_fault(
    fault: syndrome.Fault | Raise | Uncertain | None, exit_: Switch, where: tuple[str, int, int]
) -> Iterator[Divergence | Unchecked]:
    """Compare the fault registers of a trap with what is owed."""
    if fault is None:
        return
    if isinstance(fault, Uncertain):
        yield Unchecked("switch", fault.why)
        return
    if isinstance(fault, Raise):
        what = f"a stage-1 fault (status {fault.iss:#04x}), which the guest takes itself"
        yield Divergence("switch", "pc", what, exit_.values[arch.PC], *where)
        return
    if (fault.esr ^ exit_.esr) & ~fault.esr_free:
        yield Divergence("switch", "esr_el2", fault.esr, exit_.esr, *where)
    if fault.far is not None and fault.far != exit_.far:
        yield Divergence("switch", "far_el2", fault.far, exit_.far, *where)
    if fault.hpfar is not None and fault.hpfar != exit_.hpfar:
        yield Divergence("switch", "hpfar_el2", fault.hpfar, exit_.hpfar, *where)
