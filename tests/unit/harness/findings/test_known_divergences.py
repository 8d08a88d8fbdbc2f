# SPDX-License-Identifier: Apache-2.0
"""The catalogue explains one exact difference an entry, and hides no neighbour.

Each row of ``tests.support.rounds.GOOD`` is a turn of the host without fault.  Every register of it is then made
wrong: the fault must be unexplained, and all that was explained before must still be.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from harness.arch import exceptions
from harness.arch.registers import NAMES, STATE
from harness.errors import InputError
from harness.findings.known_divergences import Catalogue
from harness.protocol import DEBUG, FORGE, OPS
from harness.trace.events import HOST, Host
from harness.trace.rounds import Round
from tests.support.rounds import (
    AGAIN,
    AT,
    CATALOGUES,
    DATA_VALUE,
    FIRST,
    GOOD,
    HOLE,
    KNOWN_DIR,
    WINDOW,
    Good,
    S,
    after_reset,
    differences,
    page,
    with_entry,
)
from tests.support.traces import (
    MMIO_EXIT,
    SKIP,
    but,
    entry,
    esr,
    host_reset,
    host_set,
    irq,
    load_esr,
    trap,
    turn,
    user,
)

BY_NAME = {good.name: good for good in GOOD}
# What exception entry takes from another register, or overwrites.
DERIVED = {"pc": {"elr_el1"}, "pstate": {"spsr_el1", "spsr_0", "pc"}, "sctlr_el1": {"pstate"}, "vbar_el1": {"pc"}}
OVERWRITTEN = {"elr_el1", "spsr_el1"}


def unexplained(round_: Round, level: str = "spec") -> set[str]:
    return {name for name, known in differences(round_, level).items() if known is None}


@pytest.mark.parametrize("good", GOOD, ids=lambda good: good.name)
def test_a_good_turn_is_explained_entry_by_entry(good: Good) -> None:
    assert differences(good.round) == dict(good.known)


def test_a_load_whose_byte_order_changed_while_it_was_pending() -> None:
    big = but(S, sctlr_el1=S[NAMES.index("sctlr_el1")] | 1 << 25)
    for data, explained in ((0x1234, True), (0x3412, True), (0x1243, False)):
        done = turn(
            trap(S, load_esr(5, 2), **page(HOLE)),
            user(S, MMIO_EXIT),
            host_set("sctlr_el1", big[NAMES.index("sctlr_el1")]),
            entry(but(big, x5=data), SKIP, mmio_data=0x1234),
        )
        assert ("restore.x5" not in unexplained(done)) is explained


@pytest.mark.parametrize("register", NAMES)
@pytest.mark.parametrize("good", GOOD, ids=lambda good: good.name)
@pytest.mark.parametrize("wrong", [8, 1 << 63], ids=["bit3", "bit63"])
def test_a_neighbour_stays_unexplained(good: Good, register: str, wrong: int) -> None:
    injects = good.name == "fetch_outside"
    if injects and register in OVERWRITTEN:
        return
    value = good.round.entry.get(register)
    found = differences(with_entry(good.round, **{register: value ^ wrong}))
    bad = {name for name, known in found.items() if known is None}
    blamed = {name.removeprefix("save.dirty.").partition(".")[2] or name.removeprefix("save.dirty.") for name in bad}
    if register == "spsr_el1":
        blamed.discard("spsr_0")  # the layer's second copy of it
    allowed = {register} | (DERIVED.get(register, set()) if injects else set())
    assert blamed, "hidden"
    assert blamed <= allowed, "the wrong one is blamed"
    kept = {name: known for name, known in good.known.items() if known != found.get(name)}
    assert set(kept) <= bad, "what was known still is, or it is what is wrong now"


@pytest.mark.parametrize("round_", [FIRST, AGAIN], ids=["first", "again"])
def test_reset_values_are_explained(round_: Round) -> None:
    assert set(differences(round_).values()) == {"reset-values"}


@pytest.mark.parametrize("round_", [FIRST, AGAIN], ids=["first", "again"])
@pytest.mark.parametrize("register", [r.name for r in STATE if r.name not in ("actlr_el1", "amair_el1")])
def test_a_register_that_is_not_reset_is_unexplained(round_: Round, register: str) -> None:
    """But those that a reset takes from the host's CPU."""
    value = round_.entry.get(register)
    bad = unexplained(with_entry(round_, **{register: value ^ 8}))
    assert bad, "hidden"
    assert {name.partition(".")[2] for name in bad} <= {register, "spsr_0"}


