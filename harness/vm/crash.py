# SPDX-License-Identifier: Apache-2.0
"""Describe how a target was lost, as values: kind of end, state read from it, whether it is reproducible.  Pure."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from types import MappingProxyType
from typing import Any

from harness.errors import Dump, Remains

VERSION = 1
CRASH, EARLIER = "crash.json", "earlier-"
"""Names of a finding's texts: a :class:`Report`, and the prefix of the scenarios that ran before."""


@dataclass(frozen=True, slots=True)
class End:
    """How a machine ended: a row of :data:`ENDS`, its own message, and the function that it executed (may be empty)."""

    kind: str
    words: str
    place: str

    @property
    def signature(self) -> tuple[str, ...]:
        """The part that is equal for two losses of one cause; without the place of a hang, which is arbitrary."""
        function = "" if self.kind == "hang" else self.place.partition("+")[0]
        words = self.words if self.kind == "el2-panic" else _NUMBER.sub("N", self.words)
        return tuple(filter(None, (self.kind, words[:200], function)))

    @property
    def sentence(self) -> str:
        """The end in one line."""
        return f"{ENDS[self.kind]}{f' in {self.place}' if self.place else ''}: {self.words}"


ENDS: Mapping[str, str] = MappingProxyType(
    {
        "el2-panic": "KVM panicked at EL2",
        "oops": "the host kernel oopsed",
        "panic": "the host kernel panicked",
        "agent": "shadowfuzz's agent in the target failed",
        "hang": "the target hung",
        "qemu-hang": "QEMU hung",
        "qemu-death": "QEMU died",
        "protocol": "the target's answer violates the protocol",
        "lost": "the target was lost",
    }
)
"""The ways in which a target is lost, each as the beginning of a sentence."""

_WORDS: tuple[tuple[str, re.Pattern[str]], ...] = (
    # Patterns of the console's text: the first row that matches counts.  arch/arm64/kvm/handle_exit.c
    # nvhe_hyp_panic_handler, arch/arm64/kvm/hyp/*/switch.c hyp_panic; arch/arm64/mm/fault.c die_kernel_fault,
    # arch/arm64/kernel/traps.c die; kernel/panic.c; agent.c die.
    ("el2-panic", re.compile(r"nVHE hyp (?:panic|BUG) at: .*|HYP panic:")),
    ("oops", re.compile(r"Unable to handle kernel .*|kernel BUG at .*|Internal error: .*")),
    ("agent", re.compile(r"shadowfuzz agent: .*")),
    ("panic", re.compile(r"(?<=Kernel panic - not syncing: ).*")),
)
_REASONS: tuple[tuple[str, str], ...] = (
    # Reasons of the host's errors (harness.vm.qemu, harness.vm.executor).
    ("hang", "no answer to a scenario"),
    ("hang", "the agent was not ready"),
    ("qemu-hang", "did not answer within"),
    ("qemu-death", "QEMU ended"),
    ("qemu-death", "QMP "),
)
_NUMBER = re.compile(r"0x[0-9a-fA-F]+|[0-9a-fA-F]{8,}|\d+")
_PC = re.compile(r"\bpc : ([\w.$]+\+0x[0-9a-f]+)")
_EL2 = re.compile(r"(?:hyp (?:panic|BUG) at: \[<([0-9a-f]{16})>\]|HYP panic:\s*\n.*?PC:([0-9a-f]{16}))")
_ESR = re.compile(r"\bESR:([0-9a-f]{8,16})")


def end_of(reason: str, console: str, remains: Remains | None = None, *, protocol: bool = False) -> End:
    """Return how a machine ended: the kernel's last message takes precedence over the host's reason."""
    left = remains or Remains()
    for kind, pattern in () if protocol else _WORDS:
        found = pattern.search(console)
        if found is not None:
            said = _el2(console) if kind == "el2-panic" else found[0].strip()
            words = _PC.search(console, found.start())
            place = left.places.get("console") or (words[1] if words and kind == "oops" else "")
            return End(kind, said, place)
    kind = "protocol" if protocol else next((kind for kind, part in _REASONS if part in reason), "lost")
    return End(kind, reason, _hung_in(left) if kind == "hang" else "")


_VECTORS = "vectors+"


def _hung_in(left: Remains) -> str:
    """Return the function in which most samples are; for an interrupt vector, the interrupted function."""
    seen = {place: count for place, count in left.samples.items() if not place.startswith(_VECTORS)}
    place = max(seen, key=lambda place: seen[place], default=left.places.get("pc", ""))
    return left.places.get("ELR_EL1", place) if place.startswith(_VECTORS) else place


def _el2(console: str) -> str:
    found = _ESR.search(console)
    return f"exception class {int(found[1], 16) >> 26 & 0x3F:#x}" if found else "HYP panic"


def panic_address(console: str) -> int | None:
    """Return the address at which EL2 panicked, from the console."""
    found = _EL2.search(console)
    return None if found is None else int(found[1] or found[2], 16)


@dataclass(frozen=True, slots=True)
class Reproduction:
    """Reproduction of a loss in fresh machines: hits and runs of the last scenario alone, and after those before it.

    ``before``: the number of scenarios that must run before it, as far as was tested.
    """

    alone: tuple[int, int]
    sequence: tuple[int, int]
    before: int

    @property
    def hits(self) -> int:
        """How often it was reproduced, in the way that is reported."""
        return (self.sequence if self.before else self.alone)[0]


@dataclass(frozen=True, slots=True)
class Report:
    """A loss as a finding keeps it, in the text ``crash.json``; ``again`` is None until reproduction was tested."""

    kind: str
    words: str
    place: str
    reason: str
    remains: Remains
    again: Reproduction | None = None


def to_text(report: Report) -> str:
    """Return the text of ``crash.json``; registers are hexadecimal."""
    data: dict[str, Any] = {"version": VERSION} | asdict(report)
    data["remains"]["registers"] = {name: hex(value) for name, value in report.remains.registers.items()}
    return json.dumps(data, indent=1) + "\n"


def from_text(text: str) -> Report:
    """Return the report in ``crash.json``.  ValueError: another version wrote it, or it was edited."""
    try:
        data = json.loads(text)
        if data.pop("version") != VERSION:
            raise ValueError("another version")
        left = data["remains"]
        registers = {str(name): int(value, 16) for name, value in left["registers"].items()}
        places = {str(name): str(place) for name, place in left["places"].items()}
        dump = None if left["dump"] is None else _dump(left["dump"])
        tried = None if data["again"] is None else _again(data["again"])
        samples = {str(place): int(count) for place, count in left.get("samples", {}).items()}
        remains = Remains(registers, places, samples, dump, tuple(map(str, left["missing"])))
        kind, words, place, reason = (str(data[name]) for name in ("kind", "words", "place", "reason"))
        return Report(kind, words, place, reason, remains, tried)
    except (KeyError, TypeError, AttributeError, RecursionError, OverflowError) as error:
        raise ValueError(f"not a crash report: {error!r}") from error


def _dump(table: Mapping[str, Any]) -> Dump:
    return Dump(str(table["path"]), int(table["ram_bytes"]), int(table["file_bytes"]), float(table["seconds"]))


def _again(table: Mapping[str, Any]) -> Reproduction:
    (hits, runs), (more, of), before = table["alone"], table["sequence"], table["before"]
    numbers = (hits, runs, more, of, before)
    if not all(type(number) is int for number in numbers) or not (
        0 <= hits <= runs and 0 <= more <= of and before >= 0
    ):
        raise ValueError(f"inconsistent counts: {str(numbers)[:80]}")
    return Reproduction((hits, runs), (more, of), before)
