# SPDX-License-Identifier: Apache-2.0
"""Apply the proposed changes to the model's text, and prove the claims without a hypothesis.

A change is an edit inside one function of one level.  The model itself stays as the sources are.
"""

from __future__ import annotations

import ast
import importlib.util
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType, ModuleType
from typing import Any

from harness.jsonfile import reading
from harness.lemma.case import STORED
from harness.lemma.causes_kernel import causes_of
from harness.lemma.compare_levels import Code, Pair, Question
from harness.lemma.repair import Repair, Scope, repair
from harness.model import CODE, FUNCTIONS, LEVEL_NAMES

CHANGED_PAIRS: tuple[Pair, ...] = (("low", "body"), ("spec", "low"))


@dataclass(frozen=True, slots=True)
class Edit:
    """One edit: in ``function`` of a level's module, ``old`` becomes ``new``; ``text`` says it in words."""

    level: str
    function: str
    old: str
    new: str
    text: str


_VM = ('d.rely("is_vmid vmid", is_vmid(vmid))', 'd.rely("is_vm vmid", is_vm(vmid))', "rely is_vm, not is_vmid")
_ADDR = ("_rely_vm(d, vmid, vcpuid)\n", '_rely_vm(d, vmid, vcpuid)\n    d.rely("is_addr addr", is_addr(addr))\n')
_VECTOR = ("return d.exception", "return 0 if d.halt else d.exception")
_RESETS = """\
        spec.reset_gp_regs(d, vmid, vcpuid)
        spec.reset_sys_regs(d, vmid, vcpuid)
"""
_UNLESS_RESUMED = """\
        inc_exe = machine.is_inc_exe(d, vmid)
        if d.decide("restore_shadow_kvm_regs.not_inc_exe", inc_exe == 0):
            spec.reset_gp_regs(d, vmid, vcpuid)
            spec.reset_sys_regs(d, vmid, vcpuid)
"""
_SPEC_RESETS = """\
        _reset_gp_regs(d, vmid, vcpuid)
        if d.halt:
            return
        reset_sys_regs_loop(d, vmid, vcpuid)
        ctxt["dirty"] = 0
"""
_SPEC_UNLESS_RESUMED = """\
        inc_exe = machine.is_inc_exe(d, vmid)
        if d.decide("restore_shadow_kvm_regs.not_inc_exe", inc_exe == 0):
            _reset_gp_regs(d, vmid, vcpuid)
            if d.halt:
                return
            reset_sys_regs_loop(d, vmid, vcpuid)
        ctxt["dirty"] = 0
"""
_ESR = '    if d.decide("prep_abort.mmio", fault_ipa < MAX_MMIO_ADDR):\n'
_LOOP, _RESTORE = "sync_dirty_to_shadow_loop", "restore_shadow_kvm_regs"
_SYNC, _SYS = "sync_dirty_to_shadow", "reset_sys_regs"
EDITS: tuple[Edit, ...] = (
    Edit("spec", "reset_gp_regs", *_VM),
    Edit("spec", "save_shadow_kvm_regs", *_VM),
    Edit("spec", _RESTORE, *_VM),
    Edit("machine", "get_exception_vector", *_VECTOR, "0 if the core has panicked, as every other getter"),
    Edit("spec", "post_handle_shadow_s2pt_fault", *_ADDR, "rely is_addr addr before halt"),
    Edit("spec", "_prep_abort", _ESR, f"    d.take_data(vmid)\n{_ESR}", "the host's ESR counts as read on every abort"),
    Edit("low", "prep_abort", "d.data_log[vmid] = logn", "pass", "the host's ESR counts as read on every abort"),
    Edit("body", "prep_abort", "signed_bit(rd)", "1 << rd", "1UL << Rd"),
    Edit("spec", _LOOP, "d.data(vmid, 0)", "d.take_data(vmid)", "the k-th marked register takes the k-th value"),
    Edit("spec", _LOOP, "taken += 1", "pass", "the position advances in each round"),
    Edit(
        "low",
        _SYNC,
        "            d.shadow_ctxts[key], d.data_log[vmid] = start.copy(), logn\n",
        "",
        "each round continues with the state of the round before",
    ),
    Edit(
        "low",
        _SYNC,
        "    key, logn =",
        '    d.rely("is_int64 dirty", is_int64(dirty))\n    key, logn =',
        "rely is_int64 dirty",
    ),
    Edit("low", _SYS, "vcpuid, i, value)", "vcpuid, i + 47, value)", "the index with SYSREGS_START"),
    Edit("low", _SYS, "i == MPIDR_EL1", "i == 1", "the MPIDR value at 1"),
    Edit("low", _SYS, "i == ACTLR_EL1", "i == 4", "ACTLR_EL1 at 4"),
    Edit("spec", "reset_sys_regs_loop", "ctxt, i, value)", "ctxt, i + 47, value)", "the index with SYSREGS_START"),
    Edit("spec", "reset_sys_regs_loop", "i == MPIDR_EL1", "i == 1", "the MPIDR value at 1"),
    Edit("spec", "reset_sys_regs_loop", "i == ACTLR_EL1", "i == 4", "ACTLR_EL1 at 4"),
    Edit("spec", "reset_sys_regs_loop", "d.take_data(vmid)", "d.take_data(d.cur_vmid)", "ACTLR_EL1 of the current VM"),
    Edit("low", _RESTORE, _RESETS, _UNLESS_RESUMED, "ask is_inc_exe, and reset only where it is 0"),
    Edit("spec", _RESTORE, _SPEC_RESETS, _SPEC_UNLESS_RESUMED, "ask is_inc_exe, and reset only where it is 0"),
    Edit("low", _RESTORE, "(addr > 0)", "(addr >= 4096)", "test 4096 <= addr"),
    Edit("spec", _RESTORE, "(addr > 0)", "(addr >= 4096)", "test 4096 <= addr"),
    Edit("low", _RESTORE, "is_addr(pc)", "is_int64(pc)", "rely is_int64 pc, not is_addr pc"),
    Edit("low", _RESTORE, "PC, pc + 4", "PC, (pc + 4) & INVALID64", "PC plus 4 modulo 2^64"),
    Edit("spec", _RESTORE, "after_pc + 4", "(after_pc + 4) & INVALID64", "PC plus 4 modulo 2^64"),
    Edit("spec", _RESTORE, "ctxt.update(before)", "pass", "the skip keeps the states of the injection"),
)


