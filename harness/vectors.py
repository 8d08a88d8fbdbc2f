# SPDX-License-Identifier: Apache-2.0
"""FP and SIMD registers: nothing but the guest's own code, and a reset, may change them; relation ``switch.*`` too.

The architecture's word: a vCPU that KVM resets has V0..V31, FPSR and FPCR zero (KVM API 4.82), an FMOV writes the low
half of a register and clears the other (Arm ARM C7.2 FMOV (general)), an interrupt or a trap writes none.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from types import MappingProxyType

from harness import arch, exits
from harness.compare import RUNS_ON, Divergence, Unchecked
from harness.guest import Walk, is_call, runs_on, walk, word_at
from harness.masks import Cpu
from harness.memory import Memory
from harness.registers import MASK64
from harness.trace import ENTRY, EXIT, USER, VECTORS_SIZE, Switch, Trace
from harness.turns import OP_RESET

NAMES: tuple[str, ...] = (*(f"v{i}" for i in range(32)), "fpsr", "fpcr")
_PLACES: tuple[tuple[int, int], ...] = (*((16 * i, 16) for i in range(32)), (512, 4), (516, 4))
ZERO = bytes(VECTORS_SIZE)


def value(data: bytes, index: int) -> int:
    """Return the register of :data:`NAMES` at ``index`` in struct user_fpsimd_state."""
    at, size = _PLACES[index]
    return int.from_bytes(data[at : at + size], "little")


class _Vcpu:
    """What is expected of one vCPU; None: of a register that nobody knows."""

    def __init__(self) -> None:
        self.last = ZERO
        self.changes: dict[int, int | None] = {}
        self.unknown = ""
        self.entry: Switch | None = None

    def reset(self) -> None:
        self.last, self.changes, self.unknown = ZERO, {}, ""

    def ran(self, path: Walk) -> None:
        if path.state is None:
            self.unknown = path.why
        self.changes.update(path.vectors)

    def compare(self, data: bytes, user: Switch, event: int) -> Iterator[Divergence | Unchecked]:
        """Yield what differs in a user record; from there on all goes on from what was observed."""
        if self.unknown:
            yield Unchecked("switch", f"vector registers: {self.unknown}")
        elif data != self.last or self.changes:
            for index, name in enumerate(NAMES):
                expected = self.changes.get(index, value(self.last, index))
                observed = value(data, index)
                if expected is not None and expected != observed:
                    yield Divergence("switch", name, expected, observed, "USER", event, user.step)
        self.last, self.changes, self.unknown = data, {}, ""


NOTHING_KNOWN: Mapping[int, Memory] = MappingProxyType({})


def _path(entry: Switch, exit_: Switch, code: Mapping[int, int], cpu: Cpu, memory: Memory | None) -> Walk:
    """Follow one run of the guest; back-to-back traps, the rule, execute nothing."""
    seen = arch.apply_pending(entry.values, entry.pending) if entry.pending else entry.values
    target = exit_.values[arch.PC]
    if seen[arch.PC] == target and not entry.hcr & arch.HCR_VIRTUAL:
        return Walk(seen)
    trapped = exit_.code & ~exits.EXIT_WITH_SERROR_BIT == exits.EXCEPTION_TRAP or bool(exit_.forged)
    if trapped and is_call(seen, word_at(code, target - 4 & MASK64), exit_):
        target = target - 4 & MASK64
    path = walk(seen, code, target, cpu, entry.hcr, memory)
    ended = path.state
    if not trapped and ended is not None and ended != exit_.values and runs_on(ended, code, cpu, memory):
        return Walk(None, why=RUNS_ON, certain=False)
    return path


def compare_vectors(
    trace: Trace, code: Mapping[int, int], cpu: Cpu, memories: Mapping[int, Memory] = NOTHING_KNOWN
) -> Iterator[Divergence | Unchecked]:
    """Yield the divergences of the FP and SIMD registers, and why others could not be compared.

    ``memories``: what RAM held at the entry before an exit, by the exit's index, where the guest's tables are in it.
    """
    found = {vectors.event: vectors.data for vectors in trace.vectors}
    vcpus: dict[int, _Vcpu] = {}
    latest: dict[int, bytes] = {}
    for index, event in enumerate(trace.events):
        vcpu = vcpus.setdefault(event.context, _Vcpu())
        if not isinstance(event, Switch):
            if event.op == OP_RESET and not event.error:
                vcpu.reset()
        elif event.kind == ENTRY:
            vcpu.entry = event
        elif event.kind == EXIT and vcpu.entry is not None:
            vcpu.ran(_path(vcpu.entry, event, code, cpu, memories.get(index)))
            vcpu.entry = None
        elif event.kind == USER:
            data = latest[event.context] = found.get(index, latest.get(event.context, ZERO))
            yield from vcpu.compare(data, event, index)