def test_what_the_host_wrote_before_the_reset_is_gone() -> None:
    assert unexplained(with_entry(AGAIN, x9=9)) == {"restore.x9", "host.x9"}


def test_a_start_outside_the_image() -> None:
    round_ = turn(host_set("pc", 0x1000), entry(after_reset(pc=0x1000)))
    assert differences(round_) == {"save.class": "reset-outside-image-panics"}


def test_a_start_outside_the_image_after_a_forged_code() -> None:
    """The forged exit left KVM_RUN with an error; the same error of an exit that was not forged is not explained."""
    illegal = trap(S, 0)._replace(code=3)
    hosts = (host_reset(), host_set("pc", 0x1000))
    told = user(S, 9)._replace(error=22)
    for forged in (0, FORGE["code"]):
        left = turn(illegal._replace(marks=forged), told, *hosts, entry(after_reset(pc=0x1000)))
        assert left.action.outcome == "fail:EINVAL"
        assert ("save.class" in unexplained(left)) == (not forged)


def test_pc_off_by_8_where_the_entry_says_4() -> None:
    for name in ("mmio_read", "mmio_read_above"):
        good = BY_NAME[name]
        moved = with_entry(good.round, pc=AT + 4)
        assert {"restore.pc", "host.pc"} <= unexplained(moved)
        assert "restore.pc" not in unexplained(good.round)


@pytest.mark.parametrize("name", ["wfi", "mmio_read", "mmio_read_above", "mmio_write", "id_register"])
def test_pc_that_does_not_move(name: str) -> None:
    assert "host.pc" in unexplained(with_entry(BY_NAME[name].round, pending=0))


@pytest.mark.parametrize("name", ["irq", "psci", "touch"])
def test_pc_that_moves_and_should_not(name: str) -> None:
    assert {"save.pc", "restore.pc", "host.pc"} <= unexplained(with_entry(BY_NAME[name].round, pending=SKIP))


@pytest.mark.parametrize("data", [0, DATA_VALUE ^ 1, DATA_VALUE & 0xFFFF_FFFF])
@pytest.mark.parametrize("address", [WINDOW, HOLE])
def test_wrong_mmio_data(address: int, data: int) -> None:
    round_ = turn(
        trap(S, load_esr(5), **page(address)),
        user(S, MMIO_EXIT),
        entry(but(S, x5=data), SKIP, mmio_data=DATA_VALUE),
    )
    assert "host.x5" in unexplained(round_)
    if address == HOLE:
        assert {"restore.x5", "save.dirty.x5"} <= unexplained(round_)


def test_mmio_data_in_the_wrong_register() -> None:
    round_ = turn(
        trap(S, load_esr(5), **page(HOLE)),
        user(S, MMIO_EXIT),
        entry(but(S, x6=DATA_VALUE), SKIP, mmio_data=DATA_VALUE),
    )
    assert unexplained(round_) == {"save.dirty.x6", "restore.x6", "host.x6", "host.x5"}


def test_a_lost_sign_is_unexplained() -> None:
    round_ = turn(
        trap(S, load_esr(5, 1, signed=True), **page(HOLE)),
        user(S, MMIO_EXIT),
        entry(but(S, x5=0x80), SKIP, mmio_data=0x80),
    )
    assert {"restore.x5", "save.dirty.x5", "host.x5"} == unexplained(round_)


def test_mmio_for_an_address_that_has_memory() -> None:
    good = BY_NAME["mmio_read_above"].round
    assert good.exit is not None
    inside = turn(good.exit._replace(hpfar=0x4002_0000 >> 12 << 4, far=0x4002_0000), *good.userspace_exits, good.entry)
    assert unexplained(inside)


