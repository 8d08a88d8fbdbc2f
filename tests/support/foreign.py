# SPDX-License-Identifier: Apache-2.0
"""Records of a small VM of a recorded program."""

from __future__ import annotations

from harness.arch import reset_values
from harness.arch.exceptions import State
from harness.arch.registers import BY_NAME, NAMES
from harness.trace.environment import PSCI_0_2
from harness.trace.events import Switch
from harness.trace.recording import Api, Recorded
from tests.support.traces import SKIP, but, entry, load_esr, trap, user

RAM, SIZE, GIC, UART = 0x4000_0000, 0x800_0000, 0x0800_0000, 0x0900_0000


def reset_state(vcpu: int = 0, **values: int) -> State:
    """Return records of a vCPU after KVM_ARM_VCPU_INIT, with registers that userspace wrote."""
    first = dict.fromkeys(NAMES, 0) | dict(reset_values.RESET_VALUES) | {"mpidr_el1": 1 << 31 | vcpu}
    return tuple({**first, **values}[name] for name in NAMES)


def call(name: str, *arguments: int, error: int = 0) -> Api:
    """Return the record of an API call that succeeded, or failed with an errno."""
    return Api(name, *(*arguments, 0, 0, 0, 0)[:4], error)


def sets(name: str, value: int) -> Api:
    """KVM_SET_ONE_REG."""
    return call("set_register", BY_NAME[name].one_reg, value)


def of(vcpu: int, *events: Switch | Api, vm: int = 1) -> list[Recorded]:
    """Records of one vCPU."""
    return [Recorded(vm, vcpu, event) for event in events]


MACHINE = of(0, call("slot", 0, 0, RAM, SIZE), call("device", GIC, 0x10000), call("reset", PSCI_0_2), sets("pc", RAM))

S = reset_state(pc=RAM)


def started(*events: Switch | Api) -> list[Recorded]:
    """Return records of a vCPU that has been entered, followed by others."""
    return MACHINE + of(0, entry(S), *events)


def load(target: int, data: int, address: int, *, users: bool, kernel: bool) -> list[Recorded]:
    """A load that KVM emulates, in the kernel or by userspace."""
    at = but(S, x2=address)
    exit_ = trap(at, load_esr(target, 4, wide=False), far=address, hpfar=address >> 12 << 4)
    done = but(at, **{f"x{target}": data})
    mmio = {"mmio_addr": address, "mmio_len": 4, "mmio_data": data}
    via = (user(at, 6, **mmio),) if users else ()
    return started(exit_, *via, entry(done, SKIP if kernel or users else 0, **mmio))
