# SPDX-License-Identifier: Apache-2.0
"""Read the state of a lost machine before it is ended: registers, the symbols that they point to, memory."""

from __future__ import annotations

import re
import socket
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from harness.errors import Dump, Remains, SetupError, TargetError
from harness.vm.crash import panic_address
from harness.vm.gdbstub import GdbError, GdbStub
from harness.vm.kernels.kallsyms import Symbols, read_symbols
from harness.vm.qemu import Qemu
from harness.vm.qemu_command import MIB, RAM_BASE

PATIENCE = 3.0
"""Timeout of one answer of QEMU, in seconds."""
DUMP_PATIENCE = 60.0
SAMPLES, SAMPLE_SECONDS = 9, 0.003
_PC = re.compile(r"PC=([0-9a-f]+)[\s\S]*?\bEL(\d)")
"""The PC in the output of QEMU's monitor command "info registers" for an A64 CPU."""
ADDRESSES = ("pc", "x30", "ELR_EL1", "ELR_EL2", "VBAR", "VBAR_EL2")
"""Registers whose values are addresses of code, by QEMU's names."""
EL_FIELD, EL2 = 0b1100, 0b1000
"""PSTATE.EL in SPSR and in GDB's cpsr (Arm ARM C5.2.19)."""
HYP = "__kvm_nvhe_"
"""Prefix of the symbols of nVHE's EL2 code (arch/arm64/kernel/image-vars.h)."""


@dataclass(frozen=True)
class PostMortem:
    """Read all available state of a lost machine; never raises.

    ``kernel`` is its kernel image; ``dump`` names a file for the memory (None: no dump).
    """

    kernel: Path
    dump: Callable[[], Path] | None = None

    @cached_property
    def symbols(self) -> Symbols | None:
        """The kernel's symbols, None if the image has no readable ones."""
        try:
            return read_symbols(self.kernel)
        except SetupError:
            return None

    def __call__(self, qemu: Qemu) -> Remains:
        """Return the state of a machine; the machine is stopped afterwards."""
        console = panic_address(qemu.console())
        places: dict[str, str] = {} if console is None else {"console": self._text(console)}
        try:
            qemu.check_process()
            samples = self._samples(qemu)
            qemu.execute("stop", timeout=PATIENCE)
        except TargetError as error:
            gone = f"no registers and no memory: {error}"
            return Remains({}, _some(places), missing=(gone,))
        missing = [] if self.symbols else [f"no symbols: {self.kernel} has no kallsyms"]
        registers: Mapping[str, int] = {}
        try:
            registers = read_registers(qemu)
            places |= self._places(registers, qemu.machine.linux_mib * MIB)
        except (TargetError, GdbError, OSError) as error:
            missing.append(f"no registers: {error}")
        dump = None
        try:
            dump = None if self.dump is None else write_dump(qemu, self.dump())
        except (TargetError, OSError) as error:
            missing.append(f"no memory dump: {error}")
        return Remains(registers, _some(places), samples, dump, tuple(missing))

    def _samples(self, qemu: Qemu) -> Mapping[str, int]:
        """Sample the PC of a running machine a few times: one sample may be in an interrupt handler."""
        status = qemu.execute("query-status", timeout=PATIENCE)
        seen: Counter[str] = Counter()
        for _ in range(SAMPLES if isinstance(status, dict) and status["running"] else 0):
            qemu.execute("stop", timeout=PATIENCE)
            found = _PC.search(monitor(qemu, "info registers"))
            if found is not None:
                registers = {"pc": int(found[1], 16), "cpsr": EL2 if found[2] == "2" else 0}
                seen[self._places(registers, qemu.machine.linux_mib * MIB)["pc"]] += 1
            qemu.execute("cont", timeout=PATIENCE)
            time.sleep(SAMPLE_SECONDS)
        return _some_counts(seen)

    def _text(self, address: int) -> str:
        return self.symbols.text(address) if self.symbols else ""

    def _places(self, registers: Mapping[str, int], linux_bytes: int) -> Mapping[str, str]:
        places = {name: self._text(registers[name]) for name in ADDRESSES if name in registers}
        at_el2 = registers.get("cpsr", 0) & EL_FIELD == EL2
        for name, place in places.items():
            if self.symbols and not place and (at_el2 or name.endswith("_EL2")):
                known = self.symbols.of_hyp(registers[name], RAM_BASE, linux_bytes)
                text = self._text(known)
                places[name] = text if text.startswith(HYP) else ""
        return places


def _some_counts(seen: Counter[str]) -> Mapping[str, int]:
    return {place: count for place, count in seen.most_common() if place}


def _some(places: Mapping[str, str]) -> Mapping[str, str]:
    return {name: place for name, place in places.items() if place}


def monitor(qemu: Qemu, line: str) -> str:
    return str(qemu.execute("human-monitor-command", {"command-line": line}, timeout=PATIENCE))


def read_registers(qemu: Qemu) -> Mapping[str, int]:
    """Return all registers of a machine's CPU, including those of EL2.  VmLost, GdbError: it does not answer."""
    with tempfile.TemporaryDirectory(prefix="sf-gdb-") as place, socket.socket(socket.AF_UNIX) as listener:
        listener.bind(f"{place}/gdb")
        listener.listen(1)
        listener.settimeout(PATIENCE)
        # QEMU starts its gdbstub with this command, and connects to the socket above.
        monitor(qemu, f"gdbserver unix:{place}/gdb")
        connection, _ = listener.accept()
        with connection:
            connection.settimeout(PATIENCE)
            found = GdbStub(connection).registers()
        monitor(qemu, "gdbserver none")  # else it accepts no further connection
        return found


def write_dump(qemu: Qemu, path: Path) -> Dump:
    """Write a machine's memory to ``path`` in kdump's format, which omits zero pages and compresses pages with zlib.

    ``crash`` reads it directly; ``makedumpfile -R`` converts it for other tools.
    VmLost: no space for it, or QEMU does not answer.
    """
    start = time.monotonic()
    arguments: dict[str, object] = {"paging": False, "format": "kdump-zlib", "protocol": f"file:{path}"}
    try:
        qemu.execute("dump-guest-memory", arguments, timeout=DUMP_PATIENCE)
    except TargetError:
        path.unlink(missing_ok=True)
        raise
    spent = round(time.monotonic() - start, 2)
    return Dump(str(path), qemu.machine.memory_mib * MIB, path.stat().st_size, spent)
