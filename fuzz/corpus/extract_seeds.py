# SPDX-License-Identifier: Apache-2.0
"""Extract scenarios from a recording: a minimal one for each kind of exit in it.

A kind is the exit class, its syndrome, the decisions that the model took, and the exception level.  :data:`ROWS` has
for each exit class how a scenario reaches it; exits that no row can reproduce are counted, with the reason.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field

from harness.arch import exceptions, exits, sysregs
from harness.arch.a64 import FORM
from harness.arch.exits import DABT
from harness.arch.registers import NAMES
from harness.layout import DATA, MMIO
from harness.model.replay import predict
from harness.relations import contract
from harness.relations.mmio import is_mmio
from harness.scenario.scenario import Scenario, Step, format_scenario, parse
from harness.scenario.steps import KINDS
from harness.trace.events import EXIT, Switch, Trace
from harness.trace.recorded_rounds import RecordedRound, Span, split
from harness.trace.recording import Recorded
from harness.trace.rounds import IN_KERNEL, Round

MAX_PROGRAM = 100
"""Longest name of a program in a scenario's sentence, in characters."""
PAGE = 0x1000
FAULT = 0x3F
"""The fault status of an abort's syndrome: it is ignored, because it depends on earlier accesses."""
ACQUIRE_RELEASE = 1 << 14
"""AR of a data abort's syndrome (Arm ARM D17.2.37)."""
BASE = "x1"
"""The base register of accesses, unless it is the one that is loaded or stored."""


PLACES: Mapping[str, str] = {
    "ram": "to RAM not mapped yet",
    "no_slot": "outside the memory slots",
    "device": "to a device of userspace",
    "device_of_kvm": "to a device that KVM emulated there (here userspace)",
}
"""The target of an access: its word in names of seeds, and a phrase."""


class _NotReproducible(Exception):
    """No scenario reproduces an exit; the text is the reason."""


@dataclass(frozen=True, slots=True)
class Draft:
    """The result of a row for an exit: a name for files, a phrase for people, registers and steps."""

    name: str
    what: str
    registers: tuple[tuple[str, int], ...]
    steps: tuple[Step, ...]
    address: int | None = None


@dataclass(frozen=True, slots=True)
class Seed:
    """A scenario, the exit that it must reproduce, the number of such recorded exits, and the record of the first.

    ``address`` is that of the scenario's access, None for an exit that is no abort.
    """

    name: str
    scenario: Scenario
    exit_class: str
    esr: int
    address: int | None
    count: int
    record: int

    def shown_by(self, trace: Trace) -> bool:
        """Return whether a trace of the scenario has such an exit: class and syndrome, without the kind of fault."""
        free = FAULT if self.address is not None else 0
        return any(
            isinstance(event, Switch)
            and event.kind == EXIT
            and exits.exit_class(event.code, event.esr) == self.exit_class
            and not (event.esr ^ self.esr) & ~free
            and self.address in (None, event.far)
            for event in trace.events
        )


KEPT = 3
"""Number of rounds of one kind in an excerpt."""


@dataclass
class ExtractedSeeds:
    """The seeds of a recording, and the exits without a seed.

    Seeds are in the order of their first exits; ``spans`` are the first :data:`KEPT` rounds of each kind, also of kinds
    that no scenario reproduces (``unsupported``, by reason).
    """

    seeds: tuple[Seed, ...] = ()
    spans: tuple[Span, ...] = ()
    unsupported: Counter[str] = field(default_factory=Counter)
    exits: int = 0


Make = Callable[[Round, Switch], Draft]


def _magnitude(value: int) -> str:
    """Return the magnitude of a call's argument: its exact value is rarely relevant."""
    if value in (0, (1 << 64) - 1):
        return str(value & 1)
    return "word" if value >> 32 == 0 else "wide"


def _call(round_: Round, exit_: Switch, keyword: str) -> Draft:
    immediate, fid = exit_.esr & 0xFFFF, exit_.values[0] & 0xFFFF_FFFF
    function = exits.SMCCC_BY_FID.get(fid)
    called = function.name if function is not None else "unknown"
    asked = exits.SMCCC_BY_FID.get(exit_.values[1] & 0xFFFF_FFFF) if called == "PSCI_FEATURES" else None
    about = asked.name if asked is not None else "_".join(_magnitude(exit_.values[i]) for i in (1, 2, 3))
    registers = tuple((f"x{i}", exit_.values[i]) for i in range(4))
    name = f"{keyword}_{immediate or ''}{called}_{about}".lower()
    return Draft(name, f"{keyword.upper()} {called}", registers, (Step(keyword, (immediate,)),))


