# SPDX-License-Identifier: Apache-2.0
"""Compare one round of the host with what a level of the model predicts; relations ``save.*`` and ``restore.*``.

Pure, and without any model or VM: the :class:`~harness.model.prediction.Prediction` is an argument.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Final

from harness.arch import exceptions, exits
from harness.arch.registers import NAMES
from harness.guest.predict_run import PredictedRun
from harness.model.prediction import Prediction
from harness.relations.divergence import Divergence, Unchecked, different
from harness.trace.environment import IPA_BITS
from harness.trace.rounds import IN_KERNEL, Round


def why_not_comparable(round_: Round) -> str:
    """Return why the result of a forged exit is not determined; an empty text if it is."""
    exit_ = round_.exit
    if exit_ is None or not exit_.forged or round_.exit_class not in ("IABT_LOW", "DABT_LOW"):
        return ""
    odd = exit_.esr & sum(exits.DABT[name].mask for name in ("LST", "EA", "CM", "S1PTW"))
    # A doubleword is transferred to or from a 64-bit register (Arm ARM D17.2.37, SF).
    odd = odd or (exits.DABT["SAS"].get(exit_.esr) == 3 and not exits.DABT["SF"].get(exit_.esr))
    if odd or exit_.esr & exits.FSC_TYPE != exits.FSC_TRANSLATION:
        return "a forged abort that is no plain translation fault"
    if exit_.page >> IPA_BITS:
        return "a forged abort beyond the guest's physical address space"
    if round_.world.protected and round_.world.slot(exit_.page) is not None:
        # For a page that the guest owns KVM asks EL2 whether it was taken away; EL2 reads the CPU's own syndrome
        # (pkvm_pgtable_stage2_map in arch/arm64/kvm/pkvm.c of 7.3).
        return "a forged abort on a protected VM's own memory"
    return ""


_GPRS: Final = range(31)
_DIRTY: Final = tuple(f"dirty.x{i}" for i in _GPRS)


ALLOWED: Final[Mapping[str, frozenset[str]]] = {
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

DIRTY_PC_FLAG: Final = 1 << 32
PENDING_EXCEPT_INJECT_FLAG: Final = 7 << 33
"""Flags of the layer's dirty word (docs/spec/model.md section 2.1)."""


def _donated_before(round_: Round) -> bool:
    """Whether KVM rejects a protected VM's access to a page that two slots map: it can be donated once.

    Source: Documentation/virt/kvm/arm/pkvm.rst, pages are "unmapped from the stage-2 identity map as part of the
    donation procedure"; __pkvm_host_donate_guest in arch/arm64/kvm/hyp/nvhe/mem_protect.c.
    """
    if round_.action.outcome != "fail:EPERM" or round_.exit is None or not round_.world.protected:
        return False
    return round_.world.is_aliased(round_.exit.page)


def compare_save(round_: Round, prediction: Prediction) -> Iterator[Divergence]:
    """Yield where KVM's action between an exit and the next entry differs from the prediction; relation ``save.*``."""
    if prediction.undefined:
        return
    entry, done, helper, dirty = round_.entry, round_.action, prediction.helper, prediction.dirty
    label, first, step = round_.label, round_.first, entry.step
    if done.outcome not in ALLOWED[helper] and not _donated_before(round_):
        yield Divergence("save", "class", helper, done.outcome, label, first, step, helper)
    if prediction.state is None:
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


def compare_restore(round_: Round, prediction: Prediction) -> Iterator[Divergence]:
    """Yield the registers of the guest after the entry that differ from the prediction; relation ``restore.*``."""
    state, seen = prediction.state, round_.guest_view
    if prediction.undefined or state is None:
        return
    where = round_.label, round_.first, round_.entry.step, prediction.helper
    for i in different(state, seen):
        yield Divergence("restore", NAMES[i], state[i], seen[i], *where)
    if prediction.spsr_0 != seen[exceptions.SPSR]:
        yield Divergence("restore", "spsr_0", prediction.spsr_0, seen[exceptions.SPSR], *where)


def compare_round(round_: Round, prediction: Prediction) -> Iterator[Divergence]:
    """Yield the divergences of relations ``save.*`` and ``restore.*`` in one round."""
    yield from compare_save(round_, prediction)
    yield from compare_restore(round_, prediction)


ALL_GPRS: Final = (1 << 31) - 1


def compare_reveal(
    round_: Round, run: PredictedRun, prediction: Prediction, held: int | None = None
) -> Iterator[Divergence | Unchecked]:
    """Yield the registers that the host sees at an exit and the layer does not reveal, or the reverse; ``save.reveal``.

    ``run`` ended with the round's exit: its path gives the guest's registers; those that the host's copy holds are
    visible.  ``held`` gives them directly if the hypervisor's own copy is known.  Except for a protected VM the host's
    copy is the only one: a wrong value there is wrong, not hidden.  Values have one bit for each of x0..x30.
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
