# SPDX-License-Identifier: Apache-2.0
"""What the guest does between two traps, by the Arm ARM: certain where it is certain, and honest where it is not."""

from __future__ import annotations

import pytest

from harness.arch import exceptions
from harness.arch.a64 import encode
from harness.arch.cpu_models import cpu_model
from harness.arch.registers import INDEX, MASK64, NAMES
from harness.gic.cpu_interface import Interface
from harness.guest.context import GuestContext
from harness.guest.debugger import Debugger
from harness.guest.instruction_fetch import word_at
from harness.guest.memory import Memory
from harness.guest.mmu import CODE_CHANGED
from harness.guest.predict_run import predict_run as follow_run
from harness.guest.walk import Goal, GuestPath, comes_back, walk
from harness.layout import CODE, DATA, PROTECTED, VECTORS
from harness.scenario.code_layout import Code, code_of
from harness.scenario.scenario import Scenario, Step
from harness.trace.environment import WORLDS
from harness.trace.rounds import GuestRun
from tests.support.traces import ISB, TRAP_MRS, but, entry, esr, state, trap

CPU = cpu_model("cortex-a72")
AT = CODE.base
EL0, SPAN = 0x3C0, 1 << 23
WORKAROUND_1, WORKAROUND_2, WORKAROUND_3 = 0x8000_8000, 0x8000_7FFF, 0x8000_3FFF


def code(*words: int) -> dict[int, int]:
    return {AT + 4 * i: word for i, word in enumerate(words)}


def changes(before: tuple[int, ...], found: GuestPath) -> dict[str, int]:
    assert found.state is not None, found.why
    return {NAMES[i]: new for i, (old, new) in enumerate(zip(before, found.state, strict=True)) if old != new}


def unknown(found: GuestPath) -> dict[str, int]:
    return {NAMES[i]: bits for i, (bits, _) in found.unknown.items()}


LOAD, STORE, HVC = encode("ldr", "x3", "x1"), encode("str", "x3", "x1"), encode("hvc", 0)
RAM = state(x1=DATA.base, sctlr_el1=SPAN)


def test_a_trap_at_once_changes_nothing() -> None:
    assert walk(RAM, Goal(AT), GuestContext(code(HVC), CPU)) == GuestPath(RAM)
    illegal = walk(but(RAM, pstate=0x3C5 | exceptions.IL), Goal(AT), GuestContext(code(HVC), CPU))
    assert illegal.state is None, "an illegal execution state exception came first, to the same address perhaps"


def test_code_of_a_scenario_is_its_guest_steps_back_to_back() -> None:
    steps = (Step("hvc", (1,)), Step("set", ("x1", 5)), Step("wfi"), Step("reset"), Step("br", ("x2",)))
    words = (encode("hvc", 1), encode("wfi"), encode("br", "x2"))
    assert code_of(Scenario("", (), steps)) == code(*words, TRAP_MRS, ISB), "and a trap after them"


def test_the_fill_traps_and_waits_in_turn() -> None:
    words = code(HVC)
    assert [word_at(words, AT + 4 * i) for i in range(4)] == [HVC, ISB, TRAP_MRS, ISB]
    vectors = [word_at(words, VECTORS.base + offset) for offset in (0, 0x200, 0x400, 0x600, 0x204)]
    assert vectors == [*([TRAP_MRS] * 4), ISB]
    for address in (CODE.base - 4, VECTORS.end, DATA.base, 0, AT + 5):
        assert word_at(words, address) is None


def test_a_barrier_changes_nothing() -> None:
    before = state(pc=AT + 4)
    assert changes(before, walk(before, Goal(AT + 8), GuestContext(code(HVC), CPU))) == {"pc": AT + 8}


def test_a_load_from_ram_then_a_trap() -> None:
    found = walk(RAM, Goal(AT + 4), GuestContext(code(LOAD, HVC), CPU))
    assert changes(RAM, found) == {"pc": AT + 4}
    assert unknown(found) == {"x3": MASK64}, "what was there is unknown"