def changed_code(edits: Sequence[Edit] = EDITS) -> Code:
    """Return the functions of the levels with these edits made.

    Raises ``ValueError`` if an edit's text does not occur exactly once in its function.
    """
    modules: dict[str, ModuleType] = {}
    for level in ("machine", "spec", "low", "body"):
        spec = importlib.util.find_spec(f"harness.model.{level}")
        assert spec is not None
        assert spec.origin is not None
        source = Path(spec.origin).read_text(encoding="utf-8")
        for edit in edits:
            if edit.level == level:
                source = _edited(source, edit)
        module = ModuleType(f"harness.model.{level}")  # the name: black boxes go by it
        exec(compile(source, spec.origin, "exec", dont_inherit=True), module.__dict__)
        vars(module).update({name: made for name, made in modules.items() if name in vars(module)})
        modules[level] = module
    found = {
        (level, f.name): getattr(modules[level], f.name) for level in LEVEL_NAMES if level in modules for f in FUNCTIONS
    }
    return MappingProxyType({**CODE, **found})


def _edited(source: str, edit: Edit) -> str:
    node = next(n for n in ast.parse(source).body if isinstance(n, ast.FunctionDef) and n.name == edit.function)
    lines = source.splitlines(keepends=True)
    assert node.end_lineno is not None
    text = "".join(lines[node.lineno - 1 : node.end_lineno])
    if text.count(edit.old) != 1:
        raise ValueError(f"{edit.level}.{edit.function}: {edit.old!r} occurs {text.count(edit.old)} times")
    return "".join([*lines[: node.lineno - 1], text.replace(edit.old, edit.new), *lines[node.end_lineno :]])


def prove_changed(question: Question, scope: Scope | None = None) -> Repair:
    """Prove a claim with every change made and no hypothesis; reveals, which RData does not have, are left out."""
    reveals = [c for c in causes_of(question) if c.part == "revealed"]
    return repair(question, reveals, scope or Scope(code=changed_code()), measure=False)


# ---- stored, data under corpus/lemmas


def store_changed(directory: Path, results: Sequence[Repair]) -> None:
    """Write what was proved with the changes made, one claim a line."""
    rows = [
        {
            "pair": ":".join(r.question.pair),
            "function": r.question.function,
            "starts": len(Scope().starts_of(r.question)),
            "proved": r.proved,
            "open": r.open,
            "outside": [dict(case) for case in r.outside.values()],
            "paths": r.paths,
        }
        for r in results
    ]
    (directory / "changed.json").write_text("[\n" + ",\n".join(json.dumps(row) for row in rows) + "\n]\n")


def load_changed(directory: Path) -> tuple[Mapping[str, Any], ...]:
    """Read what was proved with the changes, none if nothing is stored.  InputError: the file is something else."""
    path = directory / "changed.json"
    if not path.exists():
        return ()
    with reading(path, STORED) as rows:
        return tuple(rows)