def test_a_host_write_explains_the_value_written_and_no_other() -> None:
    for observed in (0x77, 0x76, 0x77 | 1 << 63, S[7]):
        round_ = turn(irq(S), host_set("x7", 0x77), entry(but(S, x7=observed)))
        assert bool(unexplained(round_)) == (observed != 0x77)


def test_a_write_of_an_aarch32_state_may_narrow_registers() -> None:
    wide = but(S, x7=0x7_0000_0077, x15=0x7_0000_0077, pc=AT)
    write = host_set("pstate", 0x10)
    for x7, wrong in ((0x77, False), (0x7_0000_0077, False), (0x76, True)):
        after = but(wide, x7=x7, pstate=0x10)
        assert bool(unexplained(turn(irq(wide), write, entry(after)))) == wrong, hex(x7)
        later = turn(irq(S), write, host_set("x7", wide[7]), entry(but(S, x7=x7, pstate=0x10)))
        assert bool(unexplained(later)) == wrong, "written after PSTATE"
        there = turn(irq(but(S, pstate=0x10)), host_set("x7", wide[7]), entry(but(S, x7=x7, pstate=0x10)))
        assert bool(unexplained(there)) == wrong, "the guest was in AArch32 state before"
        narrow = irq(but(S, pstate=0x10))
        back = turn(narrow, host_set("x7", wide[7]), host_set("pstate", S[exceptions.PSTATE]), entry(but(S, x7=x7)))
        assert bool(unexplained(back)) == wrong, "and is not any more"
    beyond = but(wide, x15=0x77, pstate=0x10)
    assert unexplained(turn(irq(wide), write, entry(beyond))), "AArch32 state has no R15 that is X15"
    assert unexplained(turn(irq(wide), host_set("pstate", 0x3C0), entry(but(wide, x7=0x77, pstate=0x3C0))))


def test_an_abort_behind_aarch32_state_is_taken_from_what_the_host_left() -> None:
    """IL of its syndrome is that of the instruction, or 1."""
    there, il = but(S, pstate=0x30), 1 << 25
    told = trap(there, load_esr(6, 4) & ~il, **page(0x19C)), user(there, MMIO_EXIT)
    abort = Host(HOST, 0, OPS["abort"][0], 0, 0, 0, False)
    taken = exceptions.take_exception(but(there, pstate=0), 0x9000_0010, 0x19C)
    for after, wrong in (({}, False), ({"esr_el1": 0x9000_0010 | il}, False), ({"esr_el1": 0x9000_0011}, True)):
        round_ = turn(*told, host_set("pstate", 0), abort, entry(but(taken, **after)))
        assert ("restore.esr_el1" in unexplained(round_)) == wrong
        assert not {"restore.pc", "restore.spsr_el1", "restore.elr_el1"} & set(unexplained(round_))
    nested = exceptions.take_exception(taken, 0x9400_0010, 0x19C)
    spsr = {"host.spsr_el1", "restore.spsr_el1", "restore.spsr_0"}
    for end, wrong in ((nested, set()), (but(nested, spsr_el1=7), spsr)):
        both = turn(*told, host_set("pstate", 0), abort, abort, entry(end))
        assert unexplained(both) == wrong, "7.3 takes each at once"


def test_where_pc_is_behind_an_instruction_of_16_bits() -> None:
    there, il = but(S, pstate=0x30), 1 << 25
    store = load_esr(6, 2, write=True)
    for wide, length, wrong in ((il, 4, False), (il, 2, True), (0, 2, False), (0, 4, False), (0, 6, True)):
        told = trap(there, store & ~il | wide, **page(WINDOW)), user(there, MMIO_EXIT)
        finish = Host(HOST, 0, OPS["finish"][0], 0, 0, 0, False)
        done = turn(*told, finish, entry(but(there, pc=S[exceptions.PC] + length)))
        assert ("restore.pc" in unexplained(done)) == wrong, (wide, length)


