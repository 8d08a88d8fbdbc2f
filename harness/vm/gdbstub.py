# SPDX-License-Identifier: Apache-2.0
"""Read all registers of a stopped CPU through QEMU's gdbstub; no other interface of QEMU has those of EL2.

Protocol: "Debugging with GDB", appendix E.  QEMU describes its registers in XML, one file that includes others; system
registers have the numbers that the XML gives.
"""

from __future__ import annotations

import socket
from collections.abc import Mapping
from xml.etree import ElementTree

CHUNK = 0xFFB
"""Bytes of a file to request at once; QEMU's packets have at most 4 KiB."""


class GdbError(Exception):
    """The stub's answer violates the protocol, or there was no answer."""


class GdbStub:
    """A connection to a stub; the machine is stopped while it is open."""

    def __init__(self, connection: socket.socket) -> None:
        self._socket = connection
        self._waiting = b""

    def registers(self) -> Mapping[str, int]:
        """Return every register by QEMU's name, in QEMU's order.  GdbError: the stub does not answer."""
        try:
            self._ask("qSupported:xmlRegisters=aarch64")
            found: dict[str, int] = {}
            for name, number in self._numbers("target.xml", 0)[0]:
                value = self._ask(f"p{number:x}")
                if value and not value.startswith("E"):
                    found[name] = int.from_bytes(bytes.fromhex(value), "little")
            return found
        except (OSError, ValueError, ElementTree.ParseError) as error:
            raise GdbError(f"the gdbstub: {error}") from error

    def _numbers(self, file: str, first: int) -> tuple[list[tuple[str, int]], int]:
        """Return names and numbers of the registers in a file, and the number of the next one."""
        found: list[tuple[str, int]] = []
        for element in ElementTree.fromstring(self._file(file).replace("<xi:", "<")).iter():  # undeclared prefix
            tag = element.tag
            if tag == "include":
                below, first = self._numbers(element.attrib["href"], first)
                found += below
            elif tag == "reg":
                number = int(element.get("regnum", str(first)))
                found.append((element.attrib["name"], number))
                first = number + 1
        return found, first

    def _file(self, name: str) -> str:
        text = ""
        while True:
            answer = self._ask(f"qXfer:features:read:{name}:{len(text):x},{CHUNK:x}")
            text += answer[1:]
            if answer[:1] != "m":
                return text

    def _ask(self, what: str) -> str:
        data = what.encode()
        self._socket.sendall(b"$%s#%02x" % (data, sum(data) % 256))
        while True:
            answer = self._packet()
            if not answer.startswith("T"):  # connecting stops the machine; the stub's stop reply may arrive at any time
                return answer

    def _packet(self) -> str:
        while b"#" not in self._waiting or len(self._waiting) < self._waiting.index(b"#") + 3:
            data = self._socket.recv(8192)
            if not data:
                raise GdbError("the gdbstub closed the connection")
            self._waiting += data
        body, self._waiting = self._waiting.partition(b"#")[0], self._waiting.partition(b"#")[2][2:]
        self._socket.sendall(b"+")
        return _unescape(body[body.index(b"$") + 1 :]).decode("latin-1")


def _unescape(data: bytes) -> bytes:
    parts = data.split(b"}")
    return parts[0] + b"".join(bytes([part[0] ^ 0x20]) + part[1:] for part in parts[1:])
