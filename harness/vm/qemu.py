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

RAM_BASE = 0x4000_0000
"""Where ``-M virt`` has its RAM (QEMU hw/arm/virt.c, base_memmap)."""
MIB = 1 << 20
CONSOLE_TAIL = 12_000
STATUS_SECONDS = 0.05
"""How often QEMU is asked whether its machine still runs, while somebody waits for it."""
STATUS_PATIENCE = 5.0
"""A QEMU that does not answer within so many seconds hangs."""
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

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Machine:
    """What QEMU is to run.

    ``memory_mib`` is all RAM, its last ``shared_mib`` are the mailbox; ``cmdline`` is appended to what every target
    needs; ``qemu`` are the first words of the command.
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

    @property
    def linux_mib(self) -> int:
        """RAM that the kernel knows of."""
        return self.memory_mib - self.shared_mib

    @property
    def mailbox_base(self) -> int:
        """Guest physical address of the mailbox."""
        return RAM_BASE + self.linux_mib * MIB


def command_line(machine: Machine, *, ram: int, console: int, qmp: int, plugin: Plugin | None = None) -> list[str]:
    """Return QEMU's argv; ``ram``, ``console`` and ``qmp`` are file descriptors that it inherits."""
    watch = [] if plugin is None else ["-plugin", f"{plugin.library},map=/proc/self/fd/{plugin.map.fd}"]
    kernel_args = (
        # nokaslr: addresses in reports mean something.  Every oops is a panic, every panic a reset at once, and with
        # -no-reboot -no-shutdown a reset stops the machine: there it is, to be looked at.
        f"console=ttyAMA0 loglevel=4 nokaslr oops=panic panic=-1 mem={machine.linux_mib}M "
        f"SF_BASE={machine.mailbox_base:#x} SF_SIZE={machine.shared_mib * MIB:#x} {machine.cmdline}"
    )
    memory = f"memory-backend-file,id=ram,size={machine.memory_mib}M,share=on,mem-path=/proc/self/fd/{ram}"
    return [
        # QEMU dies with the thread that started it, whatever kills that.
        *("setpriv", "--pdeathsig", "KILL", "--"),
        *machine.qemu,
        *("-M", f"{machine.machine},memory-backend=ram"),
        *("-cpu", machine.cpu, "-smp", "1", "-m", f"{machine.memory_mib}M"),
        *("-object", memory),
        # Without -nodefaults QEMU wants a network ROM; the target has no network at all.
        *("-nodefaults", "-nic", "none", "-display", "none", "-no-reboot", "-no-shutdown"),
        *("-sandbox", "on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny"),
        *("-chardev", f"file,id=console,path=/proc/self/fd/{console}", "-serial", "chardev:console"),
        *("-chardev", f"socket,id=qmp,fd={qmp}", "-mon", "chardev=qmp,mode=control"),
        *("-kernel", str(machine.kernel), "-initrd", str(machine.initrd)),
        *("-append", kernel_args),
        *watch,
    ]


class Qemu:
    """A running machine.

    Entering boots it and waits for the agent; leaving kills it.  VmLost: QEMU or the kernel in it died, or did not
    answer in time; it carries the end of the console, and what ``post_mortem`` takes from the machine before its end.
    """

    def __init__(
        self,
        machine: Machine,
        *,
        boot_timeout: float = 60.0,
        post_mortem: Callable[[Qemu], Remains] | None = None,
        plugin: Plugin | None = None,
    ) -> None:
        self.machine = machine
        self.plugin = plugin
        self._boot_timeout = boot_timeout
        self._post_mortem = post_mortem
        self._next_status = 0.0
        self._loop = asyncio.new_event_loop()
        self._client = QMPClient("shadowfuzz")
        self._client.logger.setLevel(logging.CRITICAL)  # what goes wrong is ours to tell
        self._process: subprocess.Popen[bytes] | None = None
        self._console = -1
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
        ram = os.memfd_create("shadowfuzz-ram")
        self._console = os.memfd_create("shadowfuzz-console")
        ours, theirs = socket.socketpair()
        try:
            os.ftruncate(ram, self.machine.memory_mib * MIB)
            argv = command_line(self.machine, ram=ram, console=self._console, qmp=theirs.fileno(), plugin=self.plugin)
            handed = [ram, self._console, theirs.fileno()]
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
            size = self.machine.shared_mib * MIB
            self.mailbox = mmap.mmap(ram, size, offset=self.machine.memory_mib * MIB - size)
        except FileNotFoundError as error:
            raise SetupError(f"{error.filename} is not installed; `make setup` installs it") from error
        except OSError as error:
            raise SetupError(f"{self.machine.name}: cannot start QEMU: {error.strerror}") from error
        finally:
            theirs.close()
            os.close(ram)
        try:
            self._run(self._client.connect(ours), 10.0)
        except (QMPError, EOFError, OSError) as error:
            raise self.lost(f"QEMU refused to start: {error}") from error

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

    def check_alive(self) -> None:
        """Raise VmLost if QEMU has ended, or the machine in it."""
        self.check_process()
        now = time.monotonic()
        if now >= self._next_status:
            self._next_status = now + STATUS_SECONDS
            status = self.execute("query-status", timeout=STATUS_PATIENCE)
            ended = ENDED.get(str(status["status"])) if isinstance(status, dict) else None
            if ended is not None:
                raise self.lost(ended)

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