def _hvc(round_: Round, exit_: Switch) -> Draft:
    return _call(round_, exit_, "hvc")


def _smc(round_: Round, exit_: Switch) -> Draft:
    return _call(round_, exit_, "smc")


def _wfx(round_: Round, exit_: Switch) -> Draft:
    keyword = "wfe" if exit_.esr & 1 else "wfi"
    return Draft(keyword, keyword.upper(), (), (Step(keyword),))


def _brk(round_: Round, exit_: Switch) -> Draft:
    immediate = exit_.esr & 0xFFFF
    return Draft("brk", "BRK", (), (Step("brk", (immediate,)),))


def _system_register(round_: Round, exit_: Switch) -> Draft:
    access = contract.system_access(exit_.esr)
    names = sysregs.READABLE if access.is_read else sysregs.WRITABLE
    if access.row is None or access.row.name not in names:
        op0, op1, crn, crm, op2 = (exit_.esr >> shift & mask for shift, mask in _ENCODING)
        verb = "read" if access.is_read else "write"
        raise _NotReproducible(f"{verb} of S{op0}_{op1}_C{crn}_C{crm}_{op2}, not in harness/arch/sysregs.py")
    name = access.row.name
    target = f"x{access.rt}" if access.rt != 31 else "xzr"
    zero = "_zero" if access.rt == 31 else ""
    if access.is_read:
        return Draft(f"read_{name}{zero}", f"a read of {name}", (), (Step("mrs", (target, name)),))
    value = ((target, exit_.values[access.rt]),) if access.rt != 31 else ()
    return Draft(f"write_{name}{zero}", f"a write of {name}", value, (Step("msr", (name, target)),))


_ENCODING = ((20, 3), (14, 7), (10, 15), (1, 15), (17, 7))
"""Shift and mask of op0, op1, CRn, CRm, op2 in a SYS64 syndrome (Arm ARM D17.2.37)."""


def _fetch(round_: Round, exit_: Switch) -> Draft:
    address, where = _address(round_, exit_)
    address &= ~3
    return Draft(f"fetch_{where}", f"a fetch, {PLACES[where]}", ((BASE, address),), (Step("br", (BASE,)),), address)


def _address(round_: Round, exit_: Switch) -> tuple[int, str]:
    """Return an address of the scenario with the same kind of memory as that of the recorded abort, and its kind."""
    if DABT["S1PTW"].get(exit_.esr):
        raise _NotReproducible("a fault on a stage-1 walk")
    address = exit_.address
    slot = round_.world.slot(address)
    if slot is None:
        return (address, "no_slot") if address in MMIO else (MMIO.base + address % PAGE, "no_slot")
    return DATA.base + address % PAGE, "ram"


def _access(round_: Round, exit_: Switch) -> Draft:
    if DABT["CM"].get(exit_.esr):
        raise _NotReproducible("cache maintenance by address")
    if exit_.esr & ACQUIRE_RELEASE and DABT["ISV"].get(exit_.esr):
        raise _NotReproducible("a load-acquire or store-release")
    address, where = _address(round_, exit_)
    mmio = is_mmio(exit_, round_.world)
    if mmio and where == "ram":
        raise _NotReproducible("a store to a read-only slot")
    if mmio:
        where = "device_of_kvm" if round_.action.outcome == IN_KERNEL else "device"
    write = bool(DABT["WNR"].get(exit_.esr))
    verb = "store" if write else "load"
    if not DABT["ISV"].get(exit_.esr):
        # The syndrome does not identify the instruction: a load or store pair represents all of them.
        step = Step("stp" if write else "ldp", ("x2", "x3", BASE, 0))
        address &= ~7
        what = f"a {verb} without syndrome, {PLACES[where]}"
        return Draft(f"{verb}_pair_{where}", what, ((BASE, address),), (step,), address)
    target, size = DABT["SRT"].get(exit_.esr), 1 << DABT["SAS"].get(exit_.esr)
    wide, signed = bool(DABT["SF"].get(exit_.esr)), bool(DABT["SSE"].get(exit_.esr)) and not write
    mnemonic = _mnemonic(size, write=write, signed=signed)
    name = f"{'x' if wide else 'w'}{target}" if target != 31 else ("xzr" if wide else "wzr")
    if (mnemonic, name[0]) not in FORM:
        raise _NotReproducible(f"{mnemonic} with target {name[0]}")
    base = BASE if target != 1 else "x2"
    registers = [(base, address - address % size)]
    if write and target != 31:
        registers.append((f"x{target}", exit_.values[target]))
    steps = [Step(mnemonic, (name, base, 0))]
    if mmio and not write:
        steps.append(Step("complete", (round_.entry.mmio_data & (1 << 8 * size) - 1,)))
    form = f"{mnemonic}_{name if target == 31 else name[0]}_{where}"
    return Draft(form, f"a {verb} of {size} bytes, {PLACES[where]}", tuple(registers), tuple(steps), registers[0][1])


