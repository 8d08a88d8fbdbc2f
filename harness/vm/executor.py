# SPDX-License-Identifier: Apache-2.0
"""Run scenarios on a live machine: hand the agent their operations, start them, collect the trace.

The agent is the userspace program in the machine that calls KVM_RUN; the recording module in its kernel is called
*probe*.  Operations, control words and trace are in the mailbox, memory that QEMU shares with both
(:mod:`harness.protocol`).
"""

from __future__ import annotations

import struct
import time

from harness import protocol
from harness.errors import AgentProtocolError
from harness.scenario.agent_program import compile_scenario
from harness.scenario.requirements import needs_debug_registers, uses_gic
from harness.scenario.scenario import Scenario
from harness.trace import events as trace
from harness.trace.decode import ContextLayout, decode
from harness.trace.events import Trace
from harness.vm.alarms import Alarm, find_alarms, has_hint
from harness.vm.fetch_storm import FetchStormWatch
from harness.vm.plugins.hyp_copy import HypMap
from harness.vm.qemu import Qemu

IRQ_BUDGET = 5
"""Number of exits by host interrupts that a guest may have without progress; with one more the probe stops it (status
``runaway``).  Progress is a trap at a higher address than any before.

The host's timer interrupts it at each tick.  On a busy machine two ticks can arrive during one exit: with a limit of 2,
9 of 1 569 scenarios were stopped wrongly.
"""
ROUND_BUDGET = 128
"""Number of exits that a guest may have without progress, before the probe stops it.

64 were too few for a guest that branched back and executed the same instructions again."""
CHECK_SECONDS = 0.1
"""Seconds between two checks that QEMU is alive, during a long wait."""
SETTLE_SECONDS, SETTLE_PATIENCE = 0.03, 1.0
"""Seconds without new output after which an alarm on the console is complete; maximum wait for that, in seconds."""


