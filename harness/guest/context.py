# SPDX-License-Identifier: Apache-2.0
"""Describe what a guest runs on: its code, CPU and memory, its GIC interface and its debugger."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from harness.arch.cpu_models import Cpu
from harness.gic.cpu_interface import Interface
from harness.guest.debugger import Debugger
from harness.guest.memory import Memory


@dataclass(frozen=True, slots=True)
class GuestContext:
    """What the result of a guest's code depends on, apart from its registers.

    The value is immutable; the memory and the GIC interface that it refers to change while the guest runs.
    """

    code: Mapping[int, int]
    """The instructions of the scenario, by guest physical address."""
    cpu: Cpu
    """The CPU model, which decides address size, granules and the bits that a register keeps."""
    memory: Memory = field(default_factory=Memory.unknown)
    """The contents of RAM at the entry, the translation tables included; unknown unless given."""
    gic: Interface | None = None
    """The vCPU's interface to an in-kernel GIC; None: the VM has none."""
    debugger: Debugger | None = None
    """What userspace set with KVM_SET_GUEST_DEBUG; None: it does not debug the vCPU."""
    errata: frozenset[str] = frozenset()
    """The rules of :mod:`harness.guest.el2_errata` that are switched on."""
