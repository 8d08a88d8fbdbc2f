# SPDX-License-Identifier: Apache-2.0
"""Record every world switch of a program that uses /dev/kvm in a target, to a file, without loss."""

from __future__ import annotations

import os
import struct
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from harness import protocol
from harness.arch import exits
from harness.errors import AgentProtocolError, SetupError, VmLost
from harness.protocol import RING_MIB
from harness.trace import ring
from harness.trace.decode import ContextLayout
from harness.trace.events import EXIT, Switch
from harness.trace.recording import End, Head, Writer, create
from harness.vm.alarms import Alarm, find_alarms
from harness.vm.build.prepare import PreparedTarget
from harness.vm.build.programs import Program, overlay
from harness.vm.config import MachineConfig
from harness.vm.qemu import Qemu
from harness.vm.qemu_command import Machine
from harness.vm.target import layout_of, machine_of

MEMORY_MIB = 1536
"""RAM of a recording target in MiB: kernel, program and files twice, and memory of the program.

More than they need (a page costs nothing before its first use): if memory is short, the target's kernel reclaims idle
pages, and every reclaimed page that is used again causes a fault of the guest.  Measured on 7.3 with 768 MiB: half of
all exits.
"""

TICK_SECONDS, NAP_SECONDS = 0.5, 0.001
"""Seconds between two progress reports of a recording; seconds of sleep when there is nothing to write."""


@dataclass(frozen=True, slots=True)
class RecordingProgress:
    """Progress of a recording: records so far, exits by class, and the machine's output since the last tick."""

    records: int
    exits: Mapping[str, int]
    printed: str


@dataclass(frozen=True, slots=True)
class FinishedRecording:
    """A finished recording: its last line, the machine's whole output, seconds from boot to end.

    ``lost`` is the error, if the target was lost: the recording holds the records before it.  ``alarms`` are those of
    the target's kernel while the program ran; a Linux guest prints to the same console, so they may also be the
    guest's.
    """

    end: End
    console: str
    seconds: float
    lost: VmLost | None = None
    alarms: tuple[Alarm, ...] = ()


def record(
    config: MachineConfig,
    prepared: PreparedTarget,
    program: Program,
    built: Path,
    out: Path,
    *,
    seconds: float,
    ring_mib: int = RING_MIB,
    cpus: int = 1,
    tick: Callable[[RecordingProgress], None] = lambda tick: None,
    stopped: Callable[[], bool] = lambda: False,
) -> FinishedRecording:
    """Boot a target, run ``program`` in it with recording on, and write the recording to ``out``.

    The target has ``cpus`` CPUs.  After ``seconds``, or when ``stopped`` returns true, the recording is stopped, and
    marked as stopped; if the machine dies, it holds all records until then.  VmLost: the machine died before the
    program ran; no file is written.  AgentProtocolError: the machine's records violate the protocol.  SetupError: the
    target cannot record programs.
    """
    if prepared.borrowed:
        raise SetupError(f"Linux {prepared.kernel_release} has no headers of its own: it cannot record programs")
    layout = layout_of(prepared)
    start = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="shadowfuzz-") as work:
        initrd = Path(work) / "initrd"
        # Several archives may be concatenated (Documentation/driver-api/early-userspace/buffer-format.rst).
        initrd.write_bytes(prepared.initrd.read_bytes() + overlay(program, built))
        machine = machine_of(config, replace(prepared, initrd=initrd))
        machine = replace(
            machine,
            memory_mib=max(MEMORY_MIB, machine.memory_mib),
            shared_mib=ring_mib,
            cpus=cpus,
            cmdline=f"{machine.cmdline} rdinit=/recorder",
        )
        with Qemu(machine) as qemu:
            initrd.unlink()  # QEMU has read it
            booted = qemu.console_size()
            session = _Session(qemu, layout, tick, lambda: stopped() or time.monotonic() > start + seconds)
            with create(out, _head(prepared, machine, program, session.vhe)) as writer:
                end = session.run(writer)
            alarms = find_alarms(qemu.console_from(booted))
            return FinishedRecording(end, qemu.console(), time.monotonic() - start, session.lost, alarms)


def _head(prepared: PreparedTarget, machine: Machine, program: Program, vhe: bool) -> Head:
    return Head(prepared.name, machine.cpu, prepared.kernel_release, prepared.kernel_sha256, vhe, program.title)


class _Session:
    """The mailbox of a recording machine; drains the ring while the program runs."""

    def __init__(
        self, qemu: Qemu, layout: ContextLayout, tick: Callable[[RecordingProgress], None], is_over: Callable[[], bool]
    ) -> None:
        assert qemu.mailbox is not None
        self._qemu, self._layout, self._tick, self._is_over = qemu, layout, tick, is_over
        self._mailbox = qemu.mailbox
        self._printed = self._tail = 0
        self._shown = time.monotonic()
        self._exits: Counter[str] = Counter()
        self.lost: VmLost | None = None
        """The error, if the machine was lost."""
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
        """Run the program to its end, until the recording is stopped, or until the machine is lost."""
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
        if self.lost is not None:
            return writer.end("lost", 0, dropped, waits)
        if not finished:
            return writer.end("stopped", 0, dropped, waits)
        status = self._word("exit_status")
        if os.WIFSIGNALED(status):
            return writer.end("signalled", os.WTERMSIG(status), dropped, waits)
        return writer.end("exited", os.WEXITSTATUS(status), dropped, waits)

    def _drain(self, writer: Writer, area: memoryview) -> bool:
        """Write records until the program has ended (True), or the recording is stopped (False)."""
        try:
            while True:
                ended = self._word("reply") == 1  # read before head: head then includes all earlier records
                if not self._take(writer, area):
                    return False
                if ended:
                    self._show(writer)
                    return True
                self._show_at_times(writer)
                try:
                    self._qemu.check_alive()
                except VmLost as error:
                    self.lost = error
                    self._take(writer, area)  # the mailbox survives the machine, with all records of the probe
                    return False
                if self._is_over():
                    return False
                time.sleep(NAP_SECONDS)
        finally:
            area.release()

    def _take(self, writer: Writer, area: memoryview) -> bool:
        """Write the content of the ring, and free it; False: stopped before that."""
        head = self._word("head")
        for number, recorded in enumerate(ring.decode(area, self._tail, head, self._layout)):
            writer.add(recorded)
            event = recorded.event
            if isinstance(event, Switch) and event.kind == EXIT:
                self._exits[exits.exit_class(event.code, event.esr)] += 1
            if not number % 256:
                self._show_at_times(writer)
                if self.lost is None and self._is_over():
                    return False
        self._tail = head
        self._put("tail", head)
        return True

    def _show_at_times(self, writer: Writer) -> None:
        if time.monotonic() - self._shown > TICK_SECONDS:
            self._show(writer)

    def _show(self, writer: Writer) -> None:
        console = self._qemu.console()
        self._tick(RecordingProgress(writer.records, self._exits, console[self._printed :]))
        self._printed, self._shown = len(console), time.monotonic()
