# SPDX-License-Identifier: Apache-2.0
"""Define scenarios: a test case as a value, and as a text file with one item in each line.

::

    shadowfuzz-scenario 1
    about A signed byte load sets all 64 bits of x3.
    memory 0x1 ro 0x40020000 0x1000 0x40020000
    boot 0x40020000 0x80
    reg x1 0x9000000
    ldrsb x3, [x1, 0x10]
    complete 0x80
    expect x3 0xffffffffffffff80

First the header, a sentence about the purpose, and the guest's initial state: memory slots (``memory``, with the
operands of the step ``slot``; without such a line :data:`harness.scenario.memory_slots.DEFAULT`), words of its memory
(``boot``, other words are zero) and registers (``reg``, others have reset values).  Then steps
(:mod:`harness.scenario.steps`), and between them expected values (``expect``).  Guest steps are instructions at
consecutive addresses from ``CODE.base`` on; host steps are done at the exit of the guest step before them.  Numbers are
hexadecimal or decimal, unsigned, at most 64 bits.  Blank lines and lines that begin with ``#`` are ignored;
``format_scenario(parse(text)) == text`` for text without them that :func:`format_scenario` could have written, and
``parse(format_scenario(s)) == s`` always.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple, cast

from harness.arch import sysregs
from harness.arch.a64 import FORM, PLAIN_BY_NAME, encode
from harness.arch.registers import NAMES, Encoding
from harness.errors import InputError
from harness.input_file import open_input
from harness.layout import MAX_STEPS
from harness.scenario.memory_slots import Slot, collides, gone
from harness.scenario.steps import INITIAL, KINDS, SLOT_OPERANDS, VALUE, WORD_ADDRESS, Actor, Arg, Operand

HEADER = "shadowfuzz-scenario 1"
MAX_BYTES = 64 * 1024
"""Maximum length of a scenario text, in bytes."""
MAX_LINE = 400
"""Maximum length of a line, in characters."""
MAX_BOOT = 512
"""Maximum number of initial words of memory."""
MAX_EXPECTS = 256
"""Maximum number of expected values."""
MMIO_DATA = "mmio_data"
"""Name in ``expect`` for the data of an MMIO store, as KVM reports it to userspace."""


class Step(NamedTuple):
    """One step: the keyword of its :class:`~harness.scenario.steps.StepKind`, and its operands.

    Registers are operands by name, numbers as int.  A load or store has three: target, base, offset in bytes.
    """

    kind: str
    args: tuple[Arg, ...] = ()


class Expect(NamedTuple):
    """An expected value: of a register, or (:data:`MMIO_DATA`) of the data of an MMIO store.

    ``before`` is the index of the step that follows it, the number of steps if it comes last.
    """

    before: int
    name: str
    value: int


@dataclass(frozen=True, slots=True)
class Scenario:
    """A test case: its purpose, initial registers (others have reset values), and steps in order.

    ``slots`` are its initial memory slots (empty: ``memory_slots.DEFAULT``), ``boot`` the initial 64-bit words of its
    memory, by their addresses in the default layout.  ``expects`` does not change the run: it has the values that a
    correct target shows (:mod:`harness.trace.expectations`).
    """

    about: str
    registers: tuple[tuple[str, int], ...]
    steps: tuple[Step, ...]
    slots: tuple[Slot, ...] = ()
    boot: tuple[tuple[int, int], ...] = ()
    expects: tuple[Expect, ...] = ()


def slot_step(slot: Slot) -> Step:
    """Return the host step that requests a memory slot."""
    return Step("slot", (slot.number, slot.kind, slot.base, slot.size, slot.home))


def slot_of(step: Step) -> Slot:
    """Return the slot that a step ``slot`` or ``drop_slot`` requests."""
    if step.kind == "drop_slot":
        return gone(int(step.args[0]))
    number, kind, base, size, home = step.args
    return Slot(int(number), str(kind), int(base), int(size), int(home))


def instruction(step: Step) -> int | None:
    """Return the A64 word of a guest step, None for a host step."""
    return _word(step) if KINDS[step.kind].side is Actor.GUEST else None


@lru_cache(maxsize=1 << 14)
def _word(step: Step) -> int:
    operands: list[int | str | Encoding] = list(step.args)
    row = PLAIN_BY_NAME.get(step.kind)
    if row is not None and row.sysreg is not None:
        operands[row.sysreg] = sysregs.BY_NAME[str(operands[row.sysreg])].encoding
    return encode(step.kind, *operands)


@lru_cache(maxsize=1 << 14)
def format_step(step: Step) -> str:
    """Return the line of a step, without line end."""
    kind, args = step.kind, step.args
    if KINDS[kind].forms:
        target, base, offset = args
        return f"{kind} {target}, [{base}, {offset:#x}]" if offset else f"{kind} {target}, [{base}]"
    texts = [hex(arg) if isinstance(arg, int) else arg for arg in args]
    return f"{kind} {(', ' if KINDS[kind].side is Actor.GUEST else ' ').join(texts)}".rstrip()


def format_scenario(scenario: Scenario) -> str:
    """Return the canonical text of a scenario."""
    lines = [HEADER, f"about {scenario.about}"]
    lines += [f"memory {format_step(slot_step(slot))[5:]}" for slot in scenario.slots]
    lines += [f"boot {address:#x} {value:#x}" for address, value in scenario.boot]
    lines += [f"reg {name} {value:#x}" for name, value in scenario.registers]
    expects = iter(scenario.expects)
    expect = next(expects, None)
    for index in range(len(scenario.steps) + 1):
        while expect is not None and expect.before == index:
            lines.append(f"expect {expect.name} {expect.value:#x}")
            expect = next(expects, None)
        lines += map(format_step, scenario.steps[index : index + 1])
    lines.append("")
    return "\n".join(lines)


class _Reason(Exception):
    """Why a line does not parse; :func:`parse` adds the place."""


_NUMBER = re.compile(r"0x[0-9a-fA-F]{1,16}|[0-9]{1,20}")
_ACCESS = re.compile(r"[a-z]+\s+([^\s,]+)\s*,\s*\[\s*([^\s,\]]+)\s*(?:,\s*([^\s,\]]+)\s*)?\]")


def _quote(text: str) -> str:
    """Quote untrusted text for a one-line message."""
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
    elif kind.side is Actor.GUEST:
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
    name, value = _operand(INITIAL, words[1]), _operand(VALUE, words[2])
    assert isinstance(name, str) and isinstance(value, int)
    return name, value


def _operands(line: str, specs: tuple[Operand, ...], syntax: str) -> tuple[Arg, ...]:
    """Parse the operands after the keyword of a stripped line."""
    words = line.split()[1:]
    if len(words) != len(specs):
        raise _Reason(f"{_quote(line)}: expected `{syntax}`")
    return tuple(map(_operand, specs, words))


_AFTERWARDS: Mapping[str, str] = MappingProxyType(
    {
        "reg": "initial registers precede steps; `set` is the host's write",
        "memory": "initial slots precede steps; `slot` is the host's change",
        "boot": "initial memory precedes steps; `write` is the host's write",
    }
)
"""Lines with the guest's initial state, and the hint for such a line after the first step."""