class Executor:
    """Run scenarios on one machine, one at a time.

    ``layout`` is that of ``struct kvm_cpu_context`` in this kernel; ``timeout`` is in seconds, of one scenario;
    ``by_probe`` as of :func:`compile_scenario`; ``hyp``: the records of a QEMU plugin that copies pKVM's own copies of
    the vCPUs at EL2, None: there is no such plugin.
    """

    def __init__(
        self,
        qemu: Qemu,
        layout: ContextLayout,
        *,
        timeout: float = 10.0,
        by_probe: bool = False,
        hyp: HypMap | None = None,
        boot_alarms: tuple[Alarm, ...] = (),
    ) -> None:
        self.boot_alarms = boot_alarms
        """Alarms of the target's kernel during boot: no scenario caused them."""
        self._by_probe = by_probe
        self._hyp = hyp
        self._qemu = qemu
        self._layout = layout
        self._timeout = timeout
        # Sizes of the console: at the last look for alarms, and up to the last whole line that was searched.  The
        # kernel has booted already: its lines so far are of no scenario.
        self._seen = self._read = qemu.console_size()
        size = self._word("context_size")
        if size != layout.size:
            raise AgentProtocolError(f"the probe's context has {size} bytes, the layout {layout.size}")

    def _word(self, name: str) -> int:
        assert self._qemu.mailbox is not None
        at = protocol.CONTROL_OFFSET[name]
        (value,) = struct.unpack_from("<Q", self._qemu.mailbox, at)
        return int(value)

    def _put(self, name: str, value: int) -> None:
        assert self._qemu.mailbox is not None
        struct.pack_into("<Q", self._qemu.mailbox, protocol.CONTROL_OFFSET[name], value)

    @property
    def exits(self) -> int:
        """Number of exits of all guests since the machine booted, recorded or not."""
        return self._word("exits")

    @property
    def pid(self) -> int:
        """The process id of the machine's QEMU."""
        return self._qemu.pid

    def run(self, scenario: Scenario, *, fresh_vm: bool = True) -> Trace:
        """Run a scenario and return its trace.

        ``fresh_vm``: in a new VM; else in the last one, after a reset of its vCPU and with its RAM unmapped.  VmLost:
        the machine died or did not finish in time.  AgentProtocolError: its records violate the protocol.
        """
        self.run_bare(scenario, fresh_vm=fresh_vm, record=True)
        return self.decode(self.recorded())

    def recorded(self) -> bytes:
        """Return the raw records of the last request.  AgentProtocolError: it failed, or violates the protocol."""
        mailbox = self._qemu.mailbox
        assert mailbox is not None
        head, status = self._word("head"), trace.status_name(self._word("status"))
        if head > len(mailbox) - protocol.TRACE_OFFSET:
            raise AgentProtocolError(f"trace of {head} bytes, the area has {len(mailbox) - protocol.TRACE_OFFSET}")
        if status in ("ioctl", "bad_op"):
            raise AgentProtocolError(
                f"operation {self._word('failed_op')} failed ({status}), errno {self._word('failed_errno')}"
            )
        return bytes(mailbox[protocol.TRACE_OFFSET : protocol.TRACE_OFFSET + head])

    def decode(self, area: bytes) -> Trace:
        """Decode ``area``, the records of the last request.  AgentProtocolError: they violate the protocol."""
        status = trace.status_name(self._word("status"))
        events, vectors, points, lists = decode(area, self._layout)
        dropped = self._word("dropped")
        hyp = () if self._hyp is None else self._hyp.copies_of(events, self._layout, complete=not dropped)
        return Trace(events, status, dropped, bool(self._word("vhe")), vectors, hyp, points, lists)

    def run_bare(self, scenario: Scenario, *, fresh_vm: bool, record: bool) -> None:
        """Run a scenario, recorded or not, without decoding a trace.  VmLost: as :meth:`run`."""
        count, program = compile_scenario(scenario, fresh_vm=fresh_vm, by_probe=self._by_probe)
        mailbox = self._qemu.mailbox
        assert mailbox is not None
        mailbox[protocol.PROGRAM_OFFSET : protocol.PROGRAM_OFFSET + len(program)] = program
        self._put("op_count", count)
        self._put("record", int(record))
        self._put("irq_budget", IRQ_BUDGET)
        self._put("round_budget", ROUND_BUDGET)
        self._put("points", int(needs_debug_registers(scenario)))
        self._put("lists", int(uses_gic(scenario)))
        request = self._word("request") + 1
        self._put("request", request)
        try:
            if self._qemu.machine.deterministic:
                self._qemu.cont()
                rescue = FetchStormWatch(self._qemu, lambda: self.exits)
                self._qemu.await_stop(time.monotonic() + self._timeout, rescue.look)
            else:
                self._qemu.wake_agent()
            self._wait(request)
        finally:
            for plugin in self._qemu.plugins:
                plugin.map.disarm()

    def alarms(self) -> tuple[Alarm, ...]:
        """Return the alarms of the target's kernel since the last call, or since its boot.

        Lines that it prints after the reply to a scenario are returned with the next one.
        """
        if self._qemu.console_size() == self._seen:
            return ()
        if has_hint(self._qemu.console_from(self._read)):
            self._settle()
        text = self._qemu.console_from(self._read)
        self._seen = self._read + len(text)
        whole = text[: text.rfind(b"\n") + 1]  # the rest of an incomplete line is read later
        self._read += len(whole)
        return find_alarms(whole)

    def _settle(self) -> None:
        """Wait until the console stops growing."""
        deadline, size = time.monotonic() + SETTLE_PATIENCE, -1
        while size != (size := self._qemu.console_size()) and time.monotonic() < deadline:
            time.sleep(SETTLE_SECONDS)

    def _wait(self, request: int) -> None:
        deadline = time.monotonic() + self._timeout
        while self._word("reply") != request:
            if not self._qemu.await_reply(CHECK_SECONDS):
                self._qemu.check_alive()
            if time.monotonic() > deadline:
                raise self._qemu.lost(f"no answer to a scenario within {self._timeout:g} s")
