# SPDX-License-Identifier: Apache-2.0
"""The life of a machine: it boots, stops and resumes; after any end of it or its owner, no part of it remains."""

from __future__ import annotations

import os
import signal
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from harness import protocol
from harness.arch import exceptions
from harness.arch.exits import EXCEPTION_IRQ, EXCEPTION_TRAP, EXIT_WITH_SERROR_BIT
from harness.arch.registers import BY_NAME
from harness.errors import AgentProtocolError, SetupError, VmLost
from harness.layout import CODE, VECTORS
from harness.scenario.scenario import parse
from harness.trace.decode import ContextLayout
from harness.trace.events import EXIT, USER, Host, Switch, Trace
from harness.vm.build.initramfs import file, write_cpio
from harness.vm.build.prepare import IMAGE_MAGIC, IMAGE_MAGIC_OFFSET, prepare
from harness.vm.config import DEFAULT_TARGET, PROJECT, load_config
from harness.vm.executor import ROUND_BUDGET, Executor
from harness.vm.kernels.dwarf import read_layout
from harness.vm.qemu import Qemu
from harness.vm.qemu_command import Machine
from harness.vm.target import machine_of
from tests.vm.runaways import RUNAWAYS, WALK
from tests.vm.running import booted, check_all

TEXT = "shadowfuzz-scenario 1\nabout A call and a load.\nreg x1 0x9000000\nhvc 0x0\nldrb w3, [x1]\ncomplete 0x55\n"
SCENARIO = parse(TEXT, "here")

# Boots, prints its process id, and runs scenarios until it is killed.
OWNER = f"""
from harness.scenario.scenario import parse
from harness.vm.build.prepare import prepare
from harness.vm.config import DEFAULT_TARGET, load_config
from harness.vm.kernels.dwarf import read_layout
from harness.vm.executor import Executor
from harness.vm.qemu import Qemu
from harness.vm.target import machine_of
config = load_config(DEFAULT_TARGET)
prepared = prepare(config)
scenario = parse({TEXT!r}, "here")
with Qemu(machine_of(config, prepared)) as qemu:
    executor = Executor(qemu, read_layout(prepared.module_elf))
    print(qemu.pid, flush=True)
    while True:
        executor.run(scenario)
"""


@pytest.fixture(scope="module")
def machine() -> Machine:
    config = load_config(DEFAULT_TARGET)
    return machine_of(config, prepare(config))


@pytest.fixture(scope="module")
def layout() -> ContextLayout:
    return read_layout(prepare(load_config(DEFAULT_TARGET)).module_elf)


@pytest.fixture(scope="module")
def qemu(machine: Machine) -> Iterator[Qemu]:
    with Qemu(machine) as running:
        yield running