def _initial(keyword: str, line: str, registers: dict[str, int], shape: dict[int, Slot], boot: dict[int, int]) -> None:
    """Parse a stripped line with a part of the guest's initial state."""
    match keyword:
        case "reg":
            name, value = _register(line)
            if name in registers:
                raise _Reason(f"register {name} given twice")
            registers[name] = value
        case "memory":
            slot = Slot._make(cast(Any, _operands(line, SLOT_OPERANDS, "memory SLOT KIND BASE SIZE HOME")))
            if slot.number in shape:
                raise _Reason(f"slot {slot.number} given twice")
            if collides(slot, shape.values()):
                raise _Reason(f"slot {slot.number}: overlaps another one, or exceeds the guest's address space")
            shape[slot.number] = slot
        case "boot":
            address, word = cast(tuple[int, int], _operands(line, (WORD_ADDRESS, VALUE), "boot ADDRESS VALUE"))
            if address in boot:
                raise _Reason(f"word {address:#x} given twice")
            if len(boot) == MAX_BOOT:
                raise _Reason(f"more than {MAX_BOOT} words")
            boot[address] = word


_EXPECTED = Operand(
    "name",
    f"a recorded register (x0, not w0), or {MMIO_DATA} (RAM is not recorded: load it)",
    frozenset((*NAMES, MMIO_DATA)),
)


def _expect(line: str, before: int, so_far: int) -> Expect:
    """Parse one stripped ``expect`` line."""
    name, value = _operands(line, (_EXPECTED, VALUE), "expect REGISTER VALUE")
    if so_far == MAX_EXPECTS:
        raise _Reason(f"more than {MAX_EXPECTS} values expected")
    return Expect(before, str(name), cast(int, value))


def _about(line: str) -> str:
    keyword, _, text = line.partition(" ")
    text = text.strip()
    if keyword != "about" or not text or not text.isprintable():
        raise _Reason(f"{_quote(line)}: expected `about SENTENCE`, printable")
    return text


def lines_of(text: str) -> tuple[tuple[int, str], ...]:
    """Return number and stripped text of each line of a scenario, header first, steps last; no comments."""
    return tuple(_lines(text))


def _lines(text: str) -> Iterator[tuple[int, str]]:
    """Yield number and stripped text of every line that is neither blank nor a comment."""
    for number, raw in enumerate(text.split("\n"), 1):
        line = raw.strip()
        if line and line[0] != "#":
            yield number, line


def parse(text: str | bytes, where: str = "scenario") -> Scenario:
    """Parse the text of a scenario that came from ``where``.

    InputError: the text is not a scenario, with the line and what was expected there.  Nothing else is raised.
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
    shape: dict[int, Slot] = {}
    boot: dict[int, int] = {}
    steps: list[Step] = []
    expects: list[Expect] = []
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
            elif line.startswith(tuple(_AFTERWARDS)) and (keyword := line.split(maxsplit=1)[0]) in _AFTERWARDS:
                if steps:
                    raise _Reason(f"`{keyword}` after the first step: {_AFTERWARDS[keyword]}")
                _initial(keyword, line, registers, shape, boot)
            elif line.startswith("expect") and line.split(maxsplit=1)[0] == "expect":
                expects.append(_expect(line, len(steps), len(expects)))
            elif len(steps) == MAX_STEPS:
                raise _Reason(f"more than {MAX_STEPS} steps")
            else:
                steps.append(_step(line))
        if about is None:
            raise _Reason(f"ends too early: expected `{'about SENTENCE' if header else HEADER}`")
    except _Reason as reason:
        raise InputError(where, number, str(reason)) from None
    initial = tuple(registers.items())
    return Scenario(about, initial, tuple(steps), tuple(shape.values()), tuple(boot.items()), tuple(expects))


def load(path: Path | str) -> Scenario:
    """Read and parse a scenario file.  InputError: it cannot be read, or is not a scenario."""
    return parse(load_text(path), str(path))


def load_text(path: Path | str) -> bytes:
    """Read a scenario file, at most one byte more than :func:`parse` accepts.  InputError: it cannot be read."""
    try:
        with open_input(Path(path)) as file:
            return file.read(MAX_BYTES + 1)
    except (OSError, ValueError) as error:
        raise InputError(str(path), None, f"cannot be read: {getattr(error, 'strerror', None) or error}") from error
