# SPDX-License-Identifier: Apache-2.0
"""Rows of changed instructions of KVM, each of which must be detected.

The words are those of Debian 6.1 (the default target); a function is found by the image's symbols, the instruction in
it by its word.  A release with other words is an error, not a pass.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from pathlib import Path

from harness.errors import SetupError
from harness.vm.kernels.kallsyms import Symbols, read_symbols

NOP = 0xD503_201F


@dataclass(frozen=True, slots=True)
class Change:
    """Replace the instruction ``old`` of a function, the ``nth`` of them, by ``new``.

    ``path``: the part of KVM; ``seeds``: scenarios of the corpus that show it; ``shows``: divergences that they must
    show, among others (relation and register, general-purpose ones as xN).
    """

    name: str
    path: str
    function: str
    old: int
    new: int
    what: str
    why: str
    seeds: tuple[str, ...]
    shows: frozenset[str]
    nth: int = 0


_SAVE, _RESTORE = "__kvm_nvhe___sysreg_save_state_nvhe", "__kvm_nvhe___sysreg_restore_state_nvhe"
_ADJUST = "__kvm_nvhe___kvm_adjust_pc"


def _save(name: str, old: int, new: int, seeds: str = "host_writes_system_registers") -> Change:
    what = f"{name} is saved from another register"
    return Change(
        f"save-{name}",
        "save",
        _SAVE,
        old,
        new,
        what,
        "what the guest has at an exit must be what it has after it",
        (seeds,),
        frozenset({f"switch.{name}"}),
    )


def _restore(name: str, old: int, seeds: str = "host_writes_system_registers") -> Change:
    return Change(
        f"restore-{name}",
        "restore",
        _RESTORE,
        old,
        NOP,
        f"{name} is not restored",
        "what KVM loads must be what the guest has",
        (seeds,),
        frozenset({f"switch.{name}"}),
    )


def _change(
    name: str,
    path: str,
    function: str,
    words: tuple[int, int],
    what: str,
    why: str,
    seeds: str,
    shows: str,
    nth: int = 0,
) -> Change:
    return Change(name, path, function, *words, what, why, tuple(seeds.split()), frozenset(shows.split()), nth)


CHANGES: tuple[Change, ...] = (
    # The same functions save the host's registers: those that the host needs at once cannot be changed here.
    _save("far_el1", 0xD538_6001, 0xD538_5201),  # mrs x1, far_el1 -> esr_el1
    _save("esr_el1", 0xD538_5201, 0xD538_6001),  # -> far_el1
    _save("mair_el1", 0xD538_A201, 0xD538_A301),  # -> amair_el1
    _save("contextidr_el1", 0xD538_D021, 0xD538_D081),  # -> tpidr_el1
    _save("cntkctl_el1", 0xD538_E101, 0xD538_D021),  # -> contextidr_el1
    _save("par_el1", 0xD538_7401, 0xD538_6001),  # -> far_el1
    _save("tpidrro_el0", 0xD53B_D060, 0xD53B_D040),  # -> tpidr_el0
    _save("csselr_el1", 0xD53A_0001, 0xD538_D021),  # -> contextidr_el1
    _save("elr_el1", 0xD538_4020, 0xD538_4000),  # -> spsr_el1
    _save("spsr_el1", 0xD538_4000, 0xD538_4020),  # -> elr_el1
    _restore("esr_el1", 0xD518_5200),
    _restore("tpidrro_el0", 0xD51B_D060),
    _restore("mdscr_el1", 0xD510_0240),
    _change(
        *("inject-vector", "exception injection", _ADJUST, (0xD280_4002, 0xD280_5002)),
        "the vector of an exception from EL1h is 0x280, not 0x200",
        "Arm ARM D1.10.1: a synchronous exception from the current level with SP_ELx",
        "sysregs_known_and_unknown",
        "switch.pc",
    ),
    _change(
        *("inject-elr", "exception injection", _ADJUST, (0xF903_CE63, NOP)),
        "an injected exception leaves ELR_EL1",
        "Arm ARM AArch64.TakeException: ELR holds the preferred return address",
        "sysregs_known_and_unknown",
        "switch.elr_el1",
    ),
    _change(
        *("inject-spsr", "exception injection", _ADJUST, (0xF903_D661, NOP)),
        "an injected exception leaves SPSR_EL1",
        "Arm ARM AArch64.TakeException: SPSR holds PSTATE",
        "sysregs_known_and_unknown",
        "switch.spsr_el1",
    ),
    _change(
        *("inject-pstate", "exception injection", _ADJUST, (0xD280_78A3, 0xD280_7883)),
        "an injected exception goes to EL1t",
        "Arm ARM AArch64.TakeException: PSTATE.SP is 1",
        "sysregs_known_and_unknown",
        "switch.pstate",
    ),
    _change(
        *("inject-esr", "exception injection", "kvm_inject_undefined", (0x9267_0021, 0xAA1F_03E1)),
        "ESR_EL1 of an undefined instruction has IL clear",
        "Arm ARM D17.2.37: IL is 1 for an exception of class 0",
        "sysregs_known_and_unknown",
        "host.esr_el1",
    ),
    _change(
        *("inject-far", "exception injection", "inject_abt64", (0xAA00_03E1, 0xAA13_03E1)),
        "FAR_EL1 of an injected abort is an address of the host's",
        "Arm ARM D17.2.40: FAR_EL1 holds the faulting address",
        "fetch_outside_slots",
        "host.far_el1",
    ),
    _change(
        *("psci-version", "PSCI", "kvm_psci_1_x_call", (0x1140_4022, 0x1140_8022)),
        "PSCI_VERSION says 2.x",
        "Arm DEN 0022 5.1.1",
        "psci_version",
        "host.xN",
    ),
    _change(
        *("psci-suspend", "PSCI", "kvm_psci_0_2_call", (0xD280_0014, 0xD280_00B4)),
        "CPU_SUSPEND returns 5",
        "Arm DEN 0022 5.1.2: SUCCESS is 0",
        "psci_cpu_suspend",
        "host.xN",
    ),
    _change(
        *("psci-migrate-info", "PSCI", "kvm_psci_0_2_call", (0xD280_0054, 0xD280_0034)),
        "MIGRATE_INFO_TYPE says that there is a Trusted OS",
        "Arm DEN 0022 5.1.9: 2 without one",
        "smccc_upper_half_of_function",
        "host.xN",
    ),
    _change(
        *("psci-x1", "PSCI", "kvm_psci_0_2_call", (0xA910_7E74, 0xA910_5274)),
        "x1 gets what x0 gets",
        "docs/spec/kvm.md section 3: what a call does not define is 0",
        "psci_migrate_info",
        "host.xN",
    ),
    _change(
        *("psci-reset2", "PSCI", "kvm_psci_1_x_call", (0x9280_00A0, 0xD280_0000)),
        "SYSTEM_RESET2 returns 0 where userspace goes on",
        "Arm DEN 0022 5.1.12: it returns only on an error",
        "psci_system_reset2_goes_on",
        "host.xN",
    ),
    _change(
        *("smc-status", "SMC", "handle_smc", (0x9280_0002, 0xD280_0002)),
        "a refused SMC returns 0",
        "Arm DEN 0028: NOT_SUPPORTED is -1",
        "smc_immediates",
        "host.xN",
    ),
    _change(
        *("wfx-skip", "skip", "kvm_handle_wfx", (0x321F_0000, NOP)),
        "PC stays at a WFI",
        "Arm ARM C6.2 WFI: it is done when the vCPU wakes up",
        "wfi_wfe",
        "save.pc host.pc",
    ),
    _change(
        *("mmio-skip", "MMIO", "kvm_handle_mmio_return", (0x321F_0000, NOP)),
        "PC stays at an MMIO access that is complete",
        "KVM API 5, KVM_EXIT_MMIO: the next KVM_RUN completes the access",
        "mmio_load_doubleword",
        "host.pc",
    ),
    _change(
        *("mmio-register", "MMIO", "kvm_handle_mmio_return", (0x5310_5000, 0x5310_4C00)),
        "the register number of an MMIO load loses its upper bit",
        "Arm ARM D17.2.37, SRT: five bits",
        "mmio_load_every_register",
        "host.xN",
    ),
    _change(
        *("mmio-length", "MMIO", "kvm_handle_mmio_return", (0x5316_5E95, 0x5316_5A95)),
        "the size of an MMIO load loses its upper bit",
        "Arm ARM D17.2.37, SAS: two bits",
        "mmio_load_doubleword mmio_load_word",
        "host.xN",
    ),
    _change(
        *("mmio-half", "MMIO", "kvm_mmio_read_buf", (0x7940_0000, 0x3940_0000)),
        "a half-word that userspace gave loses its upper byte",
        "Arm ARM C6.2 LDRH",
        "mmio_load_half",
        "host.xN",
    ),
    _change(
        *("mmio-store-data", "MMIO", "io_mem_abort", (0xF940_8013, 0xF940_8413)),
        "userspace is given the register after the one that an MMIO store stores",
        "KVM API 5, KVM_EXIT_MMIO: data holds the value to be written",
        "mmio_store_word_and_doubleword",
        "host.mmio_data",
    ),
    _change(
        *("sysreg-register", "system registers", "kvm_handle_sys_reg", (0x5305_2675, 0x5305_2275)),
        "the register number of a trapped MRS or MSR loses its upper bit",
        "Arm ARM D17.2.37, Rt: five bits",
        "sysregs_known_and_unknown",
        "host.xN",
    ),
    _change(
        *("reset-pstate", "reset", "kvm_reset_vcpu", (0x5280_78A2, 0x5280_7882)),
        "a reset vCPU starts at EL1t",
        "KVM API 4.82 KVM_ARM_VCPU_INIT: PSTATE is EL1h with DAIF set",
        "single_trap",
        "host.pstate",
    ),
    _change(
        *("reset-registers", "reset", "kvm_reset_vcpu", (0xD280_2202, 0xD280_1002)),
        "a reset keeps x16 to x30",
        "KVM API 4.82 KVM_ARM_VCPU_INIT: general registers are 0",
        "reset_after_refused_traps",
        "host.xN",
    ),
    _change(
        *("reset-unknown", "reset", "reset_unknown", (0xF902_2020, NOP)),
        "a reset keeps the system registers whose reset value is UNKNOWN",
        "KVM API 4.82 KVM_ARM_VCPU_INIT: nothing is left over",
        "reset_after_host_writes",
        "host.ttbr0_el1",
    ),
    _change(
        *("reset-mpidr", "reset", "reset_mpidr", (0x3201_0063, NOP)),
        "bit 31 of MPIDR_EL1 is clear",
        "Arm ARM D17.2.99: RES1",
        "single_trap",
        "host.mpidr_el1",
    ),
    _change(
        *("set-one-reg", "KVM_SET_ONE_REG", "kvm_sys_reg_set_user", (0xF820_7A95, NOP)),
        "KVM_SET_ONE_REG leaves a system register as it was",
        "KVM API 4.68",
        "host_writes_system_registers",
        "host.ttbr0_el1",
    ),
    _change(
        *("gic-priority", "GIC", "vgic_v3_populate_lr", (0xAA01_C281, 0xAA01_BE81)),
        "a list register has half the priority, so that all keep their order",
        "IHI 0069, ICH_LR<n>_EL2.Priority: that of the interrupt",
        "gic_spi_interrupts_guest",
        "host.gic_list",
    ),
    _change(
        *("gic-ended", "GIC", "__kvm_nvhe___vgic_v3_save_state", (0x9240_F400, NOP)),
        "an interrupt that the guest has ended stays as it was in its list register",
        "IHI 0069, ICH_ELRSR_EL2: the list register is empty",
        "gic_edge_comes_once",
        "switch.ich_lr0_el2",
    ),
    _change(
        *("gic-active", "GIC", "__kvm_nvhe___vgic_v3_save_aprs", (0xB900_1C01, NOP)),
        "the active priorities of group 1 are not saved",
        "IHI 0069, ICH_AP1R<n>_EL2: one for each interrupt that runs",
        "gic_priorities",
        "switch.ich_ap1r_el2",
    ),
)


def apply_change(image: bytes, symbols: Symbols, change: Change) -> bytes:
    """Return the image with one instruction changed.  SetupError: it is not at the place in the row."""
    address = symbols.address(change.function)
    if address is None:
        raise SetupError(f"this kernel has no function {change.function}")
    end = next(a for a in symbols.addresses if a > address)
    begin, old = address - symbols.base, struct.pack("<I", change.old)
    places = [at for at in range(begin, end - symbols.base, 4) if image[at : at + 4] == old]
    if len(places) <= change.nth:
        raise SetupError(
            f"{change.function} of this kernel has no {change.old:#010x}: {change.name} was written for another"
        )
    at = places[change.nth]
    return image[:at] + struct.pack("<I", change.new) + image[at + 4 :]


def changed_image(stock: Path, change: Change, directory: Path, symbols: Symbols | None = None) -> Path:
    """Write the changed image into a directory and return it."""
    path = directory / f"Image-{change.name}"
    path.write_bytes(apply_change(stock.read_bytes(), symbols or read_symbols(stock), change))
    return path
