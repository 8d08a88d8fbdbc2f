# SPDX-License-Identifier: Apache-2.0
"""A finding as a program in the form of the kernel's own KVM selftests (tools/testing/selftests/kvm).  Pure.

It uses their library (kvm_util.h, processor.h, test_util.h of 6.12; the calls are the same in later trees), has only
the steps that lead to the finding, and asserts the value that is required.
"""

from __future__ import annotations

import re
import textwrap
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from importlib.resources import files

from harness.arch.a64 import X_NAMES
from harness.errors import InputError
from harness.handover.selftest_steps import code_of, home, register_id, slot_arguments, why_not
from harness.handover.shown import Check, Done, Shown, last_run, needed_steps
from harness.handover.words import mode_of
from harness.layout import CODE, CONTEXTS, DATA, GIC_INTERRUPTS, GIC_MACHINE, GICD, GICR, NISV_MACHINE, VECTORS
from harness.report.terminal import printable
from harness.scenario.agent_operations import shaping
from harness.scenario.code_layout import base_of
from harness.scenario.memory_slots import IPA_LIMIT, Slot, gone
from harness.scenario.scenario import Scenario, format_step
from harness.scenario.steps import KINDS, Actor

NAP_US, NAPS = 50_000, 20
"""How long the guest may sleep or spin before it is taken back, in microseconds; so often it is sent on."""


@dataclass(frozen=True, slots=True)
class About:
    """What the program says of itself: its name, what goes wrong, and the sources of the value that is required."""

    name: str
    summary: str
    source: str


def file_name(name: str) -> str:
    """Return what the program's file is called, as the kernel calls its selftests."""
    return f"{re.sub(r'[^a-z0-9]+', '_', name.lower()).strip('_')}.c"


def build_commands(name: str) -> tuple[str, ...]:
    """Return the commands that build the program in a kernel tree, once it is in its place there."""
    words = "make -C tools/testing/selftests/kvm ARCH=arm64 CROSS_COMPILE=aarch64-linux-gnu-"
    return (
        f"T=aarch64/{file_name(name)[:-2]}",
        "make ARCH=arm64 headers",
        f"{words} TEST_GEN_PROGS_aarch64=$T",
    )


def why_no_selftest(shown: Shown) -> str | None:
    """Return why there can be no program, with the step that it cannot do; None if there can be one."""
    for done in needed_steps(shown):
        why = why_not(done)
        if why is not None:
            return f"step {done.number}, `{format_step(done.step)}`: {why}"
    if not shown.checks:
        what = next((f": {check.register}" for check in shown.hidden), "")
        return f"userspace cannot see what differs{what}"
    return None


def selftest(about: About, shown: Shown) -> str:
    """Return the program.  InputError: there can be none, with the reason."""
    why = why_no_selftest(shown)
    if why is not None:
        raise InputError(about.name, None, f"no selftest: {why}")
    body, parts = _body(about, shown)
    helpers = _helpers(parts | _features(shown.scenario))
    return "\n".join((*_head(about, shown, parts), helpers, "int main(void)", "{", *body, "}", ""))


def _comment(text: str) -> Iterator[str]:
    plain = printable(" ".join(text.split())).replace("*/", "* /")
    yield from (f" * {line}" for line in textwrap.wrap(plain, 76, break_long_words=False, break_on_hyphens=False))