def test_a_load_into_zr_loads_nothing() -> None:
    found = walk(RAM, Goal(AT + 4), GuestContext(code(encode("ldr", "xzr", "x1"), HVC), CPU))
    assert changes(RAM, found) == {"pc": AT + 4}
    assert unknown(found) == {}


def test_a_store_to_ram_changes_no_register() -> None:
    found = walk(RAM, Goal(AT + 4), GuestContext(code(STORE, HVC), CPU))
    assert changes(RAM, found) == {"pc": AT + 4}
    assert unknown(found) == {}


@pytest.mark.parametrize("base", [CODE.base, VECTORS.base])
def test_code_and_vectors_can_be_read_but_not_written(base: int) -> None:
    before = state(x1=base)
    assert walk(before, Goal(AT + 4), GuestContext(code(LOAD, HVC), CPU)).state is not None
    stored = walk(before, Goal(AT + 4), GuestContext(code(STORE, HVC), CPU))
    assert (stored.state, stored.certain) == (None, True)


@pytest.mark.parametrize("address", [0, 0x900_0000, 0x3FFF_FFF8, 0x4010_0000, 0xFFFF_FFF8, 1 << 32, 1 << 43])
@pytest.mark.parametrize("word", [LOAD, STORE])
def test_an_access_outside_slots_must_trap(address: int, word: int) -> None:
    found = walk(state(x1=address), Goal(AT + 4), GuestContext(code(word, HVC), CPU))
    assert (found.state, found.certain) == (None, True)
    assert f"{address:#x}" in found.why


@pytest.mark.parametrize("word", [HVC, 0])
def test_what_must_trap_and_did_not(word: int) -> None:
    """An HVC of no special function; what fills the code after the scenario."""
    found = walk(state(), Goal(AT + 4), GuestContext(code(word) if word else {}, CPU))
    assert (found.state, found.certain) == (None, True)


def test_wfi_and_wfe_need_not_trap() -> None:
    before = state()
    found = walk(before, Goal(AT + 8), GuestContext(code(encode("wfi"), encode("wfe"), HVC), CPU))
    assert changes(before, found) == {"pc": AT + 8}
    assert unknown(found) == {}


@pytest.mark.parametrize("function", [WORKAROUND_1, WORKAROUND_2, WORKAROUND_3, 0x5555_0000_0000_0000 | WORKAROUND_1])
def test_a_workaround_call_may_be_answered_at_el2(function: int) -> None:
    before = state(x0=function)
    found = walk(before, Goal(AT + 4), GuestContext(code(HVC, encode("wfi")), CPU))
    assert changes(before, found) == {"pc": AT + 4, "x0": 0}
    assert "x0" not in unknown(found)
    assert set(unknown(found)) <= {"x1", "x2", "x3"}, "SMCCC 1.1 keeps x4 to x17"


@pytest.mark.parametrize("function", [0, 0x8400_0000, WORKAROUND_1 + 1])
def test_any_other_call_may_not(function: int) -> None:
    found = walk(state(x0=function), Goal(AT + 4), GuestContext(code(HVC, encode("wfi")), CPU))
    assert (found.state, found.certain) == (None, True)


def test_a_branch() -> None:
    before = state(x9=AT + 0x40)
    found = walk(before, Goal(AT + 0x40), GuestContext(code(encode("br", "x9")), CPU))
    assert changes(before, found) == {"pc": AT + 0x40}


def test_a_branch_to_nowhere_traps_there() -> None:
    before = state(x9=0x5000_0000)
    context = GuestContext(code(encode("br", "x9")), CPU)
    assert changes(before, walk(before, Goal(0x5000_0000), context)) == {"pc": 0x5000_0000}
    found = walk(before, Goal(0x5000_0004), context)
    assert (found.state, found.certain) == (None, True), "the fetch at 0x50000000 must trap"


