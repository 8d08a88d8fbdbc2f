# SPDX-License-Identifier: Apache-2.0
"""Decode ESR_EL2 to text: the fields of each exception class's ISS, as rows.

Source: Arm ARM D17.2.37 (ESR_ELx), the ISS encoding named in each row; FSC values, Table D17-9.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

from harness.arch import exits
from harness.arch.exits import IssField
from harness.trace.events import Switch

_IABT = tuple(exits.DABT[name] for name in ("EA", "S1PTW", "FSC"))
_CALL = (IssField("imm16", 0, 16, "the instruction's immediate"),)
_SYS64 = (
    IssField("Op0", 20, 2, "system register encoding"),
    IssField("Op1", 14, 3, "system register encoding"),
    IssField("CRn", 10, 4, "system register encoding"),
    IssField("CRm", 1, 4, "system register encoding"),
    IssField("Op2", 17, 3, "system register encoding"),
    IssField("Rt", 5, 5, "the register transferred"),
    IssField("read", 0, 1, "MRS, not MSR"),
)
ISS_FIELDS: Mapping[str, tuple[IssField, ...]] = MappingProxyType(
    {"DABT_LOW": exits.DABT_FIELDS, "IABT_LOW": _IABT, "HVC64": _CALL, "HVC32": _CALL, "SMC64": _CALL}
    | {"SYS64": _SYS64, "BRK64": _CALL, "WFX": (IssField("TI", 0, 2, "0 WFI, 1 WFE, 2 WFIT, 3 WFET"),)}
)
_VALID_ONLY = frozenset({"SAS", "SSE", "SRT", "SF"})  # UNKNOWN when ISV is 0

FSC_NAMES: Mapping[int, str] = MappingProxyType(
    {0x00: "address size", exits.FSC_TRANSLATION: "translation", exits.FSC_ACCESS: "access flag"}
    | {exits.FSC_PERMISSION: "permission"}
)


@dataclass(frozen=True, slots=True)
class Syndrome:
    """An exit's syndrome: raw registers, the fields of its class, and a note (may be empty)."""

    esr: int
    far: int
    hpfar: int
    fields: tuple[tuple[str, int], ...]
    note: str

    @property
    def ipa(self) -> int:
        """The faulting page's address, from HPFAR_EL2.FIPA (Arm ARM D17.2.69)."""
        return (self.hpfar & 0xFFF_FFFF_FFF0) << 8


def fault_name(fsc: int) -> str:
    """Name a fault status code: ``translation, level 3``."""
    if fsc == exits.FSC_EXTABT:
        return "synchronous external abort"
    name = FSC_NAMES.get(fsc & exits.FSC_TYPE)
    return f"{name} fault, level {fsc & 3}" if name else f"fault status {fsc:#04x}"


def decode(exit_: Switch) -> Syndrome | None:
    """Return an exit's syndrome; None if its exit code is not a trap: ESR_EL2 is then of an earlier exit."""
    if exit_.code & ~exits.EXIT_WITH_SERROR_BIT != exits.EXCEPTION_TRAP:
        return None
    name = exits.exit_class(exit_.code, exit_.esr)
    rows = ISS_FIELDS.get(name, ())
    if name == "DABT_LOW" and not exits.DABT["ISV"].get(exit_.esr):
        rows = tuple(row for row in rows if row.name not in _VALID_ONLY)
    fields = tuple((row.name, row.get(exit_.esr)) for row in rows)
    return Syndrome(exit_.esr, exit_.far, exit_.hpfar, fields, _note(name, exit_))


def _note(name: str, exit_: Switch) -> str:
    if name in ("DABT_LOW", "IABT_LOW"):
        fault = fault_name(exits.DABT["FSC"].get(exit_.esr))
        if name == "IABT_LOW":
            return f"fetch, {fault}"
        return f"{'write' if exits.DABT['WNR'].get(exit_.esr) else 'read'}, {fault}"
    if name in ("HVC64", "HVC32", "SMC64"):
        function = exits.SMCCC_BY_FID.get(exit_.values[0] & 0xFFFF_FFFF)
        return f"x0 is {function.name}" if function else "x0 is not a known function"
    return ""
