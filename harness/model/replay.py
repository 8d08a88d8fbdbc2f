# SPDX-License-Identifier: Apache-2.0
"""Replay a recorded round on a level of the model (docs/spec/differential.md section 2).

The record supplies the values that the proof's exit path does not copy (PC, PSTATE, ESR_EL1, SPSR_0); the host's values
become the data oracle.  The core oracle returns that KVM made no mapping: the record has no stage-2 tables, and a
mapping changes no register.
"""

from __future__ import annotations

from functools import lru_cache
from operator import itemgetter

from harness.arch import exceptions, exits, registers
from harness.arch.registers import MASK64, NAMES, STATE
from harness.arch.reset_values import RESET_BY_INDEX
from harness.model import CODE as LEVEL_CODE
from harness.model.constants import INVALID64, MAX_MMIO_ADDR, PENDING_FSC_FAULT, SHADOW_SYS_REGS_SIZE, VERIFIED, ctxt_id
from harness.model.prediction import Prediction
from harness.model.state import (
    BLANK_HOST,
    Context,
    ExceptionVector,
    Image,
    RData,
    RegDesc,
    Undefined,
    VmInfo,
    blank_context,
)
from harness.trace.environment import SCENARIO_VM, VmEnvironment
from harness.trace.events import Switch
from harness.trace.rounds import Round

VMID, VCPUID = 1, 0
_ID = ctxt_id(VMID, VCPUID)
_PICK = itemgetter(*NAMES)
_X = range(31)
_ACTLR, _PC, _PSTATE = registers.INDEX["actlr_el1"], exceptions.PC, exceptions.PSTATE


@lru_cache(maxsize=64)
def _info(world: VmEnvironment) -> VmInfo:
    """Return VM info in which all RAM is one verified boot image, so that the host may start a vCPU anywhere in it."""
    slots = [region for region in world.regions if region.slot]
    base = min((slot.base for slot in slots), default=0)
    size = max((slot.end for slot in slots), default=0) - base
    return VmInfo(vm_state=VERIFIED, vm_next_load_info=1, images=(Image(base, size, base), *(Image(),) * 4))


_INFO = _info(SCENARIO_VM)

# The bit of PENDING_EXCEPT_INJECT_FLAG for the kind of exception that KVM injects (docs/spec/model.md section 2.1).
_DATA_ABORT, _INSTRUCTION_ABORT, _UNDEFINED = 1 << 33, 1 << 34, 1 << 35
_CLASS_BIT = {
    exits.EC_BY_NAME["DABT_LOW"]: _DATA_ABORT,
    exits.EC_BY_NAME["DABT_LOW"] + 1: _DATA_ABORT,
    exits.EC_BY_NAME["IABT_LOW"]: _INSTRUCTION_ABORT,
    exits.EC_BY_NAME["IABT_LOW"] + 1: _INSTRUCTION_ABORT,
}

# The helper that save called, by the decisions that it took.
_HELPERS = (
    ("save_shadow_kvm_regs.wfx", "prep_wfx"),
    ("save_shadow_kvm_regs.brk", "prep_wfx"),
    *((f"save_shadow_kvm_regs.{label}", "prep_hvc") for label in ("hvc", "hvc32", "hvc64")),
)


def reset_values(round_: Round) -> RegDesc:
    """Return ``reg_desc``: the reset value of the register at shadow index ``46 + i``.

    Values that a reset reads from the host CPU are those of the record.
    """
    entry = round_.entry.values
    return RegDesc(
        tuple(
            (r.shadow - 46, RESET_BY_INDEX.get(i, entry[i]))
            for i, r in enumerate(STATE)
            if r.shadow is not None and 46 < r.shadow <= 46 + SHADOW_SYS_REGS_SIZE
        )
    )


def _state(round_: Round, exit_: Switch | None, level: str, kind: type[RData]) -> RData:
    ctxt = blank_context()
    if exit_ is not None:
        ctxt.update(zip(NAMES, exit_.values, strict=True))
        ctxt["spsr_0"] = ctxt["spsr_el1"]
        ctxt["ec"] = exit_.code
        ctxt["esr_el2"], ctxt["far_el2"], ctxt["hpfar_el2"] = exit_.esr, exit_.far, exit_.hpfar
    host_esr = exit_.esr if exit_ is not None else 0
    host: Context = {}
    if level == "kernel":  # the only level that reads the host's copy; the others use the oracle
        host = dict(BLANK_HOST) | dict(zip(NAMES, round_.entry.values, strict=True)) | {"esr_el2": host_esr}
    return kind(
        cur_vmid=VMID,
        cur_vcpuid=VCPUID,
        shadow_ctxts={_ID: ctxt},
        host_regs={_ID: host},
        regs={"actlr_el1": round_.entry.values[_ACTLR]},
        doracle={VMID: (host_esr,)},
        core_doracle={VMID: (0, 0, 0)},
        vminfos={VMID: _INFO if round_.world.regions is SCENARIO_VM.regions else _info(round_.world)},
        exception_vector=ExceptionVector(ctxt["vbar_el1"]),
    )