def _alive(pid: int) -> bool:
    """Whether a process runs; a zombie does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except OSError:
        return False


def _until(what: Callable[[], bool], seconds: float = 10.0) -> bool:
    deadline = time.monotonic() + seconds
    while not what():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.01)
    return True


def test_it_runs_scenarios(qemu: Qemu, layout: ContextLayout) -> None:
    executor = Executor(qemu, layout)
    before = executor.exits
    trace = executor.run(SCENARIO)
    assert (trace.status, trace.dropped, trace.vhe) == ("ok", 0, False)
    assert executor.exits > before


@pytest.mark.parametrize("name", RUNAWAYS)
def test_a_runaway_ends_its_scenario_and_not_the_next(qemu: Qemu, layout: ContextLayout, name: str) -> None:
    executor = Executor(qemu, layout)
    for _ in range(2):
        trace = executor.run(RUNAWAYS[name], fresh_vm=False)
        assert (trace.status, trace.dropped) == ("runaway", 0)
        if name == "round":
            assert len(_exits(trace)) < ROUND_BUDGET + 10, "even with rare interrupts"
        else:
            interrupts = [exit_ for exit_ in _exits(trace) if exit_.code == EXCEPTION_IRQ]
            assert [_stands(exit_) for exit_ in interrupts].count(True) == 1, "one interrupt is enough"
        assert executor.run(SCENARIO, fresh_vm=False).status == "ok"


def test_a_guest_that_leaves_the_code_is_brought_back_at_once(qemu: Qemu, layout: ContextLayout) -> None:
    trace = Executor(qemu, layout).run(WALK, fresh_vm=False)
    calls = [exit_.esr & 0xFFFF for exit_ in _exits(trace) if exit_.exit_class == "HVC64"]
    assert trace.status == "ok" and len(_exits(trace)) < 20
    assert calls == [0, 0, 1], "it continued after the branch"


LEAVES = """shadowfuzz-scenario 1
about Raised lines and an SError that a masked guest never takes; a forged exit.
reg pstate 0x3c5
hvc 0x0
irq_line irq 1
irq_line fiq 1
serror 0x0
hvc 0x0
forge code 0x77
hvc 0x0
"""
UNMASKED = parse("shadowfuzz-scenario 1\nabout Nothing is masked.\nreg pstate 0x5\nhvc 0x0\nhvc 0x0\n", "here")


@pytest.mark.parametrize("target", [DEFAULT_TARGET, "kvm-6.12-nvhe"])
def test_pending_work_does_not_reach_the_next_scenario(target: str) -> None:
    """Linux 6.12 keeps an SError across a reset, 6.1 does not."""
    config = load_config(target)
    prepared = prepare(config)
    with Qemu(machine_of(config, prepared)) as running:
        executor = Executor(running, read_layout(prepared.module_elf))
        alone = _traps(executor.run(UNMASKED, fresh_vm=True))
        for _ in range(3):
            left = [e for e in executor.run(parse(LEAVES), fresh_vm=False).events if isinstance(e, Switch)]
            assert any(e.hcr & exceptions.HCR_VIRTUAL for e in left)
            assert any(e.forged for e in left)
            assert _traps(executor.run(UNMASKED, fresh_vm=False)) == alone
    assert {(hcr, forged) for _, hcr, forged in alone} == {(0, 0)}


def _exits(trace: Trace) -> list[Switch]:
    return [event for event in trace.events if isinstance(event, Switch) and event.kind == EXIT]


def _stands(exit_: Switch) -> bool:
    """Whether the guest took the exception from its vector to its vector; an interrupt may precede that."""
    pc, elr, vbar = (exit_.values[i] for i in (exceptions.PC, exceptions.ELR, exceptions.VBAR))
    return pc == elr == exceptions.vector(vbar, exceptions.EL1H)


def _traps(trace: Trace) -> list[tuple[int, int, int]]:
    """Return the traps, pending virtual interrupts and forged exits, without host interrupts."""
    traps = (event for event in _exits(trace) if event.code & ~EXIT_WITH_SERROR_BIT == EXCEPTION_TRAP)
    return [(trap.esr, trap.hcr & exceptions.HCR_VIRTUAL, trap.forged) for trap in traps]


WRITES = parse(
    "shadowfuzz-scenario 1\nabout The host writes after calls, a load, a move and an undefined instruction.\n"
    "reg x1 0x9000000\nhvc 0x0\nset x5 0x55\nset x30 0x30\nmov x6, x5\nset x7 0x77\nhvc 0x0\nset x8 0x88\n"
    "ldr x3, [x1]\nset x3 0x33\nudf 0x0\nset x9 0x99\nhvc 0x0\nset x10 0xaa\n",
    "here",
)


def test_the_module_writes_what_the_api_would(qemu: Qemu, layout: ContextLayout) -> None:
    """At every trap of the code the guest has the same registers; the module does not return to userspace."""
    seen, returns = [], []
    for by_probe in (False, True):
        events = Executor(qemu, layout, by_probe=by_probe).run(WRITES).events
        traps = (e for e in events if isinstance(e, Switch) and e.kind == EXIT and e.code == EXCEPTION_TRAP)
        seen.append([e.values for e in traps if e.get("pc") in CODE])
        returns.append(sum(isinstance(e, Switch) and e.kind == USER for e in events))
        assert [(e.a, e.b) for e in events if isinstance(e, Host) and e.asked] == WRITTEN
    assert seen[0] == seen[1]
    assert returns[1] < returns[0]


WRITTEN = [(BY_NAME[str(step.args[0])].one_reg, step.args[1]) for step in WRITES.steps if step.kind == "set"]
WRITTEN[:0] = [
    (BY_NAME[name].one_reg, value)
    for name, value in (("vbar_el1", VECTORS.base), ("x1", 0x900_0000), ("pc", CODE.base))
]


def test_a_stopped_machine_does_not_answer_and_then_resumes(qemu: Qemu, layout: ContextLayout) -> None:
    qemu.stop()
    try:
        status = qemu.execute("query-status")
        assert isinstance(status, dict)
        assert (status["status"], status["running"]) == ("paused", False)  # QEMU before 9.0 has a third member
        with pytest.raises(VmLost, match=r"no answer to a scenario within 0\.3 s"):
            Executor(qemu, layout, timeout=0.3).run(SCENARIO)
    finally:
        qemu.cont()
    mailbox = qemu.mailbox
    assert mailbox is not None

    def answered() -> bool:
        request, reply = struct.unpack_from("<QQ", mailbox, protocol.CONTROL_OFFSET["request"])
        return bool(request == reply)

    assert protocol.CONTROL_OFFSET["reply"] == protocol.CONTROL_OFFSET["request"] + 8
    assert _until(answered)
    assert Executor(qemu, layout).run(SCENARIO).status == "ok"


def test_a_wakeup_without_a_request_is_ignored(qemu: Qemu, layout: ContextLayout) -> None:
    executor = Executor(qemu, layout)
    for _ in range(3):
        for _ in range(5):
            qemu.wake_agent()
        assert executor.run(SCENARIO, fresh_vm=False).status == "ok"


def test_no_network_and_a_sandbox(qemu: Qemu) -> None:
    assert qemu.execute("query-rx-filter") == [], "network devices"
    buses = qemu.execute("query-pci")
    assert isinstance(buses, list)
    assert [d["class_info"]["desc"] for bus in buses for d in bus["devices"]] == ["Host bridge", "Serial port"]
    status = dict(
        line.split(":\t", 1) for line in Path(f"/proc/{qemu.pid}/status").read_text().splitlines() if ":\t" in line
    )
    assert (status["Seccomp"].strip(), status["NoNewPrivs"].strip()) == ("2", "1")
    inside = [Path(path).readlink() for path in Path(f"/proc/{qemu.pid}/fd").iterdir()]
    assert sum(str(target).startswith("socket:") for target in inside) == 2, "only those of QMP and the bell"


def test_a_layout_of_another_kernel_is_refused(qemu: Qemu, layout: ContextLayout) -> None:
    with pytest.raises(AgentProtocolError, match="context"):
        Executor(qemu, replace(layout, size=layout.size + 8))


@pytest.mark.parametrize("how", ["SIGKILL", "SIGTERM"])
def test_no_machine_outlives_its_owner(how: str) -> None:
    with subprocess.Popen([sys.executable, "-c", OWNER], cwd=PROJECT, stdout=subprocess.PIPE, text=True) as owner:
        assert owner.stdout is not None
        line = owner.stdout.readline()
        assert line, "it did not boot"
        pid = int(line)
        assert _alive(pid)
        owner.send_signal(signal.Signals[how])
        owner.wait(10)
        assert _until(lambda: not _alive(pid)), "QEMU outlived its owner"


def test_killed_while_a_scenario_runs(machine: Machine, layout: ContextLayout) -> None:
    with Qemu(machine) as qemu:
        pid = qemu.pid
        executor = Executor(qemu, layout)
        executor.run(SCENARIO)
        timer = threading.Timer(0.2, os.kill, (pid, signal.SIGKILL))
        timer.start()
        deadline = time.monotonic() + 10
        with pytest.raises(VmLost, match="QEMU ended with status -9") as lost:
            while time.monotonic() < deadline:
                executor.run(SCENARIO)
        assert time.monotonic() < deadline
        assert lost.value.config == DEFAULT_TARGET
        with pytest.raises(VmLost):
            qemu.stop()
    assert not _alive(pid)


def test_the_block_ends_and_so_does_the_machine(machine: Machine) -> None:
    """A machine that never becomes ready suffices: it is ended in the same way."""
    pids: list[int] = []

    class Watched(Qemu):
        def _wait_ready(self) -> None:
            pids.append(self.pid)

    with pytest.raises(KeyboardInterrupt), Watched(machine) as qemu:
        assert _alive(qemu.pid)
        raise KeyboardInterrupt
    with Watched(machine) as qemu:
        qemu.close()
        qemu.close()
    assert len(pids) == 2
    assert not any(map(_alive, pids))


def test_a_panic_is_shown(machine: Machine, tmp_path: Path) -> None:
    """An init that returns: Linux panics, and the error has the end of the console."""
    initrd, source, init = (tmp_path / name for name in ("initrd", "init.c", "init"))
    source.write_text("int main(void) { return 0; }\n")
    subprocess.run(["aarch64-linux-gnu-gcc", "-static", "-o", init, source], check=True)
    initrd.write_bytes(write_cpio((file("init", init.read_bytes(), executable=True),)))
    with (
        pytest.raises(VmLost, match="the kernel panicked or powered off") as lost,
        Qemu(replace(machine, initrd=initrd)),
    ):
        pass
    assert "Kernel panic - not syncing" in lost.value.console_tail
    assert lost.value.config == DEFAULT_TARGET


def test_a_kernel_without_an_initramfs_is_a_set_up_error(machine: Machine, tmp_path: Path) -> None:
    empty = tmp_path / "initrd"
    empty.write_bytes(b"")
    with (
        pytest.raises(SetupError, match="the kernel does not support an initramfs"),
        Qemu(replace(machine, initrd=empty)),
    ):
        pass


def test_a_kernel_that_hangs(machine: Machine, tmp_path: Path) -> None:
    """A branch to itself, with the header of an arm64 Image (Documentation/arch/arm64/booting.rst)."""
    image = bytearray(struct.pack("<IIQQ", 0x1400_0000, 0, 0, 4096).ljust(4096, b"\0"))
    image[IMAGE_MAGIC_OFFSET : IMAGE_MAGIC_OFFSET + len(IMAGE_MAGIC)] = IMAGE_MAGIC
    path = tmp_path / "Image"
    path.write_bytes(image)
    prepared = prepare(load_config(DEFAULT_TARGET), kernel=path)
    assert prepared.kernel == path
    hanging = Qemu(replace(machine, kernel=path), boot_timeout=1.0)
    start = time.monotonic()
    with pytest.raises(VmLost, match="the agent was not ready within 1 s"), hanging:
        pass
    assert time.monotonic() - start < 10
    assert not _alive(hanging.pid)


def test_a_pending_abort_does_not_reach_the_next_scenario() -> None:
    """6.1 advances PC after an external abort that replaces an access, when the vCPU runs next; a reset keeps that."""
    scenario = parse(
        b"shadowfuzz-scenario 1\nabout Ends as a runaway, with an abort that the other vCPU never enters.\n"
        b"ldrh wzr, [x7]\nstr wzr, [x21]\nabort\nvcpu 0.1\nstrh w17, [x13, 0x2]\nabort\neret\n"
    )
    with booted("kvm-vhe") as executor:
        assert executor.run(scenario).status == "runaway"
        again = check_all("kvm-vhe", {"again": scenario}, executor, fresh_vm=False)["again"]
    assert [d.name for d in again.unexplained if d.exit_class == "FIRST"] == []
