# SPDX-License-Identifier: Apache-2.0
"""Check that only the guest's own code, and a reset, change FP and SIMD registers; relation ``switch.*`` too.

Sources: a vCPU that KVM resets has V0..V31, FPSR and FPCR zero (KVM API 4.82), an FMOV writes the low
half of a register and clears the other (Arm ARM C7.2 FMOV (general)), an interrupt or a trap writes none.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from types import MappingProxyType
from typing import Final

from harness.guest.predict_run import PredictedRun
from harness.guest.walk import GuestPath
from harness.protocol import OP_RESET
from harness.relations.divergence import Divergence, Unchecked
from harness.trace.events import ENTRY, USER, VECTORS_SIZE, Switch, Trace

NAMES: Final[tuple[str, ...]] = (*(f"v{i}" for i in range(32)), "fpsr", "fpcr")
_PLACES: Final[tuple[tuple[int, int], ...]] = (*((16 * i, 16) for i in range(32)), (512, 4), (516, 4))
ZERO: Final = bytes(VECTORS_SIZE)


def value(data: bytes, index: int) -> int:
    """Return the register of :data:`NAMES` at ``index`` in struct user_fpsimd_state."""
    at, size = _PLACES[index]
    return int.from_bytes(data[at : at + size], "little")


class _Vcpu:
    """The expected registers of one vCPU; None: an unknown register."""

    def __init__(self) -> None:
        self.last = ZERO
        self.changes: dict[int, int | None] = {}
        self.unknown = ""

    def reset(self) -> None:
        self.last, self.changes, self.unknown = ZERO, {}, ""

    def ran(self, path: GuestPath) -> None:
        if path.state is None:
            self.unknown = path.why
        if path.vectors:
            self.changes.update(path.vectors)

    def compare(self, data: bytes, user: Switch, event: int) -> Iterator[Divergence | Unchecked]:
        """Yield the differences in a user record; later expectations start from the observed values."""
        if self.unknown:
            yield Unchecked("switch", f"vector registers: {self.unknown}", event)
        elif data != self.last or self.changes:
            for index, name in enumerate(NAMES):
                expected = self.changes.get(index, value(self.last, index))
                observed = value(data, index)
                if expected is not None and expected != observed:
                    yield Divergence("switch", name, expected, observed, "USER", event, user.step)
        self.last, self.changes, self.unknown = data, {}, ""


def compare_vectors(
    trace: Trace,
    runs: Mapping[int, PredictedRun],
    restarts: Collection[int] = (),
    unproven: Mapping[int, str] = MappingProxyType({}),
) -> Iterator[Divergence | Unchecked]:
    """Yield the divergences of the FP and SIMD registers, and why others could not be compared.

    ``runs``: the runs of the guest, by the index of the exit that ended them; ``restarts``: the exits after which
    another vCPU restarted this one (PSCI CPU_ON); ``unproven``: those after which it may have, with the reason.
    """
    found = {vectors.event: vectors.data for vectors in trace.vectors}
    vcpus: dict[int, _Vcpu] = {}
    latest: dict[int, bytes] = {}
    restarted: dict[int, str] = {}
    for index, event in enumerate(trace.events):
        context = event.context
        if event.kind == ENTRY:
            if context in restarted:
                vcpus[context].reset()
                vcpus[context].unknown = restarted.pop(context)
            continue
        vcpu = vcpus.get(context)
        if vcpu is None:
            vcpu = vcpus[context] = _Vcpu()
        if not isinstance(event, Switch):
            if event.op == OP_RESET and not event.error:
                vcpu.reset()
        elif event.kind == USER:
            data = latest[context] = found.get(index, latest.get(context, ZERO))
            yield from vcpu.compare(data, event, index)
        elif (run := runs.get(index)) is not None:
            vcpu.ran(run.path)
            if index in restarts or index in unproven:
                restarted[context] = unproven.get(index, "")
