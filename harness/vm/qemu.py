# SPDX-License-Identifier: Apache-2.0
"""One virtual machine as a context manager; the only user of ``qemu.qmp``.

Nothing of a machine outlives the process that owns it: QEMU is started to be killed with its parent, RAM and console
are anonymous memory files, QMP is a socket pair.  There is nothing on disk to clean up, however one dies.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import mmap
import os
import socket
import subprocess
import time
from collections.abc import Callable, Coroutine, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType, TracebackType
from typing import Any, Self, TypeVar

from qemu.qmp import ExecuteError, QMPClient, QMPError

from harness import protocol
from harness.crash import Remains
from harness.errors import SetupError, VmLost
from harness.vm.edges import Plugin
from harness.vm.emulator import QEMU
from harness.vm.template import MAILBOX, RAM, STATE, Template, copy_with_holes

RAM_BASE = 0x4000_0000
"""Where ``-M virt`` has its RAM (QEMU hw/arm/virt.c, base_memmap)."""
MIB = 1 << 20
CONSOLE_TAIL = 12_000
STATUS_SECONDS = 0.05
"""How often QEMU is asked whether its machine still runs, while somebody waits for it."""
STATUS_PATIENCE = 5.0
"""A QEMU that does not answer within so many seconds hangs."""
MIGRATION_SECONDS = 10.0
"""How long saving or loading a machine's devices may take (measured: 20 ms)."""
REAP_SECONDS = 1.0
"""How long a QEMU whose connection broke may take to end."""
ENDED: Mapping[str, str] = MappingProxyType(
    {
        "shutdown": "the kernel panicked or went off",
        "guest-panicked": "the kernel panicked",
        "internal-error": "QEMU met something that it cannot emulate",
    }
)
"""States of a machine (QEMU qapi/run-state.json) that nothing leads out of, as sentences."""

STANDS = "guest-panicked"
"""The state of a deterministic machine that waits for a request: its agent wrote to pvpanic, which stops it at once."""
DETERMINISTIC: tuple[str, ...] = (
    # Time is the number of instructions; an idle machine does not wait for its timers but jumps to the next one.
    *("-icount", "shift=0,sleep=off"),
    *("-seed", "1"),
    *("-device", "pvpanic-pci,addr=1", "-action", "panic=pause"),
)

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Machine:
    """What QEMU is to run.

    ``memory_mib`` is all RAM, its last ``shared_mib`` are the mailbox; ``cmdline`` is appended to what every target
    needs; ``qemu`` are the first words of the command.  A ``deterministic`` machine does the same after the same
    requests, instruction by instruction: its time is the number of instructions, and it stands still between requests.
    """

    name: str
    kernel: Path
    initrd: Path
    cpu: str
    machine: str
    memory_mib: int
    shared_mib: int
    cmdline: str
    qemu: tuple[str, ...] = (QEMU,)
    deterministic: bool = False

    @property
    def linux_mib(self) -> int:
        """RAM that the kernel knows of."""
        return self.memory_mib - self.shared_mib

    @property
    def mailbox_base(self) -> int:
        """Guest physical address of the mailbox."""
        return RAM_BASE + self.linux_mib * MIB


@dataclass(frozen=True, slots=True)
class Files:
    """File descriptors that QEMU inherits; ``state``, if there is one, is what a clone starts from."""

    ram: int
    mailbox: int
    console: int
    qmp: int
    state: int | None = None

    @property
    def all(self) -> tuple[int, ...]:
        """All of them."""
        return (self.ram, self.mailbox, self.console, self.qmp, *(() if self.state is None else (self.state,)))


def command_line(machine: Machine, files: Files, plugin: Plugin | None = None) -> list[str]:
    """Return QEMU's argv."""
    watch = [] if plugin is None else ["-plugin", f"{plugin.library},map=/proc/self/fd/{plugin.map.fd}"]
    kernel_args = (
        # nokaslr: addresses in reports mean something.  Every oops is a panic, every panic a reset at once, and with
        # -no-reboot -no-shutdown a reset stops the machine: there it is, to be looked at.
        f"console=ttyAMA0 loglevel=4 nokaslr oops=panic panic=-1 mem={machine.linux_mib}M "
        f"SF_BASE={machine.mailbox_base:#x} SF_SIZE={machine.shared_mib * MIB:#x} {machine.cmdline}"
        f"{' SF_BRAKE=1' if machine.deterministic else ''}"
    )
    clone = files.state is not None
    return [
        # QEMU dies with the thread that started it, whatever kills that.
        *("setpriv", "--pdeathsig", "KILL", "--"),
        *machine.qemu,
        *("-M", f"{machine.machine},dtb-randomness=off" if machine.deterministic else machine.machine),
        *("-cpu", machine.cpu, "-smp", "1", "-m", f"{machine.memory_mib}M"),
        # Two blocks, one behind the other: a clone shares a template's RAM until it writes to it, but has a mailbox of
        # its own.
        *_memory("ram", machine.linux_mib, files.ram, "off" if clone else "on"),
        *_memory("mailbox", machine.shared_mib, files.mailbox, "on"),
        # Without -nodefaults QEMU wants a network ROM; the target has no network at all.
        *("-nodefaults", "-nic", "none", "-display", "none", "-no-reboot", "-no-shutdown"),
        *("-sandbox", "on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny"),
        *("-chardev", f"file,id=console,path=/proc/self/fd/{files.console}", "-serial", "chardev:console"),
        *("-chardev", f"socket,id=qmp,fd={files.qmp}", "-mon", "chardev=qmp,mode=control"),
        *("-kernel", str(machine.kernel), "-initrd", str(machine.initrd)),
        *("-append", kernel_args),
        *watch,
        # The date, which the kernel reads once, when it boots.  A clone's clock is armed as it is loaded, to ring in
        # decades: a machine without other timers would jump there, if that were its own time.
        *(("-rtc", f"base=2024-01-01,clock={'rt' if clone else 'vm'}") if machine.deterministic else ()),
        *(DETERMINISTIC if machine.deterministic else ()),
        *(("-incoming", "defer") if clone else ()),
    ]


