# SPDX-License-Identifier: Apache-2.0
"""Run one virtual machine as a context manager; the only user of ``qemu.qmp``.

No part of a machine outlives the process that owns it: QEMU is killed with its parent, RAM and console are anonymous
memory files, QMP is a socket pair.  No file on disk remains, however the process ends.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import logging
import mmap
import os
import socket
import subprocess
import time
from collections.abc import Callable, Coroutine, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType, TracebackType
from typing import Any, Self, TypeVar

from qemu.qmp import ExecuteError, QMPClient, QMPError

from harness import protocol
from harness.errors import Remains, SetupError, VmLost
from harness.vm.plugins.plugin import Map, Plugin
from harness.vm.qemu_command import MIB, RING, Files, Machine, command_line
from harness.vm.refusal import refusal
from harness.vm.template import CONSOLE, MAILBOX, RAM, STATE, Template, copy_with_holes

CONSOLE_TAIL = 12_000
STATUS_SECONDS, STATUS_PATIENCE = 0.05, 5.0
"""Seconds between two queries of the machine's state during a wait, and the timeout of the answer."""
MIGRATION_SECONDS = 10.0
"""Timeout for saving or loading a machine's devices, in seconds; with the copies of its memory, 0.3 s were measured."""
REAP_SECONDS = 1.0
"""Seconds that a QEMU may take to end after its connection broke."""
ENDED: Mapping[str, str] = MappingProxyType(
    {"shutdown": "the kernel panicked or powered off", "internal-error": "QEMU reported an internal error"}
)
"""Final states of a machine (QEMU qapi/run-state.json), as sentences."""

WAITS_FOR_REQUEST = "guest-panicked"
"""The state of a deterministic machine that waits for a request: its agent wrote to pvpanic, which stops the
machine."""
CPUCLOCK_SCHED = 2
"""Low bits of the clock id of a process's CPU time; the complement of its process id is above them
(include/linux/posix-timers_types.h)."""
XON = b"\x11"
"""A character that Linux's terminal driver consumes without effect and without an echo."""

T = TypeVar("T")


