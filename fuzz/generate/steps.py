# SPDX-License-Identifier: Apache-2.0
"""Draw single steps with weights: first the kind, then its operands."""

from __future__ import annotations

from collections.abc import Sequence
from random import Random

from fuzz.generate import memory_slots
from fuzz.generate.gic import VCPUS
from fuzz.generate.values import Weights, bits, register_value
from harness.arch.a64 import ACCESS_FORMS, ACCESS_MNEMONICS, AccessForm
from harness.arch.sysregs import READABLE, SYSREGS, WRITABLE, ExpectedResult
from harness.layout import CONTEXT_NAMES, PROTECTED_NAMES
from harness.protocol import DEBUG_STEPS
from harness.scenario.scenario import Step, slot_step
from harness.scenario.steps import BASE_NAMES, KINDS, SET_NAMES, STEP_KINDS, Operand

IMMEDIATES = Weights((0, 90.0), (1, 4.0), (0xFFFF, 3.0), (0x4242, 3.0))
OFFSETS = Weights((0, 70.0), (1, 10.0), (2, 5.0), (0xFFF, 5.0), (0x800, 5.0), (0x123, 5.0))
"""Offsets of accesses, in units of the access size."""

_WEIGHTS: dict[str, float] = {
    **{"hvc": 25.0, "wfi": 4.0, "wfe": 4.0, "br": 2.0, "set": 8.0, "complete": 3.0, "reset": 0.5},
    **{"smc": 4.0, "mrs": 6.0, "msr": 4.0, "forge": 0.1, "vcpu": 0.2, "gic_line": 0.2},
    **dict.fromkeys(("slot", "drop_slot", *DEBUG_STEPS), 0.1),
    **dict.fromkeys(ACCESS_MNEMONICS, 40.0 / len(ACCESS_MNEMONICS)),
}
STEP_WEIGHTS: Weights[str] = Weights(*((k.keyword, _WEIGHTS.get(k.keyword, 0.7)) for k in STEP_KINDS))
EVERYWHERE: tuple[str, ...] = tuple(name for name in CONTEXT_NAMES if name not in PROTECTED_NAMES)
"""The vCPUs that exist on every target."""
WITHOUT_GIC: tuple[str, ...] = tuple(name for name in EVERYWHERE if name not in VCPUS)
"""The vCPUs for steps without interrupts: a VM with a GIC takes longer to create."""
_NAMES: dict[tuple[str, str], tuple[str, ...]] = {
    # Sorted, because the order of a set differs from process to process.
    (k.keyword, o.name): tuple(sorted(o.names))
    for k in STEP_KINDS
    for o in k.operands
    if o.names
} | {("vcpu", "vcpu"): EVERYWHERE}
_FATAL = ("sctlr_el1", "vbar_el1")
"""Registers in which a random value usually makes the guest take exceptions without end."""
_RAISES = (ExpectedResult.UNDEFINED, ExpectedResult.EITHER)
_CALM: dict[str, tuple[str, ...]] = {
    # Accesses that raise no exception: an exception through the vectors takes as long as four traps.
    "mrs": tuple(r.name for r in SYSREGS if r.name in READABLE and r.read not in _RAISES),
    "msr": tuple(r.name for r in SYSREGS if r.name in WRITABLE and r.write not in _RAISES),
}
_BY_MNEMONIC = {m: tuple(f for f in ACCESS_FORMS if f.mnemonic == m) for m in ACCESS_MNEMONICS}


def choose(rng: Random, items: Sequence[str]) -> str:
    """Return a random item (``Random.choice`` takes three times as long)."""
    return items[int(rng.random() * len(items))]


def base_register(rng: Random) -> str:
    """Return a base register: usually one that no hypercall overwrites (SMCCC results are in x0..x3)."""
    return BASE_NAMES[int(rng.random() * 31)] if rng.random() < 0.2 else BASE_NAMES[4 + int(rng.random() * 27)]


def target_register(rng: Random, form: AccessForm) -> str:
    """Return a register to load or store; the probability of the zero register is more than 1/32."""
    return form.targets[31] if rng.random() < 0.1 else form.targets[int(rng.random() * 31)]


def access(rng: Random, form: AccessForm, base: str) -> Step:
    """Return a load or store through ``base``, sometimes of ``base`` itself."""
    target = form.targets[int(base[1:])] if rng.random() < 0.06 else target_register(rng, form)
    return Step(form.mnemonic, (target, base, OFFSETS.pick(rng) * form.size))


def operands(rng: Random, kind: str) -> Step:
    """Return a step of ``kind`` with random operands."""
    forms = _BY_MNEMONIC.get(kind)
    if forms:
        return access(rng, forms[int(rng.random() * len(forms))], base_register(rng))
    match kind:
        case "hvc":
            return Step(kind, (IMMEDIATES.pick(rng),))
        case "br":
            return Step(kind, (base_register(rng),))
        case "slot":
            return slot_step(memory_slots.random_slot(rng, 1 + int(rng.random() * 4)))
        case "set":
            name = choose(rng, SET_NAMES)
            return Step(kind, (name, register_value(rng, name)))
        case "complete":
            return Step(kind, (bits(rng),))
        case _:
            return Step(kind, tuple(_operand(rng, kind, operand) for operand in KINDS[kind].operands))


def _operand(rng: Random, kind: str, operand: Operand) -> str | int:
    if operand.name == "base":
        return base_register(rng)
    if operand.name == "sysreg":
        name = choose(rng, _CALM[kind] if rng.random() < 0.8 else _NAMES[kind, operand.name])
        return "esr_el1" if kind == "msr" and name in _FATAL else name
    if operand.names:
        return choose(rng, _NAMES[kind, operand.name])
    units = (operand.limit - operand.least) // operand.unit + 1
    return operand.least + int(rng.random() ** 3 * units) * operand.unit


def any_step(rng: Random) -> Step:
    """Return one step, drawn with STEP_WEIGHTS."""
    return operands(rng, STEP_WEIGHTS.pick(rng))
