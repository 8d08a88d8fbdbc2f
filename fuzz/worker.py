# SPDX-License-Identifier: Apache-2.0
"""What a worker of the live campaign does with one input: run, compare, confirm, count, keep.  Knows no atheris."""

from __future__ import annotations

import re
import traceback
from collections import deque
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass

from fuzz.features import features
from fuzz.stats import StatsWriter
from fuzz.store import OTHER_TRACE, TRACE, Store
from harness.check import Checked, signature
from harness.compare import Divergence
from harness.errors import InputError, SetupError, TargetError, VmLost
from harness.findings import MAX_DIVERGENCES, Finding, Signature, Subject, Tries, difference, finding_id
from harness.report.book import NOT_TAKEN, TAKEN
from harness.scenario import Scenario, format_scenario, parse
from harness.simplify import simplicity
from harness.trace import Trace
from harness.tracefile import format_trace

MAX_LOSSES = 5
"""So many lost machines in a row (none of them finished a scenario) and the worker gives up."""
MAX_INTERNAL = 20
"""So many failures of our own, and it gives up as well: what it counts means little."""
REMEMBERED = 8
"""Scenarios that a crash finding shows besides the one that was running."""


@dataclass(frozen=True, slots=True)
class Seen:
    """What one comparison made of a scenario's run: of ``subject`` alone, or of it and ``other``, a trace each."""

    subject: Subject
    checked: Checked
    traces: tuple[Trace, ...]
    other: Subject | None = None


Watch = Callable[[Scenario, bool], tuple[Seen, ...]]
"""Runs a scenario, in a fresh VM or not, and compares: on one target, or on two and then with each other."""
Key = tuple[Subject, Subject | None, Signature]
"""Names a cluster: what was tested, alone or against what, and the signature."""


class GiveUp(Exception):
    """The worker cannot go on; the text says why."""


@dataclass(frozen=True)
class Services:
    """What a worker needs of the world.

    ``boot`` gives what runs scenarios on booted machines and compares; ``hit`` takes a coverage counter; ``ran`` is
    told when an input has been run, before it is confirmed; ``findings`` and ``flaky`` keep what was found;
    ``subjects`` are what is tested, one or two; ``now`` is the date as ISO 8601, ``ticks`` a clock in nanoseconds that
    all processes share.
    """

    boot: Callable[[], AbstractContextManager[Watch]]
    hit: Callable[[int], None]
    ran: Callable[[], None]
    stats: StatsWriter
    findings: Store
    flaky: Store
    subjects: tuple[Subject, ...]
    now: Callable[[], str]
    ticks: Callable[[], int]


