# SPDX-License-Identifier: Apache-2.0
"""Record every world switch of a program that uses /dev/kvm in a target, to a file, without losing one."""

from __future__ import annotations

import os
import struct
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from harness import protocol, ring
from harness.errors import AgentProtocolError, SetupError
from harness.recording import End, Head, Writer, create
from harness.trace import ContextLayout
from harness.vm.build import PreparedTarget
from harness.vm.config import MachineConfig
from harness.vm.machine import Machine
from harness.vm.programs import Program, overlay
from harness.vm.qemu import Qemu
from harness.vm.target import layout_of, machine_of

RING_MIB = 64
"""Size of the mailbox: 40 000 records of room, so that the probe rarely waits for the writer."""
MEMORY_MIB = 1536
"""RAM of a recording target: kernel, program and files twice, and what the program asks for.

More than they need (a page costs nothing before it is touched): where memory is short, the target's kernel looks for
pages that rest, and each one that does not costs the guest a fault.  Measured on 7.3 with 768 MiB: half of all exits.
"""


@dataclass(frozen=True, slots=True)
class Tick:
    """How far a recording is: records and exits so far, and what the machine printed since the last tick."""

    records: int
    exits: int
    printed: str


@dataclass(frozen=True, slots=True)
class Done:
    """A finished recording: its last line, all that the machine printed, seconds from boot to end."""

    end: End
    console: str
    seconds: float


def record(
    config: MachineConfig,
    prepared: PreparedTarget,
    program: Program,
    built: Path,
    out: Path,
    *,
    seconds: float,
    ring_mib: int = RING_MIB,
    tick: Callable[[Tick], None] = lambda tick: None,
) -> Done:
    """Boot a target, run ``program`` in it with recording on, and write the recording to ``out``.

    After ``seconds`` the recording is stopped where it is, and says so.  VmLost: the machine died; then there is no
    file.  AgentProtocolError: what it wrote makes no sense.  SetupError: the target cannot record programs.
    """
    if prepared.borrowed:
        raise SetupError(f"Linux {prepared.kernel_release} has no headers of its own: it runs scenarios, cannot record")
    layout = layout_of(prepared)
    start = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="shadowfuzz-") as work:
        initrd = Path(work) / "initrd"
        # Archives may follow each other (Documentation/driver-api/early-userspace/buffer-format.rst).
        initrd.write_bytes(prepared.initrd.read_bytes() + overlay(program, built))
        machine = machine_of(config, replace(prepared, initrd=initrd))
        machine = replace(
            machine,
            memory_mib=max(MEMORY_MIB, machine.memory_mib),
            shared_mib=ring_mib,
            cmdline=f"{machine.cmdline} rdinit=/recorder",
        )
        with Qemu(machine) as qemu:
            initrd.unlink()  # QEMU has read it
            session = _Session(qemu, layout, tick, start + seconds)
            with create(out, _head(prepared, machine, program, session.vhe)) as writer:
                end = session.run(writer)
            return Done(end, qemu.console(), time.monotonic() - start)


def _head(prepared: PreparedTarget, machine: Machine, program: Program, vhe: bool) -> Head:
    return Head(prepared.name, machine.cpu, prepared.kernel_release, prepared.kernel_sha256, vhe, program.title)


class _Session:
    """The mailbox of a machine that records; drains the ring while the program runs."""

    def __init__(self, qemu: Qemu, layout: ContextLayout, tick: Callable[[Tick], None], deadline: float) -> None:
        assert qemu.mailbox is not None
        self._qemu, self._layout, self._tick, self._deadline = qemu, layout, tick, deadline
        self._mailbox = qemu.mailbox
        self._printed = 0
        if self._word("context_size") != layout.size:
            raise AgentProtocolError(f"the probe's context has {self._word('context_size')} bytes, not {layout.size}")

    def _word(self, name: str) -> int:
        (value,) = struct.unpack_from("<Q", self._mailbox, protocol.CONTROL_OFFSET[name])
        return int(value)

    def _put(self, name: str, value: int) -> None:
        struct.pack_into("<Q", self._mailbox, protocol.CONTROL_OFFSET[name], value)

    @property
    def vhe(self) -> bool:
        """Whether the target's KVM runs at EL2."""
        return bool(self._word("vhe"))

    def run(self, writer: Writer) -> End:
        """Let the program run to its end, or to the deadline."""
        self._put("record", protocol.RECORD_TO["ring"])
        self._put("request", 1)
        area = memoryview(self._mailbox)[protocol.TRACE_OFFSET :]
        try:
            limit = self._word("limit")
            if limit > len(area):
                raise AgentProtocolError(f"a ring of {limit} bytes, the mailbox has {len(area)}")
            finished = self._drain(writer, area[:limit])
        finally:
            area.release()
        dropped, waits = self._word("dropped"), self._word("waits")
        if not finished:
            return writer.end("stopped", 0, dropped, waits)
        status = self._word("exit_status")
        if os.WIFSIGNALED(status):
            return writer.end("signalled", os.WTERMSIG(status), dropped, waits)
        return writer.end("exited", os.WEXITSTATUS(status), dropped, waits)

    def _drain(self, writer: Writer, area: memoryview) -> bool:
        """Write what comes until the program has ended (True) or time is over."""
        tail, shown = 0, time.monotonic()
        try:
            while True:
                ended = self._word("reply") == 1  # read before head: what was recorded before it is then there
                head = self._word("head")
                for number, recorded in enumerate(ring.decode(area, tail, head, self._layout)):
                    writer.add(recorded)
                    if not number % 256:
                        now = time.monotonic()
                        if now - shown > 0.5:
                            shown = self._show(writer)
                        if now > self._deadline:
                            return False
                tail = head
                self._put("tail", tail)
                if ended:
                    self._show(writer)
                    return True
                if time.monotonic() - shown > 0.5:
                    shown = self._show(writer)
                self._qemu.check_alive()
                if time.monotonic() > self._deadline:
                    return False
                time.sleep(0.001)
        finally:
            area.release()

    def _show(self, writer: Writer) -> float:
        console = self._qemu.console()
        self._tick(Tick(writer.records, writer.exits, console[self._printed :]))
        self._printed = len(console)
        return time.monotonic()
