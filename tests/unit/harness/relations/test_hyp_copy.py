# SPDX-License-Identifier: Apache-2.0
"""The hypervisor's own copy of a vCPU: any register that it has differently is seen, and what of it the host sees."""

from __future__ import annotations

from dataclasses import replace

import pytest

from harness.arch import exceptions
from harness.arch.cpu_models import cpu_model
from harness.arch.registers import INDEX, NAMES
from harness.errors import AgentProtocolError, InputError
from harness.findings.check import check
from harness.findings.known_divergences import Catalogue
from harness.layout import PROTECTED
from harness.protocol import FLAGS_VCPU_SHIFT
from harness.relations.hyp_copy import compare_hyp_copy, host_visible_gprs, hyp_copies, options
from harness.scenario.scenario import parse
from harness.trace.decode import ContextLayout
from harness.trace.events import Hyp, Switch, Trace
from harness.trace.tracefile import format_trace, parse_trace
from harness.vm.plugins.hyp_copy import ENTER, HEAD, LEAVE, RECORDS_AT, HypMap, Places
from tests.support.paths import CORPUS
from tests.support.rounds import S
from tests.support.traces import but, entry, esr, trap

PROTECTED_MARK = PROTECTED << FLAGS_VCPU_SHIFT
AFTER = but(S, x1=S[1] ^ 0xFF, pc=S[exceptions.PC] + 4)
SCENARIO = parse("shadowfuzz-scenario 1\nabout A protected VM.\nhvc 0x0\nvcpu p.0\nhvc 0x0\n", "here")
CATALOGUE = Catalogue.load(CORPUS / "known", "spec")


def trace(*, marks: int = 0, hcr: int = 0, hyp: tuple[Hyp, ...] | None = None) -> Trace:
    """One run of a vCPU and the entry after it, with copies that are the host's where none are given."""
    common = {"hcr": hcr, "marks": marks}
    events = (entry(S, **common), trap(AFTER, esr("HVC64"), **common), entry(AFTER, marks=marks))
    same = tuple(Hyp(i, event.hcr, event.values) for i, event in enumerate(events))
    return Trace(events, "ok", 0, False, hyp=same if hyp is None else hyp)


def changed(of: Trace, at: int, **registers: int) -> Trace:
    copy = of.hyp[at]
    other = copy._replace(values=but(copy.values, **registers))
    return replace(of, hyp=(*of.hyp[:at], other, *of.hyp[at + 1 :]))


def found(of: Trace) -> list[tuple[str, int | str, int | str]]:
    return [(d.name, d.expected, d.observed) for d in compare_hyp_copy(of)]


@pytest.mark.parametrize("name", NAMES)
def test_each_register_is_compared_both_ways(name: str) -> None:
    one, other = S[INDEX[name]], AFTER[INDEX[name]]
    assert found(trace()) == []
    assert found(changed(trace(), 0, **{name: one ^ 1})) == [(f"flush.{name}", one, one ^ 1)]
    assert found(changed(trace(), 1, **{name: other ^ 1})) == [(f"sync.{name}", other ^ 1, other)]


@pytest.mark.parametrize("bit", [exceptions.HCR_VSE, exceptions.HCR_VI, exceptions.HCR_VF])
def test_virtual_interrupts(bit: int) -> None:
    lost = tuple(copy._replace(hcr=0) for copy in trace(hcr=bit).hyp)
    flushed, synced = ("flush.hcr_el2", bit, 0), ("sync.hcr_el2", 0, bit)
    assert found(trace(hcr=bit, hyp=lost)) == [flushed, *([synced] if bit == exceptions.HCR_VSE else [])]


