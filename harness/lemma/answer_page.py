# SPDX-License-Identifier: Apache-2.0
"""Write the first part of ``docs/lemmas.md``: each claim, its causes, the repaired statement and the changes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from harness.lemma.answers import ANSWER_PAIRS, Answer, CauseAnswer, load_answers
from harness.lemma.causes import PARTS, RESTORE, SAVE, Cause
from harness.lemma.causes_kernel import causes_of
from harness.lemma.changes import load_changed
from harness.lemma.compare_levels import Pair, Question
from harness.lemma.repair import AGREES, EXACT
from harness.model import FUNCTION, FUNCTIONS

NOT_RUN = "not run symbolically; drawn states differ only in the causes below"
LEMMA: Mapping[str, str] = {SAVE: f"{SAVE}_body_correct", RESTORE: f"{RESTORE}_body_correct"}
MAX_FIELDS = 4
_STATEMENT = """\
```coq
Lemma {function}_body_correct:
  forall m d d' env le
         (Henv: env = PTree.empty _)
         (Hinv: high_level_invariant d)
         (Hspec: {function}_spec0 d = Some d'){more},
       exists le', (exec_stmt ge env le ((m, d): mem) {function}_body E0 le' (m, d') Out_normal).
```
"""
_REFINEMENT = "forall d d', {function}_spec d = Some d'{more} -> {function}_spec0 d = Some d'"
STRICT = """\
Read strictly, with the layer `L` exactly as it is in the sources, `restore_shadow_kvm_regs_body_correct` is false in
*every* state that resets a vCPU (`dirty` = INVALID64): the code calls `is_inc_exe`, which `L` does not have, and is
stuck. Every result of restore on this page gives the code the machine's specification of `is_inc_exe`.
"""
SHORT = """\
In short, for a proof engineer of SeKVM. Names are those of `VCPUOps` and `VCPUOpsAux` in the Coq sources:

- **save.** `save_shadow_kvm_regs_body_correct` is true as it stands. Replace its `admit` by a proof; change nothing.
- **restore.** `restore_shadow_kvm_regs_body_correct` is true where `dirty` is not INVALID64 and the host's fault
  address is not in 1..4095. To have it everywhere: in `restore_shadow_kvm_regs_spec0` test `4096 <= addr` where it
  tests `0 < addr`; ask `is_inc_exe_spec` before a reset, and reset only where it is 0; put `is_inc_exe` into `L`. The
  code need not change.
- **spec to spec0.** True for VMs 1..15 (`rely is_vm vmid` in both closed forms) where no instruction is skipped at a PC
  of 2^48 and more (in `restore_shadow_kvm_regs_spec0`: `rely is_int64 pc` for `is_addr pc`, and PC + 4 modulo 2^64) and
  none is skipped with an exception injected (in `restore_shadow_kvm_regs_spec`: `cstates'''` from `cstates''`, not
  from `cstates'`).
- **Helpers.** Of several marked registers the proof knows one: `sync_dirty_to_shadow_loop0` must read from `adt'` (it
  reads from `adt`), `sync_dirty_to_shadow_loop` at `logn'` (it reads at `logn`). `reset_sys_regs_spec` and `_spec0`
  must write from SYSREGS_START on (they write x1..x24). Outside MMIO space `prep_abort_spec0` must return `adt'` (it
  returns `adt`).
- **Code.** `prep_abort` shifts a signed 1 by Rd: with Rd = 31 it marks an injection and a skip. Write `1UL << Rd`.
"""
_HYPOTHESES = """\
- `high_level_invariant d` is the empty invariant of this layer: it constrains nothing, so that every state that the
  specification is defined on counts.
- `le` is any assignment of the temporaries. The two functions have no parameters, and the model reads their code as
  setting each temporary before it is read: the claim is the same for each `le`, and a counterexample is one for each.
- Both proof scripts in the sources end in `admit`.
- `revealed`, the registers that the host is shown, is the model's own: `set_int_gpr_spec` is the identity of RData. A
  difference in it refutes no statement of the sources; it is marked wherever it is shown.