def _exception(before: tuple[int, ...], pc: int, syndrome: int, offset: int = 0x200) -> dict[str, int]:
    """What differs after an exception that the guest takes by itself from the instruction at ``pc``."""
    wanted = {"elr_el1": pc, "spsr_el1": before[INDEX["pstate"]], "pc": VECTORS.base + offset, "esr_el1": syndrome}
    return wanted | ({"pstate": 0x3C5} if before[INDEX["pstate"]] != 0x3C5 else {})


@pytest.mark.parametrize("low", [1, 2, 3])
def test_a_misaligned_pc(low: int) -> None:
    before = state(pc=AT + low, sctlr_el1=SPAN)
    found = walk(before, Goal(VECTORS.base + 0x200), GuestContext(code(HVC), CPU))
    assert changes(before, found) == _exception(before, AT + low, 0x8A00_0000) | {"far_el1": AT + low}


@pytest.mark.parametrize(("name", "bits"), [("cortex-a72", 44), ("cortex-a76", 40)])
def test_a_fetch_beyond_the_address_size(name: str, bits: int) -> None:
    """AArch64.S1DisabledOutput: an address size fault at level 0, taken to EL1."""
    before = state(pc=1 << bits, sctlr_el1=SPAN)
    found = walk(before, Goal(VECTORS.base + 0x200), GuestContext({}, cpu_model(name)))
    assert changes(before, found) == _exception(before, 1 << bits, 0x8600_0000) | {"far_el1": 1 << bits}
    inside = walk(state(pc=(1 << bits) - 4), Goal(VECTORS.base + 0x200), GuestContext({}, cpu_model(name)))
    assert (inside.state, inside.certain) == (None, True), "stage 2 has nothing there: it must trap"


@pytest.mark.parametrize(("word", "iss"), [(LOAD, 0x00), (STORE, 0x40)])
@pytest.mark.parametrize("address", [1 << 44, 1 << 63, MASK64 - 7])
def test_an_access_beyond_the_address_size(word: int, iss: int, address: int) -> None:
    before = state(x1=address, sctlr_el1=SPAN)
    found = walk(before, Goal(VECTORS.base + 0x200), GuestContext(code(word), CPU))
    assert changes(before, found) == _exception(before, AT, 0x9600_0000 | iss) | {"far_el1": address}


def test_from_el0_the_class_is_the_lower_level_s() -> None:
    before = state(x1=1 << 44, pstate=EL0, sctlr_el1=SPAN)
    found = walk(before, Goal(VECTORS.base + 0x400), GuestContext(code(LOAD), CPU))
    assert changes(before, found) == _exception(before, AT, 0x9200_0000, 0x400) | {"far_el1": 1 << 44}


@pytest.mark.parametrize("words", [code(HVC), {}], ids=["hvc", "id_register"])
def test_undefined_at_el0(words: dict[int, int]) -> None:
    before = state(pstate=EL0, sctlr_el1=SPAN)
    found = walk(before, Goal(VECTORS.base + 0x400), GuestContext(words, CPU))
    assert changes(before, found) == _exception(before, AT, 0x0200_0000, 0x400)


def test_an_alignment_fault_where_the_guest_asks_for_it() -> None:
    before = state(x1=DATA.base + 1, sctlr_el1=SPAN | 2)
    found = walk(before, Goal(VECTORS.base + 0x200), GuestContext(code(LOAD), CPU))
    assert changes(before, found) == _exception(before, AT, 0x9600_0021) | {"far_el1": DATA.base + 1}
    unasked = walk(but(before, sctlr_el1=SPAN), Goal(AT + 4), GuestContext(code(LOAD), CPU))
    assert (unasked.state, unasked.certain) == (None, False)


@pytest.mark.parametrize(
    "words",
    [
        code(LOAD, encode("ldr", "x4", "x3"), HVC),
        code(LOAD, encode("str", "x4", "x3"), HVC),
        code(LOAD, encode("br", "x3"), HVC),
        code(encode("ldr", "x0", "x1"), HVC, HVC),
    ],
    ids=["load", "store", "branch", "call"],
)
def test_what_depends_on_loaded_values_is_uncertain(words: dict[int, int]) -> None:
    found = walk(RAM, Goal(AT + 8), GuestContext(words, CPU))
    assert (found.state, found.certain) == (None, False)


