# SPDX-License-Identifier: Apache-2.0
"""Run both sides of a pair on a case, and list the fields in which their outcomes differ."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from harness.lemma.case import build
from harness.model import CODE, FUNCTION, FUNCTIONS, LEVEL_NAMES
from harness.model.constants import FP, GPRS, INFO_ID, KERNEL_ONLY, NPT_ID, STATES, SYSTEM, TRAP_REGS, ctxt_id
from harness.model.state import BLANK, BLANK_INFO, EXHAUSTED, Decision, RData, Undefined

Pair = tuple[str, str]
PAIRS: tuple[Pair, ...] = tuple((a, b) for a in LEVEL_NAMES for b in LEVEL_NAMES if a != b)
# The two admitted lemmas of VCPUOps and those of its helpers, the intended refinement, and what is deployed.
MAIN_PAIRS: tuple[Pair, ...] = (("low", "body"), ("spec", "low"), ("spec", "kernel"))

VACUOUS, EQUAL, INCONCLUSIVE = "vacuous", "equal", "inconclusive"

# The machine's own state that has no counterpart at level kernel: logs, locks and oracle positions belong to the
# proof, the host's copy to the kernel.
PROOF_ONLY: frozenset[str] = frozenset({"data_log", "core_data_log", "log", "lock", "tstate", "host_regs"})
_KERNEL_ONLY = frozenset(KERNEL_ONLY)
_ONE_BY_ONE = frozenset({*STATES, *TRAP_REGS, "elr_el1", "ec", "far_el2", "hpfar_el2", "esr_el2", "hcr_el2", "sp_el0"})
_CLASS = dict.fromkeys(GPRS, "ctxt.x") | dict.fromkeys(FP, "ctxt.fp")
_CLASS |= {name: f"ctxt.{name}" if name in _ONE_BY_ONE else "ctxt.el1" for name in (*SYSTEM, *STATES, *TRAP_REGS)}


# Branches whose other arm does something of its own; elsewhere the other arm does nothing, or is a branch itself.
TWO_ARMED: frozenset[str] = frozenset(
    {"prep_abort.read", "prep_abort.mmio", "prep_hvc.system_off", "set_int_gpr.sp"}
    | {"insert.room", "assign_pfn_to_vm.unshared", "assign_pfn_to_vm.vm_owns"}
)


def branch_of(path: Sequence[Decision]) -> tuple[str, ...]:
    """Return the branches that a path takes, each once, in order; ``not `` marks the other arm of a two-armed one."""
    taken = (label if outcome else f"not {label}" for label, outcome in path if outcome or label in TWO_ARMED)
    return tuple(dict.fromkeys(taken))


def right_branch_of(path: Sequence[Decision]) -> tuple[str, ...]:
    """Return the branches of the right side, without those that ask for room or a conflict in a table."""
    return tuple(label for label in branch_of(path) if not label.removeprefix("not ").startswith("insert."))


def branches_of(left: Sequence[Decision], right: Sequence[Decision]) -> frozenset[str]:
    """Return the branches of both sides as one set, those of the right side marked."""
    return frozenset((*branch_of(left), *(f"right {label}" for label in right_branch_of(right))))


@dataclass(frozen=True, slots=True)
class Difference:
    """A counterexample's shape: the fields that differ, or why the right side is undefined; and both paths."""

    fields: tuple[str, ...]
    undefined: str | None
    left: tuple[Decision, ...]
    right: tuple[Decision, ...]

    def branch(self) -> tuple[str, ...]:
        """Return the branches that the left side took, each once, in order."""
        return branch_of(self.left)

    def right_branch(self) -> tuple[str, ...]:
        """Return the branches that the right side took, each once, in order."""
        return right_branch_of(self.right)

    def branches(self) -> frozenset[str]:
        """Return the branches of both sides; see :func:`branches_of`."""
        return branches_of(self.left, self.right)

    def fork(self) -> str:
        """Return the first branch that both sides reach and decide differently; empty if there is none."""
        return fork(self.left, self.right)

    def goals(self) -> tuple[str, ...]:
        """Return the goals that a minimiser may keep: the fork, with why it is undefined or one class of fields."""
        at = self.fork()
        if self.undefined is not None:
            return (f"undefined {self.undefined} at {at}",)
        return tuple(f"{name} at {at}" for name in dict.fromkeys(field_class(f) for f in self.fields))


def fork(left: tuple[Decision, ...], right: tuple[Decision, ...]) -> str:
    """Return the first label that occurs on both paths with different outcomes."""
    outcomes: dict[str, list[bool]] = {}
    for label, taken in right:
        outcomes.setdefault(label, []).append(taken)
    seen: dict[str, int] = {}
    for label, taken in left:
        others, n = outcomes.get(label), seen.get(label, 0)
        seen[label] = n + 1
        if others is not None and n < len(others) and others[n] != taken:
            return label
    return ""


def field_class(field: str) -> str:
    """Return the class of a field: registers of one kind go together."""
    name = field.removeprefix("ctxt.")
    if name is not field:
        return _CLASS.get(name, "ctxt.kernel")
    return "other context" if field.startswith("ctxt[") else field


