# SPDX-License-Identifier: Apache-2.0
"""Follow the CPU's own virtual GIC interface where VMs without a GIC are left to it: an erratum of Linux 6.1 with VHE.

Its registers are fields of ICH_VMCR_EL2 (Arm IHI 0069, ICV_* registers).  A VM with a GIC has its own value loaded and
saved; what it leaves stays there (Linux 6.1, vgic-v3.c vgic_v3_load and vgic_v3_put).
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from harness.arch.registers import MASK64
from harness.gic.cpu_interface import SIGN, SMALLEST_POINT
from harness.gic.registers import IMPLEMENTED_MASK

NAMES: frozenset[str] = frozenset({"icc_pmr_el1", "icc_bpr1_el1", "icc_ctlr_el1", "icc_igrpen0_el1", "icc_igrpen1_el1"})
_FIELDS: Mapping[str, tuple[int, int]] = MappingProxyType(
    # Where it is in ICH_VMCR_EL2, and its width.
    {"eng0": (0, 1), "eng1": (1, 1), "cbpr": (4, 1), "eoim": (9, 1), "bpr1": (18, 3), "bpr0": (21, 3), "pmr": (24, 8)}
)
_CTLR = 3
"""ICC_CTLR_EL1: EOImode and CBPR, which can be written."""


class SharedInterface:
    """The known state of the interface, by field: a value and which bits of it are known."""

    def __init__(self) -> None:
        self._fields: dict[str, tuple[int, int]] = {}
        self._fixed: int | None = None

    def forget(self) -> None:
        """Mark every field that software can change as unknown."""
        self._fields = {}

    def loaded(self, vmcr: int) -> None:
        """Apply the value of ICH_VMCR_EL2 that a VM with a GIC has left."""
        self._fields = {name: (vmcr >> shift & (1 << width) - 1, MASK64) for name, (shift, width) in _FIELDS.items()}

    def _field(self, name: str) -> tuple[int, int]:
        width = _FIELDS[name][1]
        return self._fields.get(name, (0, MASK64 & -1 << width))

    def _bit(self, name: str) -> int | None:
        value, known = self._field(name)
        return value if known & 1 else None

    def read(self, name: str) -> tuple[int, int]:
        """Return the value of a register of :data:`NAMES`, and its known bits."""
        match name:
            case "icc_pmr_el1":
                return self._field("pmr")
            case "icc_igrpen0_el1" | "icc_igrpen1_el1":
                return self._field(f"eng{name[10]}")
            case "icc_bpr1_el1":
                if (shares := self._bit("cbpr")) is None:
                    return 0, MASK64 & ~7
                point, known = self._field("bpr0" if shares else "bpr1")
                return (min(point + 1, 7) if shares and known == MASK64 else point), known
        (eoi, eoi_known), (shares_point, shares_known) = self._field("eoim"), self._field("cbpr")
        known = (eoi_known & 1) << 1 | shares_known & 1
        return (self._fixed or 0) | eoi << 1 | shares_point, known if self._fixed is None else known | MASK64 & ~_CTLR

    def write(self, name: str, value: int | None) -> None:
        """Write a register of :data:`NAMES`; None: an unknown value."""
        match name:
            case "icc_pmr_el1":
                self._set("pmr", value, MASK64 & ~0xFF | IMPLEMENTED_MASK | ~(value or 0) & 0xFF)
            case "icc_igrpen0_el1" | "icc_igrpen1_el1":
                self._set(f"eng{name[10]}", value)
            case "icc_ctlr_el1":
                self._set("cbpr", value)
                self._set("eoim", None if value is None else value >> 1)
            case "icc_bpr1_el1" if not (shares := self._bit("cbpr")):  # else a write has no effect
                kept = shares == 0 and value is not None and value & 7 >= SMALLEST_POINT and not value & SIGN
                self._set("bpr1", value if kept else None)

    def _set(self, field: str, value: int | None, known: int = MASK64) -> None:
        if value is None:
            self._fields.pop(field, None)
        else:
            self._fields[field] = value & (1 << _FIELDS[field][1]) - 1, known

    def observe(self, name: str, value: int) -> None:
        """Apply an observed value of a register of :data:`NAMES`."""
        match name:
            case "icc_pmr_el1":
                self._set("pmr", value)
            case "icc_bpr1_el1":
                if self._bit("cbpr") == 0:
                    self._set("bpr1", value)
                elif self._bit("cbpr") and value < 7:
                    self._set("bpr0", value - 1)
            case "icc_ctlr_el1":
                self._fixed = value & ~_CTLR
                self.write(name, value)
            case _:
                self.write(name, value)
