# SPDX-License-Identifier: Apache-2.0
"""Write a finding as a program in the style of the kernel's KVM selftests (tools/testing/selftests/kvm).  Pure.

The program uses their library (kvm_util.h, processor.h, test_util.h of 6.12), has only the steps that lead to the
finding, and asserts the required value.
"""

from __future__ import annotations

import json
import re
import textwrap
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from types import MappingProxyType

from harness.arch import exceptions
from harness.arch.a64 import X_NAMES
from harness.errors import InputError
from harness.handover.selftest_steps import (
    AARCH32,
    Code,
    code_of,
    home,
    register_id,
    slot_arguments,
    why_not_expressible,
)
from harness.handover.shown import Check, NumberedStep, Shown, last_run, needed_steps, reads_of
from harness.handover.words import mode_of, without_targets
from harness.layout import CODE, CONTEXTS, DATA, GIC_INTERRUPTS, GIC_MACHINE, GICD, GICR, NISV_MACHINE, VECTORS
from harness.protocol import DEBUG_STEPS
from harness.report.terminal import printable
from harness.scenario.agent_operations import shaping
from harness.scenario.code_layout import base_of
from harness.scenario.memory_slots import IPA_LIMIT
from harness.scenario.requirements import first_context
from harness.scenario.scenario import Scenario, format_step, slot_of

NAP_US, NAPS = 50_000, 20
"""How long the guest may sleep or run before it is interrupted, in microseconds; how often it is resumed."""


@dataclass(frozen=True, slots=True)
class ProgramDescription:
    """The program's description: its name, the bug, and the sources of the required value."""

    name: str
    summary: str
    source: str


def file_name(name: str) -> str:
    """Return the name of the program's file, in the style of the kernel's selftests."""
    return f"{re.sub(r'[^a-z0-9]+', '_', name.lower()).strip('_')}.c"


def build_commands(name: str) -> tuple[str, ...]:
    """Return the commands that build the program in a kernel tree, after it was copied there."""
    words = "make -C tools/testing/selftests/kvm ARCH=arm64 CROSS_COMPILE=aarch64-linux-gnu-"
    return (
        f"T=aarch64/{file_name(name)[:-2]}",
        "make ARCH=arm64 headers",
        f"{words} TEST_GEN_PROGS_aarch64=$T",
    )


def why_no_selftest(shown: Shown) -> str | None:
    """Return why no program can show the finding, with the unsupported step; None if one can."""
    for done in needed_steps(shown):
        why = why_not_expressible(done)
        if why is not None:
            return f"step {done.number}, `{format_step(done.step)}`: {why}"
    if dict(shown.scenario.registers).get("pstate", 0) & exceptions.AARCH32:
        return AARCH32
    if not shown.checks or any(check.how == "same" and len(reads_of(shown, check)) < 2 for check in shown.checks):
        what = next((f": {check.register}" for check in shown.hidden), "")
        return f"userspace cannot read the value that differs{what}"
    return None


def selftest(about: ProgramDescription, shown: Shown) -> str:
    """Return the program.  InputError: no program can show the finding, with the reason."""
    why = why_no_selftest(shown)
    if why is not None:
        raise InputError(about.name, None, f"no selftest: {why}")
    body = _body(shown)
    helpers = _helpers(body.parts | _features(shown.scenario))
    lines = (f"\t{line}" if line else "" for line in body.lines)
    return "\n".join((*_head(about, shown), helpers, "int main(void)", "{", *lines, "}", ""))


def _comment(text: str) -> Iterator[str]:
    plain = printable(" ".join(text.split())).replace("*/", "* /")
    yield from (f" * {line}" for line in textwrap.wrap(plain, 76, break_long_words=False, break_on_hyphens=False))


def _head(about: ProgramDescription, shown: Shown) -> Iterator[str]:
    file = file_name(about.name)
    # As the kernel's own, whose headers it includes: of Apache-2.0 the kernel's LICENSES/dual says "Do NOT use".
    yield "// SPDX-License-Identifier: GPL-2.0-only"
    yield "/*"
    yield from _comment(about.summary)
    yield " *"
    yield from _comment(f"Required by: {about.source}.")
    kernel = f"{shown.kernel}, {mode_of(shown.target)}" if shown.kernel else without_targets(shown.target)
    yield from _comment(f"Seen on Linux {kernel}.")
    yield " *"
    yield from _comment(
        f"Its place in a kernel tree is tools/testing/selftests/kvm/aarch64/{file} (arm64/{file} in newer trees). The "
        "guest's code is instruction words that the program writes to the guest's memory one at a time; a comment has "
        f"the assembly of each. Written by shadowfuzz from {about.name}."
    )
    yield " */"
    yield "#include <signal.h>"
    yield "#include <sys/mman.h>"
    yield "#include <sys/time.h>"
    yield ""
    yield '#include "kvm_util.h"'
    yield '#include "processor.h"'
    yield '#include "test_util.h"'
    yield ""


@cache
def _parts() -> Mapping[str, str]:
    text = files("harness.handover").joinpath("selftest.c.in").read_text(encoding="utf-8")
    found = re.split(r"^@part (\w+)\n", text, flags=re.MULTILINE)[1:]
    return dict(zip(found[::2], found[1::2], strict=True))