def test_storing_a_loaded_value_is_certain() -> None:
    found = walk(RAM, Goal(AT + 8), GuestContext(code(LOAD, STORE, HVC), CPU))
    assert changes(RAM, found) == {"pc": AT + 8}


@pytest.mark.parametrize(
    "fields",
    [{"sctlr_el1": 1}, {"mdscr_el1": 1}, {"pstate": 0x3C5 | 1 << 20}, {"pc": DATA.base}, {"pc": (1 << 44) + 2}],
    ids=["mmu", "step", "illegal", "data", "misaligned_beyond"],
)
def test_what_is_not_followed(fields: dict[str, int]) -> None:
    context = GuestContext(code(LOAD, HVC), CPU)
    assert walk(RAM, Goal(AT + 4), context).state is not None, "except for the field, all is well"
    found = walk(but(RAM, **fields), Goal(AT + 4), context)
    assert (found.state, found.certain) == (None, False)


@pytest.mark.parametrize("tag", [0x01, 0x02, 0x80, 0xFE])
def test_a_branch_to_a_tagged_address(tag: int) -> None:
    """With TCR_EL1.TBI the tag is replaced, with TBID on a later CPU it is not; without TBI it is no address."""
    before = state(x9=tag << 56 | AT + 0x40, tcr_el1=1 << 37, sctlr_el1=SPAN)
    found = walk(before, Goal(AT + 0x40), GuestContext(code(encode("br", "x9")), CPU))
    assert (found.state, found.certain) == (None, False)
    entered = but(before, pc=tag << 56 | AT)
    assert not walk(entered, Goal(AT), GuestContext(code(HVC), CPU)).certain, "userspace wrote PC"
    untagged = but(before, tcr_el1=0)
    assert walk(untagged, Goal(VECTORS.base + 0x200), GuestContext(code(encode("br", "x9")), CPU)).state is not None


def test_an_access_to_a_tagged_address() -> None:
    before = state(x1=0x42 << 56 | DATA.base, tcr_el1=1 << 37, sctlr_el1=SPAN)
    found = walk(before, Goal(VECTORS.base + 0x200), GuestContext(code(LOAD), CPU))
    assert found.state is None or found.state[INDEX["esr_el1"]] != 0x9600_0000, "no address size fault"
    untagged = walk(but(before, tcr_el1=0), Goal(VECTORS.base + 0x200), GuestContext(code(LOAD), CPU))
    assert untagged.state is not None


def test_a_loop_has_an_end() -> None:
    found = walk(state(x9=AT), Goal(AT + 4), GuestContext(code(encode("br", "x9")), CPU))
    assert (found.state, found.certain) == (None, False)


def test_what_comes_back_without_a_trap() -> None:
    """A vector outside the address size faults into itself: the guest loops until an interrupt comes."""
    loop = 0x100_0000_0000_0000 + VECTORS.base
    back, wfi = encode("br", "x3"), encode("wfi")
    assert comes_back(GuestPath(state(pc=loop + 0x200, vbar_el1=loop)), GuestContext(code(HVC), CPU, Memory()))
    assert comes_back(GuestPath(state(pc=AT + 4, x3=AT + 4)), GuestContext(code(HVC, back), CPU, Memory()))
    assert comes_back(GuestPath(state(pc=AT, x3=AT)), GuestContext(code(wfi, ISB, back), CPU, Memory()))
    assert comes_back(
        GuestPath(state(pc=AT, x3=AT + 8), {3: (1, "unknown")}), GuestContext(code(wfi, back), CPU, Memory())
    )
    assert not comes_back(GuestPath(state(pc=AT, x3=AT)), GuestContext(code(wfi, HVC, back), CPU, Memory())), (
        "it traps on its way"
    )
    assert not comes_back(GuestPath(state(pc=AT + 4)), GuestContext(code(HVC, ISB), CPU, Memory()))
    assert not comes_back(GuestPath(RAM), GuestContext(code(HVC), CPU, Memory()))
    assert not comes_back(GuestPath(state(pc=VECTORS.base)), GuestContext(code(HVC), CPU, Memory()))


