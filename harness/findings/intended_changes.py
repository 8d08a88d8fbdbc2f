# SPDX-License-Identifier: Apache-2.0
"""Read the intended changes between kernel releases: rows, each exact in place, version and values, with its source.

``corpus/known/releases.toml`` holds ``[[intended]]`` rows.  A row has the release from which on KVM behaves in the new
way (``since``), the places of the change (events, registers, exit classes, calls) and the pairs of values that it
explains (:data:`RULES`).  A difference that it does not explain to the bit stays a divergence of relation ``against``.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

from harness.arch import exceptions, exits
from harness.arch.registers import INDEX, MASK64
from harness.errors import InputError
from harness.findings.known_divergences import expand
from harness.relations import contract, mmio
from harness.trace import psci
from harness.trace.events import Switch

Release = tuple[int, int, int]
"""A kernel's version: major, minor, patch level."""
FILE = "releases.toml"
VERDICT = "intended"


@dataclass(frozen=True, slots=True)
class Spot:
    """Where two traces differ; of every pair the first belongs to the older release.

    ``event`` is entry, exit, user or run; ``register`` what differs there; ``call`` the SMCCC function or the system
    register that the last exit asked for, empty if it was none; ``exits`` are the exits before, ``faults`` the last
    ones on the same page, ``events`` the records that differ (None: only the other release has one).
    """

    event: str
    register: str
    exit_class: str
    call: str
    exits: tuple[Switch | None, Switch | None]
    faults: tuple[Switch | None, Switch | None]
    events: tuple[Switch | None, Switch | None]


Value = int | str
Rule = Callable[["Intended", Spot, Value, Value], bool]
"""(row, spot, value on the older release, value on the newer one) to whether the row explains exactly this."""


def _values(row: Intended, spot: Spot, old: Value, new: Value) -> bool:
    return (old, new) == row.values


def _sign_extended(row: Intended, spot: Spot, old: Value, new: Value) -> bool:
    if isinstance(old, str) or isinstance(new, str):
        return False
    return bool(new >> 31 == 1) and old == new | 0xFFFF_FFFF << 32


def _narrowed(row: Intended, spot: Spot, old: Value, new: Value) -> bool:
    return isinstance(old, int) and isinstance(new, int) and old == new & row.bits


def _load_sign(row: Intended, spot: Spot, old: Value, new: Value) -> bool:
    exit_, entry = spot.exits[1], spot.events[1]
    if exit_ is None or entry is None or isinstance(old, str) or isinstance(new, str):
        return False
    if not exits.DABT["SSE"].get(exit_.esr) or spot.register != f"x{exits.DABT['SRT'].get(exit_.esr)}":
        return False
    width = 8 << exits.DABT["SAS"].get(exit_.esr)
    return mmio.mmio_data(exit_, entry.mmio_data) == new and old == new & (MASK64 >> (64 - width))


_LOAD, _STORE, _FETCH = "load", "store", "fetch"
_MISSING = exits.FSC_TRANSLATION
_TRANSLATION, _PERMISSION = exits.FSC_TRANSLATION | 3, exits.FSC_PERMISSION | 3
"""Fault status of a page that is not mapped at stage 2, and of one that is, but not for this access (level 3)."""


def _fault(exit_: Switch | None) -> tuple[str, int]:
    """Return the kind of an abort, and its fault status; empty for any other record."""
    kind = "" if exit_ is None else exits.exit_class(exit_.code, exit_.esr)
    if exit_ is None or kind not in ("IABT_LOW", "DABT_LOW"):
        return "", 0
    access = _FETCH if kind == "IABT_LOW" else _STORE if exits.DABT["WNR"].get(exit_.esr) else _LOAD
    return access, exits.DABT["FSC"].get(exit_.esr)


def _copied_page(row: Intended, spot: Spot, old: Value, new: Value) -> bool:
    """A store found a page that a load had mapped read-only, and the kernel copied it.

    From there on the older release has the copy mapped read-only, the newer one has nothing mapped; once a load has
    mapped it again there, too, only the older one still has to fault at a store.
    """
    before, after = map(_fault, spot.faults)
    here, there = map(_fault, spot.events)
    if before == after and spot.exits == spot.faults and before[0] == _STORE and before[1] & exits.FSC_TYPE == _MISSING:
        # Nothing was mapped, but the kernel had the zero page there: it copied that.
        return isinstance(old, int) and here == (_STORE, _PERMISSION) and there == (_STORE, _TRANSLATION)
    if before != (_STORE, _PERMISSION):
        return False
    if after == (_STORE, _PERMISSION):
        if not here[0]:
            return there == (_LOAD, _TRANSLATION)
        differ = isinstance(old, int) and isinstance(new, int) and old ^ new == _PERMISSION ^ _TRANSLATION
        return differ and here[1] == _PERMISSION and there == (here[0], _TRANSLATION) and here[0] != _LOAD
    return after == (_LOAD, _TRANSLATION) and here == (_STORE, _PERMISSION) and not there[0]