- What else the sources leave open, and what the model does there:
  [spec/model.md, section 9](spec/model.md#9-where-the-sources-are-silent).
"""
LEGEND = """\
A hypothesis speaks of the state `d` before the call: `ctxt.f` is field f of the current shadow context (`ctxt.dirty`:
`dirty` of its states), `data[i]` and `core[i]` the i-th next value of `doracle` and `core_doracle` for the VM, `host.f`
the host-visible copy, `info.f` the VM's information, `vector(p)` is `exception_vector p`, `registers(x)` the number of
bits set among bits 0..30, `load_info(a)` the address that the last boot image which holds `a` gives it, or 0. TRAP is
2, SKIP `DIRTY_PC_FLAG` (2^32), INJECT `PENDING_EXCEPT_INJECT_FLAG` (bits 33 to 35).

Proved means: by the project's symbolic run of this Python rendering, within the scope at the end of the page. *Weakest*
means: in every state that the hypothesis excludes and the left side is defined on, the two sides differ; that is
proved too, with a mapping left out as a black box and two marked registers (x0 and x1, x0 and x30) standing for more;
where level kernel takes part, with one marked register at a time. Where any number of marked registers matters, the
loop of `sync_dirty_to_shadow` is proved by induction: each of its 31 rounds by itself, from every state of the
invariant (`harness/lemma/register_loop.py`). The bounds in a hypothesis are not the model's, so
that a changed bound in the model changes the verdict.
"""


def render_answers(directory: Path) -> str:
    """Return the part, from the answers stored in ``directory``."""
    stored = {a.question: a for pair in ANSWER_PAIRS for a in load_answers(directory, pair)}
    if not stored:
        return "## The answer\n\nNot stored yet (`shadowfuzz lemma --answer --store`).\n"
    parts = [
        "## The answer\n",
        _overview(stored),
        STRICT,
        SHORT + _enough(directory),
        "### How the statements are read\n",
        _HYPOTHESES,
    ]
    for function in (SAVE, RESTORE):
        parts.append(_lemma(stored, function))
    for function in (SAVE, RESTORE):
        parts.append(_refinement(stored, function))
    parts += ["### What a hypothesis speaks of\n", LEGEND, "## What to change\n", _changes(directory), COQ]
    parts += ["## The helpers\n", _helpers(stored, (("low", "body"), ("spec", "low")))]
    parts += ["## What is deployed\n", _DEPLOYED, _kernel(stored)]
    return "\n".join(parts)


_DEPLOYED = """\
The levels `spec`, `low` and `body` against `kernel`, the deployed C. Locks, logs and oracle positions belong to the
proof only and are not compared. The data oracle says what the host-visible registers say. The address of a fault is
free: the proof has it from the host (`walk.addr`, or the argument `addr`), the kernel from HPFAR_EL2, and a host may
lie.

The statement of a pair, repaired: wherever the left level is defined in `d` with result `d'`, and `d` is in no row of
the table that names the left level, the deployed C ends in `d'`. Its verdict stands in the first table of a function.
"""


def _overview(stored: Mapping[Question, Answer]) -> str:
    lines = ["| claim | as it stands | outside the causes | causes |", "|---|---|---|---|"]
    for pair, function in ((p, f) for p in (("low", "body"), ("spec", "low")) for f in (SAVE, RESTORE)):
        found = stored.get(Question(pair, function))
        claim = f"`{LEMMA[function]}`" if pair == ("low", "body") else f"`{function}_spec` refines to `_spec0`"
        if found is None:
            lines.append(f"| {claim} | not run | | |")
            continue
        names = "; ".join(c.name for c in found.causes) or "none"
        lines.append(f"| {claim} | {_truth(found)} | {_outside(found)} | {names} |")
    return "\n".join(lines) + "\n"


def _truth(found: Answer) -> str:
    if found.causes:
        return "**false**"
    return "**true**, proved" if found.proved else "not decided"


def _outside(found: Answer) -> str:
    if not found.causes:
        return ""
    if found.proved:
        weakest = all(c.verdict == EXACT for c in found.causes)
        return "**proved**" + (", weakest" if weakest else "")
    if found.outside:
        return f"refuted too: {_case(found.outside[0])}"
    return f"open: {'; '.join(found.open)}"


def _lemma(stored: Mapping[Question, Answer], function: str) -> str:
    found = stored.get(Question(("low", "body"), function))
    if found is None:
        return ""
    lines = [f"### `{LEMMA[function]}`: {_truth(found)}\n", _STATEMENT.format(function=function, more="")]
    if not found.causes:
        lines.append(
            f"**True as it stands**, by {found.paths} paths: wherever `{function}_spec0` is defined, the code ends "
            "normally in its state.\nNo further hypothesis is needed. Coq: `save_low_body` in [What Coq checks]"
            "(#what-coq-checks).\n"
        )
        return "\n".join(lines)
    without = stored.get(Question(("low", "body"), function, logs=False))
    lines += [_causes(found), _repaired(found, "Repaired, with lock logs")]
    lines.append(_STATEMENT.format(function=function, more=_hypotheses(found)).replace("_correct:", "_repaired:"))
    if without is not None:
        lines.append(_repaired(without, "Repaired, where lock logs do not count"))
        lines.append(f"```coq\n{_unindented(_hypotheses(without))}\n```\n")
    return "\n".join(lines)


def _refinement(stored: Mapping[Question, Answer], function: str) -> str:
    found = stored.get(Question(("spec", "low"), function))
    if found is None:
        return ""
    title = f"### The refinement of `{function}`, which no lemma states: {_truth(found)}\n"
    lines = [title, "```coq", _REFINEMENT.format(function=function, more=""), "```", ""]
    lines += [_causes(found), _repaired(found, "Repaired")]
    lines += [
        "```coq",
        f"forall d d', {function}_spec d = Some d'{_hypotheses(found)}",
        f"  -> {function}_spec0 d = Some d'",
        "```",
        "",
    ]
    return "\n".join(lines)


def _repaired(found: Answer, title: str) -> str:
    weak = [c for c in found.causes if c.verdict != EXACT]
    if not found.proved:
        return f"**{title}**: {_outside(found)}.\n"
    tail = "each hypothesis is the weakest one." if not weak else f"{'; '.join(_slack(c) for c in weak)}."
    return f"**{title}**: proved, {found.paths} paths; {tail}\n"


def _slack(c: CauseAnswer) -> str:
    if c.verdict == AGREES:
        return f"not the weakest: {c.name} (the sides agree on {_case(c.state)})"
    return f"the weakest or not, that is open: {c.name} ({c.reason})"


def _hypotheses(found: Answer) -> str:
    """Return the negated regions as hypotheses; a region that holds another one stands for both."""
    return "".join(f"\n         (H{i}: ~ ({_short(c.region)}))" for i, c in enumerate(found.causes, 1))


def _unindented(text: str) -> str:
    return "\n".join(line.strip() for line in text.strip().splitlines())


def _causes(found: Answer) -> str:
    lines = ["| cause | states | least counterexample | left | right |", "|---|---|---|---|---|"]
    for c in found.causes:
        left, right = (_values(side) for side in (c.left, c.right))
        if c.undefined is not None:
            left, right = "defined", f"undefined: {c.undefined}"
        lines.append(f"| {c.name} | `{_escaped(c.region)}` | {_case(c.case)} | {left} | {right} |")
    text = [f"- **{c.name}.** {c.text} {PARTS[c.part]}".rstrip() for c in causes_of(found.question)]
    return "\n".join([*lines, "", *text, ""])


def _values(side: Sequence[tuple[str, str]]) -> str:
    more = f"<br>and {len(side) - MAX_FIELDS} more fields" if len(side) > MAX_FIELDS else ""
    return "<br>".join(f"{field_name(name)} {value}" for name, value in side[:MAX_FIELDS]) + more


def field_name(name: str) -> str:
    """Return a differing field as the page names it; ``revealed`` is marked, for RData does not have it."""
    return f"`{name}`" + (" (not in RData)" if name == "revealed" else "")


def _case(case: Sequence[tuple[str, int]]) -> str:
    return ", ".join(f"`{name}` = {value:#x}" for name, value in case) or "the plain state"


def _escaped(text: str) -> str:
    return text.replace("|", "\\|")


COQ = """\
## What Coq checks

`harness/lemma/theory/Model.v` has the two layers at `spec`, `low` and `body` as functions of Coq 8.16, written from
[spec/model.md](spec/model.md). Level `body` there is an executable reading of the C, not Clight. A mapping of 512 pages
(level 2) is left out: it is undefined there. A test compiles it with these, and `Print Assumptions` names no axiom:

- every counterexample of `low:body` and `spec:low` on this page, by computation, with the value of a differing field on
  both sides (`shadowfuzz lemma --pair low:body --stored --coq FILE`);
- `save_low_body`: for each `d`, `save_shadow_kvm_regs_spec0 d = Some d'` implies
  `save_shadow_kvm_regs_body d = Some d'`;
- `save_spec_low`: the refinement of save under its hypothesis H1 above;
- `restore_low_body`: the lemma of restore under H1 and H4 above (no reset, so that H2 and H3 hold);
- `restore_spec_low`: the refinement of restore under its three hypotheses above, contexts compared index by index;
- `prep_abort_low_body`, with its two hypotheses, and the five code lemmas of helpers that hold as they stand.
"""


def _enough(directory: Path) -> str:
    """Return what is proved with the changes made, in one line."""
    rows = load_changed(directory)
    true = sum(bool(r["proved"]) for r in rows)
    share = f"all {true}" if true == len(rows) else f"{true} of {len(rows)}"
    where = "the changes of [What to change](#what-to-change)"
    return f"\nWith {where} {share} claims are proved without a hypothesis.\n" if rows else ""


def _changes(directory: Path) -> str:
    """Return the changes of the proof's own pairs, each once, and what is proved with all of them."""
    rows = load_changed(directory)
    if not rows:
        return "Not proved yet (`shadowfuzz lemma --changes --store`).\n"
    true = sum(bool(r["proved"]) for r in rows)
    left = [r for r in rows if not r["proved"]]
    rest = "; ".join(f"`{r['function']}`, {r['pair']} ({', '.join(r['open']) or 'refuted'})" for r in left)
    lines = [
        "The smallest changes that make the claims true. The code is right about everything but the signed shift, "
        "which is marked `(C)`; every other change is one of a specification, to what the code does.\n",
        f"With all of them made in the model's text, {true} of the {len(rows)} claims `low:body` and `spec:low` are "
        f"proved without any hypothesis, on {min(r['starts'] for r in rows)} starts or more each "
        f"(`shadowfuzz lemma --changes`). Not decided: {rest or 'none'}.\n",
        "| claim | function | cause | change |",
        "|---|---|---|---|",
    ]
    for pair in (("low", "body"), ("spec", "low")):
        for f in FUNCTIONS:
            lines += [
                f"| {':'.join(pair)} | `{f.name}` | {c.name} | {_escaped(c.change)} |"
                for c in causes_of(Question(pair, f.name))
            ]
    return "\n".join(lines) + "\n"


def _helpers(stored: Mapping[Question, Answer], pairs: Sequence[Pair]) -> str:
    parts = []
    for pair in pairs:
        lines = [
            f"### `{pair[0]}` to `{pair[1]}`\n",
            "| function | as it stands | outside the causes | causes |",
            "|---|---|---|---|",
        ]
        lines[1:1] = [_CLAIMS[pair], ""]
        details = []
        for f in FUNCTIONS:
            found = stored.get(Question(pair, f.name))
            if found is None or f.layer != "VCPUOpsAux":
                continue
            names = "; ".join(c.name for c in found.causes) or "none"
            lines.append(f"| `{f.name}` | {_truth(found)} | {_outside(found)} | {names} |")
            if found.causes:
                title = f"#### `{f.name}`, {':'.join(pair)}\n"
                details += [title, _causes(found), _repaired(found, "Repaired"), _helper_statement(found)]
        parts += ["\n".join(lines) + "\n", *details]
    return "\n".join(parts)


_CLAIMS: Mapping[Pair, str] = {
    ("low", "body"): "The claim for each helper f: wherever `f_spec0` is defined, the code ends normally in its state. "
    "The sources have a code lemma for five of them, none for `reset_sys_regs`, `sync_dirty_to_shadow` and "
    "`prep_abort`.\n",
    ("spec", "low"): "The claim for each helper f, which no lemma states: wherever `f_spec` is defined, `f_spec0` is "
    "defined and has the same result.\n",
}


def _helper_statement(found: Answer) -> str:
    """Return the repaired statement of a helper."""
    function = FUNCTION[found.question.function]
    args = " ".join(function.args)
    left, right = ("spec0", "body") if found.question.pair == ("low", "body") else ("spec", "spec0")
    result = f"{function.name}_{right} {args} d = Some d'"
    if right == "body":
        result = f"{function.name}_body, called with {args}, ends normally in d'"
    hypotheses = "".join(
        f"\n    -> ~ ({_short(c.region)})  (* H{i}: {c.name} *)" for i, c in enumerate(found.causes, 1)
    )
    return f"```coq\nforall {args} d d', {function.name}_{left} {args} d = Some d'{hypotheses}\n    -> {result}\n```\n"


def _kernel(stored: Mapping[Question, Answer]) -> str:
    """Return one table for each function: its causes, and the pairs that have each."""
    pairs = [p for p in ANSWER_PAIRS if p[1] == "kernel"]
    parts = []
    for f in FUNCTIONS:
        asked = [Question(p, f.name) for p in pairs]
        answers = [stored[q] for q in asked if q in stored]
        lines = [f"### `{f.name}`\n", "| pair | outside the causes |", "|---|---|"]
        for q in asked:
            state = _outside(stored[q]) or _truth(stored[q]) if q in stored else NOT_RUN
            lines.append(f"| {':'.join(q.pair)} | {state} |")
        lines += ["", "| pairs | cause | states | least counterexample | left | right |", "|---|---|---|---|---|---|"]
        seen: dict[tuple[str, str], list[tuple[Answer, CauseAnswer]]] = {}
        for a in answers:
            for c in a.causes:
                seen.setdefault((c.name, c.region), []).append((a, c))
        for group in seen.values():
            c = group[0][1]
            left, right = (_values(side) for side in (c.left, c.right))
            which = ", ".join(a.question.pair[0] for a, _ in group)
            states = f"`{_escaped(_short(c.region))}`"
            lines.append(f"| {which} | {c.name} | {states} | {_case(c.case)} | {left} | {right or c.undefined} |")
        texts: dict[str, Cause] = {}
        for q in asked:
            for cause in causes_of(q):
                texts.setdefault(cause.text, cause)
        lines += [
            "",
            *(
                f"- **{c.name}.** {c.text} {PARTS[c.part]} Change: {c.change}".replace("  ", " ")
                for c in texts.values()
            ),
        ]
        slack = dict.fromkeys(_slack(c) for a in answers for c in a.causes if c.verdict != EXACT)
        lines += [f"- {text[0].upper()}{text[1:]}." for text in slack]
        parts.append("\n".join(lines) + "\n")
    return "\n".join(parts)


def _short(region: str) -> str:
    """Return a region without its long lists of registers."""
    for start in ("ctxt.sp_el0 | ", "host.fp_q0 | "):
        at = region.find(start)
        if at >= 0:
            end = region.index(" != 0", at)
            region = f"{region[:at]}(the registers named below){region[end:]}"
    return region