def follow(*words: int, target: int, hcr: int = 0, **values: int) -> GuestPath:
    return walk(state(**values), Goal(target), GuestContext(code(*words), CPU), hcr=hcr)


def test_moves() -> None:
    words = encode("mov", "x3", "x4"), encode("movz", "x5", 0x1234), encode("movk", "x4", 0x99)
    found = follow(*words, target=AT + 12, x4=0xAAAA_BBBB)
    assert found.state == but(state(x4=0xAAAA_0099), x3=0xAAAA_BBBB, x5=0x1234, pc=AT + 12)


def test_an_exception_that_is_the_guests_own() -> None:
    for word, syndrome in ((encode("brk", 7), 0xF200_0007), (encode("udf", 0), 0x0200_0000)):
        found = follow(word, target=VECTORS.base + 0x200)
        assert found.state is not None
        assert (found.state[INDEX["esr_el1"]], found.state[INDEX["elr_el1"]]) == (syndrome, AT)


def test_fp_is_refused_by_cpacr() -> None:
    """CPACR_EL1.FPEN: 0 and 2 trap both exception levels, 1 traps EL0, 3 none (Arm ARM D17.2.32)."""
    word = encode("fmov_to", "v0", "x1")
    for fpen, pstate, trapped in ((0, 5, True), (2, 5, True), (1, 5, False), (1, 0, True), (3, 0, False)):
        target = VECTORS.base + (0x200 if pstate else 0x400) if trapped else AT + 4
        found = follow(word, target=target, cpacr_el1=fpen << 20, pstate=pstate)
        assert found.state is not None, (fpen, pstate)
        assert not trapped or found.state[INDEX["esr_el1"]] == 0x1FE0_0000


def test_a_protected_vm_has_code_of_its_own() -> None:
    """EL2 emulates its ID registers without an exit, and it may store where its code is."""
    store = encode("str", "x3", "x1")
    plain, own = Code({AT: store}), Code({AT: store}, protected=True)
    found = walk(state(pc=AT + 8), Goal(AT + 12), GuestContext(plain, CPU))
    assert not found.state and found.certain
    assert word_at(own, AT + 8) != word_at(plain, AT + 8)
    assert walk(state(pc=AT + 8), Goal(AT + 12), GuestContext(own, CPU)).certain, "what fills its code traps, too"
    reads = Code({AT: encode("mrs", "x3", (3, 0, 0, 6, 1))}, protected=True)
    assert walk(state(), Goal(AT + 4), GuestContext(reads, CPU)).state
    memory = Memory()
    memory.regions = WORLDS[PROTECTED].regions
    found = walk(state(x1=VECTORS.base), Goal(AT + 4), GuestContext(own, CPU, memory))
    assert (found.state, found.certain, found.why) == (None, False, CODE_CHANGED)
    assert walk(state(x1=VECTORS.base), Goal(AT + 4), GuestContext(plain, CPU, Memory())).certain, "elsewhere it traps"


def with_gic(words: dict[int, int], memory: Memory) -> GuestContext:
    return GuestContext(words, CPU, memory, Interface())


def test_nobody_knows_the_interface_of_a_guest_that_did_otherwise() -> None:
    """It may have acknowledged what it should not have, or nothing."""
    code_, before = {AT: encode("mov", "x3", "x4"), AT + 4: HVC}, state()
    for x3, lost in ((before[4], False), (before[4] + 1, True)):
        gic = Interface()
        follow_run(
            GuestRun(0, entry(before), trap(but(before, x3=x3, pc=AT + 8), esr("HVC64"))),
            GuestContext(code_, CPU, Memory(), gic),
        )
        assert bool(gic.lost) == lost


