# SPDX-License-Identifier: Apache-2.0
"""The client of QEMU's gdbstub, against a fake stub; tests/vm tests it against QEMU."""

from __future__ import annotations

import socket
from collections.abc import Mapping
from threading import Thread

import pytest

from harness.vm.gdbstub import GdbError, GdbStub

TARGET = b'<target><xi:include href="core.xml"/><xi:include href="system.xml"/></target>'
CORE = b'<feature><reg name="x0"/><reg name="x1"/></feature>'
SYSTEM = b'<feature><reg name="HCR_EL2" regnum="40"/><reg name="VBAR_EL2"/><reg name="ABSENT"/></feature>'
ANSWERS: Mapping[bytes, bytes] = {
    b"qSupported:xmlRegisters=aarch64": b"PacketSize=1000",
    b"qXfer:features:read:target.xml:0,ffb": b"m" + TARGET[:20],
    b"qXfer:features:read:target.xml:14,ffb": b"l" + TARGET[20:],
    b"qXfer:features:read:core.xml:0,ffb": b"l" + CORE,
    b"qXfer:features:read:system.xml:0,ffb": b"l" + SYSTEM,
    b"p0": b"0100000000000000",
    b"p1": b"efbeadde00000000",
    b"p28": b"00000}\x108000000000",  # an escaped "0"
    b"p29": b"0008000000000000",
    b"p2a": b"E14",
}


def play(stub: socket.socket, answers: Mapping[bytes, bytes]) -> None:
    """Answer packets until one has no answer."""
    waiting = b""
    stub.sendall(b"+$T05#b9")  # connecting stops the machine
    while data := stub.recv(4096):
        waiting += data
        while b"#" in waiting and len(waiting) >= waiting.index(b"#") + 3:
            body, _, waiting = waiting.partition(b"#")
            waiting = waiting[2:]
            asked = body[body.index(b"$") + 1 :]
            if asked not in answers:
                stub.close()
                return
            stub.sendall(b"+$" + answers[asked] + b"#%02x" % (sum(answers[asked]) % 256))


def registers(answers: Mapping[bytes, bytes]) -> Mapping[str, int]:
    ours, theirs = socket.socketpair()
    thread = Thread(target=play, args=(theirs, answers))
    thread.start()
    try:
        return GdbStub(ours).registers()
    finally:
        ours.close()
        thread.join()
        theirs.close()


def test_every_register_that_the_stub_has_by_its_name() -> None:
    assert registers(ANSWERS) == {"x0": 1, "x1": 0xDEADBEEF, "HCR_EL2": 0x80000000, "VBAR_EL2": 0x800}


@pytest.mark.parametrize(
    ("asked", "answer"),
    [(b"p1", b"no number"), (b"qXfer:features:read:core.xml:0,ffb", b"l<feature>"), (b"p29", None)],
    ids=["value", "xml", "closed"],
)
def test_a_stub_that_answers_something_else(asked: bytes, answer: bytes | None) -> None:
    answers = {key: value for key, value in {**ANSWERS, asked: answer}.items() if value is not None}
    with pytest.raises(GdbError):
        registers(answers)
