# SPDX-License-Identifier: Apache-2.0
"""Check a recording of a guest that is not ours, record by record, in the memory of one round.

Relations ``save``, ``restore`` and ``host`` hold as for a scenario: what surrounds each vCPU (memory slots, devices of
KVM's own, register writes by userspace) is in the recording.  Of ``switch`` only that remains which no code at EL1 can
change (:data:`KEPT`): what the guest executed is not recorded.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field

from harness import arch, contract, exits, protocol
from harness.check import Judged, judge_round, signature
from harness.compare import Divergence, Prediction, Unchecked
from harness.known import Catalogue
from harness.layout import Region
from harness.masks import Cpu
from harness.model.replay import predict
from harness.owed import OP_IRQ_LINE, compare_owed
from harness.recording import Api, Recorded
from harness.registers import BY_NAME, INDEX
from harness.trace import ENTRY, EXIT, HOST, Host, Switch
from harness.turns import OP_ABORT, OP_RESET, OP_SERROR, OP_SET, Round
from harness.world import SCENARIO, World

KEPT: tuple[tuple[str, str], ...] = (
    ("mpidr_el1", "read-only (Arm ARM D17.2.101); the guest sees VMPIDR_EL2"),
    ("actlr_el1", "writes trap (HCR_EL2.TACR), and KVM ignores them"),
)
"""Registers that a guest cannot change, whatever it executes."""
_EVENTS = ((protocol.EVENT["external_abort"], OP_ABORT), (protocol.EVENT["serror"], OP_SERROR))
ABSENT = "a register that was not recorded"
FOREIGN = "registers that the guest's own code may have changed"
READ_ONLY = 2
"""KVM_MEM_READONLY (KVM API 4.35)."""


@dataclass(frozen=True, slots=True)
class Turn:
    """A round of one vCPU, and where its entry is among the records."""

    vm: int
    vcpu: int
    record: int
    round: Round


@dataclass(frozen=True, slots=True)
class Run:
    """A run of the guest: entry and exit of one vCPU, and where the two are among the records."""

    vm: int
    vcpu: int
    first: int
    record: int
    entry: Switch
    exit: Switch


@dataclass
class _Vcpu:
    """What is open of a vCPU: the turn of the host that the next entry ends, or the run that the next exit ends."""

    features: int = 0
    entry: Switch | None = None
    exit: Switch | None = None
    world: World = SCENARIO
    version: int = -1
    first: int = 0
    users: list[Switch] = field(default_factory=list)
    hosts: list[Host] = field(default_factory=list)


@dataclass
class _Vm:
    """A virtual machine as its userspace made it."""

    slots: dict[int, Region] = field(default_factory=dict)
    devices: list[Region] = field(default_factory=list)
    vcpus: dict[int, _Vcpu] = field(default_factory=dict)
    called_on: dict[int, tuple[int, int]] = field(default_factory=dict)  # by PSCI CPU_ON: entry point, context

    version: int = 0
    """Grows with every change of what surrounds the vCPUs."""

    def vcpu(self, number: int) -> _Vcpu:
        """Return a vCPU, a new one if it was not heard of before."""
        if number not in self.vcpus:
            self.vcpus[number] = _Vcpu()
            self.version += 1
        return self.vcpus[number]

    def world(self, number: int) -> World:
        """Return what surrounds a vCPU now."""
        vcpu = self.vcpus[number]
        if vcpu.version != self.version:
            regions, devices = tuple(self.slots.values()), tuple(self.devices)
            vcpu.world = World(regions, devices, number, len(self.vcpus), vcpu.features)
            vcpu.version = self.version
        return vcpu.world


def split(records: Iterable[Recorded]) -> Iterator[Turn | Run]:
    """Cut a recording into the rounds and runs of each vCPU, in the order in which they end."""
    vms: dict[int, _Vm] = {}
    for number, (vm_number, vcpu_number, event) in enumerate(records, 1):
        vm = vms.setdefault(vm_number, _Vm())
        if isinstance(event, Api):
            if event.name == "destroy":
                vms.pop(vm_number)
            else:
                _call(vm, vcpu_number, event)
            continue
        vcpu = vm.vcpu(vcpu_number)
        if event.kind == ENTRY:
            first, world = (number, vm.world(vcpu_number)) if vcpu.exit is None else (vcpu.first, vcpu.world)
            round_ = Round(first, vcpu.exit, tuple(vcpu.users), tuple(vcpu.hosts), event, world)
            yield Turn(vm_number, vcpu_number, number, round_)
            vcpu.entry, vcpu.exit, vcpu.first, vcpu.users, vcpu.hosts = event, None, number, [], []
        elif event.kind == EXIT:
            if vcpu.entry is not None:
                yield Run(vm_number, vcpu_number, vcpu.first, number, vcpu.entry, event)
            vm.world(vcpu_number)  # what holds for the turn is what holds at its exit
            vcpu.entry, vcpu.exit, vcpu.first = None, event, number
            _calls_another(vm, event)
        else:
            vcpu.users.append(event)


def _call(vm: _Vm, number: int, call: Api) -> None:
    """Apply a call of userspace; one that failed changed nothing, a register write is filed with its errno."""
    if call.name in ("set_register", "irq_line"):
        op = OP_SET if call.name == "set_register" else OP_IRQ_LINE
        vm.vcpu(number).hosts.append(Host(HOST, 0, op, call.a, call.b, call.error, True))
    elif call.error:
        return
    elif call.name == "slot":
        vm.slots.pop(call.a, None)
        if call.d:
            vm.slots[call.a] = Region(f"slot {call.a}", call.c, call.d, True, "", bool(call.b & READ_ONLY))
        vm.version += 1
    elif call.name == "device":
        # An ioeventfd of length 0 takes writes of any (KVM API 4.59).
        vm.devices.append(Region("device", call.a, call.b or 8, False, ""))
        vm.version += 1
    elif call.name == "reset":
        vcpu = vm.vcpu(number)
        vcpu.features = call.a
        vm.version += 1
        vcpu.hosts.append(Host(HOST, 0, OP_RESET, 0, 0, 0, True))
        # CPU_ON resets the vCPU that it names, then sets where it starts (DEN 0022 5.4, KVM_REQ_VCPU_RESET).
        for name, value in zip(("pc", "x0"), vm.called_on.pop(number, ()), strict=False):
            vcpu.hosts.append(Host(HOST, 0, OP_SET, BY_NAME[name].one_reg, value, 0, True))
    elif call.name == "events":
        hosts = vm.vcpu(number).hosts
        hosts += [Host(HOST, 0, op, 0, 0, 0, True) for bit, op in _EVENTS if call.a & bit]


def _calls_another(vm: _Vm, exit_: Switch) -> None:
    """Remember what PSCI CPU_ON asks for: a reset of the vCPU that it names may follow."""
    call = contract.called_on(exit_)
    if call is None:
        return
    for number in vm.vcpus:
        if vm.world(number).mpidr & contract.AFFINITY == call.target:
            vm.called_on[number] = call.entry_point, call.context_id


@dataclass(frozen=True, slots=True)
class Span:
    """Records of one vCPU from one to another, both counted from 1."""

    vm: int
    vcpu: int
    first: int
    last: int


def excerpt(records: Iterable[Recorded], spans: Iterable[Span]) -> Iterator[Recorded]:
    """Yield what ``spans`` names of a recording, each vCPU's first entry, and every call of the API.

    What lies between is gone: a run of the guest in an excerpt may stand for many.
    """
    begins: dict[int, list[Span]] = {}
    for span in spans:
        begins.setdefault(span.first, []).append(span)
    inside: dict[tuple[int, int], int] = {}
    entered: set[tuple[int, int]] = set()
    for number, recorded in enumerate(records, 1):
        owner = recorded.vm, recorded.vcpu
        for span in begins.pop(number, ()):
            inside[span.vm, span.vcpu] = max(span.last, inside.get((span.vm, span.vcpu), 0))
        if isinstance(recorded.event, Api) or owner not in entered or inside.get(owner, 0) >= number:
            yield recorded
        if isinstance(recorded.event, Switch):
            entered.add(owner)


@dataclass(frozen=True, slots=True)
class Example:
    """The first divergence of a cluster: what, whose, at which record (counted from 1), in which round if in one."""

    divergence: Divergence
    vm: int
    vcpu: int
    round: Round | None
    prediction: Prediction | None
    first: int

    @property
    def span(self) -> Span:
        """The records that show it: the turn of the host, or the run of the guest."""
        return Span(self.vm, self.vcpu, self.first, self.divergence.event)


@dataclass
class Cluster:
    """Divergences of one signature: how many, and the first."""

    count: int
    example: Example


@dataclass
class Tally:
    """What a recording showed; counts as in :class:`harness.check.Checked`, divergences by cluster."""

    exits: Counter[str] = field(default_factory=Counter)
    relations: Counter[str] = field(default_factory=Counter)
    known: Counter[str] = field(default_factory=Counter)
    unchecked: Counter[str] = field(default_factory=Counter)
    undefined: Counter[str] = field(default_factory=Counter)
    clusters: dict[tuple[str, str, str, str], Cluster] = field(default_factory=dict)
    vcpus: set[tuple[int, int]] = field(default_factory=set)
    absent: frozenset[str] = frozenset()

    @property
    def unexplained(self) -> int:
        """How many divergences no entry of the catalogue explains."""
        return sum(cluster.count for cluster in self.clusters.values())

    def take(self, judged: Judged, at: Turn | Run, prediction: Prediction | None) -> None:
        """File a divergence."""
        if judged.known is not None:
            self.known[judged.known.id] += 1
            return
        if judged.divergence.register in self.absent:
            self.unchecked[f"{judged.divergence.relation}: {ABSENT}"] += 1
            return
        key = signature(judged.divergence)
        if key in self.clusters:
            self.clusters[key].count += 1
            return
        divergence = judged.divergence._replace(event=at.record)
        round_, first = (at.round, at.round.first) if isinstance(at, Turn) else (None, at.first)
        self.clusters[key] = Cluster(1, Example(divergence, at.vm, at.vcpu, round_, prediction, first))


def check_records(
    records: Iterable[Recorded],
    level: str,
    cpu: Cpu,
    catalogue: Catalogue,
    *,
    vhe: bool,
    tally: Tally,
    absent: Collection[str] = (),
) -> None:
    """Compare a recording with ``level`` of the model, with what KVM owes, and with what no guest can change.

    ``tally`` is filled as it goes: a caller may look at it between two records.  ``absent`` registers are not in the
    recording.
    """
    tally.absent = frozenset(absent)
    lossy = cpu.lossy if vhe else {}
    for at in split(records):
        tally.vcpus.add((at.vm, at.vcpu))
        if isinstance(at, Run):
            tally.exits[exits.exit_class(at.exit.code, at.exit.esr)] += 1
            _check_run(at, tally)
        else:
            _check_turn(at, level, catalogue, lossy, tally)


def _check_turn(turn: Turn, level: str, catalogue: Catalogue, lossy: Mapping[int, int], tally: Tally) -> None:
    prediction = predict(turn.round, level)
    if prediction.undefined:
        tally.undefined[prediction.undefined] += 1
    else:
        tally.relations["save"] += 1
        if prediction.state is None:
            tally.unchecked["restore: the model panicked"] += 1
        else:
            tally.relations["restore"] += 1
    for judged in judge_round(turn.round, prediction, catalogue, lossy):
        tally.take(judged, turn, prediction)
    checked = True
    for found in compare_owed(turn.round, lossy):
        if isinstance(found, Unchecked):
            tally.unchecked[f"{found.what}: {found.why}"] += 1
            checked = False
        else:
            tally.take(Judged(found, None), turn, prediction)
    tally.relations["host"] += checked


_KEPT = tuple(INDEX[name] for name, _ in KEPT)


def _check_run(run: Run, tally: Tally) -> None:
    seen = arch.apply_pending(run.entry.values, run.entry.pending)
    tally.relations["switch"] += 1
    tally.unchecked[f"switch: {FOREIGN}"] += 1
    for index in _KEPT:
        if seen[index] != run.exit.values[index]:
            exit_class = exits.exit_class(run.exit.code, run.exit.esr)
            name = KEPT[_KEPT.index(index)][0]
            found = Divergence("switch", name, seen[index], run.exit.values[index], exit_class, run.record, 0)
            tally.take(Judged(found, None), run, None)