def test_where_pc_is_behind_an_access_if_userspace_moved_a_guest_in_aarch32_state() -> None:
    """The upper half of what it wrote may be dropped before PC moves on."""
    there = but(S, pstate=0x30)
    told = trap(there, load_esr(6, 2, write=True) & ~(1 << 25), **page(WINDOW)), user(there, MMIO_EXIT)
    finish = Host(HOST, 0, OPS["finish"][0], 0, 0, 0, False)
    for pc, wrong in ((0x1000_0002, False), (0x10_1000_0002, False), (0x1000_0004, True), (0x11_1000_0002, True)):
        done = turn(*told, host_set("pc", 0x10_1000_0000), finish, entry(but(there, pc=pc)))
        assert ("restore.pc" in unexplained(done)) == wrong, hex(pc)


def test_a_step_of_the_guests_own_behind_an_exception() -> None:
    """KVM gives PSTATE.SS back only to a guest that had it, while userspace steps it."""
    for own, marks, explained in (
        (exceptions.SS, DEBUG["stepped"], True),
        (exceptions.SS, 0, False),
        (0, DEBUG["stepped"], False),
    ):
        before = but(S, pstate=0x3C5 | own)
        out = trap(before, esr("IABT_LOW", 5), marks=marks, **page(HOLE))
        taken = exceptions.take_exception(before, 0x8600_0010, HOLE)
        told = user(but(taken, pstate=0x3C5 | exceptions.SS), 10, marks=marks)
        found = unexplained(turn(out, told, entry(told.values, marks=marks)))
        assert ("restore.pstate" not in found) == explained
        for ss in (0, exceptions.SS):  # of userspace's step
            saved = but(told.values, spsr_el1=0x3C5 | ss)
            found = unexplained(turn(out, told._replace(values=saved), entry(saved, marks=marks)))
            assert ("restore.spsr_el1" not in found) == bool(marks or ss == own)


def test_only_the_last_write_counts() -> None:
    hosts = (host_set("x7", 1), host_set("x7", 2))
    assert not unexplained(turn(irq(S), *hosts, entry(but(S, x7=2))))
    assert unexplained(turn(irq(S), *hosts, entry(but(S, x7=1))))


def test_a_write_that_kvm_refused_explains_nothing() -> None:
    round_ = turn(irq(S), host_set("pstate", 0x3CF, error=22), entry(but(S, pstate=0x3CF)))
    assert unexplained(round_) == {"restore.pstate", "host.pstate"}
    assert not unexplained(turn(irq(S), host_set("pstate", 0x3CF, error=22), entry(S)))


def test_a_host_write_of_pc_is_followed_by_the_completion() -> None:
    """API: a pending access is completed at the next KVM_RUN, from wherever PC is then."""

    def written(pc: int, pending: int) -> Round:
        return turn(
            trap(S, load_esr(5, write=True), **page(WINDOW)),
            user(S, MMIO_EXIT),
            host_set("pc", AT + 0x40),
            entry(but(S, pc=pc), pending),
        )

    assert not unexplained(written(AT + 0x40, SKIP))
    assert unexplained(written(AT + 0x40, 0))
    assert unexplained(written(AT + 0x44, SKIP))


def test_debug_control_that_the_host_wrote_while_the_os_lock_is_set() -> None:
    for observed, explained in ((0x8004, True), (0x0004, True), (0x8000, False), (0x000C, False)):
        round_ = turn(irq(S), host_set("mdscr_el1", 0x8004), entry(but(S, mdscr_el1=observed)))
        assert ("restore.mdscr_el1" not in unexplained(round_)) is explained


def test_an_access_that_is_completed_ends_a_step() -> None:
    pstate = S[exceptions.PSTATE]
    stepped = but(S, pstate=pstate | exceptions.SS)
    for wrong in (0, 1 << 28):
        round_ = turn(
            trap(stepped, load_esr(5, write=True), **page(WINDOW)),
            user(stepped, MMIO_EXIT),
            entry(but(stepped, pstate=pstate | exceptions.SS | wrong), SKIP),
        )
        assert differences(round_)["restore.pstate"] == (None if wrong else "mmio-ends-step")


def test_a_call_that_writes_x4() -> None:
    good = BY_NAME["psci"].round
    assert unexplained(with_entry(good, x4=0)) == {"save.dirty.x4", "restore.x4", "host.x4"}


@pytest.mark.parametrize("register", ["x1", "x2", "x3"])
def test_a_call_result_that_is_not_zero(register: str) -> None:
    bad = unexplained(with_entry(BY_NAME["psci"].round, **{register: 1}))
    assert bad == {f"{relation}.{register}" for relation in ("restore", "host", "save.dirty")}


