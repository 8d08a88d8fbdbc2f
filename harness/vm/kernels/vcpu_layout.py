# SPDX-License-Identifier: Apache-2.0
"""Render ``layout.h``, the places of the fields that the probe reads: from a kernel's headers, or its BTF.

A release whose headers have left the archive uses those of a neighbouring release.  Numeric offsets then replace every
member of KVM's structs, and :func:`why_incompatible` compares the other definitions that the module depends on.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from harness.arch import registers
from harness.arch.registers import Group
from harness.errors import SetupError
from harness.trace.decode import ContextLayout
from harness.vm.debian.versions import linux_version
from harness.vm.kernels.btf import Btf

PLACES: Mapping[str, tuple[str, str]] = {
    # Macro, (type, member of struct kvm_vcpu).
    "SF_FAULT_ESR": ("u64", "arch.fault.esr_el2"),
    "SF_FAULT_FAR": ("u64", "arch.fault.far_el2"),
    "SF_FAULT_HPFAR": ("u64", "arch.fault.hpfar_el2"),
    "SF_HCR": ("u64", "arch.hcr_el2"),
    "SF_IFLAGS": ("u8", "arch.iflags"),
    "SF_MDCR": ("u64", "arch.mdcr_el2"),
    "SF_POINTS": ("struct kvm_guest_debug_arch", "arch.vcpu_debug_state"),
    "SF_USED_LRS": ("u32", "arch.vgic_cpu.vgic_v3.used_lrs"),
    "SF_ICH_HCR": ("u32", "arch.vgic_cpu.vgic_v3.vgic_hcr"),
    "SF_ICH_VMCR": ("u32", "arch.vgic_cpu.vgic_v3.vgic_vmcr"),
    "SF_ICH_AP0R": ("u32", "arch.vgic_cpu.vgic_v3.vgic_ap0r"),  # an array, as the following ones
    "SF_ICH_AP1R": ("u32", "arch.vgic_cpu.vgic_v3.vgic_ap1r"),
    "SF_ICH_LR": ("u64", "arch.vgic_cpu.vgic_v3.vgic_lr"),
    "SF_RUN": ("struct kvm_run *", "run"),
}

SLOTS = tuple(dict.fromkeys(r.sys_reg for r in registers.STATE if r.sys_reg is not None))

LAZY_SINCE = (7, 3)
"""From this release on pKVM keeps a vCPU's registers at EL2 and copies most of them to the host only on request."""
SYNC_CALL = "__KVM_HOST_SMCCC_FUNC___pkvm_vcpu_sync_state"
"""The hypercall that requests it (arch/arm64/include/asm/kvm_asm.h of 7.3)."""

FRAME_SIZES: tuple[str, ...] = ("module", "kernel_param")
FRAME_OFFSETS: tuple[str, ...] = (
    *("module.name", "module.init", "tracepoint.name", "kprobe.addr", "kprobe.symbol_name"),
    *("callback_head.func", "kvm_run.mmio"),
)
"""Definitions that a module takes from the headers of another release: they must be equal in both kernels."""


def _common(slots: Iterator[str]) -> Iterator[str]:
    yield "/* SPDX-License-Identifier: GPL-2.0 OR Apache-2.0 */"
    yield "/* Generated from harness/vm/kernels/vcpu_layout.py: do not edit. */"
    yield from slots


def render_own() -> str:
    """Return ``layout.h`` for a module that is built against its kernel's own headers."""
    lines = [
        *(f"#define {macro}(v) ((v)->{member})" for macro, (_, member) in PLACES.items()),
        "#define SF_CONTEXT(v) (&(v)->arch.ctxt)",
        "#define SF_REGS(v) (&(v)->arch.ctxt.regs)",
        "#define SF_SYS_REGS(c) (((struct kvm_cpu_context *)(c))->sys_regs)",
        "#define SF_CONTEXT_SIZE sizeof(struct kvm_cpu_context)",
        "#define SF_LINUX_VERSION LINUX_VERSION_CODE",
        *(f"#define SF_SLOT_{slot} {slot}" for slot in SLOTS),
    ]
    return "\n".join(_common(iter(lines))) + "\n"