def _mnemonic(size: int, *, write: bool, signed: bool) -> str:
    suffix = {1: "b", 2: "h", 4: "w" if signed else "", 8: ""}[size]
    return f"{'str' if write else 'ldr'}{'s' if signed else ''}{suffix}"


@dataclass(frozen=True, slots=True)
class Row:
    """How a scenario reaches an exit class: keywords of steps (rows of ``KINDS``), and the function that uses them."""

    exit_class: str
    keywords: tuple[str, ...]
    make: Make


ROWS: tuple[Row, ...] = (
    Row("HVC64", ("hvc",), _hvc),
    Row("SMC64", ("smc",), _smc),
    Row("WFX", ("wfi", "wfe"), _wfx),
    Row("BRK64", ("brk",), _brk),
    Row("SYS64", ("mrs", "msr"), _system_register),
    Row("IABT_LOW", ("br",), _fetch),
    Row("DABT_LOW", ("ldr", "str", "ldp", "stp", "complete"), _access),
)
BY_CLASS: Mapping[str, Row] = {row.exit_class: row for row in ROWS if all(k in KINDS for k in row.keywords)}
ASYNCHRONOUS: Mapping[str, str] = {
    "IRQ": "an interrupt of the host is asynchronous",
    "SERROR": "an SError is asynchronous",
}


def extract_seeds(records: Iterable[Recorded], program: str) -> ExtractedSeeds:
    """Return the seeds of a recording of ``program``.

    Each seed is a valid scenario: :func:`harness.scenario.scenario.parse` accepts its text.
    """
    result = ExtractedSeeds()
    counts: Counter[tuple[object, ...]] = Counter()
    firsts: dict[tuple[object, ...], tuple[Draft, Switch, int]] = {}
    spans: list[Span] = []
    for turn in _turns(records):
        exit_ = turn.round.exit
        if exit_ is None:
            continue
        result.exits += 1
        key: tuple[object, ...]
        try:
            draft = _draft(turn.round, exit_)
        except _NotReproducible as reason:
            why = f"{turn.round.exit_class}: {reason}"
            result.unsupported[why] += 1
            key = (why,)
        else:
            path = predict(turn.round, "spec").path
            key = (
                turn.round.exit_class,
                draft.name,
                exit_.values[exceptions.PSTATE] & exceptions.MODE == exceptions.EL0T,
                path,
            )
            firsts.setdefault(key, (draft, exit_, turn.record))
        counts[key] += 1
        if counts[key] <= KEPT:
            spans.append(Span(turn.vm, turn.vcpu, turn.round.first, turn.record))
    names: Counter[str] = Counter()
    seeds: list[Seed] = []
    for key, (draft, exit_, record) in firsts.items():
        exit_class = exits.exit_class(exit_.code, exit_.esr)
        at_el0 = exit_.values[exceptions.PSTATE] & exceptions.MODE == exceptions.EL0T
        name = f"recorded_{'el0_' if at_el0 else ''}{draft.name}"
        names[name] += 1
        name = name if names[name] == 1 else f"{name}_{names[name]}"
        scenario = _scenario(draft, program, at_el0)
        seeds.append(Seed(name, scenario, exit_class, exit_.esr, draft.address, counts[key], record))
    result.seeds, result.spans = tuple(seeds), tuple(spans)
    return result


def _draft(round_: Round, exit_: Switch) -> Draft:
    row = BY_CLASS.get(round_.exit_class)
    if row is None:
        raise _NotReproducible(ASYNCHRONOUS.get(round_.exit_class, "no step has this exit"))
    return row.make(round_, exit_)


def _turns(records: Iterable[Recorded]) -> Iterator[RecordedRound]:
    for at in split(records):
        if isinstance(at, RecordedRound):
            yield at


def _scenario(draft: Draft, program: str, at_el0: bool) -> Scenario:
    registers = dict(sorted(draft.registers, key=lambda item: NAMES.index(item[0])))
    if at_el0:
        registers["pstate"] = exceptions.DAIF | exceptions.EL0T
    where = " at EL0" if at_el0 else ""
    shown = "".join(c if c.isprintable() else "?" for c in program)
    shown = shown if len(shown) <= MAX_PROGRAM else f"{shown[: MAX_PROGRAM - 3]}..."
    about = f"{draft.what}{where}, as recorded from {shown}."
    return parse(format_scenario(Scenario(about[0].upper() + about[1:], tuple(registers.items()), draft.steps)))