def _index(spot: Spot) -> int:
    """Return the number of a general-purpose register, -1 of anything else."""
    return int(spot.register[1:]) if re.fullmatch(r"x\d+", spot.register) else -1


def _secure_call(row: Intended, spot: Spot, old: Value, new: Value) -> bool:
    asked, index = spot.exits[0], _index(spot)
    if asked is None or asked.esr & 0xFFFF:
        return False
    if spot.register == "event":
        return (old, new) == ("entry", "user") and spot.call in _ENDS
    if not 0 <= index < 4:
        return False
    required = contract.call_status(asked) if index == 0 else contract.call_result(asked, index)
    refused = psci.NOT_SUPPORTED if index == 0 else asked.values[index]
    return old == refused and (
        required is None or new == required or (isinstance(required, frozenset) and new in required)
    )


_ENDS = frozenset(
    {"PSCI_SYSTEM_OFF", "PSCI_SYSTEM_RESET", "PSCI_SYSTEM_RESET2_32", "PSCI_SYSTEM_RESET2_64"}
    | {"PSCI_SYSTEM_OFF2_32", "PSCI_SYSTEM_OFF2_64"}
)
"""Calls that end in userspace (KVM API 5, KVM_EXIT_SYSTEM_EVENT)."""


def _id_field(row: Intended, spot: Spot, old: Value, new: Value) -> bool:
    trap = spot.exits[0]
    if trap is None or isinstance(old, str) or isinstance(new, str) or old ^ new & ~row.bits & MASK64 != old & row.bits:
        return False
    return _read_by(trap) == _index(spot) and (old & row.bits, new & row.bits) == row.values


def _read_by(trap: Switch) -> int:
    access = contract.system_access(trap.esr)
    return access.rt if access.is_read else -1


def _undefined(row: Intended, spot: Spot, old: Value, new: Value) -> bool:
    before, after = spot.exits
    index = INDEX.get(spot.register, -1)
    if before is None or after is None or index < 0:
        return False
    taken = exceptions.take_exception(before.values, esr=_UNDEFINED)
    return (old, new) == (taken[index], after.values[index])


_UNDEFINED = 1 << 25
"""ESR_EL1 of an exception whose class is 0, unknown reason; IL is set (Arm ARM D17.2.37)."""


def _serror_taken(row: Intended, spot: Spot, old: Value, new: Value) -> bool:
    before, after = spot.events
    index = INDEX.get(spot.register, -1)
    if before is None or after is None or index < 0:
        return False
    pending, done = before.values, after.values
    taken = exceptions.take_exception(pending, esr=done[exceptions.ESR], offset=exceptions.SERROR_OFFSET)
    return done[exceptions.ESR] >> exits.EC_SHIFT == _SERROR and (old, new) == (pending[index], taken[index])


_SERROR = 0x2F


def _bits_set(row: Intended, spot: Spot, old: Value, new: Value) -> bool:
    return isinstance(old, int) and not old & row.bits and new == old | row.bits


def _walk_level(row: Intended, spot: Spot, old: Value, new: Value) -> bool:
    asked = spot.exits[1]
    if asked is None or not exits.DABT["S1PTW"].get(asked.esr) or isinstance(old, str) or isinstance(new, str):
        return False
    return old & _STATUS == exits.FSC_EXTABT and new == old & ~_STATUS | _WALK_ABORT | asked.esr & 3


_STATUS, _WALK_ABORT = 0x3F, exits.FSC_EXTABT | 4


def _status(row: Intended, spot: Spot, old: Value, new: Value) -> bool:
    asked = spot.exits[0]
    return asked is not None and asked.esr & _STATUS == row.bits and (old, new) == row.values


def _trapped(row: Intended, spot: Spot, old: Value, new: Value) -> bool:
    return (old, new) == ("nothing", spot.call)


RULES: Mapping[str, tuple[Rule, str]] = MappingProxyType(
    {
        "values": (_values, "exactly the row's values, the older release's first"),
        "sign_extended": (_sign_extended, "the older value is the newer one, sign-extended from 32 to 64 bits"),
        "narrowed": (_narrowed, "the older value is the newer one, of which the older release keeps the row's bits"),
        "secure_call": (
            _secure_call,
            "the older release rejects the SMC, the newer one answers as PSCI and SMCCC require",
        ),
        "id_field": (_id_field, "what was read from an ID register: the row's values in the row's bits, else the same"),
        "undefined": (_undefined, "the older release injects an undefined-instruction exception, the newer none"),
        "fault_status": (_status, "the row's values, for an abort with the fault status that bits holds"),
        "serror_taken": (_serror_taken, "the newer release has taken the SError that is pending on the older one"),
        "bits_set": (_bits_set, "the newer release sets the row's bits"),
        "walk_level": (_walk_level, "an abort on a stage-1 walk: the newer release says at which level"),
        "trapped": (_trapped, "the newer release traps an access that the older one lets through"),
        "copied_page": (
            _copied_page,
            "faults on a page that a store made the kernel copy: the older release keeps the copy mapped read-only",
        ),
        "load_sign": (
            _load_sign,
            "the load's register: sign-extended data as required; the older release zero-extends",
        ),
    }
)