def _memory(name: str, mib: int, file: int, share: str) -> tuple[str, ...]:
    backend = f"memory-backend-file,id={name},size={mib}M,share={share},mem-path=/proc/self/fd/{file}"
    return ("-object", backend, "-numa", f"node,memdev={name}")


class Qemu:
    """A running machine.

    Entering boots it and waits for the agent, or with ``template`` goes on where that one was saved; leaving kills it.
    VmLost: QEMU or the kernel in it died, or did not answer in time; it carries the end of the console, and what
    ``post_mortem`` takes from the machine before its end.
    """

    def __init__(
        self,
        machine: Machine,
        *,
        boot_timeout: float = 60.0,
        post_mortem: Callable[[Qemu], Remains] | None = None,
        plugin: Plugin | None = None,
        template: Template | None = None,
    ) -> None:
        self.machine = machine
        self.template = template
        self.plugin = plugin
        self._boot_timeout = boot_timeout
        self._post_mortem = post_mortem
        self._next_status = 0.0
        self._loop = asyncio.new_event_loop()
        self._client = QMPClient("shadowfuzz")
        self._client.logger.setLevel(logging.CRITICAL)  # what goes wrong is ours to tell
        self._process: subprocess.Popen[bytes] | None = None
        self._console = -1
        self._memory: tuple[int, ...] = ()
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
        try:
            ram, mailbox = self._open_memory()
            state = None if self.template is None else os.open(self.template.state, os.O_RDONLY | os.O_CLOEXEC)
        except OSError as error:
            raise SetupError(f"{self.machine.name}: cannot open its memory: {error.strerror}") from error
        ours, theirs = socket.socketpair()
        try:
            files = Files(ram, mailbox, self._console, theirs.fileno(), state)
            argv = command_line(self.machine, files, self.plugin)
            handed = list(files.all)
            if self.plugin is not None:
                self.plugin.map.attach(os.fstat(ram).st_ino)
                handed.append(self.plugin.map.fd)
            self._process = subprocess.Popen(
                argv,
                pass_fds=handed,
                stdin=subprocess.DEVNULL,
                stdout=self._console,
                stderr=self._console,
                start_new_session=True,  # Ctrl-C is for the fuzzer; it ends its QEMUs in order
            )
            self.mailbox = mmap.mmap(mailbox, self.machine.shared_mib * MIB)
        except FileNotFoundError as error:
            raise SetupError(f"{error.filename} is not installed; `make setup` installs it") from error
        except OSError as error:
            raise SetupError(f"{self.machine.name}: cannot start QEMU: {error.strerror}") from error
        finally:
            theirs.close()
            if state is not None:
                os.close(state)  # QEMU's copy has the same number
        try:
            self._run(self._client.connect(ours), 10.0)
        except (QMPError, EOFError, OSError) as error:
            raise self.lost(f"QEMU refused to start: {error}") from error
        if state is not None:
            self._load(state)

    def _open_memory(self) -> tuple[int, int]:
        """Return the files of RAM and mailbox: empty ones, or a template's RAM and a copy of its mailbox."""
        mailbox = os.memfd_create("shadowfuzz-mailbox")
        self._memory = (mailbox,)
        if self.template is None:
            ram = os.memfd_create("shadowfuzz-ram")
            os.ftruncate(ram, self.machine.linux_mib * MIB)
            os.ftruncate(mailbox, self.machine.shared_mib * MIB)
        else:
            # QEMU wants to be able to write, but never does: it maps the file privately.
            ram = os.open(self.template.ram, os.O_RDWR | os.O_CLOEXEC)
            saved = os.open(self.template.mailbox, os.O_RDONLY | os.O_CLOEXEC)
            try:
                copy_with_holes(saved, mailbox)
            finally:
                os.close(saved)
        self._memory = (ram, mailbox)
        return ram, mailbox

    def _load(self, state: int) -> None:
        """Take the state of a template, and run on."""
        self._ignore_shared()
        self.execute("migrate-incoming", {"uri": f"fd:{state}"})
        self._await_migration()
        if not self.machine.deterministic:  # that one stands where it was saved
            self.cont()

    def save(self, directory: Path) -> None:
        """Stop the machine and write a template's files; it is not to be used afterwards.  OSError: no room.

        Nobody must have given it a scenario: its clones would have the numbers of their requests wrong.
        """
        if not self.machine.deterministic:
            self.stop()
        for source, name in zip(self._memory, (RAM, MAILBOX), strict=True):
            with (directory / name).open("wb") as file:
                copy_with_holes(source, file.fileno())
        self._ignore_shared()
        with (directory / STATE).open("wb") as file:
            self._client.send_fd_scm(file.fileno())
            self.execute("getfd", {"fdname": "state"})
            self.execute("migrate", {"uri": "fd:state"})
            self._await_migration()

    def _ignore_shared(self) -> None:
        # Memory is not in the stream: RAM is in a file, the mailbox is each machine's own.
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
                raise self.lost(f"the state was not moved: {status or 'nothing happened'}")
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
            self.check_alive()
            if time.monotonic() > deadline:
                raise self.lost(f"the agent was not ready within {self._boot_timeout:g} s")
            time.sleep(0.005)
        if self.machine.deterministic:
            self.await_brake(deadline)

    def await_brake(self, deadline: float) -> None:
        """Wait until a deterministic machine stands still (``deadline``: time.monotonic).  VmLost: it does not."""
        nap = 100e-6
        while True:
            status = self.execute("query-status", timeout=STATUS_PATIENCE)
            state = str(status["status"]) if isinstance(status, dict) else ""
            if state == STANDS:
                return
            if state in ENDED or time.monotonic() > deadline:
                raise self.lost(ENDED.get(state, "the agent did not stop the machine in time"))
            time.sleep(nap)
            nap = min(1.25 * nap, 5e-3)

    def check_alive(self) -> None:
        """Raise VmLost if QEMU has ended, or the machine in it."""
        self.check_process()
        now = time.monotonic()
        if now >= self._next_status:
            self._next_status = now + STATUS_SECONDS
            status = self.execute("query-status", timeout=STATUS_PATIENCE)
            state = str(status["status"]) if isinstance(status, dict) else ""
            if state in ENDED and not (self.machine.deterministic and state == STANDS):
                raise self.lost(ENDED[state])

    def check_process(self) -> None:
        """Raise VmLost if QEMU has ended."""
        assert self._process is not None
        status = self._process.poll()
        if status is not None:
            raise self.lost(f"QEMU ended with status {status}")

    def lost(self, reason: str) -> VmLost:
        """Return the error for a machine that failed, with the end of its console."""
        examine, self._post_mortem = self._post_mortem, None  # once; what it does may fail as well
        remains = None if examine is None else examine(self)
        return VmLost(self.machine.name, reason, self.console()[-CONSOLE_TAIL:], remains)

    def console(self) -> str:
        """Return what the machine (and QEMU itself) printed so far."""
        if self._console < 0:
            return ""
        size = os.fstat(self._console).st_size
        return os.pread(self._console, size, 0).decode(errors="replace")

    def execute(self, command: str, arguments: dict[str, object] | None = None, *, timeout: float = 10.0) -> object:
        """Run a QMP command and return its result.  VmLost: QEMU is gone or does not answer."""
        try:
            return self._run(self._client.execute(command, arguments), timeout)
        except (QMPError, EOFError, OSError) as error:
            assert self._process is not None
            with contextlib.suppress(subprocess.TimeoutExpired):
                if not isinstance(error, ExecuteError):
                    self._process.wait(REAP_SECONDS)
            self.check_process()
            raise self.lost(f"QMP {command}: {error}") from error

    def stop(self) -> None:
        """Stop the virtual CPU."""
        self.execute("stop")

    def cont(self) -> None:
        """Let the virtual CPU run on."""
        self.execute("cont")

    @property
    def pid(self) -> int:
        """QEMU's process id."""
        assert self._process is not None
        return self._process.pid

    def close(self) -> None:
        """End QEMU and free everything.  May be called at any time, and again."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
        if not self._loop.is_closed():
            # It was killed: of course the connection broke.
            with contextlib.suppress(QMPError, EOFError, OSError):
                self._loop.run_until_complete(self._client.disconnect())
            self._loop.close()
        if self.mailbox is not None:
            self.mailbox.close()
            self.mailbox = None
        if self._console >= 0:
            os.close(self._console)
            self._console = -1
        for file in self._memory:
            os.close(file)
        self._memory = ()
