# SPDX-License-Identifier: Apache-2.0
"""Programs for the kernel's KVM selftests: the findings that have one, the statements of each step, and one as a whole.

``tests/vm/test_exported_selftests_live.py`` tests that they compile and fail on the right kernels.
"""

from __future__ import annotations

import os
import re
from dataclasses import replace

import pytest

from fuzz.store.kept_findings import kept_rows, stories
from fuzz.triage.handover import kept_handover, program, story_handover
from harness.arch.registers import STATE
from harness.errors import InputError
from harness.handover.selftest import ProgramDescription, file_name, selftest, why_no_selftest
from harness.handover.selftest_steps import code_of, register_id, why_not_expressible
from harness.handover.shown import Check, NumberedStep, Shown
from harness.scenario.scenario import Step, parse
from harness.scenario.steps import STEP_KINDS, Actor
from tests.support.kept import filled
from tests.support.paths import GOLDEN

WITHOUT = {
    "forged-cp15-read-bugs": "step 2, `forge esr 0x12009be5`",
    "forged-trap-without-accessor-bugs": "step 1, `forge esr 0x623a0081`",
    "forged-vncr-abort-oopses": "step 2, `forge esr 0x96000045`",
    "protected-vm-drops-interrupt-lines": "step 1, `vcpu p.0`",
    "protected-vm-undefined-registers": "step 1, `vcpu p.0`",
    "protected-vm-walk-abort-never-comes": "step 1, `vcpu p.0`",
    "protected-vm-walk-abort-of-a-fetch-never-comes": "step 1, `vcpu p.0`",
    "unknown-vm-ioctl-warns": "corpus/alarms/unknown_vm_ioctl.c",
}
"""Kept findings without a program, and a word of the reason."""
SHOWN = Shown(
    *("kvm-nvhe", "6.1", "a"),
    parse("shadowfuzz-scenario 1\nabout A.\nreg x1 0x9000000\nldrb w3, [x1]\ncomplete 0x5\n"),
    *(2, 0, (Check("register", "x3", 5, 6),)),
)
ABOUT = ProgramDescription("a-name", "What goes wrong.", "Arm ARM")


@pytest.mark.parametrize("name", [row.id for row in kept_rows()])
def test_every_kept_finding_has_a_program_or_a_reason(name: str) -> None:
    handover = kept_handover(name)
    assert handover is not None
    if name in WITHOUT:
        with pytest.raises(InputError, match=re.escape(WITHOUT[name])):
            program(handover)
        return
    file, text = program(handover)
    assert file == f"{name.replace('-', '_')}.c"
    assert not re.search(r"@[A-Z]+@|^[?@]", text, re.MULTILINE)
    assert re.search(r"TEST_ASSERT(_KVM_EXIT_REASON)?\(", text.partition("int main(void)")[2])
    # Only used helpers are included: the name of each occurs again.
    for helper in re.findall(r"^static \w[\w ]*?\**(\w+)\(", text, re.MULTILINE):
        assert len(re.findall(rf"\b{helper}\b", text)) > 1, helper


def test_a_program_as_a_whole() -> None:
    handover = kept_handover("mmio-load-loses-sign")
    assert handover is not None
    golden, (_, text) = GOLDEN / "handover" / "mmio_load_loses_sign.c", program(handover)
    if os.environ.get("UPDATE_GOLDEN"):
        golden.write_text(text)
    assert text == golden.read_text()


def test_a_campaigns_findings_have_programs_too(tmp_path_factory: pytest.TempPathFactory) -> None:
    made = 0
    for story in stories(filled(tmp_path_factory.mktemp("campaign"))):
        handover = story_handover(story)
        if handover.shown is not None and why_no_selftest(handover.shown) is None:
            name, text = program(handover)
            made += 1
            assert name.endswith(".c") and "TEST_ASSERT(" in text
        else:
            with pytest.raises(InputError, match="no selftest: "):
                program(handover)
    assert made


def test_every_host_step_has_statements_or_a_reason() -> None:
    arguments = {
        "set": ("x1", 1), "complete": (1,), "write": (0x40020000, 1), "serror": (0,), "irq_line": ("irq", 1),
        "gic_line": ("ppi", 20, 1), "debug": ("step_brk",), "breakpoint": (0, 0x40000000, "any"),
        "watchpoint": (0, 0x40020000, 8, "any"), "mp_state": ("stopped",),
        "slot": (1, "rw", 0x40020000, 0x1000, 0x40020000), "drop_slot": (1,),
    }  # fmt: skip
    for kind in STEP_KINDS:
        if kind.side is Actor.GUEST or kind.keyword == "vcpu":
            continue
        done = NumberedStep(0, Step(kind.keyword, arguments.get(kind.keyword, ())), 0, 0, None)
        if why_not_expressible(done) is None:
            assert code_of(done, "vcpu0").lines, kind.keyword
        else:
            assert kind.keyword == "forge"


def test_registers_have_the_names_of_the_kernel() -> None:
    assert register_id("x30") == "ARM64_CORE_REG(regs.regs[30])"
    assert register_id("spsr_el1") == "ARM64_CORE_REG(spsr[KVM_SPSR_EL1])"
    assert register_id("esr_el1") == "KVM_ARM64_SYS_REG(SYS_ESR_EL1)"
    assert len({register_id(row.name) for row in STATE}) == len(STATE)


def test_a_guest_in_aarch32_state_has_no_program() -> None:
    scenario = replace(SHOWN.scenario, registers=(("pstate", 0x10),))
    assert "AArch32" in (why_no_selftest(replace(SHOWN, scenario=scenario)) or "")
    steps = (Step("set", ("pstate", 0x1D0)), *SHOWN.scenario.steps)
    assert "step 0" in (why_no_selftest(replace(SHOWN, scenario=replace(SHOWN.scenario, steps=steps), steps=3)) or "")


def test_what_userspace_cannot_see_has_no_program() -> None:
    hidden = replace(SHOWN, checks=(), hidden=(Check("hidden", "host.gic_list", 1, 2),))
    assert why_no_selftest(hidden) == "userspace cannot read the value that differs: host.gic_list"
    once = replace(SHOWN, checks=(Check("same", "icc_pmr_el1", 1, 2),))
    assert why_no_selftest(once) is not None


def test_no_text_of_a_finding_ends_the_comment() -> None:
    text = selftest(ProgramDescription('x */\n#error "', "*/ #error\n#error", "*/"), SHOWN)
    head = text.partition("#include")[0]
    assert head.count("*/") == 1 and head.rstrip().endswith("*/")
    assert not re.search(r"^#error", text, re.MULTILINE)
    assert re.fullmatch(r"[a-z0-9_]+\.c", file_name("../../x; rm -rf ~"))
