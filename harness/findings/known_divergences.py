# SPDX-License-Identifier: Apache-2.0
"""The catalogue of known divergences: data that explains one exact difference each, and hides no neighbour.

An entry (``corpus/known/*.toml``) says where it applies (levels, exit classes, helpers, outcomes, registers) and
names the rule that the *value* must obey: :data:`harness.findings.explanations.RULES`.  A divergence that no entry
explains to the bit is unexplained.
"""

from __future__ import annotations

import tomllib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Final, NamedTuple

from harness.arch.registers import INDEX
from harness.errors import InputError
from harness.findings.explanations import NAMED, RULES, Case, Rule
from harness.model.prediction import Prediction
from harness.relations.divergence import Divergence
from harness.relations.errata import NONE
from harness.relations.mmio import is_mmio
from harness.trace.rounds import Round

VERDICTS: Final = ("model", "kvm", "abstraction", "emulator")


class Where(NamedTuple):
    """What an entry's conditions ask of the round of a divergence."""

    exit_class: str
    helper: str
    outcome: str
    reset: bool
    mmio: bool
    forged: bool
    protected: bool


@dataclass(frozen=True, slots=True)
class Known:
    """An entry; an empty condition holds everywhere."""

    id: str
    relations: frozenset[str]
    registers: frozenset[str]
    exits: frozenset[str]
    helpers: frozenset[str]
    outcomes: frozenset[str]
    levels: frozenset[str]
    reset: bool | None
    mmio: bool | None
    forged: bool | None
    protected: bool | None
    explains: str
    verdict: str
    why: str
    source: str
    by_rule: bool = True
    """Whether the contract decides what the entry explains; not if it does not determine how KVM may end the exit."""

    def is_about(self, relation: str, register: str) -> bool:
        """Whether the entry is about divergences of a register, the ``dirty.`` of ``save`` left out."""
        return relation in self.relations and (not self.registers or register in self.registers)

    def applies_in(self, at: Where) -> bool:
        """Whether the conditions on the round hold."""
        return (
            (not self.exits or at.exit_class in self.exits)
            and (not self.helpers or at.helper in self.helpers)
            and (not self.outcomes or at.outcome in self.outcomes)
            and (self.reset is None or self.reset == at.reset)
            and (self.mmio is None or self.mmio == at.mmio)
            and (self.forged is None or self.forged == at.forged)
            and (self.protected is None or self.protected == at.protected)
        )


class _Row(NamedTuple):
    """The candidates to explain a divergence: its register's index (-1: none), entries with rules, the one by names.

    The latter twice: if the contract allows the outcome, and if it does not determine it.
    """

    position: int
    is_dirty_bit: bool
    rules: tuple[tuple[Known, Rule], ...]
    named: Known | None
    by_conditions: Known | None


_Rows = tuple[tuple[Known, ...], dict[tuple[str, str], _Row]]
"""The entries whose conditions on a round hold, and the rows of its divergences so far, by relation and register."""

_LISTS: Final = ("relations", "registers", "exits", "helpers", "outcomes", "levels")
_SWITCHES: Final = ("reset", "mmio", "forged", "protected")
_TEXTS: Final = ("id", "explains", "verdict", "why", "source")


def _entry(row: Mapping[str, Any], where: str, line: int) -> Known:
    wrong = set(row) - {*_LISTS, *_TEXTS, *_SWITCHES}
    if wrong:
        expected = ", ".join((*_TEXTS, *_LISTS, *_SWITCHES))
        raise InputError(where, line, f"unknown key {sorted(wrong)[0]!r}: expected {expected}")
    for key in _TEXTS:
        if not isinstance(row.get(key), str) or not row[key]:
            raise InputError(where, line, f"{key}: expected a text")
    lists: dict[str, frozenset[str]] = {}
    for key in _LISTS:
        value = row.get(key, [])
        if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
            raise InputError(where, line, f"{key}: expected a list of texts")
        lists[key] = frozenset(expand(value))
    if row["explains"] not in RULES:
        raise InputError(where, line, f"explains {row['explains']!r}: expected one of {', '.join(RULES)}")
    if row["verdict"] not in VERDICTS:
        raise InputError(where, line, f"verdict {row['verdict']!r}: expected one of {', '.join(VERDICTS)}")
    if not lists["relations"]:
        raise InputError(where, line, "relations: expected at least one")
    if row["explains"] == NAMED and not (lists["helpers"] and lists["outcomes"]):
        raise InputError(where, line, f"explains {NAMED!r}: expected helpers and outcomes")
    for key in _SWITCHES:
        if not isinstance(row.get(key), bool | None):
            raise InputError(where, line, f"{key}: expected true or false")
    fields: dict[str, Any] = {**lists, **{key: row[key] for key in _TEXTS}, **{key: row.get(key) for key in _SWITCHES}}
    return Known(**fields)


