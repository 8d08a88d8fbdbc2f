# SPDX-License-Identifier: Apache-2.0
"""Cut a recording into the rounds of the host and the runs of the guest, per vCPU, each with its environment."""

from __future__ import annotations

import errno
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from harness import protocol
from harness.arch.exits import SMCCC_FUNCTIONS
from harness.layout import Region
from harness.protocol import OP_ABORT, OP_FINISH, OP_IRQ_LINE, OP_RESET, OP_SERROR, OP_SET
from harness.trace import psci
from harness.trace.environment import IPA_BITS, SCENARIO_VM, VmEnvironment
from harness.trace.events import ENTRY, EXIT, HOST, Host, Switch
from harness.trace.psci import CalledOn
from harness.trace.recorded_resets import name_resets
from harness.trace.recording import Api, Recorded
from harness.trace.rounds import EXIT_INTR, Round

READ_ONLY = 2
"""KVM_MEM_READONLY (KVM API 4.35)."""
PROTECTED, IPA_SIZE = 1 << 31, 0xFF
"""Fields of a VM's type: KVM_VM_TYPE_ARM_PROTECTED, KVM_VM_TYPE_ARM_IPA_SIZE (KVM API 4.2)."""
SYSTEM_SUSPEND = 216
"""KVM_CAP_ARM_SYSTEM_SUSPEND (uapi/linux/kvm.h): the call goes to userspace, which decides (KVM API 8.36)."""
PSCI_VERSION, PSCI_1_1 = 0x6030_0000_0014_0000, 0x10001
FEATURE_BITMAPS = 0x6030_0000_0016_0000
"""KVM_REG_ARM_PSCI_VERSION, and the first of KVM_REG_ARM_{STD,STD_HYP,VENDOR_HYP}_BMAP (uapi/asm/kvm.h)."""
BEFORE_ANSWER = "a vCPU that was reset after a CPU_ON that names it, whose answer is not in the recording"
CALL_NOT_RECORDED = "a vCPU that was reset for a CPU_ON whose call is not in the recording"
_SUSPEND_CALLS = tuple((f.fid, f.fid) for f in SMCCC_FUNCTIONS if f.name.startswith("PSCI_SYSTEM_SUSPEND"))
_EVENTS = ((protocol.EVENT["external_abort"], OP_ABORT), (protocol.EVENT["serror"], OP_SERROR))


@dataclass(frozen=True, slots=True)
class RecordedRound:
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
    """The open part of a vCPU: the round of the host that the next entry ends, or the run that the next exit ends."""

    features: int = 0
    entry: Switch | None = None
    exit: Switch | None = None
    world: VmEnvironment = SCENARIO_VM
    version: int = -1
    first: int = 0
    other_vcpu_ran: bool = False
    userspace_exits: list[Switch] = field(default_factory=list)
    host_actions: list[Host] = field(default_factory=list)
    unproven: str = ""


@dataclass
class _Vm:
    """A virtual machine as its userspace made it."""

    slots: dict[int, Region] = field(default_factory=dict)
    regions: tuple[Region, ...] | None = ()  # the same slots, None until a world asks; one value for all vCPUs
    devices: tuple[Region, ...] = ()
    vcpus: dict[int, _Vcpu] = field(default_factory=dict)
    asking: dict[int, tuple[int, Switch, CalledOn]] = field(default_factory=dict)  # by caller: CPU_ON without an answer
    called_on: dict[int, tuple[Switch, CalledOn]] = field(default_factory=dict)  # the exit, of a CPU_ON that succeeded
    firmware: bool = False
    calls: tuple[tuple[int, int], ...] = ()
    kind: int = 0  # the type that KVM_CREATE_VM was given
    version: int = 0  # grows with every change of the vCPUs' environment

    def vcpu(self, number: int) -> _Vcpu:
        """Return a vCPU, a new one if it was not seen before."""
        if number not in self.vcpus:
            self.vcpus[number] = _Vcpu()
            self.version += 1
        return self.vcpus[number]

    def world(self, number: int) -> VmEnvironment:
        """Return the current environment of a vCPU."""
        vcpu = self.vcpus[number]
        if vcpu.version != self.version:
            if self.regions is None:  # not at each change: a program may make 32 764 slots before it runs anything
                self.regions = tuple(self.slots.values())
            vcpu.world = VmEnvironment(
                self.regions,
                self.devices,
                number,
                len(self.vcpus),
                vcpu.features,
                protected=bool(self.kind & PROTECTED),
                firmware=self.firmware,
                ipa_bits=self.kind & IPA_SIZE or IPA_BITS,
                calls=self.calls,
            )
            vcpu.version = self.version
        return vcpu.world


