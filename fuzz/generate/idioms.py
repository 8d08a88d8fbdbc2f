# SPDX-License-Identifier: Apache-2.0
"""Short sequences of steps with a common effect (idioms), from which generation and insertion draw."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from random import Random

from fuzz.generate import memory_slots, stage1_tables
from fuzz.generate.gic import gic_interrupts
from fuzz.generate.steps import IMMEDIATES, WITHOUT_GIC, access, any_step, base_register, choose, operands
from fuzz.generate.unswitched import unswitched_register
from fuzz.generate.values import (
    DATA_REGIONS,
    Weights,
    address,
    address_in,
    bits,
    fetch_address,
    function,
    mpidr,
    register_value,
)
from harness.arch.a64 import ACCESS_FORMS, AccessForm
from harness.arch.exits import EC_BY_NAME, EC_SHIFT, IL_BIT, SMCCC_FUNCTIONS
from harness.arch.registers import MASK64
from harness.arch.sysregs import READABLE, WRITABLE
from harness.guest import pkvm_calls
from harness.layout import (
    CODE,
    CONTEXT_NAMES,
    DATA,
    HOLE,
    MMIO,
    PAIR,
    PROTECTED_NAMES,
    PROTECTED_VCPUS,
    VECTORS,
    Region,
)
from harness.scenario.code_layout import base_of
from harness.scenario.scenario import Step, slot_step
from harness.scenario.steps import BASE_NAMES, KINDS, SET_NAMES, Actor

PAGE = 4096
LOADS: tuple[AccessForm, ...] = tuple(f for f in ACCESS_FORMS if not f.is_store)
STORES: tuple[AccessForm, ...] = tuple(f for f in ACCESS_FORMS if f.is_store)

CPU_OFF, CPU_ON = (f.fid for f in SMCCC_FUNCTIONS if f.name in ("PSCI_CPU_OFF", "PSCI_CPU_ON64"))
HPFAR_LIMIT = 0xFF_FFFF_FFF0
"""Bits of HPFAR_EL2 that hold bits 47:12 of the IPA."""
FORGED_CLASSES = Weights(
    *((EC_BY_NAME[name], weight) for name, weight in (("SYS64", 30.0), ("DABT_LOW", 25.0), ("IABT_LOW", 10.0))),
    *((EC_BY_NAME[name], 8.0) for name in ("HVC64", "SMC64", "WFX")),
    *((EC_BY_NAME[name], 3.0) for name in ("FP_ASIMD", "BRK64", "BREAKPT_LOW", "SOFTSTP_LOW", "WATCHPT_LOW")),
)
ANY_CLASS: tuple[int, ...] = tuple(ec for ec in range(64) if ec not in (0x04, 0x25))
"""Classes to forge: all except two that no CPU reports for such a guest, and that crash the host (corpus/crashes).

A mutated number may still be one of those two.
"""
FORGED_CODES = Weights((0, 40.0), (1, 15.0), (3, 15.0), (4, 10.0), (0x8000_0002, 10.0), (0xBADCA11, 10.0))
FORGED_ISS: Weights[Callable[[Random], int]] = Weights(
    (lambda rng: rng.getrandbits(25), 40.0),
    # A translation fault of a valid 32- or 64-bit access, a read of any system register, an immediate.
    (lambda rng: 1 << 24 | rng.getrandbits(9) << 15 | rng.getrandbits(1) << 6 | 4 | rng.getrandbits(2), 40.0),
    (lambda rng: rng.getrandbits(16), 20.0),
)

Idiom = Callable[[Random, Sequence[Step]], list[Step]]

TRAPS = Weights(("hvc", 60.0), ("wfe", 20.0), ("wfi", 20.0))
SYSTEM_ACCESSES = Weights(("mrs", 70.0), ("msr", 30.0))

REPEATS = Weights((1, 30.0), (2, 25.0), (3, 20.0), (4, 15.0), (6, 10.0))
"""Numbers of loads or stores through one base, and of other repeated steps."""
REUSED = 0.8
"""Probability that a register which the host has set is used again.

