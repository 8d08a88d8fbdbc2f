# SPDX-License-Identifier: Apache-2.0
"""Export counterexamples as closed theorems of Coq, over the theory in ``harness/lemma/theory``.

Each theorem states that the left side ends in a state, the value of one differing field there, and its value on the
right side or that the right side is undefined.  Coq decides it by computation.  Level kernel has no Coq side: where it
takes part the export has a comment.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from types import MappingProxyType

from harness.lemma.case import build
from harness.lemma.causes_kernel import cause_of
from harness.lemma.clusters import Cluster
from harness.lemma.compare_levels import compare_on_case
from harness.model.constants import CTXT_FIELDS, FP, KERNEL_ONLY, SHADOW_FIELD, ctxt_id
from harness.model.state import RData

SUFFIX = {"spec": "_spec", "low": "_spec0", "body": "_body"}
HEADER = """\
(* Counterexamples found by shadowfuzz, level against level of its model, as closed theorems.
   Compile with: coqc -R harness/lemma/theory Shadow FILE, after Model.v there. *)
Require Import ZArith List Bool.
From Shadow Require Import Model.
Import ListNotations.
Open Scope Z_scope.

Definition plain_npt (pool : Z) := mkNpt (fun _ => (0, 0, 0)) (fun _ => false) (fun _ _ => false) (fun _ _ _ => false)
  (pool + 4096) (pool + 1052672) (pool + 9441280).
Definition observe (see : RData -> Z) (o : option RData) : option Z := option_map see o.
Lemma by_computation see l r v w :
  observe see l = Some v -> observe see r = w -> w <> Some v -> exists d, l = Some d /\\ see d = v /\\ r <> Some d.
Proof.
  intros L R N. destruct l as [d|]; [|discriminate]. exists d. injection L as L. repeat split; [exact L|].
  intros ->. apply N. rewrite <- R. cbn. now rewrite L.