def test_what_the_host_holds_of_a_protected_vcpu_is_what_it_sees() -> None:
    """Were x2 and x7 hidden, save.reveal would say so, and no entry of the catalogue would explain it."""
    seen = trace(marks=PROTECTED_MARK)
    hidden = changed(seen, 1, x2=0xDEAD, x7=0xBEEF)
    exit_ = hidden.events[1]
    assert isinstance(exit_, Switch)
    assert host_visible_gprs(hyp_copies(hidden)[1], exit_) == (1 << 31) - 1 & ~(1 << 2 | 1 << 7)
    assert found(hidden) == [], "x0..x30 of a protected VM are compared by save.reveal"
    cpu = cpu_model("cortex-a72")
    for one, explained in ((seen, "protected-vm-hides-no-registers"), (hidden, None)):
        checked = check(SCENARIO, one, "spec", cpu, CATALOGUE)
        (judged,) = [j for j in checked.judged if j.divergence.name == "save.reveal"]
        assert (None if judged.known is None else judged.known.id) == explained
        assert checked.relations["flush"] == checked.relations["sync"] == 1


LAYOUT = ContextLayout(8 * len(NAMES), tuple(range(len(NAMES))))


def beside(*copies_of: tuple[int, int], dropped: int = 0, complete: bool = True) -> tuple[Hyp, ...]:
    """Read a file as the plugin would have filled it: kind, and address of the host's vCPU, of each copy."""
    size = HEAD.size + LAYOUT.size
    made = HypMap(Places({"record_size": size, "count": len(copies_of), "dropped": dropped}, (4,)), 1 << 29)
    for number, (kind, host) in enumerate(copies_of):
        at = RECORDS_AT + number * size
        made._memory[at : at + HEAD.size] = HEAD.pack(kind, 0x1000, host, 7)
    return made.copies_of(trace().events[:2], LAYOUT, complete=complete)


def test_where_one_of_the_two_was_full_the_rest_stands_alone() -> None:
    assert [copy.event for copy in beside((ENTER, 1), dropped=9)] == [0]
    assert [copy.event for copy in beside((ENTER, 1), (LEAVE, 1), (ENTER, 1), complete=False)] == [0, 1]


def test_copies_stand_beside_their_records() -> None:
    assert [(copy.event, copy.hcr) for copy in beside((ENTER, 1), (LEAVE, 1))] == [(0, 7), (1, 7)]


@pytest.mark.parametrize(
    "wrong",
    [((ENTER, 1),), ((ENTER, 1), (LEAVE, 1), (ENTER, 1)), ((LEAVE, 1), (ENTER, 1)), ((ENTER, 1), (LEAVE, 2))],
    ids=["too few", "too many", "another order", "two vCPUs"],
)
def test_copies_that_do_not_fit_are_refused(wrong: tuple[tuple[int, int], ...]) -> None:
    with pytest.raises(AgentProtocolError):
        beside(*wrong)


def test_copies_go_through_a_file() -> None:
    """Else a finding of flush and sync would be read as one that this version does not see any more."""
    whole = changed(changed(trace(hcr=exceptions.HCR_VSE), 0, x3=1 << 63, pc=0), 1, sp_el1=7)
    again = parse_trace(format_trace(whole))
    assert again == whole and found(again) == found(whole) != []
    assert '"hyp"' not in format_trace(replace(whole, hyp=()))


@pytest.mark.parametrize(
    "rows",
    ["7", '[[0, "0x1"]]', '[[9, "0x0", {}]]', '[[0, "1", {}]]', '[[0, "0x0", {"x99": "0x0"}]]', '[[0, "0x0", []]]'],
)
def test_a_file_with_other_copies_is_no_trace(rows: str) -> None:
    text = format_trace(trace(hyp=())).replace('"events"', f'"hyp": {rows}, "events"')
    with pytest.raises(InputError, match="hyp"):
        parse_trace(text)


def test_what_shows_them_is_named_where_nothing_else_does() -> None:
    assert options(("flush", "hcr_el2", "WFX", "")) == options(("sync", "xN", "HVC64", "")) == ("--hyp-copy",)
    assert options(("switch", "hcr_el2", "WFX", "")) == ()
