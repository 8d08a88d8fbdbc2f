# SPDX-License-Identifier: Apache-2.0
"""Counterexamples as Coq text: the state as a term with the field names of the Coq sources, and the statement refuted.

The text builds on an arbitrary state ``d0`` and overrides what the counterexample needs; everything else of the state
is at the value of the plain start state, which the text also spells out for the fields that the functions read.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from harness.lemma.case import build
from harness.lemma.clusters import Cluster
from harness.model import FUNCTION
from harness.model.constants import HOSTVISOR, INFO_ID, KERNEL_ONLY, NPT_ID, RECORD_OF, S2PAGE_ID
from harness.model.state import RData

SUFFIX = {"spec": "_spec", "low": "_spec0"}
RECORDS = {"regs": "ctxt_regs", "states": "ctxt_states", "trap_regs": "trap_regs"}
RESTORE = "restore_shadow_kvm_regs"
READS_RESET_VALUES = ("reset_sys_regs", RESTORE)
READS_VECTOR = ("update_exception_gp_regs", RESTORE)
MAPS = ("post_handle_shadow_s2pt_fault", RESTORE)
HEADER = """\
(* Counterexamples found by shadowfuzz, level against level of its model.
   Paste next to the lemmas (the file's own imports and notations are assumed; the pairs with body belong into its
   Section BodyProof, for ge and m).  Each section gives a state and
   states that the two sides differ there; [vm_compute] after unfolding, or the steps in the comment, decide it.
   Numbers are Z. *)