class Qemu:
    """A running machine.

    Entering boots it and waits for the agent, or continues from the state saved in ``template``; leaving kills it.
    VmLost: QEMU or its kernel died, or did not answer in time; it has the end of the console, and the state that
    ``post_mortem`` read from the machine.  SetupError: QEMU is missing, or the kernel cannot run the agent or load the
    recording module.
    """

    def __init__(
        self,
        machine: Machine,
        *,
        boot_timeout: float = 60.0,
        post_mortem: Callable[[Qemu], Remains] | None = None,
        plugins: Sequence[Plugin[Map]] = (),
        template: Template | None = None,
    ) -> None:
        self.machine = machine
        self.template = template
        self.plugins = tuple(plugins)
        self._boot_timeout = boot_timeout
        self._post_mortem = post_mortem
        self._next_status = 0.0
        self._loop = asyncio.new_event_loop()
        self._client = QMPClient("shadowfuzz")
        self._client.logger.setLevel(logging.CRITICAL)  # errors are reported by this class
        self._process: subprocess.Popen[bytes] | None = None
        self._console = -1
        self._memory: tuple[int, ...] = ()
        self._bell: socket.socket | None = None
        self.mailbox: mmap.mmap | None = None

    def __enter__(self) -> Self:
        try:
            self._start()
            self._wait_ready()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def _start(self) -> None:
        self._console = os.memfd_create("shadowfuzz-console")
        fcntl.fcntl(self._console, fcntl.F_SETFL, os.O_RDWR | os.O_APPEND)  # see command_line
        try:
            ram, mailbox = self._open_memory()
            state = None if self.template is None else os.open(self.template.state, os.O_RDONLY | os.O_CLOEXEC)
        except OSError as error:
            raise SetupError(f"{self.machine.name}: cannot open its memory: {error.strerror}") from error
        ours, theirs = socket.socketpair()
        self._bell, button = socket.socketpair()
        try:
            files = Files(ram, mailbox, self._console, theirs.fileno(), button.fileno(), state)
            argv = command_line(self.machine, files, self.plugins)
            handed = list(files.all)
            for plugin in self.plugins:
                plugin.map.attach(os.fstat(ram).st_ino)
                handed.append(plugin.map.fd)
            self._process = subprocess.Popen(
                argv,
                pass_fds=handed,
                stdin=button.fileno() if self.machine.deterministic else subprocess.DEVNULL,
                stdout=self._console,
                stderr=self._console,
                start_new_session=True,  # Ctrl-C must reach only the fuzzer, which ends its QEMUs in order
            )
            self.mailbox = mmap.mmap(mailbox, self.machine.shared_mib * MIB)
        except FileNotFoundError as error:
            raise SetupError(f"{error.filename} is not installed; `make setup` installs it") from error
        except OSError as error:
            raise SetupError(f"{self.machine.name}: cannot start QEMU: {error.strerror}") from error
        finally:
            theirs.close()
            button.close()
            if state is not None:
                os.close(state)  # QEMU's copy has the same number
        try:
            self._run(self._client.connect(ours), 10.0)
        except (QMPError, EOFError, OSError) as error:
            raise self.lost(f"QEMU refused to start: {error}") from error
        if state is not None:
            self._load(state)

    def _open_memory(self) -> tuple[int, int]:
        """Return the files of RAM and mailbox: empty, or a template's RAM and a copy of its mailbox."""
        mailbox = os.memfd_create("shadowfuzz-mailbox")
        self._memory = (mailbox,)
        if self.template is None:
            ram = os.memfd_create("shadowfuzz-ram")
            os.ftruncate(ram, self.machine.linux_mib * MIB)
            os.ftruncate(mailbox, self.machine.shared_mib * MIB)
        else:
            # QEMU needs a writable descriptor, but never writes: it maps the file privately.
            ram = os.open(self.template.ram, os.O_RDWR | os.O_CLOEXEC)
            saved = os.open(self.template.mailbox, os.O_RDONLY | os.O_CLOEXEC)
            try:
                copy_with_holes(saved, mailbox)
            finally:
                os.close(saved)
        self._memory = (ram, mailbox)
        return ram, mailbox

    def _load(self, state: int) -> None:
        """Load the state of a template, and resume."""
        self._ignore_shared()
        self.execute("migrate-incoming", {"uri": f"fd:{state}"})
        self._await_migration()
        if not self.machine.deterministic:  # it was saved while stopped
            self.cont()

    def save(self, directory: Path) -> None:
        """Stop the machine and write a template's files; it must not be used afterwards.  OSError: no space.

        It must not have run a scenario: its clones would use wrong request numbers.
        """
        if not self.machine.deterministic:
            self.stop()
        for source, name in zip(self._memory, (RAM, MAILBOX), strict=True):
            with (directory / name).open("wb") as file:
                copy_with_holes(source, file.fileno())
        (directory / CONSOLE).write_text(self.console(), encoding="utf-8")
        self._ignore_shared()
        with (directory / STATE).open("wb") as file:
            self._client.send_fd_scm(file.fileno())
            self.execute("getfd", {"fdname": "state"})
            self.execute("migrate", {"uri": "fd:state"})
            self._await_migration()

    def _ignore_shared(self) -> None:
        # The stream has no memory: RAM is in a file, and each machine has its own mailbox.
        capability: list[object] = [{"capability": "x-ignore-shared", "state": True}]
        self.execute("migrate-set-capabilities", {"capabilities": capability})

    def _await_migration(self) -> None:
        deadline = time.monotonic() + MIGRATION_SECONDS
        while True:
            answer = self.execute("query-migrate")
            status = str(answer.get("status", "")) if isinstance(answer, dict) else ""
            if status == "completed":
                return
            if status in ("failed", "cancelled") or time.monotonic() > deadline:
                raise self.lost(f"the state was not saved or loaded: {status or 'no status'}")
            time.sleep(0.002)

    def _run(self, work: Coroutine[Any, Any, T], timeout: float) -> T:
        try:
            return self._loop.run_until_complete(asyncio.wait_for(work, timeout))
        except TimeoutError as error:
            raise self.lost(f"QMP did not answer within {timeout:g} s") from error

    def _wait_ready(self) -> None:
        assert self.mailbox is not None
        deadline = time.monotonic() + self._boot_timeout
        magic = protocol.MAGIC.to_bytes(8, "little")
        while self.mailbox[:8] != magic:
            self._check_booting()
            if time.monotonic() > deadline:
                raise self.lost(f"the agent was not ready within {self._boot_timeout:g} s")
            time.sleep(0.005)
        if self.machine.deterministic:
            self.await_stop(deadline)

    def _check_booting(self) -> None:
        """Raise VmLost if the machine ended during boot; SetupError if its kernel cannot run the agent."""
        examine, self._post_mortem = self._post_mortem, None
        try:
            self.check_alive()
        except VmLost as error:
            why = refusal(self.console())
            if why:
                raise SetupError(f"{self.machine.name}: {why}") from error
            if examine is None:
                raise
            raise VmLost(error.config, error.reason, error.console_tail, examine(self)) from error
        self._post_mortem = examine

    def await_stop(self, deadline: float, look: Callable[[], None] = lambda: None) -> None:
        """Wait until a deterministic machine is stopped (``deadline``: time.monotonic), and call ``look`` periodically.

        VmLost: it was not stopped in time.
        """
        nap = 100e-6
        while True:
            state = self.state()
            if state == WAITS_FOR_REQUEST:
                return
            if state in ENDED or time.monotonic() > deadline:
                raise self.lost(ENDED.get(state, "the agent did not stop the machine in time"))
            look()
            time.sleep(nap)
            nap = min(1.25 * nap, 5e-3)

    def wake_agent(self) -> None:
        """Wake the agent for a request.  A lost machine will not answer."""
        assert self._bell is not None
        with contextlib.suppress(OSError):
            self._bell.send(RING)

    def await_reply(self, seconds: float) -> bool:
        """Return whether the agent signalled a reply within some seconds."""
        assert self._bell is not None
        self._bell.settimeout(seconds)
        try:
            return bool(self._bell.recv(64))
        except OSError:
            return False

    def state(self) -> str:
        """Return the machine's run state (QEMU qapi/run-state.json).  VmLost: QEMU does not answer."""
        status = self.execute("query-status", timeout=STATUS_PATIENCE)
        return str(status["status"]) if isinstance(status, dict) else ""

    def interrupt(self) -> None:
        """Interrupt the CPU of a deterministic machine with a character at its serial port.  VmLost: it died."""
        assert self._bell is not None
        try:
            self._bell.send(XON)
        except OSError as error:
            raise self.lost(f"its serial port: {error.strerror}") from error

    def check_alive(self) -> None:
        """Raise VmLost if QEMU or its machine has ended."""
        self.check_process()
        now = time.monotonic()
        if now >= self._next_status:
            self._next_status = now + STATUS_SECONDS
            state = self.state()
            if state in ENDED:
                raise self.lost(ENDED[state])

    def check_process(self) -> None:
        """Raise VmLost if QEMU has ended."""
        assert self._process is not None
        status = self._process.poll()
        if status is not None:
            raise self.lost(f"QEMU ended with status {status}")

    def lost(self, reason: str) -> VmLost:
        """Return the error for a failed machine, with the end of its console."""
        examine, self._post_mortem = self._post_mortem, None  # only once: it can fail and call this method again
        remains = None if examine is None else examine(self)
        return VmLost(self.machine.name, reason, self.console()[-CONSOLE_TAIL:], remains)

    def console(self) -> str:
        """Return the output of the machine (and of QEMU itself) so far."""
        if self._console < 0:
            return ""
        size = os.fstat(self._console).st_size
        return os.pread(self._console, size, 0).decode(errors="replace")

    def boot_text(self) -> str:
        """Return the output of the template's boot, if any, and the machine's output so far."""
        return (self.template.console if self.template is not None else "") + self.console()

    def console_size(self) -> int:
        """Return the number of bytes that the machine printed so far; cheaper than :meth:`console_from`."""
        return 0 if self._console < 0 else os.fstat(self._console).st_size

    def console_from(self, offset: int) -> bytes:
        """Return the machine's output from byte ``offset`` on."""
        return os.pread(self._console, max(0, self.console_size() - offset), offset) if self._console >= 0 else b""

    def execute(self, command: str, arguments: dict[str, object] | None = None, *, timeout: float = 10.0) -> object:
        """Run a QMP command and return its result.  VmLost: QEMU died or does not answer."""
        try:
            return self._run(self._client.execute(command, arguments), timeout)
        except (QMPError, EOFError, OSError) as error:
            assert self._process is not None
            with contextlib.suppress(subprocess.TimeoutExpired):
                if not isinstance(error, ExecuteError):
                    self._process.wait(REAP_SECONDS)
            self.check_process()
            raise self.lost(f"QMP {command}: {error}") from error

    def cpu_seconds(self) -> float:
        """Return the CPU time of QEMU in seconds.  VmLost: it died."""
        try:
            return time.clock_gettime(~self.pid << 3 | CPUCLOCK_SCHED)
        except OSError as error:
            raise self.lost(f"QEMU's clock: {error.strerror}") from error

    def stop(self) -> None:
        """Stop the virtual CPU."""
        self.execute("stop")

    def cont(self) -> None:
        """Resume the virtual CPU."""
        self.execute("cont")

    @property
    def pid(self) -> int:
        """QEMU's process id."""
        assert self._process is not None
        return self._process.pid

    def close(self) -> None:
        """End QEMU and free its resources.  May be called at any time, and repeatedly."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
        if not self._loop.is_closed():
            # QEMU was killed: a broken connection is expected.
            with contextlib.suppress(QMPError, EOFError, OSError):
                self._loop.run_until_complete(self._client.disconnect())
            self._loop.close()
        if self.mailbox is not None:
            self.mailbox.close()
            self.mailbox = None
        if self._bell is not None:
            self._bell.close()
            self._bell = None
        if self._console >= 0:
            os.close(self._console)
            self._console = -1
        for file in self._memory:
            os.close(file)
        self._memory = ()
