# SPDX-License-Identifier: Apache-2.0
"""Warn of probable mistakes in a valid scenario: a step without effect, or with its effect at another place.

No target is needed: a warning holds for any behaviour of the guest.  docs/scenarios.md has the underlying rules.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import cast

from harness.arch.a64 import ACCESS_FORMS
from harness.layout import CONTEXTS, GIC_MACHINE
from harness.protocol import DEBUG_STEPS
from harness.scenario.requirements import first_context
from harness.scenario.scenario import Scenario, Step, format_step, lines_of
from harness.scenario.steps import KINDS, Actor

NO_EXIT = frozenset({"mov", "movz", "movk"})
"""Guest steps that never have an exit of their own."""
LOADS = frozenset(
    {*(form.mnemonic for form in ACCESS_FORMS if not form.is_store), "ldp", "ldr_post", "ldxr", "ldr_simd"}
)
"""Guest steps after which a read may be pending."""
_GIC_VCPUS = frozenset(context.name for context in CONTEXTS if context.machine == GIC_MACHINE)
_LAST_WINS = {"set": 1, "write": 1, "complete": 0, "forge": 1}
"""Host steps of which only the last in a round has an effect: the number of operands that select the destination."""


@dataclass(frozen=True, slots=True)
class LintWarning:
    """A warning: the line of the file (from 1), the item there, and the message."""

    line: int
    item: str
    text: str


@dataclass(frozen=True, slots=True)
class _Round:
    """A guest step (None: before the first entry) and the host steps that are done at its exit, by their index."""

    guest: int | None
    host: tuple[int, ...]


def warnings_of(text: str, scenario: Scenario) -> tuple[LintWarning, ...]:
    """Return the warnings of a scenario, by line; ``text`` is the text that it was parsed from."""
    lines = lines_of(text)
    first = len(lines) - len(scenario.steps) - len(scenario.expects)
    steps, expects = (
        [at for at in range(first, len(lines)) if _is_expect(lines[at][1]) is wanted] for wanted in (False, True)
    )
    found = [(steps[index], words) for index, words in _of_steps(scenario)]
    found += [(expects[index], words) for index, words in _of_expects(scenario)]
    found += [(2 + index, words) for index, words in _of_registers(scenario, lines[2:first])]
    return tuple(LintWarning(lines[at][0], lines[at][1], words) for at, words in sorted(found))


def _is_expect(line: str) -> bool:
    return line.split()[0] == "expect"


def _of_expects(scenario: Scenario) -> Iterator[tuple[int, str]]:
    """Yield the expectations of a register that is overwritten before the next exit."""
    for index, expect in enumerate(scenario.expects):
        for step in scenario.steps[expect.before :]:
            if step.kind in NO_EXIT and step.args[0] == expect.name:
                yield index, f"is compared after `{format_step(step)}`: the next exit comes after it"
            if KINDS[step.kind].side is Actor.GUEST and step.kind not in NO_EXIT:
                break


def _of_steps(scenario: Scenario) -> Iterator[tuple[int, str]]:
    debugged = False
    for round_ in _rounds(scenario.steps):
        if not debugged:
            yield from _delayed(scenario.steps, round_)
        # After these steps any instruction may exit.
        debugged |= any(scenario.steps[index].kind in DEBUG_STEPS for index in round_.host)
        yield from _overwritten(scenario.steps, round_)
        yield from _without_target(scenario.steps, round_)
        yield from _too_wide(scenario.steps, round_)
    yield from _vcpus(scenario)


def _rounds(steps: Sequence[Step]) -> Iterator[_Round]:
    guests = [index for index, step in enumerate(steps) if KINDS[step.kind].side is Actor.GUEST]
    for guest, after in pairwise((-1, *guests, len(steps))):
        yield _Round(guest if guest >= 0 else None, tuple(range(guest + 1, after)))


def _delayed(steps: Sequence[Step], round_: _Round) -> Iterator[tuple[int, str]]:
    """Yield the first host step after an instruction without an exit: all are delayed to the next exit."""
    if (
        round_.guest is None
        or steps[round_.guest].kind not in NO_EXIT
        or not round_.host
        or steps[round_.host[0]].kind == "vcpu"
    ):
        return
    after = steps[round_.host[-1] + 1 :]
    where = f"that of `{format_step(after[0])}` at the earliest" if after else "after the last step"
    yield (
        round_.host[0],
        f"is delayed: `{format_step(steps[round_.guest])}` does not trap; it is done at the next exit, {where}",
    )


def _overwritten(steps: Sequence[Step], round_: _Round) -> Iterator[tuple[int, str]]:
    """Yield the steps whose effect a later step of the same round replaces."""
    for at, index in enumerate(round_.host):
        step = steps[index]
        named = _LAST_WINS.get(step.kind)
        for later in round_.host[at + 1 :]:
            if steps[later].kind in ("vcpu", "finish", "slot", "drop_slot"):
                break
            if named is not None and steps[later].kind == step.kind and steps[later].args[:named] == step.args[:named]:
                yield index, f"has no effect: `{format_step(steps[later])}` replaces it before the guest runs"
                break


def _without_target(steps: Sequence[Step], round_: _Round) -> Iterator[tuple[int, str]]:
    """Yield the steps without a target: no access is pending, or there is no exit to forge."""
    before = None if round_.guest is None else steps[round_.guest].kind
    forged = any(steps[index].kind in ("forge", "vcpu") for index in round_.host)
    for index in round_.host:
        kind = steps[index].kind
        if kind == "vcpu":
            return  # another vCPU has its own pending access
        if kind == "complete" and before not in LOADS and before not in NO_EXIT and not forged:
            yield index, "completes nothing: the guest step before it does not load"
        if kind == "forge" and before is None:
            yield index, "forges nothing: there is no exit before the first guest step"


def _too_wide(steps: Sequence[Step], round_: _Round) -> Iterator[tuple[int, str]]:
    """Yield the ``complete`` steps with a value of more bytes than the load that they complete."""
    size = 0 if round_.guest is None else _load_size(steps[round_.guest])
    kinds = {steps[index].kind for index in round_.host}
    if not size or kinds & {"forge", "vcpu"}:
        return  # a forged syndrome may have another size; another vCPU has its own pending access
    for index in round_.host:
        step = steps[index]
        if step.kind == "complete" and (value := cast(int, step.args[0])) >> 8 * size:
            low = value & ((1 << 8 * size) - 1)
            load = format_step(steps[cast(int, round_.guest)])
            read = f"{size} byte{'s' * (size > 1)}"
            yield index, f"is wider than the load: `{load}` reads {read}, as after `complete {low:#x}`"


def _load_size(step: Step) -> int:
    """Return how many bytes a load with a valid syndrome reads; 0: another step."""
    forms = (form for form in ACCESS_FORMS if form.mnemonic == step.kind and not form.is_store)
    return next((form.size for form in forms if step.args[0] in form.targets), 0)


def _vcpus(scenario: Scenario) -> Iterator[tuple[int, str]]:
    current = CONTEXTS[first_context(scenario)].name
    has_gic = any(step.kind == "vcpu" and step.args[0] in _GIC_VCPUS for step in scenario.steps)
    for index, step in enumerate(scenario.steps):
        if step.kind == "vcpu":
            if step.args[0] == current:
                yield index, f"has no effect: {current} is already the current vCPU"
            current = str(step.args[0])
        if step.kind == "gic_line" and not has_gic:
            yield index, "reaches no guest: no step goes to the VM with a GIC (`vcpu 2.0`)"


def _of_registers(scenario: Scenario, lines: Sequence[tuple[int, str]]) -> Iterator[tuple[int, str]]:
    """Yield the ``reg`` lines whose value the host replaces before the first entry."""
    replaced: dict[str, Step] = {}
    for step in scenario.steps:
        if KINDS[step.kind].side is Actor.GUEST or step.kind == "vcpu":
            break
        if step.kind in ("set", "reset"):
            for name in [str(step.args[0])] if step.kind == "set" else [name for name, _ in scenario.registers]:
                replaced.setdefault(name, step)
    for index, (_, line) in enumerate(lines):
        words = line.split()
        if words[0] == "reg" and words[1] in replaced:
            yield index, f"has no effect: `{format_step(replaced[words[1]])}` replaces it before the guest runs"