class Worker:
    """One machine, and the scenarios that it is given."""

    def __init__(self, services: Services) -> None:
        self._with = services
        self._stats = services.stats
        self._machine = ExitStack()
        self._watch: Watch | None = None
        self._losses = 0
        self._internal = 0
        self._recent: deque[Scenario] = deque(maxlen=REMEMBERED)
        self._branches: set[tuple[str, bool]] = set()
        # What is kept, with how simple its scenario is: a simpler one is worth being confirmed, too.
        self._confirmed = services.findings.simplicities()

    def begin(self) -> None:
        """Boot for the first time.  TargetError: the machine does not come up; a finding has its console."""
        try:
            self._start()
        except TargetError as error:
            self._lost(None, error)
            raise

    def _start(self) -> None:
        self._watch = self._machine.enter_context(self._with.boot())
        if not self._stats.get("time", "ready"):
            self._stats.put("time", "ready", self._with.ticks())

    def close(self) -> None:
        """End the machine."""
        self._watch = None
        self._machine.close()

    def one(self, data: bytes) -> None:
        """Do all that is to be done with one input.  GiveUp, SetupError: there is no point in going on."""
        try:
            scenario = parse(data)
        except InputError:
            self._stats.add("count", "invalid")
            return
        try:
            if self._watch is None:
                self._start()
            self._scenario(scenario)
            self._losses = 0
        except TargetError as error:
            self._lost(scenario, error)
        except SetupError:
            raise
        except Exception as error:  # a fault of ours is a finding too: it must not end the campaign
            self._failed(scenario, error)

    def _run(self, scenario: Scenario, *, fresh_vm: bool) -> tuple[Seen, ...]:
        assert self._watch is not None
        return self._watch(scenario, fresh_vm)

    def _scenario(self, scenario: Scenario) -> None:
        found = self._run(scenario, fresh_vm=False)
        self._with.ran()
        self._stats.add("count", "scenarios")
        for seen in found:
            if seen.other is None:
                self._stats.add("status", seen.checked.status)
                for index in features(seen.traces[0], seen.checked):
                    self._with.hit(index)
                    self._stats.saw(index)
            self._count(seen.checked)
        if any(seen.checked.unexplained for seen in found):
            self._unexplained(scenario, found)
        self._recent.append(scenario)

    def _count(self, checked: Checked) -> None:
        stats = self._stats
        stats.add_all("exits", checked.exits)
        stats.add_all("relations", checked.relations)
        stats.add_all("unchecked", checked.unchecked)
        stats.add_all("undefined", checked.undefined)
        if checked.dropped:
            stats.add("count", "dropped", checked.dropped)
        for judged in checked.judged:
            if judged.known is not None:
                stats.add("known", judged.known.id)
        # Once a worker: which ways were seen, not how often.
        new = {decision for _, path in checked.paths for decision in path} - self._branches
        self._branches |= new
        for name, taken in new:
            stats.add("branches", f"{name}{TAKEN if taken else NOT_TAKEN}")
        # An exit counts as checked when the host's turn after it was replayed on the model and compared.  The last
        # exit of a scenario has no such turn.
        exits = checked.relations.get("save", 0) - sum(1 for name, _ in checked.paths if name == "FIRST")
        if exits > 0:
            stats.add("count", "checked_exits", exits)
            if not stats.get("time", "first_exit"):
                stats.put("time", "first_exit", self._with.ticks())

    # ---- divergences that nothing explains ---------------------------------------------------------------------

    def _unexplained(self, scenario: Scenario, found: tuple[Seen, ...]) -> None:
        clusters = _clusters(found)
        ids = {key: finding_id("divergence", key[2], *key[:2]) for key in clusters}
        weight = simplicity(scenario)
        new = {key for key in clusters if self._confirmed.get(ids[key], weight + 1) > weight}
        texts = {(s.subject, s.other): _texts(s) for s in found} if new else {}
        same: set[Key] = set()
        fresh: set[Key] = set()
        if new:
            self._stats.add("count", "confirmations")
            try:
                same = set(_clusters(self._run(scenario, fresh_vm=False)))
                fresh = set(_clusters(self._run(scenario, fresh_vm=True)))
            except TargetError:
                # Not confirmed, not forgotten: kept as flaky, and the caller sees to the machine.
                for key, members in clusters.items():
                    tries = (Tries(int(key in same), 1), Tries(0, 0))
                    self._keep(scenario, key, members, tries, texts.get(key[:2], {}), confirmed=key not in new)
                raise
        for key, members in clusters.items():
            if key in new:
                tries = (Tries(int(key in same), 1), Tries(int(key in fresh), 1))
                self._keep(scenario, key, members, tries, texts[key[:2]], confirmed=key in same and key in fresh)
            else:
                self._keep(scenario, key, members, (Tries(0, 0), Tries(0, 0)), {}, confirmed=True)

    def _keep(
        self,
        scenario: Scenario,
        key: Key,
        members: list[Divergence],
        tries: tuple[Tries, Tries],
        extra: Mapping[str, str],
        *,
        confirmed: bool,
    ) -> None:
        subject, other, name = key
        shown = tuple(difference(d) for d in members[:MAX_DIVERGENCES])
        finding = Finding("divergence", name, subject, shown, len(members), *tries, self._with.now(), other=other)
        self._stats.add("unexplained" if confirmed else "flaky", finding.id, len(members))
        if not confirmed:
            self._store(self._with.flaky, finding, scenario, extra)
        elif not tries[1].runs:  # not run again: neither new nor simpler
            self._store(self._with.findings, finding, scenario, extra, seen=True)
        elif self._store(self._with.findings, finding, scenario, extra):
            self._confirmed[finding.id] = simplicity(scenario)

    def _store(
        self, store: Store, finding: Finding, scenario: Scenario | None, extra: Mapping[str, str], *, seen: bool = False
    ) -> bool:
        try:
            if seen:
                store.bump(finding.id, finding.first_seen)
            else:
                store.add(finding, scenario, extra)
        except OSError as error:
            # The campaign goes on counting; the summary says that this could not be kept.
            self._stats.add("unwritten", f"{error.strerror or error}")
            self._stats.put("missing", f"{finding.id} {' '.join(finding.signature)}", 1)
            return False
        return True

    # ---- what is no divergence -----------------------------------------------------------------------------------

    def _lost(self, scenario: Scenario | None, error: TargetError) -> None:
        reason = str(error)
        console = error.console_tail if isinstance(error, VmLost) else ""
        self._stats.add("lost", re.sub(r"0x[0-9a-fA-F]+|\d+", "N", reason))
        lost = error.config if isinstance(error, VmLost) else ""
        subject = next((s for s in self._with.subjects if s.target == lost), self._with.subjects[0])
        finding = self._plain("crash", (type(error).__name__, _gist(reason, console)), subject, reason)
        self._store(self._with.findings, finding, scenario, {"console.txt": console, **self._earlier()})
        self._stats.add("crashes", finding.id)
        self._losses += 1
        self.close()
        if self._losses >= MAX_LOSSES:
            raise GiveUp(f"the machine was lost {self._losses} times in a row, the last time: {reason}") from error

    def _failed(self, scenario: Scenario, error: Exception) -> None:
        where = traceback.extract_tb(error.__traceback__)[-1]
        text = "".join(traceback.format_exception(error))
        signature_ = (type(error).__name__, f"{where.filename.rpartition('/')[2]}:{where.name}")
        finding = self._plain("internal", signature_, self._with.subjects[0], str(error))
        self._store(self._with.findings, finding, scenario, {"traceback.txt": text})
        self._stats.add("internal", finding.id)
        self._internal += 1
        if self._internal >= MAX_INTERNAL:
            raise GiveUp(f"shadowfuzz itself failed {self._internal} times, the last time: {error!r}") from error

    def _plain(self, kind: str, key: Signature, subject: Subject, detail: str) -> Finding:
        never = Tries(0, 0)
        return Finding(kind, key, subject, (), 0, never, never, self._with.now(), detail)

    def _earlier(self) -> dict[str, str]:
        return {f"earlier-{i}.scn": format_scenario(s) for i, s in enumerate(reversed(self._recent), 1)}


def _clusters(found: tuple[Seen, ...]) -> dict[Key, list[Divergence]]:
    clusters: dict[Key, list[Divergence]] = {}
    for seen in found:
        for divergence in seen.checked.unexplained:
            clusters.setdefault((seen.subject, seen.other, signature(divergence)), []).append(divergence)
    return clusters


def _texts(seen: Seen) -> dict[str, str]:
    return {name: format_trace(trace) for name, trace in zip((TRACE, OTHER_TRACE), seen.traces, strict=False)}


_PANIC = re.compile(r"Kernel panic - not syncing: .*|kernel BUG at .*|Unable to handle kernel .*|Internal error: .*")


def _gist(reason: str, console: str) -> str:
    """What two losses of one cause have in common: the kernel's own last words, else the reason, without numbers."""
    found = _PANIC.search(console)
    return re.sub(r"0x[0-9a-fA-F]+|[0-9a-f]{8,}|\d+", "N", found[0] if found else reason)[:200]