@dataclass(frozen=True, slots=True)
class Question:
    """Which two levels of which function are compared, and whether logs count."""

    pair: Pair
    function: str
    logs: bool = True

    @property
    def layer(self) -> str:
        """Return the function's layer."""
        return FUNCTION[self.function].layer

    def to_json(self) -> dict[str, object]:
        """Return its part of a JSON object."""
        return {"pair": ":".join(self.pair), "layer": self.layer, "function": self.function, "logs": self.logs}

    @property
    def coupled(self) -> bool:
        """Return whether level kernel takes part."""
        return "kernel" in self.pair


def questions(
    pairs: tuple[Pair, ...], layer: str | None = None, function: str | None = None, logs: bool = True
) -> tuple[Question, ...]:
    """Return every question about these pairs, of one ``layer`` or ``function`` if that is given."""
    chosen = [f for f in FUNCTIONS if layer in (None, f.layer) and function in (None, f.name)]
    return tuple(Question(pair, f.name, logs) for pair in pairs for f in chosen)


Code = Mapping[tuple[str, str], Callable[..., None]]
"""The functions of the levels, by level and name."""


def run_side(level: str, function: str, d: RData, args: tuple[int, ...], code: Code = CODE) -> str | None:
    """Run a function in place; return the reason if it is undefined."""
    try:
        code[level, function](d, *args)
    except Undefined as undefined:
        return undefined.reason
    return None


def compare_on_case(
    question: Question, case: Mapping[str, int], code: Code = CODE
) -> tuple[str | Difference, RData, RData]:
    """Run both sides on one case; return the verdict or the difference, and both states."""
    start, args = build(case, question.function, question.coupled)
    left = start.copy()
    reason = run_side(question.pair[0], question.function, left, args, code)
    if reason is not None:
        return (INCONCLUSIVE if reason == EXHAUSTED else VACUOUS), left, start
    right = start
    reason = run_side(question.pair[1], question.function, right, args, code)
    if reason is not None:
        if reason == EXHAUSTED:
            return INCONCLUSIVE, left, right
        return Difference((), reason, tuple(left.path), tuple(right.path)), left, right
    key = ctxt_id(*args[:2]) if args else ctxt_id(left.cur_vmid, left.cur_vcpuid)
    fields = differing(left, right, question.logs, question.coupled, key)
    if not fields:
        return EQUAL, left, right
    return Difference(fields, None, tuple(left.path), tuple(right.path)), left, right


def differing(a: RData, b: RData, logs: bool, coupled: bool, key: int) -> tuple[str, ...]:
    """Return the fields in which two states differ: every one that the layers can touch.

    ``coupled`` leaves out what only one of the proof and the kernel has; ``key`` is the context that is named plainly.
    """
    found: list[str] = []
    for name in ("halt", "curid", "cur_vmid", "cur_vcpuid", "tstate", "revealed"):
        if getattr(a, name) != getattr(b, name):
            found.append(name)
    if a.shadow_ctxts != b.shadow_ctxts:
        found += _contexts(a, b, key)
    for name in ("data_log", "core_data_log", "lock", "flatmem", "s2page", "npts", "host_regs", "regs"):
        left, right = getattr(a, name), getattr(b, name)
        if left != right and (name != "lock" or _held(left) != _held(right)):
            found.append(name)
    if a.vminfos != b.vminfos:
        for vmid in sorted({*a.vminfos, *b.vminfos}):
            left, right = a.vminfos.get(vmid, BLANK_INFO), b.vminfos.get(vmid, BLANK_INFO)
            names = ("vm_state", "vm_vcpu_state", "vm_next_load_info", "images", "vm_inc_exe", "powered_on")
            found += [f"vminfos.{n}" for n in names if getattr(left, n) != getattr(right, n)]
    if logs and a.log != b.log:
        found += [f"log.{_lock_name(i)}" for i in sorted({*a.log, *b.log}) if a.log.get(i) != b.log.get(i)]
    if coupled:
        found = [f for f in found if f.partition(".")[0] not in PROOF_ONLY and f.split(".")[-1] not in _KERNEL_ONLY]
    return tuple(found)


def _held(lock: Mapping[int, bool]) -> set[int]:
    return {i for i, held in lock.items() if held}


def _lock_name(lock: int) -> str:
    if lock >= INFO_ID:
        return "info"
    return {0: "flatmem", 2: "s2page", NPT_ID: "host_npt"}.get(lock, "npt")


def _contexts(a: RData, b: RData, current: int) -> list[str]:
    found: list[str] = []
    for key in sorted({*a.shadow_ctxts, *b.shadow_ctxts}):
        left, right = a.shadow_ctxts.get(key, BLANK), b.shadow_ctxts.get(key, BLANK)
        if left != right:
            prefix = "ctxt." if key == current else f"ctxt[{key}]."
            found += [prefix + name for name in BLANK if left[name] != right[name]]
    return found
