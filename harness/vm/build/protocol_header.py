# SPDX-License-Identifier: Apache-2.0
"""Render the mailbox tables as the C header that the agent and the probe include."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from harness import layout, protocol
from harness.arch import exceptions, exits, registers
from harness.arch.registers import Encoding, Vhe
from harness.scenario.code_layout import FILL, PROTECTED_FILL


def _enum(prefix: str, items: Iterable[tuple[str, int]]) -> Iterator[str]:
    for name, value in items:
        yield f"#define SF_{prefix}_{name.upper()} {value:#x}"


def _struct(name: str, words: Iterable[protocol.Word], head: str = "") -> Iterator[str]:
    yield f"struct {name} {{"
    if head:
        yield head
    for word in words:
        yield f"\tsf_u64 {word.name}; /* {word.what} */"
    yield "};"


def _el12(encoding: Encoding) -> Encoding:
    """Return the encoding of a register's EL12 alias: that of the EL1 register with op1 = 5 (Arm ARM D5.1.5)."""
    op0, _, crn, crm, op2 = encoding
    return op0, 5, crn, crm, op2


def _live_rows() -> Iterator[str]:
    yield "/*"
    yield " * Registers that a VHE host leaves in the CPU: slot of sys_regs[], op0, op1, CRn, CRm, op2, and the first"
    yield " * kernel version that saves it to memory."
    yield " */"
    yield "#define SF_VHE_LIVE(X) \\"
    for register in registers.STATE:
        if register.vhe is Vhe.MEMORY:
            continue
        assert register.encoding is not None
        encoding = _el12(register.encoding) if register.vhe is Vhe.EL12 else register.encoding
        major, minor = register.live_before or (255, 0)
        numbers = ", ".join(map(str, encoding))
        yield f"\tX({register.sys_reg}, {numbers}, KERNEL_VERSION({major}, {minor}, 0)) \\"
    yield ""