def _head(about: About, shown: Shown, parts: frozenset[str]) -> Iterator[str]:
    file = file_name(about.name)
    yield "// SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0"
    yield "/*"
    yield from _comment(about.summary)
    yield " *"
    yield from _comment(f"Required: {about.source}.")
    yield from _comment(f"Seen on Linux {shown.kernel}, {mode_of(shown.target)}.")
    yield " *"
    yield from _comment(
        f"Its place in a kernel tree is tools/testing/selftests/kvm/aarch64/{file} (arm64/{file} in newer trees). The "
        "guest's code is instruction words that the program puts into the guest's memory one at a time; a comment has "
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
"""Where in the part ``base`` the function begins that calls one of ``power``."""


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
    return text


_POWER = ((0x8400_0000, 0x8400_0020), (0xC400_0000, 0xC400_0020))
"""Function numbers of PSCI (Arm DEN 0022 5.1)."""


def _features(scenario: Scenario) -> frozenset[str]:
    """Return the features of a scenario that the program's loop depends on."""
    numbers = [value for _, value in scenario.registers]
    numbers += [arg for step in scenario.steps for arg in step.args if isinstance(arg, int)]
    found = set()
    if any(low <= number < high for number in numbers for low, high in _POWER) or any(
        step.kind == "mp_state" for step in scenario.steps
    ):
        found.add("power")
    if any(step.kind in ("debug", "breakpoint", "watchpoint") for step in scenario.steps):
        found.add("debug")
    return frozenset(found)


_WIDE = range(IPA_LIMIT, 1 << 48)
"""Addresses beyond the VM's 40 bits that a CPU may have."""


def _is_beyond_ipa_space(scenario: Scenario) -> bool:
    """Whether a guest uses, or maps, an address beyond the physical address space of its VM."""
    values = [value for name, value in scenario.registers if name in X_NAMES]
    values += [int(step.args[1]) for step in scenario.steps if step.kind == "set" and step.args[0] in X_NAMES]
    values += [word for _, word in scenario.boot]
    values += [int(step.args[1]) for step in scenario.steps if step.kind == "write"]
    return any(value in _WIDE for value in values)


def _variable(context: int) -> str:
    return f"vcpu{CONTEXTS[context].vcpu}" + (f"_vm{CONTEXTS[context].machine}" if CONTEXTS[context].machine > 1 else "")


def _vm(context: int) -> str:
    machine = CONTEXTS[context].machine
    return f"vm{machine}" if machine > 1 else "vm"


def _body(about: About, shown: Shown) -> tuple[list[str], frozenset[str]]:
    """Return the statements of main(), and the parts that they call."""
    done = needed_steps(shown)
    contexts = list(dict.fromkeys((*(each.context for each in done), shown.context)))
    machines = list(dict.fromkeys(CONTEXTS[context].machine for context in contexts))
    # All vCPUs of a VM are created at once: its GIC wants that.
    every = [i for i, context in enumerate(CONTEXTS) if context.machine in machines]
    lines: list[str] = []
    parts: set[str] = set()
    for machine in machines:
        first = next(i for i in every if CONTEXTS[i].machine == machine)
        lines += [f"\tstruct kvm_vm *{_vm(first)};"]
    lines.append(f"\tstruct kvm_vcpu {', '.join(f'*{_variable(i)}' for i in every)};")
    if any(each.step.kind in ("debug", "breakpoint", "watchpoint") for each in done):
        lines.append("\tstruct kvm_guest_debug debug = { 0 };")
    same = [check for check in shown.checks if check.how == "same"]
    lines += [f"\tuint64_t {check.register};" for check in same]
    lines.append("")
    if _is_beyond_ipa_space(shown.scenario):
        lines.append("\t/* With fewer bits the address does not get as far as stage 2. */")
        lines.append("\tTEST_REQUIRE(kvm_check_cap(KVM_CAP_ARM_VM_IPA_SIZE) > 40);")
    lines.append("\tcreate_ram();")
    for address, word in shown.scenario.boot:
        lines.append(f"\t*(uint64_t *)({home(address)}) = {word:#x}; /* at {address:#x} */")
    for machine in machines:
        mine = [i for i in every if CONTEXTS[i].machine == machine]
        lines += _create(shown.scenario, machine, mine, parts)
    for context in contexts:
        lines.append(f"\tstart_vcpu({_variable(context)}, {base_of(context):#x});")
    lines += _initial(shown.scenario, done, contexts)
    lines.append("")
    lines += _steps(shown, done, parts)
    lines += _checks(about, shown, done, parts)
    lines += ["", *(f"\tkvm_vm_free({_vm(next(i for i in every if CONTEXTS[i].machine == m))});" for m in machines)]
    lines.append("\treturn 0;")
    return lines, frozenset(parts)


def _create(scenario: Scenario, machine: int, contexts: Iterable[int], parts: set[str]) -> Iterator[str]:
    mine = tuple(contexts)
    vm = _vm(mine[0])
    yield f"\t{vm} = create_vm();"
    for step in shaping(scenario):
        slot = gone(int(step.args[0])) if step.kind == "drop_slot" else Slot(*step.args)  # type: ignore[arg-type]
        yield f"\tvm_set_user_memory_region({slot_arguments(slot, vm)});"
    if machine == NISV_MACHINE:
        yield f"\tvm_enable_cap({vm}, KVM_CAP_ARM_NISV_TO_USER, 0);"
    for context in mine:
        yield f"\t{_variable(context)} = __vm_vcpu_add({vm}, {CONTEXTS[context].vcpu});"
    if len(mine) > 1:
        yield from (f"\tinit_vcpu({_variable(context)});" for context in mine)
    if machine == GIC_MACHINE:
        parts.add("gic")
        yield f"\tcreate_gic({vm});"


def _initial(scenario: Scenario, done: tuple[Done, ...], contexts: list[int]) -> Iterator[str]:
    """Yield the writes of the registers that a scenario starts with: they are its first vCPU's."""
    first = done[0].context if done else contexts[0]
    if CONTEXTS[first].machine > 1:
        return
    vcpu = _variable(first if CONTEXTS[first].vcpu == 0 else contexts[0])
    for name, value in scenario.registers:
        yield f"\tvcpu_set_reg({vcpu}, {register_id(name)}, {value:#x});"


def _steps(shown: Shown, done: tuple[Done, ...], parts: set[str]) -> Iterator[str]:
    last = done[-1] if done else None
    hows, run = {check.how for check in shown.checks}, last_run(shown)
    for each in done:
        if each.step.kind == "vcpu" or (each is last and hows == {"slot"}):
            continue
        code = code_of(each, _variable(each.context), once=each is last and "step" in hows)
        parts |= code.parts
        yield from (f"\t{line}" for line in code.lines)
        if "stop" in hows and each in run[:-1]:
            yield _stops_at(each.address + 4)
        for check in shown.checks:
            if check.how == "same" and each.context == shown.context and _reads(each, check.register):
                yield from _keep(done, each, check)


def _reads(done: Done, register: str) -> bool:
    return done.step.kind == "mrs" and done.step.args[1] == register


def _keep(done: tuple[Done, ...], here: Done, check: Check) -> Iterator[str]:
    reads = [d for d in done if d.context == here.context and _reads(d, check.register)]
    if here is reads[0]:
        yield f"\t{check.register} = get_reg({_variable(here.context)}, {register_id(str(here.step.args[0]))});"


def _checks(about: About, shown: Shown, done: tuple[Done, ...], parts: set[str]) -> Iterator[str]:
    vcpu, last = _variable(shown.context), done[-1] if done else None
    after_host = last is None or KINDS[last.step.kind].side is Actor.HOST or last.context != shown.context
    yield ""
    if any(check.how == "register" for check in shown.checks) and (after_host or _may_wait(shown)):
        yield "\t/* Finish what is pending, as the way back into the guest does, without entering it. */"
        yield f"\tvcpu_run_complete_io({vcpu});"
    for check in shown.checks:
        yield from _check(check, vcpu, shown, done, parts)


def _may_wait(shown: Shown) -> bool:
    return any(check.register in X_NAMES or check.register == "pc" for check in shown.checks)


def _stops_at(address: int) -> str:
    return f'\tTEST_ASSERT(stopped_at == {address:#x}, "the guest came to 0x%lx, required {address:#x}", stopped_at);'


def _check(check: Check, vcpu: str, shown: Shown, done: tuple[Done, ...], parts: set[str]) -> Iterator[str]:
    expected = check.expected
    match check.how:
        case "register":
            value = f"get_reg({vcpu}, {register_id(check.register)})"
            yield f"\tTEST_ASSERT({value} == {expected:#x}ull,"
            yield f'\t\t    "{check.register.upper()} is 0x%lx, required {expected:#x}", {value});'
        case "stop":
            yield _stops_at(int(expected))
        case "serror":
            parts.add("serror_pending")
            yield f"\tTEST_ASSERT({'' if expected else '!'}is_serror_pending({vcpu}),"
            yield f'\t\t    "the virtual SError is {"not " if expected else "still "}pending");'
        case "slot":
            step = done[-1].step
            slot = Slot(*step.args) if step.kind == "slot" else gone(int(step.args[0]))  # type: ignore[arg-type]
            call = f"__vm_set_user_memory_region({slot_arguments(slot, f'{vcpu}->vm')})"
            yield f"\tTEST_ASSERT({'' if expected == 'refused' else '!'}{call},"
            yield f'\t\t    "KVM took the memory slot, it must be {expected}");'
        case "step":
            after = done[-1].address + 4
            yield f"\tTEST_ASSERT(stopped_at == {after:#x},"
            yield '\t\t    "the guest came back before its instruction: PC is 0x%lx", stopped_at);'
        case _:
            reads = [d for d in done if d.context == shown.context and _reads(d, check.register)]
            value = f"get_reg({vcpu}, {register_id(str(reads[-1].step.args[0]))})"
            yield f"\tTEST_ASSERT({value} == {check.register},"
            yield f'\t\t    "{check.register.upper()} was 0x%lx, and is 0x%lx after another VM has run",'
            yield f"\t\t    {check.register}, {value});"