_BEFORE_RUNS = "/*\n * Let the guest execute"
"""The begin of the function in the part ``base`` that calls one of ``power``."""


def _helpers(parts: frozenset[str]) -> str:
    values = {
        "CODE": hex(CODE.base),
        "VECTORS": hex(VECTORS.base),
        "DATA": hex(DATA.base),
        "END": hex(DATA.end),
        "NAP": str(NAP_US),
        "NAPS": str(NAPS),
        "GICD": hex(GICD.base),
        "GICR": hex(GICR.base),
        "SPIS": str(GIC_INTERRUPTS),
    }
    known = _parts()
    base = known["base"]
    if "power" in parts:
        base = base.replace(_BEFORE_RUNS, f"{known['power'].rstrip()}\n\n{_BEFORE_RUNS}")
    text = "".join((base, *(known[name] for name in known if name in parts - {"power"})))
    text = re.sub(r"^\?(\w+)(.*\n)", lambda m: m[2] if m[1] in parts else "", text, flags=re.MULTILINE)
    for key, value in values.items():
        text = text.replace(f"@{key}@", value)
    return f"{text.rstrip()}\n"


_POWER = (range(0x8400_0000, 0x8400_0020), range(0xC400_0000, 0xC400_0020))
"""Function numbers of PSCI (Arm DEN 0022 5.1)."""


def _features(scenario: Scenario) -> frozenset[str]:
    """Return the features of a scenario that the program's run loop depends on."""
    numbers = [value for _, value in scenario.registers]
    numbers += [arg for step in scenario.steps for arg in step.args if isinstance(arg, int)]
    found = set()
    stops = any(step.kind == "mp_state" for step in scenario.steps)
    if stops or any(number in calls for number in numbers for calls in _POWER):
        found.add("power")
    if any(step.kind in DEBUG_STEPS for step in scenario.steps):
        found.add("debug")
    return frozenset(found)


_WIDE = range(IPA_LIMIT, 1 << 48)
"""Address bits above the VM's 40 bits that a CPU may have."""


def _is_beyond_ipa_space(scenario: Scenario) -> bool:
    """Whether a guest uses, or maps, an address beyond the physical address space of its VM."""
    values = [value for name, value in scenario.registers if name in X_NAMES]
    values += [int(step.args[1]) for step in scenario.steps if step.kind == "set" and step.args[0] in X_NAMES]
    values += [word for _, word in scenario.boot]
    values += [int(step.args[1]) for step in scenario.steps if step.kind == "write"]
    return any(value in _WIDE for value in values)


def _vm(machine: int) -> str:
    return f"vm{machine}" if machine > 1 else "vm"


def _vcpu(context: int) -> str:
    row = CONTEXTS[context]
    return f"vcpu{row.vcpu}_{_vm(row.machine)}" if row.machine > 1 else f"vcpu{row.vcpu}"


def _body(shown: Shown) -> Code:
    """Return the statements of main(), and the parts that they call."""
    done = needed_steps(shown)
    contexts = list(dict.fromkeys((*(each.context for each in done), shown.context)))
    machines = list(dict.fromkeys(CONTEXTS[context].machine for context in contexts))
    lines = [*_declarations(shown, done, machines), ""]
    if _is_beyond_ipa_space(shown.scenario):
        lines.append("/* With fewer bits the address does not reach stage 2 translation. */")
        lines.append("TEST_REQUIRE(kvm_check_cap(KVM_CAP_ARM_VM_IPA_SIZE) > 40);")
    lines.append("create_ram();")
    lines += (f"*(uint64_t *)({home(at)}) = {word:#x}; /* at {at:#x} */" for at, word in shown.scenario.boot)
    for machine in machines:
        lines += _create(shown.scenario, machine)
    lines += (f"start_vcpu({_vcpu(context)}, {base_of(context):#x});" for context in contexts)
    first = first_context(shown.scenario)
    if first in contexts:
        for name, value in shown.scenario.registers:
            lines.append(f"vcpu_set_reg({_vcpu(first)}, {register_id(name)}, {value:#x});")
    steps, checks = _steps(shown, done), _checks(shown, done)
    lines += ["", *steps.lines, "", *checks.lines, "", *(f"kvm_vm_free({_vm(machine)});" for machine in machines)]
    gic = {"gic"} if GIC_MACHINE in machines else set()
    return Code((*lines, "return 0;"), steps.parts | checks.parts | gic)


def _members(machine: int) -> list[int]:
    """Return all vCPUs of a VM, which must be created before its GIC is initialised."""
    return [i for i, context in enumerate(CONTEXTS) if context.machine == machine]


def _declarations(shown: Shown, done: tuple[NumberedStep, ...], machines: list[int]) -> Iterator[str]:
    yield f"struct kvm_vm {', '.join(f'*{_vm(machine)}' for machine in machines)};"
    vcpus = [context for machine in machines for context in _members(machine)]
    yield f"struct kvm_vcpu {', '.join(f'*{_vcpu(context)}' for context in vcpus)};"
    if any(each.step.kind in DEBUG_STEPS for each in done):
        yield "struct kvm_guest_debug debug = { 0 };"
    yield from (f"uint64_t {check.register};" for check in shown.checks if check.how == "same")
    if any(check.how == "log" for check in shown.checks):
        yield "int log = open_log();"