Local Open Scope Z_scope.
"""


def export(clusters: Iterable[Cluster]) -> str:
    """The text for these clusters, in the given order; clusters of level kernel have no Coq side and are comments."""
    parts = [HEADER]
    for number, cluster in enumerate(clusters, 1):
        parts.append(_section(number, cluster))
    return "\n".join(parts)


def _section(number: int, cluster: Cluster) -> str:
    question = cluster.question
    title = f"{question.layer}.{question.function}, {question.pair[0]} against {question.pair[1]}"
    what = f"undefined on the right: {cluster.undefined}" if cluster.undefined else ", ".join(cluster.fields)
    lines = [f"(* {number}. {title}: {what} *)"]
    if "kernel" in question.pair:
        start = ", ".join(f"{name} = {value}" for name, value in cluster.case) or "the plain state"
        return "\n".join([*lines, f"(* level kernel is not part of the proof; the state is: {start} *)", ""])
    name = f"shadowfuzz_{question.pair[0]}_{question.pair[1]}_{question.function}_{number}"
    state, args = build(dict(cluster.case), question.function, False)
    lines += [f"Section {name}.", "  Context `{real_params: RealParams}.", "  Variable d0: RData."]
    lines += _state(state, question.function)
    lines += _statement(cluster, args)
    return "\n".join([*lines, f"End {name}.", ""])


def _state(d: RData, function: str) -> list[str]:
    """The definitions of the context and of the state."""
    (key, ctxt), vmid = next(iter(d.shadow_ctxts.items())), next(iter(d.data_log))
    lines = []
    for record, coq in RECORDS.items():
        names = [n for n, r in RECORD_OF.items() if r == record and n not in KERNEL_ONLY]
        updates = "\n      ".join(f"{{{n}: {ctxt[n]}}}" for n in names)
        lines.append(f"  Let {coq}' := ({coq} ({key} @ (shadow_ctxts d0)))\n      {updates}.")
    body = " ".join(f"{{{coq}: {coq}'}}" for coq in RECORDS.values())
    lines.append(f"  Let ctxt' := ({key} @ (shadow_ctxts d0)) {body}.")
    for name, oracle in (("doracle", d.doracle), ("core_doracle", d.core_doracle)):
        cases = " else ".join(
            f"if (v =? {v}) && (n =? {n}) then {value}"
            for v, values in sorted(oracle.items())
            for n, value in enumerate(values)
            if value
        )
        lines.append(f"  Let {name}' := fun v n: Z => {cases + ' else ' if cases else ''}0.")
    info = d.info(vmid)
    boot = f"{{vm_next_load_info: {info.vm_next_load_info}}} {{vm_inc_exe: {info.vm_inc_exe}}}"
    for field, attribute in (("vm_load_addr", "addr"), ("vm_load_size", "size"), ("vm_remap_addr", "remap")):
        values = [getattr(image, attribute) for image in info.images]
        chain = _set(f"({field} (VB ({vmid} @ (vminfos (shared d0)))))", dict(enumerate(values)))
        boot += f"\n      {{{field}: {chain}}}"
    lines.append(f"  Let info' := ({vmid} @ (vminfos (shared d0))) {{vm_state: {info.vm_state}}} {boot}.")
    locks = {INFO_ID + vmid, S2PAGE_ID, NPT_ID, NPT_ID + vmid}
    lock = _set("(lock d0)", {i: "(LockOwn true)" if d.lock.get(i) else "LockFalse" for i in sorted(locks)})
    log = _set("(log d0)", dict.fromkeys(sorted(locks), "nil"))
    lines.append("  Let d := d0")
    lines.append(f"      {{halt: {str(d.halt).lower()}}} {{curid: {d.curid}}} {{tstate: {d.tstate}}}")
    lines.append(f"      {{cur_vmid: {d.cur_vmid}}} {{cur_vcpuid: {d.cur_vcpuid}}}")
    lines.append(f"      {{doracle: doracle'}} {{data_log: {_set('(data_log d0)', d.data_log)}}}")
    lines.append(
        f"      {{core_doracle: core_doracle'}} {{core_data_log: {_set('(core_data_log d0)', d.core_data_log)}}}"
    )
    lines.append(f"      {{lock: {lock}}}\n      {{log: {log}}}")
    shared = f"{{vminfos: (vminfos (shared d0)) # {vmid} == info'}}" + (_memory(d, vmid) if function in MAPS else "")
    lines.append(f"      {{shared: (shared d0) {shared}}}")
    lines.append(f"      {{shadow_ctxts: (shadow_ctxts d0) # {key} == ctxt'}}.")
    lines.append("  (* no CPU but this one takes a lock *)")
    lines.append("  Hypothesis quiet: forall id cpu l, (id @ (oracle d0)) cpu l = nil.")
    if function in READS_RESET_VALUES:
        chain = "".join(f"if i =? {i} then {d.reg_desc(i)} else " for i in range(1, 25) if d.reg_desc(i))
        lines.append(f"  Hypothesis reset_values: forall i, reg_desc i = ({chain}0).")
    if function in READS_VECTOR:
        pstate = ctxt["pstate"]
        lines.append(f"  Hypothesis vector: exception_vector (VZ64 {pstate}) = {d.exception_vector(pstate)}.")
    return lines


def _memory(d: RData, vmid: int) -> str:
    """Page ownership (as given, else the host's) and both stage-2 maps."""
    owners = {pfn: f"(mkS2Page {owner} {count} {gfn})" for pfn, (owner, count, gfn) in d.s2page.items()}
    pages, tables = _set("(ZMap.init (mkS2Page 0 0 0))", owners), {}
    for v in sorted({HOSTVISOR, vmid}):
        npt = d.npt(v)
        table = _set("(ZMap.init (0, 0, 0))", {g: f"({p}, {lv}, {e})" for g, (p, lv, e) in npt.pt.items()})
        flags = "{pgd_t: ZMap.init false} {pud_t: ZMap.init (ZMap.init false)}"
        flags += " {pmd_t: ZMap.init (ZMap.init (ZMap.init false))}"
        free = f"{{pt_pgd_next: {npt.pgd_next}}} {{pt_pud_next: {npt.pud_next}}} {{pt_pmd_next: {npt.pmd_next}}}"
        tables[v] = f"(({v} @ (npts (shared d0))) {{pt: {table}}}\n        {flags}\n        {free})"
    npts = _set("(npts (shared d0))", tables)
    return f"\n      {{s2page: {pages}}} {{flatmem: ZMap.init 0}} {{npts: {npts}}}"


def _set(base: str, updates: Mapping[int, object]) -> str:
    """A map with these entries set, one in the other."""
    for key, value in updates.items():
        base = f"({base} # {key} == {value})"
    return base


def _statement(cluster: Cluster, args: tuple[int, ...]) -> list[str]:
    """What is false there, in the words of the lemma that it would refute."""
    left, right = cluster.question.pair
    function = cluster.question.function
    names = FUNCTION[function].args
    shown = "".join(f" (VZ64 {v})" if n == "addr" else f" {v}" for n, v in zip(names, args, strict=True))
    call = {level: f"{function}{SUFFIX[level]}{shown} d" for level in (left, right) if level in SUFFIX}
    lines = [
        f"  (* {name}: {value} on the left, {dict(cluster.right)[name]} on the right *)" for name, value in cluster.left
    ]
    if right == "body" or left == "body":
        other = right if left == "body" else left
        temps = f"bind_parameter_temps' (fn_params f_{function}) {_values(args, names)}"
        temps += f" (create_undef_temps (fn_temps f_{function}))"
        run = f"exec_stmt ge (PTree.empty _) le ((m, d): mem) {function}_body E0 le' (m, d') Out_normal"
        if left == "body":
            return [*lines, f"  (* {run}, while {call[other]} is not Some d' *)"]
        return [
            *lines,
            f"  (* with [le] from {temps} *)",
            f"  Goal exists d', {call[other]} = Some d' /\\",
            f"      forall m le, ~ exists le', {run}.",
            "  Abort.",
        ]
    return [*lines, f"  Goal exists d', {call[left]} = Some d' /\\ {call[right]} <> Some d'.", "  Abort."]


def _values(args: tuple[int, ...], names: tuple[str, ...]) -> str:
    kinds = ("Vlong (Int64.repr" if n == "addr" else "Vint (Int.repr" for n in names)
    return "(" + " :: ".join([*(f"{kind} {v})" for kind, v in zip(kinds, args, strict=True)), "nil"]) + ")"