Qed.
"""
_OTHERS = [n for n in CTXT_FIELDS if n not in SHADOW_FIELD.values() and n not in FP and n not in KERNEL_ONLY]
INDEX: Mapping[str, int] = MappingProxyType(
    {name: i for i, name in SHADOW_FIELD.items()}
    | {name: 100 + i for i, name in enumerate(FP)}
    | {name: 140 + i for i, name in enumerate(_OTHERS)}
)
"""The index of each field of a context in the theory."""

Observation = tuple[str, Callable[[RData], int]]


def export(clusters: Iterable[Cluster]) -> str:
    """Return the text for these clusters, in the given order."""
    return "\n".join([HEADER, *(_section(number, cluster) for number, cluster in enumerate(clusters, 1))])


def theorem_names(text: str) -> tuple[str, ...]:
    """Return the names of the theorems in an exported text."""
    return tuple(line.split()[1] for line in text.splitlines() if line.startswith("Theorem "))


def _section(number: int, cluster: Cluster) -> str:
    question = cluster.question
    left, right = question.pair
    head = f"(* {number}. {question.layer}.{question.function}, {left} against {right}: {cause_of(cluster).name}."
    if "kernel" in question.pair:
        return f"{head}\n   Level kernel has no Coq side. *)\n"
    state, args = build(dict(cluster.case), question.function, False)
    seen = _observation(cluster)
    if seen is None:
        return f"{head}\n   Only the reveals differ, which RData does not have. *)\n"
    (term, see), (_, after_left, after_right) = seen, compare_on_case(question, dict(cluster.case))
    applied = "".join(f" {v}" for v in args)
    call = {level: f"{question.function}{SUFFIX[level]}{applied} start_{number}" for level in question.pair}
    other = "None" if cluster.undefined else f"Some {see(after_right)}"
    return "\n".join(
        [
            head,
            f"   Refutes: whenever {question.function}{SUFFIX[left]} d = Some d',",
            f"   {_conclusion(question.function, right)}.",
            f"   On the right: {cluster.undefined or see(after_right)}. *)",
            f"Definition start_{number} : RData := {_state(state)}.",
            f"Theorem {left}_{right}_{question.function}_{number} :",
            f"  exists d, {call[left]} = Some d /\\ {term} = {see(after_left)} /\\",
            f"    {call[right]} <> Some d.",
            f"Proof. eapply by_computation with (see := fun d => {term}) (w := {other});",
            "  [vm_compute; reflexivity|vm_compute; reflexivity|discriminate]. Qed.",
            "",
        ]
    )


def _conclusion(function: str, right: str) -> str:
    return f"{function}_body ends normally in d'" if right == "body" else f"{function}{SUFFIX[right]} d = Some d'"


def _observation(cluster: Cluster) -> Observation | None:
    """Return a number of the state that is different on both sides; any number where the right side is undefined."""
    _, left, right = compare_on_case(cluster.question, dict(cluster.case))
    for term, see in _observations(left, right, cluster):
        if cluster.undefined is not None or see(left) != see(right):
            return term, see
    return None


def _observations(left: RData, right: RData, cluster: Cluster) -> Iterator[Observation]:
    """Yield numbers that the theory has, those that a reader understands first."""
    yield "(if halt d then 1 else 0)", lambda d: int(d.halt)
    key = ctxt_id(dict(cluster.case).get("vmid", 1), dict(cluster.case).get("vcpuid", 0))
    for name in (f.removeprefix("ctxt.") for f in cluster.fields if f.startswith("ctxt.")):
        yield f"shadow_ctxts d {key} {INDEX[name]}", lambda d, n=name: d.ctxt(key)[n]  # type: ignore[misc]
    for vmid in sorted({*left.data_log, *right.data_log}):
        yield f"data_log d {vmid}", lambda d, v=vmid: d.data_log.get(v, 0)  # type: ignore[misc]
        yield f"core_data_log d {vmid}", lambda d, v=vmid: d.core_data_log.get(v, 0)  # type: ignore[misc]
        yield f"vm_state (vminfos d {vmid})", lambda d, v=vmid: d.info(v).vm_state  # type: ignore[misc]
    for lock in sorted({*left.log, *right.log}):
        yield f"Z.of_nat (length (log d {lock}))", lambda d, k=lock: len(d.log.get(k, ()))  # type: ignore[misc]


def _state(d: RData) -> str:
    """Return the start state as a term."""
    maps = {
        "shadow_ctxts": _map("fun _ _ => 0", {key: _context(ctxt) for key, ctxt in d.shadow_ctxts.items()}),
        "doracle": _oracle(d.doracle),
        "data_log": _map("fun _ => 0", d.data_log),
        "core_doracle": _oracle(d.core_doracle),
        "core_data_log": _map("fun _ => 0", d.core_data_log),
        "vminfos": _map("fun _ => mkVmInfo 0 0 0 []", {vmid: _info(d, vmid) for vmid in d.vminfos}),
        "s2page": _map("fun _ => (0, 0, 0)", d.s2page),
        "flatmem": "fun _ => 0",
        "npts": _map("fun v => plain_npt (pool v)", {vmid: _npt(d, vmid) for vmid in d.npts}),
        "lock": _map("fun _ => false", {k: "true" for k, held in d.lock.items() if held}),
        "log": "fun _ => []",
        "reg_desc": _map("fun _ => 0", {i: v for i in range(1, 26) if (v := d.reg_desc(i))}),
    }
    offset = "if p mod 32 =? 4 then 0 else if p mod 32 =? 5 then 512 else if p mod 32 =? 0 then 1024 else 1536"
    vector = f"fun p => {d.exception_vector(4)} + ({offset})"
    parts = [str(d.halt).lower(), str(d.cur_vmid), str(d.cur_vcpuid), str(d.tstate)]
    parts += [f"({text})" for text in (*maps.values(), vector)]
    return "mkRData " + "\n    ".join(parts)


def _context(ctxt: Mapping[str, int]) -> str:
    return _map("fun _ => 0", {INDEX[n]: v for n, v in ctxt.items() if v and n not in KERNEL_ONLY})


def _oracle(oracle: Mapping[int, tuple[int, ...]]) -> str:
    rows = {vmid: _map("fun _ => 0", {i: v for i, v in enumerate(row) if v}) for vmid, row in oracle.items()}
    return _map("fun _ _ => 0", rows)


def _info(d: RData, vmid: int) -> str:
    info = d.info(vmid)
    images = "; ".join(f"({i.addr}, {i.size}, {i.remap})" for i in info.images)
    return f"mkVmInfo {info.vm_state} {info.vm_next_load_info} {info.vm_inc_exe} [{images}]"


def _npt(d: RData, vmid: int) -> str:
    npt = d.npt(vmid)
    entries = _map("fun _ => (0, 0, 0)", dict(npt.pt))
    flags = " ".join((_flags({(i,) for i in npt.pgd_t}, 1), _flags(npt.pud_t, 2), _flags(npt.pmd_t, 3)))
    return f"mkNpt ({entries}) {flags} {npt.pgd_next} {npt.pud_next} {npt.pmd_next}"


def _flags(keys: Iterable[tuple[int, ...]], size: int) -> str:
    """Return a function of ``size`` indices that is true at these."""
    names = "ijk"[:size]
    true = (" && ".join(f"({name} =? {at})" for name, at in zip(names, key, strict=True)) for key in sorted(keys))
    return f"(fun {' '.join(names)} => {' || '.join(f'({text})' for text in true) or 'false'})"


def _map(base: str, updates: Mapping[int, object]) -> str:
    """Return a map with these entries set, one in the other."""
    text = f"({base})"
    for key, value in updates.items():
        shown = value if isinstance(value, tuple | int) else f"({value})"
        text = f"(upd {text} {key} {shown})"
    return text