def expand(names: list[str]) -> list[str]:
    """Return a list of names in which ``x0..x30`` stands for the registers between."""
    out: list[str] = []
    for name in names:
        first, dots, last = name.partition("..")
        if dots and first[:1] == last[:1] == "x" and first[1:].isdigit() and last[1:].isdigit():
            out += [f"x{i}" for i in range(int(first[1:]), int(last[1:]) + 1)]
        else:
            out.append(name)
    return out


@dataclass(frozen=True)
class Catalogue:
    """The entries that hold for one level of the model, in the order in which they are tried."""

    level: str
    entries: tuple[Known, ...]
    _found: dict[Where, _Rows] = field(default_factory=dict, init=False, repr=False, compare=False)
    """The rows found so far: the same few hundred recur."""

    def _row(self, relation: str, register: str, among: Sequence[Known]) -> _Row:
        """Look up the entries that may explain a divergence, ``among`` those whose conditions on the round hold."""
        name = register.removeprefix("dirty.")
        entries = tuple(known for known in among if known.is_about(relation, name))
        # save.pc is a flag, not the register of that name.
        flag = relation == "save" and name == register
        named = next((known for known in entries if known.explains == NAMED), None)
        return _Row(
            -1 if flag else INDEX.get("spsr_el1" if name == "spsr_0" else name, -1),
            name != register,
            tuple((known, RULES[known.explains].rule) for known in entries),
            named,
            None if named is None else replace(named, by_rule=False),
        )

    def _rows(self, where: Where) -> _Rows:
        found = self._found.get(where)
        if found is None:
            found = self._found[where] = tuple(known for known in self.entries if known.applies_in(where)), {}
        return found

    @classmethod
    def load(cls, directory: Path, level: str) -> Catalogue:
        """Read every ``*.toml`` of ``directory``.  InputError: a file or an entry that is wrong."""
        entries: list[Known] = []
        for path in sorted(directory.glob("*.toml")):
            try:
                text = path.read_text(encoding="utf-8")
                rows = tomllib.loads(text).get("known", [])
            except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError, RecursionError) as error:
                raise InputError(str(path), None, f"no catalogue: {error}") from error
            starts = [number for number, line in enumerate(text.splitlines(), 1) if line.strip() == "[[known]]"]
            if not isinstance(rows, list) or len(rows) != len(starts):
                raise InputError(str(path), None, "expected [[known]] entries, each on a line of its own")
            entries += [_entry(row, str(path), line) for row, line in zip(rows, starts, strict=True)]
        ids = [entry.id for entry in entries]
        if len(set(ids)) != len(ids):
            raise InputError(str(directory), None, f"the id {next(i for i in ids if ids.count(i) > 1)!r} is used twice")
        return cls(level, tuple(e for e in entries if not e.levels or level in e.levels))

    def explainer(
        self, round_: Round, prediction: Prediction, lossy: Mapping[int, int], errata: frozenset[str] = NONE
    ) -> Callable[[Divergence], Known | None]:
        """Return the look-up of a divergence of this round; ``lossy`` and ``errata`` as in :class:`Case`."""
        case = Case(round_, prediction, lossy, errata)
        entry_values = round_.entry.values
        exit_, kind = round_.exit, round_.exit_class
        mmio = exit_ is not None and kind == "DABT_LOW" and is_mmio(exit_, round_.world)
        forged = exit_ is not None and exit_.forged != 0
        outcome, protected = round_.action.outcome, round_.world.protected
        where = Where(kind, prediction.helper, outcome, round_.reset, mmio, forged, protected)
        among, rows = self._rows(where)

        def explain(divergence: Divergence) -> Known | None:
            key = divergence.relation, divergence.register
            row = rows.get(key)
            if row is None:
                row = rows[key] = self._row(*key, among)
            expected, observed = divergence.expected, divergence.observed
            if row.is_dirty_bit:
                # The value that was written explains that the register was written.
                expected, observed = case.exit_state[row.position], entry_values[row.position]
            if isinstance(expected, str) or isinstance(observed, str):
                if case.allowed is None:
                    return row.by_conditions
                return row.named if observed in case.allowed else None
            for known, rule in row.rules:
                if rule(case, row.position, expected, observed):
                    return known
            return None

        return explain
