# SPDX-License-Identifier: Apache-2.0
"""Scenario text: exact round trips, and one error with its line for any other text."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.arch.a64 import FORM, decode_access, decode_plain, disassemble
from harness.arch.registers import NAMES
from harness.errors import InputError
from harness.layout import DATA, MAX_STEPS
from harness.scenario.memory_slots import NUMBERS, PAGE, Slot, collides
from harness.scenario.scenario import (
    HEADER,
    MAX_BOOT,
    MAX_BYTES,
    MAX_LINE,
    MMIO_DATA,
    Expect,
    Scenario,
    Step,
    format_scenario,
    format_step,
    instruction,
    load,
    parse,
)
from harness.scenario.steps import INITIAL_NAMES, KINDS, SET_NAMES, STEP_KINDS, Actor, StepKind

HEAD = f"{HEADER}\nabout A test.\n"
VALUES = st.integers(0, 2**64 - 1)


@st.composite
def accesses(draw: st.DrawFn, kind: StepKind) -> Step:
    form = draw(st.sampled_from(kind.forms))
    offset = draw(st.integers(0, 0xFFF)) * form.size
    base = draw(st.sampled_from(sorted(kind.operands[1].names)))
    return Step(kind.keyword, (draw(st.sampled_from(form.targets)), base, offset))


def steps_of(kind: StepKind) -> st.SearchStrategy[Step]:
    if kind.forms:
        return accesses(kind)
    operands = (
        st.sampled_from(sorted(o.names))
        if o.names
        else st.integers(o.least // o.unit, o.limit // o.unit).map(o.unit.__mul__)
        for o in kind.operands
    )
    return st.tuples(*operands).map(lambda args: Step(kind.keyword, args))


STEPS = st.one_of(*map(steps_of, STEP_KINDS))
SLOTS = steps_of(KINDS["slot"]).map(lambda step: Slot._make(step.args))


@st.composite
def shapes(draw: st.DrawFn) -> tuple[Slot, ...]:
    slots: dict[int, Slot] = {}
    for slot in draw(st.lists(SLOTS, max_size=4)):
        if slot.number not in slots and not collides(slot, slots.values()):
            slots[slot.number] = slot
    return tuple(slots.values())


ADDRESSES = st.integers(DATA.base // 8, DATA.end // 8 - 1).map(lambda n: 8 * n)
PRINTABLE = st.characters(exclude_categories=("C", "Z"), include_characters=" ")
EXPECTS = st.builds(Expect, st.integers(0, 40), st.sampled_from((*NAMES, MMIO_DATA)), VALUES)


def with_expects(scenario: Scenario, expects: list[Expect]) -> Scenario:
    """Place expectations between the existing steps, in their order."""
    there = (one._replace(before=min(one.before, len(scenario.steps))) for one in expects)
    return replace(scenario, expects=tuple(sorted(there, key=lambda one: one.before)))


BARE = st.builds(
    Scenario,
    st.text(PRINTABLE, max_size=200).map(str.strip).filter(lambda s: s and s.isprintable()),
    st.dictionaries(st.sampled_from(INITIAL_NAMES), VALUES).map(lambda d: tuple(d.items())),
    st.lists(STEPS, max_size=40).map(tuple),
    shapes(),
    st.dictionaries(ADDRESSES, VALUES, max_size=5).map(lambda d: tuple(d.items())),
)
SCENARIOS = st.builds(with_expects, BARE, st.lists(EXPECTS, max_size=6))


@given(SCENARIOS)
def test_round_trip(scenario: Scenario) -> None:
    text = format_scenario(scenario)
    assert parse(text) == scenario
    assert parse(text.encode()) == scenario
    assert format_scenario(parse(text)) == text


@given(SCENARIOS, st.sampled_from(["\n\n", "\n# a comment\n", "\r\n", "  \n\t"]))
def test_what_formatting_drops(scenario: Scenario, separator: str) -> None:
    text = format_scenario(scenario)
    assert parse("# first\n" + text.replace("\n", separator)) == scenario


@given(STEPS)
def test_instruction_is_what_the_line_says(step: Step) -> None:
    word = instruction(step)
    assert (word is not None) == (KINDS[step.kind].side is Actor.GUEST)
    if word is None:
        return
    access = decode_access(word)
    if access is not None:
        target, base, offset = step.args
        form = FORM[step.kind, str(target)[0]]
        assert (access.size, access.is_store, access.offset) == (form.size, form.is_store, offset)
        assert (form.targets[access.rt], f"x{access.rn}") == (target, base)
        assert disassemble(word).split()[0] == step.kind
        return
    row = decode_plain(word)
    assert row is not None
    assert row.mnemonic == step.kind
    for field, arg in zip(row.fields, (a for i, a in enumerate(step.args) if i != row.sysreg), strict=True):
        assert field.get(word) == (field.names.index(str(arg)) if field.names else arg)


def check_hostile(text: str | bytes) -> None:
    """Any text is a scenario that round-trips, or gives one printable line with the reason."""
    try:
        scenario = parse(text)
    except InputError as error:
        assert "\n" not in str(error)
        assert str(error).isprintable()
    else:
        assert parse(format_scenario(scenario)) == scenario


@given(st.binary(max_size=300) | st.text(max_size=300) | st.text(max_size=300).map(lambda t: HEAD + t))
def test_hostile_input(text: str | bytes) -> None:
    check_hostile(text)


SLOT_1 = "memory 1 rw 0x80000000 0x2000 0x40020000\n"
WORDS = sorted(
    {"memory", "boot", "rw", "ro", "0x40020000", "0x1000"}
    | {HEADER, "about", "reg", "#", *KINDS, *SET_NAMES, "pc", "w1", "wzr", "[", "]", ",", "[x1]", "[x1,", "0x10]", "-1"}
    | {"0x", "0x1_0", "1e3", "\u0663", "\x00", "\udc80", "0" * 21, "9" * 20, "0xffffffffffffffff", "5", "\x85"}
)


@given(st.lists(st.lists(st.sampled_from(WORDS), max_size=6).map(" ".join), max_size=8), st.booleans())
def test_hostile_words(lines: list[str], headed: bool) -> None:
    check_hostile((HEAD if headed else "") + "\n".join(lines))


@given(SCENARIOS, st.data())
def test_a_damaged_file(scenario: Scenario, data: st.DataObject) -> None:
    raw = bytearray(format_scenario(scenario).encode())
    for _ in range(data.draw(st.integers(1, 4))):
        raw[data.draw(st.integers(0, len(raw) - 1))] = data.draw(st.integers(0, 255))
    check_hostile(bytes(raw))


@pytest.mark.parametrize(
    ("text", "line", "reason"),
    [
        ("", 1, f"ends too early: expected `{HEADER}`"),
        ("# only a comment\n", 1, f"ends too early: expected `{HEADER}`"),
        ("shadowfuzz-scenario 2\n", 1, f"'shadowfuzz-scenario 2': expected `{HEADER}`"),
        (HEADER, 1, "ends too early: expected `about SENTENCE`"),
        (f"{HEADER}\nwfi\n", 2, "'wfi': expected `about SENTENCE`, printable"),
        (f"{HEADER}\nabout \n", 2, "'about': expected `about SENTENCE`, printable"),
        (f"{HEADER}\nabout a\x07b\n", 2, "'about a\\x07b': expected `about SENTENCE`, printable"),
        (HEAD + "reg x1\n", 3, "'reg x1': expected `reg REGISTER VALUE`"),
        (HEAD + "reg q1 0x1\n", 3, "register 'q1': expected a register that can be initialised (pc cannot: "),
        (HEAD + "reg pc 0x1\n", 3, "register 'pc': expected a register that can be initialised (pc cannot: "),
        (HEAD + "reg mpidr_el1 0x1\n", 3, "register 'mpidr_el1': expected a register that can be initialised"),
        (HEAD + "reg x1 -1\n", 3, "value '-1': expected a number of at most 64 bits"),
        (HEAD + "reg x1 0x10000000000000000\n", 3, "value '0x10000000000000000': expected a number of at most 64 bits"),
        (HEAD + "reg x1 0x1\n\nreg x1 0x1\n", 5, "register x1 given twice"),
        (HEAD + "expect x1\n", 3, "'expect x1': expected `expect REGISTER VALUE`"),
        (
            HEAD + "expect x31 0x1\n",
            3,
            "name 'x31': expected a recorded register (x0, not w0), or mmio_data (RAM is not recorded",
        ),
        (HEAD + "hvc 0x0\n" + "expect x1 0x1\n" * 257, 260, "more than 256 values expected"),
        (HEAD + "expects x1 0x1\n", 3, "unknown step 'expects'"),
        (HEAD + "wfi\nreg x1 0x1\n", 4, "`reg` after the first step"),
        (HEAD + "wfi\nmemory 1 rw 0x80000000 0x1000 0x40020000\n", 4, "`memory` after the first step: initial slots"),
        (HEAD + "boot 0x40020000\n", 3, "'boot 0x40020000': expected `boot ADDRESS VALUE`"),
        (HEAD + "boot 0x40020004 1\n", 3, "address '0x40020004': expected a multiple of 8 from 0x40020000 to 0x400f"),
        (HEAD + "boot 0x40100000 1\n", 3, "address '0x40100000': expected a multiple of 8 from 0x40020000 to 0x400f"),
        (HEAD + "boot 0x40020000 1\nboot 0x40020000 2\n", 4, "word 0x40020000 given twice"),
        (HEAD + "memory 1 rw 0x80000000\n", 3, "'memory 1 rw 0x80000000': expected `memory SLOT KIND BASE SIZE HOME`"),
        (HEAD + "memory 0 ro 0x80000000 0x1000 0x40020000\n", 3, "slot '0': expected a slot from 1 to 4"),
        (HEAD + "memory 1 wo 0x80000000 0x1000 0x40020000\n", 3, "kind 'wo': expected one of rw, log, ro, ro_log"),
        (HEAD + "memory 1 rw 0x40000000 0x1000 0x40020000\n", 3, "base '0x40000000': expected a guest physical addr"),
        (HEAD + "memory 1 rw 0x80000800 0x1000 0x40020000\n", 3, "base '0x80000800': expected a guest physical addr"),
        (HEAD + "memory 1 rw 0x80000000 0 0x40020000\n", 3, "size '0': expected a size, a multiple of 0x1000 from 0x"),
        (HEAD + "memory 1 rw 0x80000000 0x1000 0x80000000\n", 3, "home '0x80000000': expected the memory to map, by"),
        (HEAD + SLOT_1 + SLOT_1, 4, "slot 1 given twice"),
        (HEAD + SLOT_1 + "memory 2 ro 0x80001000 0x1000 0x40020000\n", 4, "slot 2: overlaps another one, or"),
        (HEAD + "memory 2 ro 0xfffffff000 0x2000 0x40020000\n", 3, "slot 2: overlaps another one, or exceeds the"),
        (HEAD + "about twice\n", 3, "unknown step 'about': expected one of hvc, wfi, wfe, "),
        (HEAD + "nop\n", 3, "unknown step 'nop': expected one of hvc, wfi, wfe, "),
        (HEAD + "wfi 0x1\n", 3, "'wfi 0x1': expected `wfi`"),
        (HEAD + "hvc\n", 3, "'hvc': expected `hvc IMMEDIATE`"),
        (HEAD + "hvc 0x10000\n", 3, "immediate '0x10000': expected a number from 0 to 0xffff"),
        (HEAD + "hvc 0b1\n", 3, "immediate '0b1': expected a number from 0 to 0xffff"),
        (HEAD + "hvc 1_0\n", 3, "immediate '1_0': expected a number from 0 to 0xffff"),
        (HEAD + "hvc \u0663\n", 3, "immediate '\\u0663': expected a number from 0 to 0xffff"),
        (HEAD + "br xzr\n", 3, "base 'xzr': expected one of x0..x30"),
        (HEAD + "ldrb w1, x1\n", 3, "'ldrb w1, x1': expected `ldrb TARGET, [BASE, OFFSET]`"),
        (HEAD + "ldrb w1, [x1], 0x1\n", 3, "'ldrb w1, [x1], 0x1': expected `ldrb TARGET, [BASE, OFFSET]`"),
        (HEAD + "ldrb w1, [sp]\n", 3, "base 'sp': expected one of x0..x30"),
        (HEAD + "ldrb w1, [w1]\n", 3, "base 'w1': expected one of x0..x30"),
        (HEAD + "ldrb x1, [x1]\n", 3, "target 'x1': expected one of w0..w30, wzr"),
        (HEAD + "ldrsb w31, [x1]\n", 3, "target 'w31': expected one of w0..w30, wzr or x0..x30, xzr"),
        (HEAD + "ldrh w1, [x1, 0x1]\n", 3, "offset '0x1': expected a multiple of 2 from 0 to 0x1ffe"),
        (HEAD + "ldrh w1, [x1, 0x2000]\n", 3, "offset '0x2000': expected a multiple of 2 from 0 to 0x1ffe"),
        (HEAD + "ldr x1, [x1, 0x4]\n", 3, "offset 0x4: expected a multiple of 8 from 0 to 0x7ff8 with target x1"),
        (HEAD + "str w1, [x1, 0x4000]\n", 3, "offset 0x4000: expected a multiple of 4 from 0 to 0x3ffc with target w1"),
        (HEAD + "set x1\n", 3, "'set x1': expected `set REGISTER VALUE`"),
        (HEAD + "set actlr_el1 0x1\n", 3, "register 'actlr_el1': expected a register that the host can set"),
        (HEAD + "complete q\n", 3, "value 'q': expected a number of at most 64 bits"),
        (HEAD + "reset now\n", 3, "'reset now': expected `reset`"),
        (HEAD + "wfi\n" * (MAX_STEPS + 1), MAX_STEPS + 3, f"more than {MAX_STEPS} steps"),
        (HEAD + "x" * (MAX_LINE + 1), 3, f"line longer than {MAX_LINE} characters"),
        (HEAD + "x" * 100, 3, f"unknown step '{'x' * 37}...': expected one of"),
        ((HEAD + "wfi\n").encode() + b"\xff\n", 4, f"byte {len(HEAD) + 4} is not UTF-8"),
        ("#" * (MAX_BYTES + 1), None, f"longer than {MAX_BYTES} bytes"),
    ],
)
def test_errors(text: str | bytes, line: int | None, reason: str) -> None:
    with pytest.raises(InputError) as caught:
        parse(text, "some.scn")
    assert (caught.value.where, caught.value.line) == ("some.scn", line)
    assert caught.value.reason.startswith(reason)


def test_the_widest_scenario_fits_into_the_size_limit() -> None:
    widest = max((Step("set", (name, 2**64 - 1)) for name in SET_NAMES), key=lambda step: len(format_step(step)))
    registers = tuple((name, 2**64 - 1) for name in INITIAL_NAMES)
    slots = tuple(Slot(n, "ro_log", (1 << 39) + n * DATA.size, DATA.size, DATA.end - PAGE) for n in NUMBERS)
    boot = tuple((DATA.base + 8 * i, 2**64 - 1) for i in range(MAX_BOOT))
    scenario = Scenario("\U0001f600" * (MAX_LINE - 6), registers, (widest,) * MAX_STEPS, slots, boot)
    assert parse(format_scenario(scenario).encode()) == scenario


def test_numbers_may_be_decimal_and_capital() -> None:
    step = parse(HEAD + "set  x1\t18446744073709551615\nstr xzr,[ x1 , 0x10 ]\nset x1 0xABC").steps
    assert step == (Step("set", ("x1", 2**64 - 1)), Step("str", ("xzr", "x1", 16)), Step("set", ("x1", 0xABC)))


def test_load(tmp_path: Path) -> None:
    file = tmp_path / "a.scn"
    file.write_text(HEAD + "wfi\n")
    assert load(file) == Scenario("A test.", (), (Step("wfi"),))
    file.write_bytes(b"x" * (MAX_BYTES + 1))
    for path in (file, tmp_path, tmp_path / "none.scn", "nul\0byte"):
        with pytest.raises(InputError) as caught:
            load(path)
        assert caught.value.where == str(path)
