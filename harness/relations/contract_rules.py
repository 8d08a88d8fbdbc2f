# SPDX-License-Identifier: Apache-2.0
"""List the rules of the host's contract, one row each: what KVM must do for guest and userspace, with its source.

Relation ``host.*`` compares by them.  The contract's tables (calls, system registers, reset values, registers of the
GIC) give one rule per row; its code (:mod:`harness.relations.host` and its neighbours) has its rows here.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from types import MappingProxyType
from typing import Final

from harness.arch import exits, reset_values, sysregs
from harness.arch.registers import STATE
from harness.gic.registers import BANKS
from harness.relations.basis import API, ARCHITECTURE, CONVENTION


@dataclass(frozen=True, slots=True)
class Rule:
    """A rule: its name, the required result, and the source."""

    name: str
    expected: str
    source: str

    @property
    def basis(self) -> str:
        """The basis of the rule, by its source: one of :data:`harness.relations.basis.BASES`."""
        if "reset_unknown" in self.source:
            return CONVENTION
        return ARCHITECTURE if self.source.startswith(("Arm ARM", "Arm IHI")) else API


@dataclass(frozen=True, slots=True)
class Absent:
    """Why rules (a pattern of names) cannot be exercised on targets (a pattern)."""

    rules: str
    targets: str
    why: str
    source: str


def register_rule(name: str, *, is_read: bool, gic: bool = False) -> str:
    """Return the name of the rule of an access to a system register."""
    return f"{'icc' if gic else 'sysreg'}.{'read' if is_read else 'write'}.{name}"


def _calls() -> tuple[Rule, ...]:
    psci = tuple(f for f in exits.SMCCC_FUNCTIONS if f.name.startswith("PSCI"))
    return tuple(
        Rule(
            f"call.{function.name}",
            f"results of {function.fid:#x} in x0 to x3",
            "Arm DEN 0022" if function in psci else "Arm DEN 0028; Documentation/virt/kvm/arm/hypercalls.rst",
        )
        for function in exits.SMCCC_FUNCTIONS
    )


def _registers() -> tuple[Rule, ...]:
    found = []
    for row in sysregs.SYSREGS:
        source = f"Arm ARM D19, the register's page{row.why and ': '}{row.why}"
        for is_read, expected in ((True, row.read), (False, row.write)):
            if is_read and row.encoding[0] == 1:
                continue  # SYSL, for which there is no step
            found.append(Rule(register_rule(row.name, is_read=is_read), expected.value, source))
        for is_read, expected in zip((True, False), row.gic or (), strict=False):
            name = register_rule(row.name, is_read=is_read, gic=True)
            found.append(Rule(name, f"with an in-kernel GICv3: {expected.value}", f"Arm IHI 0069, {row.name.upper()}"))
    return tuple(found)


def _resets() -> tuple[Rule, ...]:
    api, unknown = "KVM API 4.82; Arm ARM D19", "KVM API 4.82; Arm ARM: UNKNOWN, but nothing of before (reset_unknown)"
    values = tuple(
        Rule(f"reset.{name}", f"{value:#x}", unknown if value == reset_values.UNKNOWN_RESET else api)
        for name, value in reset_values.RESET_VALUES.items()
    )
    kept = tuple(Rule(f"reset.{r.name}", "0 or UNKNOWN, nothing that was there", unknown) for r in STATE
                 if r.kept_by_reset and r.name not in reset_values.RESET_VALUES)  # fmt: skip
    host = tuple(
        Rule(f"reset.{name}", "that of the host's CPU: any value", api) for name in sorted(reset_values.HOST_RESET)
    )
    return (*values, *kept, *host)


def _gic() -> tuple[Rule, ...]:
    banks = tuple(
        Rule(f"{block}.{'read' if is_read else 'write'}.{bank.name}", bank.what, bank.source)
        for bank in BANKS
        for block in (("gicd", "gicr") if bank.private else ("gicd",))
        for is_read in (True, False)
    )
    ctlr = tuple(Rule(f"gicd.{way}.ctlr", "enables group 1", "Arm IHI 0069, GICD_CTLR") for way in ("read", "write"))
    return (*ctlr, *banks)


_FEATURES: Final = "Arm DEN 0022 5.15"
_MMIO: Final = "KVM API 5, KVM_EXIT_MMIO; Arm ARM D17.2.37"
SIZES: Final = ("byte", "half", "word", "doubleword")
"""Of an access, by ISS.SAS."""
_SLOTS: Final = "KVM API 4.35"
_DEBUG: Final = "KVM API 4.87 and 5, KVM_EXIT_DEBUG"
_LINE: Final = "KVM API 4.25"
_VGIC: Final = "Documentation/virt/kvm/devices/arm-vgic-v3.rst"
_PKVM: Final = "Documentation/virt/kvm/arm/pkvm.rst"

_OTHERS: Final[tuple[Rule, ...]] = (
    Rule("call.unknown", "NOT_SUPPORTED in x0", "Arm DEN 0028 2.7"),
    Rule("call.cpu_on.already_on", "ALREADY_ON for the one vCPU itself", "Arm DEN 0022 5.4.3"),
    Rule("call.cpu_on.invalid", "INVALID_PARAMETERS for a vCPU that is not there", "Arm DEN 0022 5.4.3"),
    Rule("call.cpu_on.other", "a result of CPU_ON, where there are several vCPUs", "Arm DEN 0022 5.4.3"),
    Rule("call.affinity_info.on", "ON for the one vCPU", "Arm DEN 0022 5.7"),
    Rule("call.affinity_info.invalid", "INVALID_PARAMETERS for none", "Arm DEN 0022 5.7"),
    Rule("call.reset2.known", "INTERNAL_FAILURE if it is resumed after a known reset type", "Arm DEN 0022 5.11"),
    Rule("call.reset2.invalid", "INVALID_PARAMETERS for another reset type", "Arm DEN 0022 5.11"),
    Rule("call.off2.known", "NOT_SUPPORTED, or INTERNAL_FAILURE after HIBERNATE_OFF", "Arm DEN 0022F 5.11"),
    Rule("call.off2.invalid", "NOT_SUPPORTED, or INVALID_PARAMETERS", "Arm DEN 0022F 5.11"),
    Rule("call.features.must", "SUCCESS for what PSCI 1.1 must have", _FEATURES),
    Rule("call.features.may", "SUCCESS or NOT_SUPPORTED for what is optional", _FEATURES),
    Rule("call.features.off2", "the types of SYSTEM_OFF2, or NOT_SUPPORTED", "Arm DEN 0022F 5.11"),
    Rule("call.features.none", "NOT_SUPPORTED for any other", _FEATURES),
    Rule(
        "smc.call",
        "refused, or the same as by HVC",
        "docs/spec/kvm.md section 2 SMC; handle_smc in arch/arm64/kvm/handle_exit.c",
    ),
    Rule("smc.immediate", "NOT_SUPPORTED in x0, the rest untouched", "Arm DEN 0028 2.9; handle_smc"),
    Rule("wfx", "the guest continues after it", "Arm ARM C6.2 WFI"),
    Rule("irq", "an interrupt of the host changes nothing", "Arm ARM D1.13"),
    Rule("sysreg.unknown", "emulation or an undefined-instruction exception", "Arm ARM D19"),
    Rule(
        "abort.fetch",
        "an external abort for a fetch outside every slot",
        "docs/spec/kvm.md section 1 EXC; Arm ARM D17.2.37",
    ),
    Rule(
        "abort.walk",
        "an external abort at the walk's level",
        "docs/spec/kvm.md section 2 S1PTW; Arm ARM D17.2.37, FSC 0b0101LL",
    ),
    Rule("abort.mapped.fetch", "the fetch of a page of a slot is made again", "KVM API 4.35"),
    Rule("abort.mapped.data", "the access to a page of a slot is made again", "KVM API 4.35"),
    Rule("abort.no_syndrome", "left to userspace: the guest stays at the instruction", "KVM API 5, KVM_EXIT_ARM_NISV"),
    Rule("abort.no_syndrome.protected", "an external abort in a protected VM", "KVM API 5, KVM_EXIT_ARM_NISV"),
    *(Rule(f"mmio.store.{size}", "address, length and data for userspace; PC after it", _MMIO) for size in SIZES),
    *(Rule(f"mmio.load.{size}", "the data, zero-extended; PC after it", _MMIO) for size in SIZES),
    *(
        Rule(f"mmio.load.signed_{size}_{width}", f"the data, sign-extended to {width} bits", _MMIO)
        for size, width in (("byte", 32), ("byte", 64), ("half", 32), ("half", 64), ("word", 64))
    ),
    Rule("mmio.load.xzr", "nothing but PC changes", _MMIO),
    Rule("mmio.load.big_endian", "the data in the guest's byte order", f"{_MMIO}; D17.2.118, SCTLR_EL1.EE"),
    Rule("mmio.store.big_endian", "the data in the guest's byte order", f"{_MMIO}; D17.2.118, SCTLR_EL1.EE"),
    Rule("mmio.store.read_only", "a store to a read-only slot is MMIO", _SLOTS),
    Rule("host.set", "the register that userspace wrote", "KVM API 4.68"),
    Rule("host.abort", "an external data abort in place of the access", "KVM API 4.32"),
    Rule("host.serror.pending", "HCR_EL2.VSE at the entry", "KVM API 4.32"),
    Rule("host.serror.taken", "an SError that is not masked may be taken at once", "KVM API 4.32"),
    Rule("host.finish", "KVM_RUN completes the access, and runs nothing", "KVM API 5, immediate_exit"),
    Rule("host.line.irq", "HCR_EL2.VI as the line is", _LINE),
    Rule("host.line.fiq", "HCR_EL2.VF as the line is", _LINE),
    Rule("host.line.kept", "lines stay as they were set last", _LINE),
    Rule("debug.step_begins", "a step begins at the entry, or is pending still", "Arm ARM D2.12; KVM API 4.87"),
    *(
        Rule(f"debug.{name}", "KVM_EXIT_DEBUG with the syndrome in hsr", _DEBUG)
        for name in ("softstp_low", "breakpt_low", "brk64")
    ),
    Rule("debug.watchpt_low", "KVM_EXIT_DEBUG with the syndrome in hsr and the address in far", _DEBUG),
    Rule("slot.new", "a slot where there is none is taken", _SLOTS),
    Rule("slot.overlaps", "refused: slots may not overlap", _SLOTS),
    Rule("slot.beyond", "refused: outside the physical address space", "KVM API 4.2 and 4.35"),
    Rule("slot.resized", "refused: it may not be resized", _SLOTS),
    Rule("slot.moved", "it may be moved", _SLOTS),
    Rule("slot.flags", "its flags may be modified", _SLOTS),
    Rule("slot.deleted", "a size of zero deletes it", _SLOTS),
    Rule("slot.protected.flags", "refused: no read-only slots, no dirty logging", _PKVM),
    Rule("protected.write", "the host's write to memory that is the guest's alone is refused", _PKVM),
    Rule("gic.access", "an access to GICD or GICR never gets to userspace", _VGIC),
    Rule("gic.line.spi", "the input of an SPI changes", _LINE),
    Rule("gic.line.ppi", "the input of a PPI changes", _LINE),
    Rule("gic.line.none", "refused: there is no such input", _LINE),
    Rule("gic.line.without", "refused: there is no in-kernel GIC", _LINE),
    Rule("gic.list.entry", "list registers hold what is pending and may be taken", "Arm IHI 0069, ICH_LR<n>_EL2"),
    Rule("gic.list.user", "list registers are read back into the distributor", "Arm IHI 0069, the lifecycle"),
)

RULES: Final[tuple[Rule, ...]] = (*_calls(), *_registers(), *_resets(), *_gic(), *_OTHERS)
BY_NAME: Final[Mapping[str, Rule]] = MappingProxyType({rule.name: rule for rule in RULES})
assert len(BY_NAME) == len(RULES)

_NO_PROTECTED: Final = "the target has no protected VMs: its kernel is not in protected mode, or is older than they are"
_ANSWERED: Final = "the CPU answers without a trap, and the row promises nothing of that: there is nothing to compare"
_NOT_THERE: Final = "the CPU takes the exception itself, without a trap, and the row promises nothing of that"

# It is measured that none of these traps: a row whose rule was exercised fails
# tests/unit/harness/relations/test_contract_rules.py.
ABSENT: Final[tuple[Absent, ...]] = (
    Absent("call.SMCCC_ARCH_WORKAROUND_*", "*", "EL2 answers it, without an exit", "arch/arm64/kvm/hyp/hyp-entry.S"),
    *(
        Absent(f"sysreg.*.{name}", "*", _NOT_THERE, "harness/arch/sysregs.py: QEMU 7.2 has no such register")
        for name in ("dbgprcr_el1", "dbgclaim*_el1", "dbgauthstatus_el1")
    ),
    *(
        Absent(rule, "*", _NOT_THERE, "Arm ARM D19: no such encoding in that direction")
        for rule in (
            *("sysreg.read.oslar_el1", "sysreg.write.oslsr_el1", "sysreg.write.mdrar_el1", "sysreg.write.mdccsr_el0"),
            *(f"sysreg.write.icc_{name}_el1" for name in ("iar0", "rpr", "iar1", "hppir1")),
            *(f"sysreg.read.icc_{name}_el1" for name in ("eoir0", "dir", "sgi1r", "sgi0r", "eoir1")),
        )
    ),
    Absent(
        "sysreg.*.s3_?_c1[15]_*",
        "*",
        _ANSWERED,
        "harness/arch/sysregs.py: QEMU 7.2 does not trap what its CPU model has, and refuses the rest itself",
    ),
    Absent("sysreg.*.icc_sre_el1", "*", _ANSWERED, "Arm IHI 0069, ICC_SRE_EL2.Enable: the one trap of it"),
    *(
        Absent("sysreg.*.icc_[!s]*", target, _ANSWERED, "arch/arm64/kvm/hyp/vgic-v3-sr.c of 6.1")
        for target in ("kvm-nvhe", "kvm-protected", "kvm-vhe")
    ),
    Absent(
        "sysreg.write.cnt*_el0",
        "*",
        "no step writes a timer: one that fires would make all that follows uncertain",
        "harness/arch/sysregs.py, WRITABLE",
    ),
    Absent(
        "sysreg.unknown",
        "*",
        "steps name rows of the table; only recorded programs go elsewhere",
        "harness/scenario/steps.py",
    ),
    *(
        Absent(rule, target, _NO_PROTECTED, "Documentation/virt/kvm/arm/pkvm.rst; harness/vm/target.py")
        for rule in ("abort.no_syndrome.protected", "slot.protected.*", "protected.write")
        for target in ("kvm-nvhe", "kvm-6.12-nvhe", "kvm-7.3-nvhe", "kvm-protected", "kvm-vhe")
    ),
    *(
        Absent(
            "host.serror.taken",
            target,
            "its kernel pends every SError in HCR_EL2.VSE (host.serror.pending); only later ones may inject at once",
            "docs/spec/kvm.md section 6; arch/arm64/kvm/inject_fault.c, kvm_inject_serror_esr",
        )
        for target in ("kvm-nvhe", "kvm-6.12-nvhe", "kvm-protected", "kvm-vhe")
    ),
)


def why_absent(rule: str, target: str) -> Absent | None:
    """Return why a rule cannot be exercised on a target, None if no row says so."""
    for row in ABSENT:
        if fnmatchcase(rule, row.rules) and fnmatchcase(target, row.targets):
            return row
    return None
