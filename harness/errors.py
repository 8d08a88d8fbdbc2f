# SPDX-License-Identifier: Apache-2.0
"""The exception tree.  Every error carries its evidence; only the CLI turns one into an exit status.

::

    ShadowfuzzError
    ├── InputError          exit 2   an input of the user is wrong (file, line, reason)
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
    """An input does not parse or is out of range: its place, and what was expected."""

    def __init__(self, where: str, line: int | None, reason: str) -> None:
        self.where, self.line, self.reason = where, line, reason
        super().__init__(f"{where}{'' if line is None else f':{line}'}: {reason}")


class SetupError(ShadowfuzzError):
    """A part that must be installed, fetched or built is missing; the text says how to get it."""


class TargetError(ShadowfuzzError):
    """The target failed; the result of what it was running is unknown."""


class VmLost(TargetError):
    """QEMU or its kernel died: the config, the reason, the end of the console, and the state that was read."""

    def __init__(self, config: str, reason: str, console_tail: str = "", remains: Remains | None = None) -> None:
        self.config, self.reason, self.console_tail, self.remains = config, reason, console_tail, remains
        super().__init__(f"{config}: {reason}")


class AgentProtocolError(TargetError):
    """Shared memory held a value that the protocol does not allow."""


@dataclass(frozen=True, slots=True)
class Dump:
    """A dump of a lost machine's memory: bytes of RAM, size of the file in bytes, seconds that the dump took."""

    path: str
    ram_bytes: int
    file_bytes: int
    seconds: float


@dataclass(frozen=True, slots=True)
class Remains:
    """State that was read from a lost machine before it was ended.

    ``places`` are addresses as ``symbol+0x10``, by the register that held them; ``console`` is the address in the
    kernel's last message.  ``samples`` count, for a machine that still ran, how often its PC was at each symbol.
    ``missing`` lists what could not be read, and why.
    """

    registers: Mapping[str, int] = field(default_factory=dict)
    places: Mapping[str, str] = field(default_factory=dict)
    samples: Mapping[str, int] = field(default_factory=dict)
    dump: Dump | None = None
    missing: tuple[str, ...] = ()