def split(records: Iterable[Recorded]) -> Iterator[RecordedRound | Run]:
    """Cut a recording into the rounds and runs of each vCPU, in the order in which they end."""
    vms: dict[int, _Vm] = {}
    last: tuple[int, int] | None = None
    for number, (vm_number, vcpu_number, event) in enumerate(name_resets(records), 1):
        vm = vms.setdefault(vm_number, _Vm())
        if isinstance(event, Api):
            if event.name == "destroy":
                vms.pop(vm_number)
            else:
                _call(vm, vcpu_number, event)
            continue
        vcpu = vm.vcpu(vcpu_number)
        if last != (vm_number, vcpu_number):
            vcpu.other_vcpu_ran, last = last is not None, (vm_number, vcpu_number)
        if event.kind != EXIT:
            _answers(vm, vcpu_number, event)
        if event.kind == ENTRY:
            first, world = (number, vm.world(vcpu_number)) if vcpu.exit is None else (vcpu.first, vcpu.world)
            users, hosts = tuple(vcpu.userspace_exits), tuple(vcpu.host_actions)
            round_ = Round(first, vcpu.exit, users, hosts, event, world, vcpu.other_vcpu_ran, vcpu.unproven)
            yield RecordedRound(vm_number, vcpu_number, number, round_)
            vcpu.entry, vcpu.exit, vcpu.first, vcpu.userspace_exits, vcpu.host_actions = event, None, number, [], []
            vcpu.unproven = ""
        elif event.kind == EXIT:
            if vcpu.entry is not None:
                yield Run(vm_number, vcpu_number, vcpu.first, number, vcpu.entry, event)
            vm.world(vcpu_number)  # the environment of a round is that at its exit
            vcpu.entry, vcpu.exit, vcpu.first, vcpu.other_vcpu_ran = None, event, number, False
            _calls_another(vm, vcpu_number, event)
        elif vcpu.exit is not None:
            if vcpu.userspace_exits:
                # A KVM_RUN that ran no guest because of a signal: it completed the access that was pending, and kvm_run
                # still holds the exit before.
                vcpu.host_actions.append(Host(HOST, 0, OP_FINISH, 0, 0, 0, False))
                event = event._replace(code=EXIT_INTR) if event.error == errno.EINTR else event
            vcpu.userspace_exits.append(event)


def _call(vm: _Vm, number: int, call: Api) -> None:
    """Apply a call of userspace; one that failed changed nothing; a register write is recorded with its errno."""
    if call.name in ("set_register", "irq_line"):
        op = OP_SET if call.name == "set_register" else OP_IRQ_LINE
        vm.vcpu(number).host_actions.append(Host(HOST, 0, op, call.a, call.b, call.error, True))
        old_psci = call.a == PSCI_VERSION and call.b < PSCI_1_1
        if op == OP_SET and not call.error and (old_psci or call.a >> 16 == FEATURE_BITMAPS >> 16):
            vm.firmware, vm.version = True, vm.version + 1
    elif call.error:
        return
    elif call.name == "create":
        vm.kind, vm.version = call.a, vm.version + 1
    elif call.name == "slot":
        vm.slots.pop(call.a, None)
        if call.d:
            vm.slots[call.a] = Region(f"slot {call.a}", call.c, call.d, True, "", bool(call.b & READ_ONLY))
        vm.regions, vm.version = None, vm.version + 1
    elif call.name == "capability" and call.a == SYSTEM_SUSPEND:
        _chose_calls(vm, *_SUSPEND_CALLS)
    elif call.name == "filter" and call.b:
        _chose_calls(vm, (call.a, call.a + call.b - 1))
    elif call.name == "device":
        # An ioeventfd of length 0 takes writes of any (KVM API 4.59).
        vm.devices += (Region("device", call.a, call.b or 8, False, ""),)
        vm.version += 1
    elif call.name == "reset":
        vm.vcpu(number).features = call.a
        vm.version += 1
        _reset(vm, number, call.b)
    elif call.name == "events":
        hosts = vm.vcpu(number).host_actions
        hosts += [Host(HOST, 0, op, 0, 0, 0, True) for bit, op in _EVENTS if call.a & bit]


def _chose_calls(vm: _Vm, *ranges: tuple[int, int]) -> None:
    vm.calls, vm.version = (*vm.calls, *ranges), vm.version + 1


def _reset(vm: _Vm, number: int, by: int) -> None:
    """Record that KVM has reset a vCPU, and the cause (``protocol.RESET_BY``).

    The answer to a CPU_ON may be recorded after the reset: the vCPU that it names may run first.
    """
    vcpu = vm.vcpu(number)
    vcpu.unproven = ""
    asking = next((caller for caller, (named, _, _) in vm.asking.items() if named == number), None)
    if by == protocol.RESET_BY["init"]:
        vcpu.host_actions.append(Host(HOST, 0, OP_RESET, 0, 0, 0, True))
    elif (answered := vm.called_on.pop(number, None)) is not None:
        vcpu.host_actions += psci.actions_of_cpu_on(*answered, 0, asked=True)
    elif by == protocol.RESET_BY["cpu_on"] and asking is not None:
        _, caller, call = vm.asking.pop(asking)
        vcpu.host_actions += psci.actions_of_cpu_on(caller, call, 0, asked=True)
    else:
        vcpu.host_actions.append(Host(HOST, 0, OP_RESET, 0, 0, 0, True))
        if asking is not None:
            vm.asking.pop(asking)
            vcpu.unproven = BEFORE_ANSWER
        elif by == protocol.RESET_BY["cpu_on"]:
            vcpu.unproven = CALL_NOT_RECORDED


def _calls_another(vm: _Vm, caller: int, exit_: Switch) -> None:
    """Remember the arguments of PSCI CPU_ON: a reset of the vCPU that it names may follow."""
    call = psci.called_on(exit_)
    if call is None:
        vm.asking.pop(caller, None)
        return
    for number in vm.vcpus:
        if vm.world(number).mpidr & psci.AFFINITY == call.target:
            vm.asking[caller] = number, exit_, call


def _answers(vm: _Vm, caller: int, after: Switch) -> None:
    """Take the answer to a CPU_ON from the first record after its exit: userspace had no turn before."""
    number, exit_, call = vm.asking.pop(caller, (0, None, None))
    if exit_ is not None and call is not None and after.values[0] == psci.SUCCESS:
        vm.called_on[number] = exit_, call


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