def _create(scenario: Scenario, machine: int) -> Iterator[str]:
    vm, members = _vm(machine), _members(machine)
    yield f"{vm} = create_vm();"
    for step in shaping(scenario):
        yield f"vm_set_user_memory_region({slot_arguments(slot_of(step), vm)});"
    if machine == NISV_MACHINE:
        yield f"vm_enable_cap({vm}, KVM_CAP_ARM_NISV_TO_USER, 0);"
    for context in members:
        yield f"{_vcpu(context)} = __vm_vcpu_add({vm}, {CONTEXTS[context].vcpu});"
    if len(members) > 1:
        yield from (f"init_vcpu({_vcpu(context)});" for context in members)
    if machine == GIC_MACHINE:
        yield f"create_gic({vm});"


def _steps(shown: Shown, done: tuple[NumberedStep, ...]) -> Code:
    """Return the steps; the last one is left out if the check is about its result."""
    lines: list[str] = []
    parts: set[str] = set()
    hows, run = {check.how for check in shown.checks}, last_run(shown)
    for each in done:
        is_last = each is done[-1]
        if each.step.kind == "vcpu" or (is_last and "slot" in hows):
            continue
        code = code_of(each, _vcpu(each.context), once=is_last and "step" in hows)
        lines += code.lines
        parts |= code.parts
        if "stop" in hows and each in run[:-1]:
            lines += _stops_at(each.address + 4)
        for check in shown.checks:
            reads = reads_of(shown, check)
            if check.how == "same" and each == reads[-2]:
                lines.append(f"{check.register} = get_reg({_vcpu(each.context)}, {_target(each)});")
    return Code(tuple(lines), frozenset(parts))


def _target(read: NumberedStep) -> str:
    """Return the id of the register that an MRS writes."""
    return register_id(str(read.step.args[0]))


def _checks(shown: Shown, done: tuple[NumberedStep, ...]) -> Code:
    lines: list[str] = []
    vcpu = _vcpu(shown.context)
    if any(check.how == "register" for check in shown.checks):
        lines.append("/* Complete pending work, as a return into the guest does, without entering it. */")
        lines.append(f"vcpu_run_complete_io({vcpu});")
    for check in shown.checks:
        lines += _check(check, vcpu, shown, done)
    parts = {_PART_OF[check.how] for check in shown.checks if check.how in _PART_OF}
    return Code(tuple(lines), frozenset(parts))


_PART_OF: Mapping[str, str] = MappingProxyType({"serror": "serror_pending", "log": "log"})
"""The part that a check calls, by the check's kind."""


def _stops_at(address: int) -> tuple[str, str]:
    return (
        f"TEST_ASSERT(stopped_at == {address:#x},",
        f'\t "the guest reached 0x%lx, required {address:#x}", stopped_at);',
    )


def _check(check: Check, vcpu: str, shown: Shown, done: tuple[NumberedStep, ...]) -> Iterator[str]:
    match check.how, check.expected:
        case (("register" | "left"), int(expected)):
            value = f"get_reg({vcpu}, {register_id(check.register)})"
            yield f"TEST_ASSERT({value} == {expected:#x}ull,"
            yield f'\t    "{check.register.upper()} is 0x%lx, required {expected:#x}",'
            yield f"\t    {value});"
        case "stop", int(expected):
            yield from _stops_at(expected)
        case "serror", expected:
            yield f"TEST_ASSERT({'' if expected else '!'}is_serror_pending({vcpu}),"
            yield f'\t    "the virtual SError is {"not " if expected else "still "}pending");'
        case "slot", expected:
            call = f"__vm_set_user_memory_region({slot_arguments(slot_of(done[-1].step), f'{vcpu}->vm')})"
            yield f"TEST_ASSERT({'' if expected == 'refused' else '!'}{call},"
            yield f'\t    "KVM_SET_USER_MEMORY_REGION: required {expected}, observed {check.observed}");'
        case "step", _:
            yield f"TEST_ASSERT(stopped_at == {done[-1].address + 4:#x},"
            yield '\t "the guest exited before its instruction: PC is 0x%lx", stopped_at);'
        case "debug", _:
            yield f"TEST_ASSERT_KVM_EXIT_REASON({vcpu}, KVM_EXIT_DEBUG);"
        case "log", _:
            yield f"TEST_ASSERT(!has_logged(log, {json.dumps(check.register)}),"
            yield f'\t    "the host\'s kernel logs: {check.observed} in {check.register}");'
        case "same", _:
            name, value = check.register, f"get_reg({vcpu}, {_target(reads_of(shown, check)[-1])})"
            yield f"TEST_ASSERT({value} == {name},"
            yield f'\t    "{name.upper()} was 0x%lx, and is 0x%lx after another VM has run",'
            yield f"\t    {name}, {value});"
        case how, _:
            raise AssertionError(f"no such check: {how}")