def test_results_of_a_call_only_after_a_call() -> None:
    assert unexplained(turn(trap(S, esr("WFX")), entry(but(S, x1=0), SKIP))) == {
        "save.dirty.x1",
        "restore.x1",
        "host.x1",
    }


@pytest.mark.parametrize("level", CATALOGUES)
def test_what_a_level_predicts_needs_no_entry(level: str) -> None:
    """The deployed code adds 4 where the proof's levels lose the flag: its entries must not be the proof's."""
    found = differences(BY_NAME["mmio_read"].round, level)
    assert found == ({} if level == "kernel" else dict(BY_NAME["mmio_read"].known))
    assert (differences(BY_NAME["id_register"].round, level) == {}) == (level == "kernel")


ENTRY = """
[[known]]
id = "one"
relations = ["save"]
explains = "host_wrote"
verdict = "model"
why = "because"
source = "docs/spec/model.md"
"""


@pytest.mark.parametrize(
    ("text", "line", "reason"),
    [
        (ENTRY + "colour = 1\n", 2, "unknown key 'colour'"),
        (ENTRY.replace('"because"', '""'), 2, "why: expected a text"),
        (ENTRY.replace('id = "one"\n', ""), 2, "id: expected a text"),
        (ENTRY.replace('["save"]', "[]"), 2, "relations: expected at least one"),
        (ENTRY.replace('["save"]', '"save"'), 2, "relations: expected a list of texts"),
        (ENTRY.replace('["save"]', "[1]"), 2, "relations: expected a list of texts"),
        (ENTRY.replace("host_wrote", "guessed"), 2, "explains 'guessed': expected one of host_wrote"),
        (ENTRY.replace("host_wrote", "named"), 2, "explains 'named': expected helpers and outcomes"),
        (ENTRY.replace('"model"', '"fine"'), 2, "verdict 'fine': expected one of model"),
        (ENTRY + "reset = 1\n", 2, "reset: expected true or false"),
        (ENTRY + ENTRY.replace('"one"', '"two"').replace("because", ""), 10, "why: expected a text"),
        ("known = 5\n", None, "expected [[known]] entries"),
        ("[[known]\n", None, "no catalogue"),
        ("\xff", None, "no catalogue"),
    ],
)
def test_a_wrong_catalogue(tmp_path: Path, text: str, line: int | None, reason: str) -> None:
    path = tmp_path / "levels.toml"
    path.write_bytes(text.encode("latin-1"))
    with pytest.raises(InputError) as error:
        Catalogue.load(tmp_path, "spec")
    assert (error.value.where, error.value.line) == (str(path), line)
    assert error.value.reason.startswith(reason)


def test_an_id_is_used_once(tmp_path: Path) -> None:
    (tmp_path / "a.toml").write_text(ENTRY)
    (tmp_path / "b.toml").write_text(ENTRY)
    with pytest.raises(InputError, match="'one' is used twice"):
        Catalogue.load(tmp_path, "spec")


def test_entries_of_other_levels_are_left_out(tmp_path: Path) -> None:
    (tmp_path / "a.toml").write_text(ENTRY + 'levels = ["low", "body"]\nregisters = ["x1..x3", "pc"]\n')
    assert [len(Catalogue.load(tmp_path, level).entries) for level in ("spec", "low", "body", "kernel")] == [0, 1, 1, 0]
    assert Catalogue.load(tmp_path, "low").entries[0].registers == {"x1", "x2", "x3", "pc"}


def test_every_entry_says_why_and_where() -> None:
    for entry_ in Catalogue.load(KNOWN_DIR, "spec").entries:
        assert len(entry_.why.split()) >= 4
        assert len(entry_.source.split()) >= 2


def test_a_flag_is_not_a_register() -> None:
    """save.pc compares KVM's flag: that the host wrote 0 to PC does not explain that PC was not moved on."""
    round_ = turn(trap(S, esr("WFX")), host_set("pc", 0), entry(but(S, pc=0)))
    assert "save.pc" in unexplained(round_)