def render() -> str:
    """Return the text of ``protocol.h``.  Equal tables give equal text."""
    lines = [
        "/* SPDX-License-Identifier: GPL-2.0 OR Apache-2.0 */",
        "/* Generated from harness/protocol.py: do not edit. */",
        "#ifndef SF_PROTOCOL_H",
        "#define SF_PROTOCOL_H",
        "#ifdef __KERNEL__",
        "#include <linux/types.h>",
        "typedef u64 sf_u64;",
        "typedef u32 sf_u32;",
        "#else",
        "#include <stdint.h>",
        "typedef uint64_t sf_u64;",
        "typedef uint32_t sf_u32;",
        "#endif",
        f"#define SF_MAGIC {protocol.MAGIC:#x}ULL",
        f"#define SF_PROGRAM_OFFSET {protocol.PROGRAM_OFFSET}",
        f"#define SF_PROGRAM_SIZE {protocol.PROGRAM_SIZE}",
        f"#define SF_TRACE_OFFSET {protocol.TRACE_OFFSET}",
        f"#define SF_ONE_REG_X0 {registers.BY_NAME['x0'].one_reg:#x}ULL",
        f"#define SF_ONE_REG_X1 {registers.BY_NAME['x1'].one_reg:#x}ULL",
        f"#define SF_ONE_REG_PC {registers.BY_NAME['pc'].one_reg:#x}ULL",
        "/* Registers that a KVM reset does not change (architecturally UNKNOWN after a reset). */",
        "#define SF_KEPT_BY_RESET(X) \\",
        *(f"\tX({r.one_reg:#x}ULL) \\" for r in registers.STATE if r.kept_by_reset),
        "",
        *(f"#define SF_FILL_{i} {word:#010x}" for i, word in enumerate(FILL)),
        *(f"#define SF_PROTECTED_FILL_{i} {word:#010x}" for i, word in enumerate(PROTECTED_FILL)),
        f"#define SF_EC_SHIFT {exits.EC_SHIFT}",
        f"#define SF_EC_MASK {exits.EC_MASK >> exits.EC_SHIFT:#x}",
        *_enum("EC", ((name, exits.EC_BY_NAME[name]) for name in ("WFX", "HVC64", "IABT_LOW", "SOFTSTP_LOW"))),
        f"#define SF_SYNC_SAME_EL {exceptions.VECTOR_OFFSETS[exceptions.EL1H]:#x}",
        f"#define SF_CODE_TRAP {exits.EXCEPTION_TRAP}",
        *(f"#define SF_{r.name.upper()}_BASE {r.base:#x}ULL" for r in layout.REGIONS if r.slot),
        *(f"#define SF_{r.name.upper()}_SIZE {r.size:#x}ULL" for r in layout.REGIONS if r.slot),
        *_enum("OP", ((name, number) for name, (number, _) in protocol.OPS.items())),
        f"#define SF_LINES {len(protocol.LINES)}",
        f"#define SF_MARK_CALL {protocol.MARK_CALL}",
        *_enum("MARK", protocol.DEBUG.items()),
        *_enum("DEBUG", ((name, protocol.DEBUG_WAYS[name]) for name in ("step", "brk"))),
        f"#define SF_BREAKPOINTS {protocol.BREAKPOINTS}",
        f"#define SF_ONE_REG_VBAR {registers.BY_NAME['vbar_el1'].one_reg:#x}ULL",
        f"#define SF_CONTEXTS {len(layout.CONTEXTS)}",
        f"#define SF_CONTEXT_PAIR {layout.PAIR}",
        f"#define SF_NISV_MACHINE {layout.NISV_MACHINE}",
        f"#define SF_PROTECTED_MACHINE {layout.PROTECTED_MACHINE}",
        f"#define SF_CONTEXT_PROTECTED {layout.PROTECTED}",
        f"#define SF_GIC_MACHINE {layout.GIC_MACHINE}",
        f"#define SF_LIST_REGISTERS {protocol.LIST_REGISTERS}",
        f"#define SF_ACTIVE_PRIORITIES {protocol.ACTIVE_PRIORITIES}",
        f"#define SF_GIC_INTERRUPTS {layout.GIC_INTERRUPTS}",
        *(f"#define SF_{r.name.upper()}_BASE {r.base:#x}ULL" for r in (layout.GICD, layout.GICR)),
        f"#define SF_WINDOWS {protocol.WINDOWS}",
        f"#define SF_WINDOW_SIZE {layout.WINDOW_SIZE}",
        "/* The vCPUs of scenarios: VM, number of the vCPU in it, window of its code. */",
        "#define SF_CONTEXT_ROWS(X) \\",
        *(f"\tX({c.machine}, {c.vcpu}, {c.window}) \\" for c in layout.CONTEXTS),
        "",
        *_enum("FORGE", protocol.FORGE.items()),
        *_enum("STATUS", protocol.STATUS.items()),
        *_enum("STOP", protocol.STOP.items()),
        *_enum("RECORD", protocol.RECORD_TYPES.items()),
        *_enum("RECORD_TO", protocol.RECORD_TO.items()),
        f"#define SF_FLAGS_VCPU_SHIFT {protocol.FLAGS_VCPU_SHIFT}",
        f"#define SF_FLAGS_VM_SHIFT {protocol.FLAGS_VM_SHIFT}",
        *_enum("API", ((name, number) for name, (number, _) in protocol.API.items())),
        *_enum("EVENT", protocol.EVENT.items()),
        *_enum("RESET_BY", protocol.RESET_BY.items()),
        *_enum("PENDING", protocol.PENDING.items()),
        *_struct("sf_control", protocol.CONTROL),
        *_struct("sf_op", (protocol.Word("a", ""), protocol.Word("b", "")), "\tsf_u32 op;\n\tsf_u32 step;"),
        *_struct("sf_switch", protocol.SWITCH_WORDS, "\tsf_u32 type, size, step, flags;"),
        *_struct("sf_debug", protocol.DEBUG_WORDS, "\tsf_u32 type, size, step, flags;"),
        *_struct("sf_lists", protocol.LIST_WORDS, "\tsf_u32 type, size, step, flags;"),
        *_struct("sf_host", protocol.HOST_WORDS, "\tsf_u32 type, size, step, flags;"),
        *_struct("sf_api", protocol.API_WORDS, "\tsf_u32 type, size, step, flags;"),
        "/* Exception classes that KVM handles as calls. */",
        "#define SF_CALLS(X) \\",
        *(f"\tX({exits.EC_BY_NAME[name]:#x}) \\" for name in exits.CALLS),
        "",
        "/* SMCCC functions after which the vCPU may stop running. */",
        "#define SF_SLEEPING_CALLS(X) \\",
        *(f"\tX({f.fid:#x}) \\" for f in exits.SMCCC_FUNCTIONS if f.sleeps),
        "",
        *_live_rows(),
        "#endif",
    ]
    return "\n".join(lines) + "\n"