A host write causes a return to userspace, which on nVHE takes as long as an exit.
"""
LOOK_BACK = 40
"""Number of previous steps that are searched for registers that the host set."""

UNSYNDROMED = ("ldp", "stp", "ldr_post", "str_pre", "ldxr", "ldr_simd", "str_simd")
FP_ENABLED = 3 << 20
"""CPACR_EL1.FPEN: FP and SIMD instructions trap at no exception level."""


def _set_before(before: Sequence[Step]) -> dict[str, int]:
    """Return the registers that the host set recently and that no later step is known to have changed."""
    held: dict[str, int] = {}
    for step in before[-LOOK_BACK:]:
        if not step.args or not isinstance(name := step.args[0], str):
            continue
        if step.kind == "set" and isinstance(value := step.args[1], int):
            held[name] = value
        elif step.kind not in ("br", "msr") and step.kind[:3] != "str":
            held.pop(name.replace("w", "x"), None)
    return held


def _base_in(rng: Random, before: Sequence[Step], regions: Sequence[Region]) -> str | None:
    """Return a register that holds an address in one of ``regions``, if there is one; sometimes None."""
    if rng.random() > REUSED:
        return None
    held = [n for n, value in _set_before(before).items() if n in BASE_NAMES and any(value in r for r in regions)]
    return choose(rng, held) if held else None


def _point(rng: Random, form: AccessForm, where: int) -> list[Step]:
    """Set a base register so that the next access is at address ``where``."""
    step = access(rng, form, base_register(rng))
    _, base, offset = step.args
    assert isinstance(offset, int)
    return [Step("set", (base, where - offset & MASK64)), step]


def _to_device(rng: Random, forms: Sequence[AccessForm], before: Sequence[Step]) -> list[Step]:
    """Set a base register, then load or store with one of ``forms``, usually outside all memory slots."""
    form = forms[int(rng.random() * len(forms))]
    base = _base_in(rng, before, (MMIO, HOLE))
    return [access(rng, form, base)] if base is not None else _point(rng, form, address(rng, form.size))


def mmio_load(rng: Random, before: Sequence[Step]) -> list[Step]:
    """Load several times through one base, each completed; sometimes the host writes a register in between."""
    *steps, load = _to_device(rng, LOADS, before)
    base = str(load.args[1])
    for _ in range(REPEATS.pick(rng)):
        steps.append(load)
        if rng.random() < 0.08:
            written = str(load.args[0]).replace("w", "x") if rng.random() < 0.5 else choose(rng, SET_NAMES)
            name = choose(rng, BASE_NAMES) if written == "xzr" else written
            steps.append(Step("set", (name, register_value(rng, name))))
        if rng.random() < 0.75:
            steps.append(Step("complete", (bits(rng),)))
        load = access(rng, LOADS[int(rng.random() * len(LOADS))], base)
    return steps


def mmio_store(rng: Random, before: Sequence[Step]) -> list[Step]:
    """Store several times through one base; with a new base, the first stores a new value."""
    steps = _to_device(rng, STORES, before)
    base, number = str(steps[-1].args[1]), str(steps[-1].args[0])[1:]
    if len(steps) > 1 and number not in ("zr", base[1:]):
        steps.insert(1, Step("set", (f"x{number}", bits(rng))))
    for _ in range(REPEATS.pick(rng) - 1):
        steps.append(access(rng, STORES[int(rng.random() * len(STORES))], base))
    return steps


def _put(rng: Random, name: str, value: int, before: Sequence[Step]) -> list[Step]:
    """Set a register: by a host write, or by moves in a register that holds the upper bits already."""
    if rng.random() > REUSED:
        return [Step("set", (name, value))]
    held = [n for n, other in _set_before(before).items() if n in BASE_NAMES and other >> 16 == value >> 16]
    if not held:
        source = base_register(rng)
        return [Step("set", (source, value)), Step("mov", (name, source))]
    return [Step("mov", (name, choose(rng, held))), Step("movk", (name, value & 0xFFFF))]


def hypercall(rng: Random, before: Sequence[Step]) -> list[Step]:
    """Set x0 to a function and some registers to its arguments, then HVC; sometimes trap to show the result."""
    arguments = (mpidr, function, address, bits)
    steps = _put(rng, "x0", function(rng), before)
    for name in ("x1", "x2", "x3"):
        if rng.random() < 0.2:
            steps += _put(rng, name, arguments[rng.getrandbits(2)](rng), before)
    steps.append(Step("hvc", (IMMEDIATES.pick(rng),)))
    return [*steps, operands(rng, TRAPS.pick(rng))] if rng.random() < 0.5 else steps


def traps(rng: Random, _: Sequence[Step]) -> list[Step]:
    """Execute a few instructions whose traps KVM handles without userspace."""
    return [operands(rng, TRAPS.pick(rng)) for _ in range(REPEATS.pick(rng))]


def reset(rng: Random, _: Sequence[Step]) -> list[Step]:
    """Reset the vCPU, sometimes with an MMIO read pending; restore VBAR_EL1, or the first exception would loop."""
    pending = _point(rng, LOADS[0], address_in(rng, MMIO, 1)) if rng.random() < 0.3 else []
    return [*pending, Step("reset"), Step("set", ("vbar_el1", VECTORS.base))]


def first_touch(rng: Random, before: Sequence[Step]) -> list[Step]:
    """Load, store or jump to a page of DATA to which no value in the steps refers yet."""
    touched = {a // PAGE for step in before for a in step.args if isinstance(a, int) and DATA.base <= a < DATA.end}
    pages = [p for p in range(DATA.base // PAGE, DATA.end // PAGE) if p not in touched]
    page = pages[int(rng.random() * len(pages))] * PAGE if pages else DATA.base
    if rng.random() < 0.15:
        base = base_register(rng)
        return [Step("set", (base, page)), Step("br", (base,))]
    form = ACCESS_FORMS[int(rng.random() * len(ACCESS_FORMS))]
    return _point(rng, form, page + (rng.getrandbits(12) & -form.size))


def fetch_outside(rng: Random, _: Sequence[Step]) -> list[Step]:
    """Jump to an address outside all memory slots."""
    base = base_register(rng)
    return [Step("set", (base, fetch_address(rng))), Step("br", (base,))]


def host_writes(rng: Random, _: Sequence[Step]) -> list[Step]:
    """Write a few registers from the host, then trap to show them."""
    names = [choose(rng, SET_NAMES) for _ in range(1 + rng.getrandbits(1))]
    return [*(Step("set", (n, register_value(rng, n))) for n in names), Step("hvc", (0,))]


def secure_call(rng: Random, before: Sequence[Step]) -> list[Step]:
    """Make a call by SMC, usually with immediate 0."""
    return [Step("smc", step.args) if step.kind == "hvc" else step for step in hypercall(rng, before)]


def system_register(rng: Random, _: Sequence[Step]) -> list[Step]:
    """Write a system register and read it back, or read and write several at random."""
    if rng.random() < 0.6:
        return [operands(rng, SYSTEM_ACCESSES.pick(rng)) for _ in range(REPEATS.pick(rng))]
    name = choose(rng, WRITABLE)
    source, target = BASE_NAMES[int(rng.random() * 31)], BASE_NAMES[int(rng.random() * 31)]
    steps = [Step("set", (source, register_value(rng, name))), Step("msr", (name, source))]
    name = name if name in READABLE else choose(rng, READABLE)
    return [*steps, Step("mrs", (target if rng.random() < 0.9 else "xzr", name))]


def unsyndromed(rng: Random, _: Sequence[Step]) -> list[Step]:
    """Load and store with instructions that report ISV = 0, usually to MMIO, with FP and SIMD enabled."""
    step = operands(rng, choose(rng, UNSYNDROMED))
    base = str(step.args[-1] if isinstance(step.args[-1], str) else step.args[-2])
    steps = [Step("set", (base, address(rng, 16))), step]
    return [Step("set", ("cpacr_el1", FP_ENABLED)), *steps] if step.kind.endswith("simd") else steps


def exception(rng: Random, _: Sequence[Step]) -> list[Step]:
    """Execute what does not trap to EL2: an exception to EL1, moves; then trap to show the result."""
    kinds = ("brk", "udf", "mov", "movz", "movk", "fmov_to", "fmov_from")
    return [*(operands(rng, choose(rng, kinds)) for _ in range(REPEATS.pick(rng))), Step("hvc", (0,))]


def refused_access(rng: Random, before: Sequence[Step]) -> list[Step]:
    """Make an access that the host completes early, or answers with an external abort."""
    steps = mmio_load(rng, before) if rng.random() < 0.6 else mmio_store(rng, before)
    action = Step("abort" if rng.random() < 0.6 else "finish")
    return [*steps, action, Step("hvc", (0,))] if rng.random() < 0.8 else [*steps, action, operands(rng, "set")]


def interrupt(rng: Random, _: Sequence[Step]) -> list[Step]:
    """Inject a virtual SError or raise an interrupt line, then unmask it; lower the line again."""
    choice = rng.random()
    if choice < 0.4:
        raised, mask, lowered = Step("serror", (0 if rng.random() < 0.7 else rng.getrandbits(25),)), 1 << 8, []
    else:
        line, mask = ("irq", 1 << 7) if choice < 0.7 else ("fiq", 1 << 6)
        raised, lowered = Step("irq_line", (line, 1)), [Step("irq_line", (line, 0))]
    unmasked = Step("set", ("pstate", 0x3C5 & ~mask))
    return [operands(rng, "hvc"), raised, *([unmasked] if rng.random() < 0.8 else []), Step("hvc", (0,)), *lowered]


def forged_exit(rng: Random, _: Sequence[Step]) -> list[Step]:
    """Forge an exit: replace its syndrome by one of any class, usually a possible one."""
    choice = rng.random()
    steps = [operands(rng, TRAPS.pick(rng))]
    if choice < 0.1:
        return [*steps, Step("forge", ("code", FORGED_CODES.pick(rng)))]
    ec = ANY_CLASS[int(rng.random() * len(ANY_CLASS))] if choice < 0.4 else FORGED_CLASSES.pick(rng)
    steps.append(Step("forge", ("esr", ec << EC_SHIFT | IL_BIT | FORGED_ISS.pick(rng)(rng))))
    if ec in (EC_BY_NAME["IABT_LOW"], EC_BY_NAME["DABT_LOW"]):
        where = address_in(rng, DATA_REGIONS.pick(rng), 8)
        steps += [Step("forge", ("far", where)), Step("forge", ("hpfar", (where >> 12 << 4) & HPFAR_LIMIT))]
        if rng.random() < 0.5:
            steps.append(Step("complete", (bits(rng),)))
    return steps


def shared_page(rng: Random) -> list[Step]:
    """Share a page of a protected VM with its host, or unshare it; the host writes to the page."""
    page = address_in(rng, DATA, PAGE) & -PAGE
    share = pkvm_calls.SHARE if rng.random() < 0.6 else pkvm_calls.UNSHARE
    arguments = (("x0", share), ("x1", page), ("x2", 0), ("x3", 0))
    return [*(Step("set", argument) for argument in arguments), Step("hvc", (0,)), operands(rng, TRAPS.pick(rng)),
            Step("write", (page + 8 * rng.getrandbits(9), bits(rng)))]  # fmt: skip


SECOND_VCPUS: Mapping[str, tuple[str, int]] = {
    # The vCPU's number, and the first vCPU of its VM, which can call CPU_ON for it.
    CONTEXT_NAMES[1]: (CONTEXT_NAMES[0], PAIR + 1),
    PROTECTED_NAMES[1]: (PROTECTED_NAMES[0], PROTECTED_VCPUS[1]),
}


def other_vcpu(rng: Random, before: Sequence[Step]) -> list[Step]:
    """Switch to another vCPU for some steps; sometimes it calls CPU_OFF and is turned on again."""
    # Most targets have no protected VM, and it takes an additional VM: use it only if a seed does.
    is_there = any(Step("vcpu", (name,)) in before for name in PROTECTED_NAMES)
    others = (*WITHOUT_GIC[1:], *PROTECTED_NAMES) if is_there else WITHOUT_GIC[1:]
    name = others[int(rng.random() * len(others))]
    there = [*host_writes(rng, ()), operands(rng, TRAPS.pick(rng))]
    if name in PROTECTED_NAMES and rng.random() < 0.4:
        there += shared_page(rng)
    trap, second = operands(rng, TRAPS.pick(rng)), SECOND_VCPUS.get(name)
    if second is None or rng.random() >= 0.3:
        return [Step("vcpu", (name,)), *there, Step("vcpu", (CONTEXT_NAMES[0],)), trap]
    there += [Step("set", ("x0", CPU_OFF)), Step("hvc", (0,))]
    first, number = second
    arguments = (("x0", CPU_ON), ("x1", 1), ("x2", base_of(number) + 4 * rng.getrandbits(4)), ("x3", bits(rng)))
    call = [Step("vcpu", (first,)), trap, *(Step("set", argument) for argument in arguments), Step("hvc", (0,))]
    on = [Step("vcpu", (name,)), Step("hvc", (0,)), Step("vcpu", (CONTEXT_NAMES[0],))]
    return [Step("vcpu", (name,)), *there, *call, *on]


def stage1_translation(rng: Random, before: Sequence[Step]) -> list[Step]:
    """Enable or disable stage 1, or write a table entry and access memory through it."""
    is_on = any(step.kind == "write" for step in before[-LOOK_BACK:])
    choice = rng.random()
    if choice < 0.1:
        return stage1_tables.disable_stage1()
    steps = [] if is_on and rng.random() < 0.8 else stage1_tables.enable_stage1(rng)
    for _ in range(REPEATS.pick(rng)):
        entries, virtual = stage1_tables.write_entry(rng, [*before, *steps])
        form = ACCESS_FORMS[int(rng.random() * len(ACCESS_FORMS))]
        where = virtual + stage1_tables.offset_inside(rng, form.size)
        if rng.random() < 0.2:
            base = base_register(rng)
            steps += [*entries, Step("set", (base, where & -4)), Step("br", (base,))]
            continue
        steps += [*entries, *_point(rng, form, where)]
        if not form.is_store and rng.random() < 0.6:
            steps.append(Step("complete", (bits(rng),)))
    return steps


def changed_slots(rng: Random, before: Sequence[Step]) -> list[Step]:
    """Change memory slots, then load and store in them; usually restore them afterwards."""
    changes, base = memory_slots.change_slots(rng)
    steps = [operands(rng, TRAPS.pick(rng)), *changes]
    for _ in range(REPEATS.pick(rng)):
        form = ACCESS_FORMS[int(rng.random() * len(ACCESS_FORMS))]
        steps += _point(rng, form, base + (rng.getrandbits(13) & -form.size))
        if not form.is_store and rng.random() < 0.3:
            steps.append(Step("complete", (bits(rng),)))
    back = [Step("drop_slot", (1,)), slot_step(memory_slots.WHOLE)]
    return [*steps, *back] if rng.random() < 0.7 else steps


def guest_debug(rng: Random, before: Sequence[Step]) -> list[Step]:
    """Debug the guest from userspace for some steps: single steps, BRK instructions, breakpoints or watchpoints."""
    choice = rng.random()
    if choice < 0.4:
        way = choose(rng, ("step", "step", "brk", "step_brk"))
        inside = [operands(rng, "brk")] if rng.random() < 0.5 else []
        for _ in range(REPEATS.pick(rng)):
            inside += MOST_IDIOMS.pick(rng)(rng, before)
        return [operands(rng, "hvc"), Step("debug", (way,)), *inside, Step("debug", ("off",))]
    if choice < 0.7:
        # The addresses of the next instructions, unless steps are inserted before them.
        slot = sum(KINDS[step.kind].side is Actor.GUEST for step in before) + 1 + rng.getrandbits(2)
        where = min(CODE.base + 4 * slot, CODE.end - 4)
        point = Step("breakpoint", (rng.getrandbits(1), where, choose(rng, ("el1", "el0", "any"))))
        inside = [operands(rng, choose(rng, ("mov", "movz", "hvc", "mrs"))) for _ in range(5)]
        return [operands(rng, "hvc"), point, *inside, *([Step("debug", ("off",))] if rng.random() < 0.7 else [])]
    where = address_in(rng, DATA, 8) & -8
    length, kind = 1 + rng.getrandbits(3), choose(rng, ("load", "store", "any"))
    point = Step("watchpoint", (rng.getrandbits(1), where, length, kind))
    steps = [operands(rng, "hvc"), point]
    for _ in range(REPEATS.pick(rng)):
        form = ACCESS_FORMS[int(rng.random() * len(ACCESS_FORMS))]
        steps += _point(rng, form, where + (rng.getrandbits(3) & -form.size))
    return [*steps, *([Step("debug", ("off",))] if rng.random() < 0.7 else [])]


def single_step(rng: Random, _: Sequence[Step]) -> list[Step]:
    """Generate one step of any kind."""
    return [any_step(rng)]


MOST_IDIOMS: Weights[Idiom] = Weights(
    (mmio_load, 20.0), (mmio_store, 10.0), (hypercall, 10.0), (traps, 10.0), (first_touch, 8.0), (fetch_outside, 3.0),
    (secure_call, 3.0), (system_register, 15.0), (unsyndromed, 5.0), (exception, 15.0), (refused_access, 3.0),
)  # fmt: skip
"""Idioms for the guest while userspace debugs it."""
IDIOMS: Weights[Idiom] = Weights(
    (mmio_load, 24.0),
    (mmio_store, 12.0),
    (hypercall, 22.0),
    (traps, 6.0),
    (first_touch, 8.0),
    (fetch_outside, 3.0),
    (host_writes, 3.0),
    (reset, 1.5),
    (secure_call, 6.0),
    (system_register, 22.0),
    (unsyndromed, 4.0),
    (exception, 3.0),
    (refused_access, 3.0),
    (interrupt, 3.0),
    (forged_exit, 4.0),
    (other_vcpu, 3.0),
    (stage1_translation, 4.0),
    (changed_slots, 0.6),  # the next scenario needs a new VM, whose creation takes as long as 30 exits
    (gic_interrupts, 0.7),
    (guest_debug, 1.0),
    (unswitched_register, 0.5),
    (single_step, 22.0),
)