def test_a_load_that_the_guest_executes_twice_may_trap_the_second_time() -> None:
    """Only the second access is to an address without memory; FAR_EL2 says which of the two trapped."""
    memory = Memory()
    memory.write(DATA.base, 0x2222)
    words = code(encode("ldr", "x1", "x1"), encode("eret"))
    before = state(pc=AT + 4, x1=DATA.base, elr_el1=AT, spsr_el1=0x3C5, pstate=0x3C5)
    first, second = but(before, pc=AT), but(before, pc=AT, x1=0x2222)
    for came, far, predicted in (
        (second, 0x2222, second),
        (second, DATA.base, first),  # the registers are wrong
        (but(second, x1=0x2223), 0x2222, second),
        (first, DATA.base, first),
    ):
        run = GuestRun(0, entry(before), trap(came, esr("DABT_LOW"), far=far))
        assert follow_run(run, GuestContext(words, CPU, memory)).path.state == predicted
    run = GuestRun(0, entry(before), trap(second, esr("DABT_LOW"), far=0x2222))
    memory.mark_unknown()
    loaded = follow_run(run, GuestContext(words, CPU, memory)).path
    assert loaded.state is not None and INDEX["x1"] in loaded.unknown
    found = follow_run(run, with_gic(words, memory))
    assert (found.path.state, found.path.certain) == (None, False), "two walks would use its interface twice"


def test_exception_return() -> None:
    found = follow(encode("eret"), target=0x9000_0000, elr_el1=0x9000_0000, spsr_el1=0x3C0)
    assert found.state is not None
    assert (found.state[INDEX["pstate"]], found.state[INDEX["pc"]]) == (0x3C0, 0x9000_0000)
    assert not follow(encode("eret"), target=0x9000_0000, elr_el1=0x9000_0000, spsr_el1=0x3C9).certain, "to EL2"
    # What the CPU lacks of SPSR_EL1 is not in PSTATE, nor in what the next exception saves of that.
    found = follow(encode("eret"), target=0x9000_0000, elr_el1=0x9000_0000, spsr_el1=1 << 61 | 0x3E0)
    assert found.unknown[INDEX["pstate"]][0] == 1 << 61 | 0x20
    code = {AT: encode("eret"), AT + 4: encode("brk", 0)}
    found = walk(state(pc=AT, elr_el1=AT + 4, spsr_el1=0x20), Goal(VECTORS.base + 0x400), GuestContext(code, CPU))
    assert found.unknown[INDEX["spsr_el1"]][0] & 0x20


def test_system_registers_that_need_not_trap() -> None:
    read, write = encode("mrs", "x3", (3, 0, 13, 0, 1)), encode("msr", (3, 0, 13, 0, 1), "x4")
    assert follow(read, target=AT + 4, contextidr_el1=0x77).state == but(state(contextidr_el1=0x77), x3=0x77, pc=AT + 4)
    assert follow(write, target=AT + 4, x4=0x55).state == but(state(x4=0x55), contextidr_el1=0x55, pc=AT + 4)
    at_el0 = follow(read, target=VECTORS.base + 0x400, pstate=0)
    assert at_el0.state is not None, "UNDEFINED at EL0"
    assert INDEX["x3"] in follow(encode("mrs", "x3", (3, 0, 0, 0, 0)), target=AT + 4).unknown


def test_accesses_without_a_syndrome() -> None:
    pair = encode("ldp", "x3", "x4", "x1", 0x10)
    assert follow(pair, target=AT + 4, x1=0x9000_0000).certain, "must trap"
    found = follow(pair, target=AT + 4, x1=DATA.base)
    assert found.state == but(state(x1=DATA.base), pc=AT + 4)
    assert set(found.unknown) == {3, 4}
    found = follow(encode("str_pre", "x3", "x1", 0x10), target=AT + 4, x1=DATA.base)
    assert found.state == but(state(x1=DATA.base), x1=DATA.base + 0x10, pc=AT + 4)
    assert not follow(encode("ldr_post", "x1", "x1", 8), target=AT + 4, x1=DATA.base).certain
    assert not follow(encode("ldp", "x3", "x3", "x1", 0), target=AT + 4, x1=DATA.base).certain