def _helper(d: RData) -> str:
    """Return the name of the helper that save called."""
    if d.halt:
        return "panic"
    taken = dict(d.path)
    for label, helper in _HELPERS:
        if taken.get(label):
            return helper
    if "prep_abort.mmio" in taken:
        return "prep_abort.mmio" if taken["prep_abort.mmio"] else "prep_abort"
    return "none"


def predict(round_: Round, level: str, kind: type[RData] = RData) -> Prediction:
    """Return the prediction of ``level`` for a round: save, then restore with the host's values.

    ``kind`` is the class of the level's state (:mod:`harness.model.memoised_replay` traces it).
    """
    exit_ = round_.exit
    d = _state(round_, exit_, level, kind)
    helper = "first"
    try:
        if exit_ is not None:
            helper = _save(d, exit_, level)
            if d.halt:
                return Prediction(helper, revealed=_revealed(d), path=tuple(d.path))
        dirty, revealed = d.shadow_ctxts[_ID]["dirty"], _revealed(d)
        _hand_over(d, round_)
        LEVEL_CODE[level, "restore_shadow_kvm_regs"](d)
    except Undefined as undefined:
        return Prediction(helper, undefined=undefined.reason, path=tuple(d.path))
    ctxt = d.shadow_ctxts[_ID]
    if d.halt:
        return Prediction("panic.restore", dirty, revealed=revealed, path=tuple(d.path))
    return Prediction(helper, dirty, _PICK(ctxt), ctxt["spsr_0"], revealed=revealed, path=tuple(d.path))


def _revealed(d: RData) -> int:
    """Return the general-purpose registers that were revealed to the host, one bit for each."""
    return sum({1 << index for _, _, index, _ in d.revealed if index < 31})


def _save(d: RData, exit_: Switch, level: str) -> str:
    """Run save, at level ``kernel`` with the code around it (docs/spec/model.md section 6); return the helper's
    name."""
    if level == "kernel":
        ctxt = d.shadow_ctxts[_ID]
        exit_class = exits.exit_class(exit_.code, exit_.esr)
        if exit_class == "SYS64":
            ctxt["pc"] = ctxt["pc"] + 4 & MASK64
            return "sysreg"
        if exit_class in ("IABT_LOW", "DABT_LOW") and exit_.esr & exits.FSC_TYPE == exits.FSC_TRANSLATION:
            ipa = (exit_.hpfar & ~0xF) << 8
            if ipa >= MAX_MMIO_ADDR or 0x0801_0000 <= ipa <= 0x0801_FFFF:
                ctxt["flags"] |= PENDING_FSC_FAULT
    LEVEL_CODE[level, "save_shadow_kvm_regs"](d)
    return _helper(d)


def _hand_over(d: RData, round_: Round) -> None:
    """Fill the oracle with the host's values, from the position after this level's save; OR KVM's exception into
    dirty."""
    ctxt, entry = d.shadow_ctxts[_ID], round_.entry.values
    given: tuple[int, ...]
    if round_.reset:
        ctxt["dirty"] = INVALID64
        d.reg_desc = reset_values(round_)
        given = entry[_PC], entry[_PSTATE], entry[_ACTLR]
    else:
        dirty = ctxt["dirty"]
        if round_.action.inject:
            # Not exits.ec_of(): while a way is learnt this is a number that is no int, which compiled code demands.
            ec = (entry[exceptions.ESR] & exits.EC_MASK) >> exits.EC_SHIFT
            ctxt["dirty"] = dirty | _CLASS_BIT.get(ec, _UNDEFINED)
        given = tuple(entry[i] for i in _X if dirty >> i & 1)
    position = d.data_log.get(VMID, 0)
    d.doracle = {VMID: (*d.doracle[VMID][:position], *given)}