@dataclass(frozen=True, slots=True)
class Intended:
    """A row; an empty condition holds everywhere."""

    id: str
    since: Release
    events: frozenset[str]
    registers: frozenset[str]
    exits: frozenset[str]
    calls: frozenset[str]
    explains: str
    values: tuple[Value, ...]
    bits: int
    why: str
    source: str
    verdict: str = VERDICT

    def holds(self, spot: Spot, old: Value, new: Value) -> bool:
        """Whether the row explains this difference; its release is checked elsewhere."""
        return (
            spot.event in self.events
            and spot.register in self.registers
            and (not self.exits or spot.exit_class in self.exits)
            and (not self.calls or spot.call in self.calls)
            and RULES[self.explains][0](self, spot, old, new)
        )


_TEXTS = ("id", "since", "explains", "why", "source")
_TAKES_VALUES = ("values", "id_field", "fault_status")
_TAKES_BITS = ("narrowed", "id_field", "fault_status", "bits_set")
_LISTS = ("events", "registers", "exits", "calls")


def release(version: str) -> Release:
    """Return the kernel's version at the front of a release or package version; (0, 0, 0) if it has none."""
    match = re.match(r"(\d+)\.(\d+)(?:\.(\d+))?", version)
    return (0, 0, 0) if match is None else (int(match[1]), int(match[2]), int(match[3] or 0))


def _number(value: object, where: str, key: str) -> Value:
    if isinstance(value, str) and re.fullmatch(r"0x[0-9a-f]{1,16}", value):
        return int(value, 16)
    if isinstance(value, str) and value:
        return value
    raise InputError(where, None, f"{key}: expected a hexadecimal number such as '0x1f' or a text")


def _row(row: Mapping[str, Any], where: str) -> Intended:
    wrong = set(row) - {*_TEXTS, *_LISTS, "values", "bits"}
    if wrong:
        raise InputError(where, None, f"unknown key {sorted(wrong)[0]!r}")
    for key in _TEXTS:
        if not isinstance(row.get(key), str) or not row[key]:
            raise InputError(where, None, f"{key}: expected a text")
    where = f"{where}, {row['id']}"
    for key in _LISTS:
        value = row.get(key, [])
        if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
            raise InputError(where, None, f"{key}: expected a list of texts")
    if not row.get("events") or not row.get("registers"):
        raise InputError(where, None, "expected events and registers: a row says where it shows")
    if row["explains"] not in RULES:
        raise InputError(where, None, f"explains {row['explains']!r}: expected one of {', '.join(RULES)}")
    since = release(row["since"])
    if not re.fullmatch(r"\d+\.\d+(\.\d+)?", row["since"]):
        raise InputError(where, None, f"since {row['since']!r}: expected a release such as '6.13' or '6.12.50'")
    values = row.get("values", [])
    if not isinstance(values, list) or len(values) != (2 if row["explains"] in _TAKES_VALUES else 0):
        raise InputError(where, None, "values: expected two with this rule, or none")
    bits = _number(row["bits"], where, "bits") if "bits" in row else 0
    if isinstance(bits, str) or bool(bits) != (row["explains"] in _TAKES_BITS):
        raise InputError(where, None, "bits: expected a number with this rule, or none")
    events, registers, classes, calls = (frozenset(expand(row.get(key, []))) for key in _LISTS)
    return Intended(
        row["id"],
        since,
        events,
        registers,
        classes,
        calls,
        row["explains"],
        tuple(_number(value, where, "values") for value in values),
        bits,
        row["why"],
        row["source"],
    )


@dataclass(frozen=True, slots=True)
class Changes:
    """The rows whose release is between two others: what may differ between them."""

    rows: tuple[Intended, ...]

    def explain(self, spot: Spot, old: Value, new: Value) -> Intended | None:
        """Return the row that explains a difference, None if none does."""
        return next((row for row in self.rows if row.holds(spot, old, new)), None)


def load_changes(directory: Path) -> tuple[Intended, ...]:
    """Read ``releases.toml`` of a directory.  InputError: it, or a row of it, is wrong."""
    path = directory / FILE
    try:
        rows = tomllib.loads(path.read_text(encoding="utf-8"))["intended"]
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError, RecursionError, KeyError) as error:
        raise InputError(str(path), None, f"no list of intended changes: {error}") from error
    if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
        raise InputError(str(path), None, "expected [[intended]] rows")
    found = tuple(_row(row, str(path)) for row in rows)
    ids = [row.id for row in found]
    if len(set(ids)) != len(ids):
        raise InputError(str(path), None, f"the id {next(i for i in ids if ids.count(i) > 1)!r} is used twice")
    return found


def between(rows: tuple[Intended, ...], one: str, other: str) -> Changes:
    """Return the rows that separate two package versions or releases, whichever is the older."""
    old, new = sorted((release(one), release(other)))
    return Changes(tuple(row for row in rows if old < row.since <= new))