def render_borrowed(btf: Btf, release: str) -> str:
    """Return ``layout.h`` with numeric offsets from the kernel's `btf`; SetupError if it lacks a member."""
    major, minor = linux_version(release)
    numbers = _slots(btf, release)
    lines = ["#define SF_BORROWED 1"]
    if (major, minor) >= LAZY_SINCE:
        lines.append(f"#define SF_SYNC_ID {_sync_call(btf, release)}")
    for macro, (kind, member) in PLACES.items():
        lines.append(f"#define {macro}(v) (*({kind} *)((u8 *)(v) + {_offset(btf, f'kvm_vcpu.{member}', release)}))")
    context = _offset(btf, "kvm_vcpu.arch.ctxt", release)
    regs = _offset(btf, "kvm_cpu_context.regs", release)
    lines += [
        f"#define SF_CONTEXT(v) ((void *)((u8 *)(v) + {context}))",
        f"#define SF_REGS(v) ((struct user_pt_regs *)((u8 *)(v) + {context + regs}))",
        f"#define SF_SYS_REGS(c) ((u64 *)((u8 *)(c) + {_offset(btf, 'kvm_cpu_context.sys_regs', release)}))",
        f"#define SF_CONTEXT_SIZE {btf.size('kvm_cpu_context')}",
        f"#define SF_LINUX_VERSION KERNEL_VERSION({major}, {minor}, 0)",
        *(f"#define SF_SLOT_{slot} {numbers[slot]}" for slot in SLOTS),
    ]
    return "\n".join(_common(iter(lines))) + "\n"


def _sync_call(btf: Btf, release: str) -> int:
    calls = btf.enum("__kvm_host_smccc_func")
    if SYNC_CALL not in calls:
        raise SetupError(f"Linux {release}: its BTF has no {SYNC_CALL}")
    return calls[SYNC_CALL]


def _offset(btf: Btf, path: str, release: str) -> int:
    at = btf.offset(path)
    if at < 0:
        raise SetupError(f"Linux {release}: its BTF has no {path}")
    return at


def _slots(btf: Btf, release: str) -> Mapping[str, int]:
    numbers = btf.enum("vcpu_sysreg")
    missing = [slot for slot in SLOTS if slot not in numbers]
    if missing:
        raise SetupError(f"Linux {release}: enum vcpu_sysreg has no {missing[0]}")
    return numbers


def read_btf_layout(btf: Btf, release: str) -> ContextLayout:
    """Return the offset of every register of ``registers.STATE`` in ``struct kvm_cpu_context``, from BTF."""
    numbers = _slots(btf, release)
    regs = _offset(btf, "kvm_cpu_context.regs", release) // 8
    sys_regs = _offset(btf, "kvm_cpu_context.sys_regs", release) // 8
    # struct user_pt_regs is the kernel's ABI: x0..x30, sp, pc, pstate.
    core = {"sp_el0": 31, "pc": 32, "pstate": 33}
    slots: list[int] = []
    for register in registers.STATE:
        if register.sys_reg is not None:
            slots.append(sys_regs + numbers[register.sys_reg])
        elif register.group is Group.GPR:
            slots.append(regs + int(register.name[1:]))
        else:
            slots.append(regs + core[register.name])
    vectors = _offset(btf, "kvm_cpu_context.fp_regs", release)
    return ContextLayout(size=btf.size("kvm_cpu_context"), slots=tuple(slots), vectors=vectors)


def why_incompatible(own: Btf, donor: Btf) -> str:
    """Return why a module built with the donor's headers does not fit the kernel `own`; empty if it fits."""
    for name in FRAME_SIZES:
        if own.size(name) != donor.size(name):
            return f"struct {name} has {own.size(name)} bytes, not {donor.size(name)}"
    for path in FRAME_OFFSETS:
        if own.offset(path) != donor.offset(path):
            return f"{path} is at {own.offset(path)}, not {donor.offset(path)}"
    return ""
