# SPDX-License-Identifier: Apache-2.0
"""The exception tree.  Every error carries its evidence; only the CLI turns one into an exit status.

::

    ShadowfuzzError
    ├── InputError          exit 2   something the user gave us is wrong (file, line, reason)
    ├── SetupError          exit 3   this machine lacks something, or a set-up step failed
    └── TargetError         exit 3   the target (QEMU, its kernel, the agent) failed
        ├── VmLost                   QEMU died, hung or panicked
        └── AgentProtocolError       the mailbox held something that the protocol does not allow

A divergence is a *value*, never an exception: see :mod:`harness.relations.save_restore`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field


class ShadowfuzzError(Exception):
    """Root of every error that this project raises on purpose."""


class InputError(ShadowfuzzError):
    """Input that does not parse or is out of range: where it is, and what was expected."""

    def __init__(self, where: str, line: int | None, reason: str) -> None:
        self.where, self.line, self.reason = where, line, reason
        super().__init__(f"{where}{'' if line is None else f':{line}'}: {reason}")


class SetupError(ShadowfuzzError):
    """Something that must be installed, fetched or built is not there; the text says how to get it."""


class TargetError(ShadowfuzzError):
    """The target failed; nothing that it was running can be judged."""


class VmLost(TargetError):
    """QEMU or the kernel in it is gone: which config, in what, the end of its console, and what was taken from it."""

    def __init__(self, config: str, reason: str, console_tail: str = "", remains: Remains | None = None) -> None:
        self.config, self.reason, self.console_tail, self.remains = config, reason, console_tail, remains
        super().__init__(f"{config}: {reason}")


class AgentProtocolError(TargetError):
    """Shared memory held a value that the protocol does not allow."""


@dataclass(frozen=True, slots=True)
class Dump:
    """The memory of a lost machine in a file: bytes of RAM, bytes that the file has, seconds that it took."""

    path: str
    ram_bytes: int
    file_bytes: int
    seconds: float


@dataclass(frozen=True, slots=True)
class Remains:
    """What was taken from a lost machine before it was ended.

    ``places`` are addresses as ``symbol+0x10``, by the register that held them, or ``console`` for the one that the
    kernel's last words name; ``samples`` say of a machine that still ran how often it was seen where; ``missing`` says
    what could not be taken, and why.
    """

    registers: Mapping[str, int] = field(default_factory=dict)
    places: Mapping[str, str] = field(default_factory=dict)
    samples: Mapping[str, int] = field(default_factory=dict)
    dump: Dump | None = None
    missing: tuple[str, ...] = ()
