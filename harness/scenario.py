# SPDX-License-Identifier: Apache-2.0
"""Scenarios: a test case as a value, and as a text file of one item a line.

::

    shadowfuzz-scenario 1
    about A signed byte load sets all 64 bits of x3.
    reg x1 0x9000000
    ldrsb x3, [x1, 0x10]
    complete 0x80

The header, the sentence that says what the scenario is for, initial registers, then steps (:data:`STEP_KINDS`).
Guest steps are instructions, laid out back to back from ``CODE.base``; host steps take place at the exit of the
guest step before them.  Numbers are hexadecimal or decimal, unsigned, at most 64 bits.  Blank lines and lines that
begin with ``#`` are accepted and dropped; ``format_scenario(parse(text)) == text`` for text without them that
:func:`format_scenario` could have written, and ``parse(format_scenario(s)) == s`` always.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from enum import Enum
from functools import lru_cache
from pathlib import Path
from types import MappingProxyType
from typing import NamedTuple

from harness import protocol, sysregs
from harness.a64 import ACCESS_FORMS, ACCESS_MNEMONICS, FORM, PLAIN_BY_NAME, X_NAMES, AccessForm, Field, encode
from harness.errors import InputError
from harness.layout import CODE, CONTEXT_NAMES, DATA, MAX_STEPS
from harness.registers import MASK64, SETTABLE, Encoding

HEADER = "shadowfuzz-scenario 1"
MAX_BYTES = 64 * 1024
"""Longest scenario text, in bytes."""
MAX_LINE = 400
"""Longest line, in characters."""

Arg = int | str


class Side(Enum):
    """Who does a step."""

    GUEST = "guest"
    HOST = "host"


@dataclass(frozen=True, slots=True)
class Operand:
    """What one operand may be: one of ``names``, or (no names) a number from ``least`` to ``limit``.

    Numbers are multiples of ``unit``.
    """

    name: str
    what: str
    names: frozenset[str] = frozenset()
    limit: int = MASK64
    unit: int = 1
    least: int = 0


@dataclass(frozen=True, slots=True)
class StepKind:
    """A row of :data:`STEP_KINDS`; ``forms`` are the encodings of a load or store (empty for any other step)."""

    keyword: str
    side: Side
    operands: tuple[Operand, ...]
    summary: str
    source: str
    forms: tuple[AccessForm, ...] = ()

    @property
    def syntax(self) -> str:
        """How the step is written, operands in capitals."""
        names = [o.name.upper() for o in self.operands]
        if self.forms:
            return f"{self.keyword} {names[0]}, [{names[1]}, {names[2]}]"
        return " ".join([self.keyword, (", " if self.side is Side.GUEST else " ").join(names)]).strip()


BASE_NAMES: tuple[str, ...] = X_NAMES[:31]
SET_NAMES: tuple[str, ...] = tuple(r.name for r in SETTABLE)
INITIAL_NAMES: tuple[str, ...] = tuple(name for name in SET_NAMES if name != "pc")
"""Registers that ``reg`` may name: code always starts at ``CODE.base``."""

MP_STATES: Mapping[str, int] = MappingProxyType({"runnable": 0, "stopped": 5})
"""KVM_MP_STATE_* (include/uapi/linux/kvm.h)."""

_BASE = Operand("base", "one of x0..x30", frozenset(BASE_NAMES))
_SETTABLE = Operand("register", "a register that the host can set", frozenset(SET_NAMES))
_INITIAL = Operand(
    "register",
    f"a register that can be initialised (pc cannot: code starts at {CODE.base:#x})",
    frozenset(INITIAL_NAMES),
)
_VALUE = Operand("value", "a number of at most 64 bits")


def _access(mnemonic: str) -> StepKind:
    forms = tuple(f for f in ACCESS_FORMS if f.mnemonic == mnemonic)
    widths = " or ".join(f"{f.targets[0]}..{f.targets[30]}, {f.targets[31]}" for f in forms)
    # The two forms of str and ldr have sizes of their own; the smaller limits what both can hold.
    unit, limit = min(f.size for f in forms), max(f.max_offset for f in forms)
    operands = (
        Operand("target", f"one of {widths}", frozenset(name for f in forms for name in f.targets)),
        _BASE,
        Operand("offset", f"a multiple of {unit} from 0 to {limit:#x}", limit=limit, unit=unit),
    )
    verb = "Store" if forms[0].is_store else "Load"
    sizes = " or ".join(dict.fromkeys(f"{f.size * 8}" for f in forms))
    signed = ", sign-extended" if forms[0].sign_extend else ""
    return StepKind(
        mnemonic, Side.GUEST, operands, f"{verb} {sizes} bits{signed}, at base plus offset.", forms[0].source, forms
    )


def _operand_of(field: Field) -> Operand:
    if names := field.names:
        last = f", {names[31]}" if len(names) > 31 else ""
        return Operand(field.name, f"one of {names[0]}..{names[30]}{last}", frozenset(names))
    unit = f", a multiple of {field.unit}" if field.unit > 1 else ""
    return Operand(field.name, f"a number from 0 to {field.limit:#x}{unit}", limit=field.limit, unit=field.unit)


def _plain(mnemonic: str, summary: str) -> StepKind:
    row = PLAIN_BY_NAME[mnemonic]
    operands = [_operand_of(field) for field in row.fields]
    if row.sysreg is not None:
        names = frozenset(sysregs.WRITABLE if row.sysreg == 0 else sysregs.READABLE)
        operands.insert(row.sysreg, Operand("sysreg", "a system register of harness/sysregs.py", names))
    return StepKind(mnemonic, Side.GUEST, tuple(operands), summary, f"Arm ARM {row.source}")


STEP_KINDS: tuple[StepKind, ...] = (
    _plain("hvc", "Hypervisor call; PSCI and SMCCC take the function from x0 and the arguments from x1 to x3."),
    _plain("wfi", "Wait for interrupt."),
    _plain("wfe", "Wait for event."),
    *(_access(mnemonic) for mnemonic in ACCESS_MNEMONICS),
    _plain("br", "Jump to the address in a register; outside memory slots the fetch is an instruction abort."),
    _plain("smc", "Secure monitor call, which KVM traps and takes for a hypervisor call or refuses."),
    _plain("mrs", "Read a system register."),
    _plain("msr", "Write a system register, or do the system instruction that stands in its place."),
    _plain("brk", "Breakpoint: an exception to EL1, or to userspace where it debugs the guest."),
    _plain("udf", "Undefined instruction: an exception to EL1."),
    _plain("eret", "Exception return, to ELR_EL1 with SPSR_EL1."),
    _plain("mov", "Copy a register."),
    _plain("movz", "Set a register to a 16-bit number."),
    _plain("movk", "Set the low 16 bits of a register."),
    _plain("ldp", "Load a pair, at base plus offset; no syndrome."),
    _plain("stp", "Store a pair, at base plus offset; no syndrome."),
    _plain("ldr_post", "Load at base, then add the offset to it (post-index); no syndrome."),
    _plain("str_pre", "Add the offset to base, then store there (pre-index); no syndrome."),
    _plain("ldxr", "Load exclusive; no syndrome."),
    _plain("stxr", "Store exclusive, status to a register; no syndrome."),
    _plain("ldr_simd", "Load a q register; no syndrome."),
    _plain("str_simd", "Store a q register; no syndrome."),
    _plain("fmov_to", "Copy a general register to the low half of a vector register."),
    _plain("fmov_from", "Copy the low half of a vector register to a general register."),
    StepKind(
        "set",
        Side.HOST,
        (_SETTABLE, _VALUE),
        "The host writes a register of the vCPU.",
        "KVM API 4.68 KVM_SET_ONE_REG",
    ),
    StepKind(
        "complete",
        Side.HOST,
        (_VALUE,),
        "Data for the pending MMIO read: the access's low bytes of it (0 when a read has no such step).",
        "KVM API 5 KVM_EXIT_MMIO",
    ),
    StepKind(
        "write",
        Side.HOST,
        (
            Operand(
                "address",
                f"a multiple of 8 from {DATA.base:#x} to {DATA.end - 8:#x}",
                limit=DATA.end - 8,
                unit=8,
                least=DATA.base,
            ),
            _VALUE,
        ),
        "The host writes a 64-bit word to the guest's RAM, where its translation tables may be; all is zero before.",
        "KVM API 4.35 KVM_SET_USER_MEMORY_REGION: userspace_addr",
    ),
    StepKind("reset", Side.HOST, (), "The host resets the vCPU.", "KVM API 4.82 KVM_ARM_VCPU_INIT"),
    StepKind(
        "finish",
        Side.HOST,
        (),
        "KVM_RUN with immediate_exit: a pending access is completed, nothing runs.",
        "KVM API 5 immediate_exit",
    ),
    StepKind(
        "abort",
        Side.HOST,
        (),
        "An external data abort in the place of the pending access (without one, nothing is done).",
        "KVM API 4.31 KVM_SET_VCPU_EVENTS",
    ),
    StepKind(
        "serror",
        Side.HOST,
        (Operand("syndrome", "an ISS of 25 bits; 0: leave it to KVM", limit=0x1FF_FFFF),),
        "A virtual SError; only CPUs with the RAS extension take a syndrome.",
        "KVM API 4.31 KVM_SET_VCPU_EVENTS",
    ),
    StepKind(
        "irq_line",
        Side.HOST,
        (
            Operand("line", f"one of {', '.join(protocol.LINES)}", frozenset(protocol.LINES)),
            Operand("level", "0 or 1", limit=1),
        ),
        "Raise or lower an interrupt line of the vCPU; there is no in-kernel GIC.",
        "KVM API 4.25 KVM_IRQ_LINE",
    ),
    StepKind(
        "mp_state",
        Side.HOST,
        (Operand("state", f"one of {', '.join(MP_STATES)}", frozenset(MP_STATES)),),
        "Stop the vCPU or let it run; the agent makes a stopped one runnable when a guest step is next.",
        "KVM API 4.39 KVM_SET_MP_STATE",
    ),
    StepKind(
        "vcpu",
        Side.HOST,
        (Operand("vcpu", f"one of {', '.join(CONTEXT_NAMES)}", frozenset(CONTEXT_NAMES)),),
        "Go on with another vCPU, VM.vCPU; a new one starts at code of its own, with reset values.",
        "differential.md section 5, interleaving",
    ),
    StepKind(
        "forge",
        Side.HOST,
        (Operand("field", f"one of {', '.join(protocol.FORGE)}", frozenset(protocol.FORGE)), _VALUE),
        "KVM's handlers see this exit code, ESR_EL2, FAR_EL2 or HPFAR_EL2 at the exit of the guest step before.",
        "differential.md section 5",
    ),
)
KINDS: Mapping[str, StepKind] = MappingProxyType({k.keyword: k for k in STEP_KINDS})


class Step(NamedTuple):
    """One step: the keyword of its :class:`StepKind`, and operands (registers by name, numbers as int).

    A load or store has three: target, base, offset in bytes.
    """

    kind: str
    args: tuple[Arg, ...] = ()


@dataclass(frozen=True, slots=True)
class Scenario:
    """A test case: what it is for, initial registers (others hold reset values), and steps in order."""

    about: str
    registers: tuple[tuple[str, int], ...]
    steps: tuple[Step, ...]


@lru_cache(maxsize=1 << 14)
def instruction(step: Step) -> int | None:
    """Return the A64 word of a guest step, None for a host step."""
    if KINDS[step.kind].side is not Side.GUEST:
        return None
    operands: list[int | str | Encoding] = list(step.args)
    row = PLAIN_BY_NAME.get(step.kind)
    if row is not None and row.sysreg is not None:
        operands[row.sysreg] = sysregs.BY_NAME[str(operands[row.sysreg])].encoding
    return encode(step.kind, *operands)


def format_step(step: Step) -> str:
    """Return the line of a step, without line end."""
    kind, args = step.kind, step.args
    if KINDS[kind].forms:
        target, base, offset = args
        return f"{kind} {target}, [{base}, {offset:#x}]" if offset else f"{kind} {target}, [{base}]"
    texts = [hex(arg) if isinstance(arg, int) else arg for arg in args]
    return f"{kind} {(', ' if KINDS[kind].side is Side.GUEST else ' ').join(texts)}".rstrip()


def format_scenario(scenario: Scenario) -> str:
    """Return the canonical text of a scenario."""
    lines = [HEADER, f"about {scenario.about}"]
    lines += [f"reg {name} {value:#x}" for name, value in scenario.registers]
    lines += map(format_step, scenario.steps)
    lines.append("")
    return "\n".join(lines)


class _Reason(Exception):
    """Why a line does not parse; :func:`parse` adds where."""


_NUMBER = re.compile(r"0x[0-9a-fA-F]{1,16}|[0-9]{1,20}")
_ACCESS = re.compile(r"[a-z]+\s+([^\s,]+)\s*,\s*\[\s*([^\s,\]]+)\s*(?:,\s*([^\s,\]]+)\s*)?\]")


def _quote(text: str) -> str:
    """Return hostile text so that it fits into a one-line message."""
    return ascii(text if len(text) <= 40 else text[:37] + "...")


def _operand(spec: Operand, text: str) -> Arg:
    if spec.names:
        if text in spec.names:
            return text
    elif _NUMBER.fullmatch(text):
        value = int(text, 16 if text[:2] == "0x" else 10)
        if spec.least <= value <= spec.limit and not value % spec.unit:
            return value
    raise _Reason(f"{spec.name} {_quote(text)}: expected {spec.what}")


@lru_cache(maxsize=1 << 14)
def _step(line: str) -> Step:
    """Parse one stripped line as a step.  Lines are bounded (MAX_LINE), so the cache is."""
    keyword, *words = line.split()
    kind = KINDS.get(keyword)
    if kind is None:
        raise _Reason(f"unknown step {_quote(keyword)}: expected one of {', '.join(KINDS)}")
    if kind.forms:
        match = _ACCESS.fullmatch(line)
        words = [word or "0" for word in match.groups()] if match else []
    elif kind.side is Side.GUEST:
        words = [word.strip() for word in line[len(keyword) :].split(",") if word.strip()]
    if len(words) != len(kind.operands):
        raise _Reason(f"{_quote(line)}: expected `{kind.syntax}`")
    args = tuple(map(_operand, kind.operands, words))
    if kind.forms:
        target, _, offset = args
        assert isinstance(target, str) and isinstance(offset, int)
        form = FORM[keyword, target[0]]
        if offset % form.size or offset > form.max_offset:
            what = f"a multiple of {form.size} from 0 to {form.max_offset:#x}"
            raise _Reason(f"offset {offset:#x}: expected {what} with target {target}")
    return Step(keyword, args)


@lru_cache(maxsize=1 << 12)
def _register(line: str) -> tuple[str, int]:
    """Parse one stripped ``reg`` line."""
    words = line.split()
    if len(words) != 3:
        raise _Reason(f"{_quote(line)}: expected `reg REGISTER VALUE`")
    name, value = _operand(_INITIAL, words[1]), _operand(_VALUE, words[2])
    assert isinstance(name, str) and isinstance(value, int)
    return name, value


def _about(line: str) -> str:
    keyword, _, text = line.partition(" ")
    text = text.strip()
    if keyword != "about" or not text or not text.isprintable():
        raise _Reason(f"{_quote(line)}: expected `about SENTENCE`, printable")
    return text


def _lines(text: str) -> Iterator[tuple[int, str]]:
    """Yield number and stripped text of every line that is neither blank nor a comment."""
    for number, raw in enumerate(text.split("\n"), 1):
        line = raw.strip()
        if line and line[0] != "#":
            yield number, line


def parse(text: str | bytes, where: str = "scenario") -> Scenario:
    """Parse the text of a scenario that came from ``where``.

    InputError: any text that is no scenario, with the line and what was expected there.  Nothing else is raised.
    """
    if len(text) > MAX_BYTES:
        raise InputError(where, None, f"longer than {MAX_BYTES} bytes")
    if isinstance(text, bytes):
        try:
            text = text.decode()
        except UnicodeDecodeError as error:
            before = error.object[: error.start]
            raise InputError(where, before.count(b"\n") + 1, f"byte {error.start} is not UTF-8") from None
    number = 1
    registers: dict[str, int] = {}
    steps: list[Step] = []
    about: str | None = None
    header = False
    try:
        for number, line in _lines(text):  # noqa: B007 (the handler below reads it)
            if len(line) > MAX_LINE:
                raise _Reason(f"line longer than {MAX_LINE} characters")
            if about is None:
                if header:
                    about = _about(line)
                elif line != HEADER:
                    raise _Reason(f"{_quote(line)}: expected `{HEADER}`")
                header = True
            elif line[:4].rstrip() == "reg":
                if steps:
                    raise _Reason("`reg` after the first step: registers come first, `set` is the host's write")
                name, value = _register(line)
                if name in registers:
                    raise _Reason(f"register {name} given twice")
                registers[name] = value
            elif len(steps) == MAX_STEPS:
                raise _Reason(f"more than {MAX_STEPS} steps")
            else:
                steps.append(_step(line))
        if about is None:
            raise _Reason(f"ends too early: expected `{'about SENTENCE' if header else HEADER}`")
    except _Reason as reason:
        raise InputError(where, number, str(reason)) from None
    return Scenario(about, tuple(registers.items()), tuple(steps))


def load(path: Path | str) -> Scenario:
    """Read and parse a scenario file.  InputError: it cannot be read, or is no scenario."""
    try:
        with Path(path).open("rb") as file:
            data = file.read(MAX_BYTES + 1)
    except (OSError, ValueError) as error:
        raise InputError(str(path), None, f"cannot be read: {getattr(error, 'strerror', None) or error}") from error
    return parse(data, str(path))