@pytest.mark.parametrize(("bit", "mask", "offset"), exceptions.VIRTUAL_INTERRUPTS)
def test_virtual_interrupts(bit: int, mask: int, offset: int) -> None:
    word, vector = encode("wfi"), VECTORS.base + 0x200 + offset
    assert follow(word, target=AT, hcr=bit, pstate=0x3C5).state == state(pstate=0x3C5), "masked"
    found = follow(word, target=vector, hcr=bit, pstate=0x3C5 & ~mask)
    assert found.state is not None
    assert found.hcr == (0 if bit == exceptions.HCR_VSE else bit), "an SError is taken once, a line stays as it is"
    assert follow(word, target=AT, hcr=bit, pstate=0x3C5).hcr == bit
    assert (found.state[INDEX["elr_el1"]], found.state[INDEX["spsr_el1"]]) == (AT, 0x3C5 & ~mask)
    assert (INDEX["esr_el1"] in found.unknown) == (bit == exceptions.HCR_VSE)
    assert follow(word, target=AT, hcr=bit, pstate=0x3C5 & ~mask).state is None, "it does not get to the instruction"


def test_two_virtual_interrupts_come_in_any_order() -> None:
    assert not follow(encode("wfi"), target=AT, hcr=exceptions.HCR_VI | exceptions.HCR_VF, pstate=0x305).certain


def test_el1_traps_waits_of_el0() -> None:
    """SCTLR_EL1.nTWI and nTWE clear (Arm ARM D17.2.118): EL0's WFI is an exception to EL1; QEMU performs a WFE."""
    wait, vector = encode("wfi"), VECTORS.base + 0x400
    found = follow(wait, target=vector, pstate=0)
    assert found.state is not None
    assert (found.state[INDEX["esr_el1"]], found.state[INDEX["elr_el1"]]) == (0x07E0_0000, AT)
    assert follow(wait, target=AT + 4, pstate=0, sctlr_el1=1 << 16).state is not None
    assert not follow(encode("wfe"), target=AT + 4, pstate=0).certain
    assert follow(encode("wfe"), target=AT + 4, pstate=0, sctlr_el1=1 << 18).state is not None
    stepping = Debugger(steps=True)
    assert not walk(state(pstate=0), Goal(vector, (1, 1)), GuestContext(code(wait), CPU, debugger=stepping)).certain, (
        "QEMU does it"
    )


def test_a_step_and_an_interrupt_that_it_unmasks_come_in_any_order() -> None:
    masked = state(pc=AT, elr_el1=AT + 8, spsr_el1=0x2C5)
    words = code(encode("eret"), HVC, HVC)
    for debugger, certain in ((None, True), (Debugger(steps=True), False)):
        context = GuestContext(words, CPU, debugger=debugger)
        found = walk(masked, Goal(VECTORS.base + 0x380, (1, 1)), context, hcr=exceptions.HCR_VSE)
        assert (found.state is not None or found.certain) == certain


def test_a_call_where_nobody_knows_what_is_mapped() -> None:
    """Then it is not known that there was an HVC at all, nor from where the guest came to it."""
    before = state(pc=AT + 4, sctlr_el1=1, tcr_el1=0x20, ttbr0_el1=DATA.base, mair_el1=0xFF, elr_el1=AT)
    words, memory = code(HVC, encode("eret")), Memory({AT: STORE})
    memory.write(DATA.base + 8, 0x4000_0401)
    came = trap(but(before, pstate=0x3C4), esr("HVC64"))
    assert follow_run(GuestRun(0, entry(before), came), GuestContext(words, CPU, memory)).call
    memory.mark_unknown()
    run = follow_run(GuestRun(0, entry(before), came), GuestContext(words, CPU, memory))
    assert (run.path.state, run.path.certain) == (None, False)
