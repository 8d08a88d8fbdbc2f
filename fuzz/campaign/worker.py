# SPDX-License-Identifier: Apache-2.0
"""What a worker of the live campaign does with one input: run, compare, confirm, count, keep.  Knows no atheris."""

from __future__ import annotations

import re
import traceback
from collections import Counter, deque
from collections.abc import Callable, Iterable, Mapping
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import chain
from typing import NamedTuple

from fuzz.campaign.counters_file import StatsWriter
from fuzz.campaign.features import features
from fuzz.campaign.reproduce_crash import Interrupted, Reproducer
from fuzz.store.dumps import Dumps
from fuzz.store.findings import CONSOLE, FRESH_QEMU, Store
from fuzz.targets.observation import Key, Observation, clusters_of, leaders_of, stability_key, texts_of
from fuzz.targets.runner import MAX_LOSSES, ScenarioRunner
from fuzz.targets.target_set import Side, TargetSet
from harness.errors import InputError, Remains, SetupError, TargetError, VmLost
from harness.findings.asserted_alarms import sort_alarms
from harness.findings.checked import CheckResult
from harness.findings.finding import MAX_DIVERGENCES, Finding, Signature, Subject, Tries, difference, finding_id
from harness.findings.known_divergences import Known
from harness.findings.problems import MAX_EXAMPLES
from harness.relations.divergence import Divergence
from harness.report.campaign_data import NOT_TAKEN, TAKEN
from harness.scenario.scenario import Scenario, format_scenario, parse
from harness.scenario.simplify import simplicity
from harness.trace.events import Trace
from harness.vm.alarms import Alarm, once_each
from harness.vm.config_text import OTHER_TARGET, TARGET
from harness.vm.crash import CRASH, EARLIER, Again, End, Report, end_of, from_text, to_text

FIRST_BOOTS = 2
"""So often a worker tries to boot before there was anything to lose."""
MAX_INTERNAL = 20
"""So many failures of our own, and it gives up as well: what it counts means little."""
SAMPLED = 100
"""One scenario in so many is run again, whatever it showed, to tell how many are unstable."""
REMEMBERED = 16
"""Scenarios that a crash finding shows besides the one that was running."""
BUMP_NS = 1_000_000_000
"""So long the members of known clusters are counted in memory; a worker that is killed loses what it holds there."""
MAX_TRIES = 2
"""So often a worker tries to reproduce one crash, or one alarm."""


class GiveUp(Exception):
    """The worker cannot go on; the text says why."""


@dataclass(frozen=True)
class WorkerContext:
    """What a worker needs of the world.

    ``targets`` run and check scenarios.  ``count_coverage`` takes the index of a coverage counter.  ``on_run`` is
    called when an input has been run, before it is confirmed.  ``findings`` and ``flaky`` keep what was found,
    ``dumps`` the memory of lost machines.  ``now`` is the date as ISO 8601, ``ticks`` a clock in nanoseconds that all
    processes share.  ``described`` are the texts that say what the targets are, kept with each finding.  ``offer`` is
    called with each scenario and the coverage counters that it hit.
    """

    targets: TargetSet[Side]
    count_coverage: Callable[[int], None]
    on_run: Callable[[], None]
    stats: StatsWriter
    findings: Store
    flaky: Store
    dumps: Dumps
    now: Callable[[], str]
    ticks: Callable[[], int]
    described: Mapping[str, str] = field(default_factory=dict)
    offer: Callable[[Scenario, AbstractSet[int]], None] = lambda _, __: None


class _Shown(NamedTuple):
    """A cluster that a scenario shows: its id, its members there, and the id of the cluster that is shown first.

    ``leader`` is empty where an erratum explains the cluster.
    """

    key: Key
    id: str
    members: list[Divergence]
    leader: str


PLAINEST = parse(b"shadowfuzz-scenario 1\nabout The plainest.\nhvc 0x0\n")


class Worker:
    """One machine, and the scenarios that it is given."""

    def __init__(self, context: WorkerContext) -> None:
        self._with = context
        self._targets = context.targets
        self._stats = context.stats
        self._losses = 0
        self._internal = 0
        self.ending = False
        """Set when what takes long is to be left alone."""
        self._recent: deque[Scenario] = deque(maxlen=REMEMBERED)
        self._tries: Counter[str] = Counter()
        self._ids: dict[Key, str] = {}
        self._more: Counter[str] = Counter()
        self._alarms: list[tuple[Subject, Alarm]] = []
        self._next_bump = 0
        # What is kept, with how simple its scenario is: a simpler one is worth being confirmed, too.
        self._confirmed = context.findings.simplicities()
        self._leaders = {id_: {one.leader for one in found} for id_, found in context.findings.examples().items()}

    def begin(self) -> None:
        """Boot for the first time.  TargetError: the machine does not come up; a finding has its console."""
        for left in reversed(range(FIRST_BOOTS)):
            try:
                self._start()
            except TargetError as error:
                self._lost(None, error)
                if not left:
                    raise
            else:
                return

    def _start(self) -> None:
        self._recent.clear()
        self._targets.start()
        if not self._stats.get("time", "ready"):
            self._stats.put("time", "ready", self._with.ticks())
            for subject, alarms in self._targets.alarms_at_boot.items():  # a property of the target: once a worker
                self._stats.add_all("boot_alarms", Counter(f"{subject.target}: {one.sentence}" for one in alarms))

    def close(self) -> None:
        """End the machine."""
        self._bump()
        self._targets.stop()

    def run_input(self, data: bytes) -> None:
        """Do all that is to be done with one input.  GiveUp, SetupError: there is no point in going on."""
        try:
            scenario = parse(data)
        except InputError:
            self._stats.add("count", "invalid")
            return
        try:
            if not self._targets.running:
                self._start()
            self._scenario(scenario)
            self._losses = 0
        except TargetError as error:
            self._lost(scenario, error)
        except SetupError:
            raise
        except Exception as error:  # a fault of ours is a finding too: it must not end the campaign
            self._failed(scenario, error)

    def _run(self, scenario: Scenario, *, fresh_vm: bool) -> tuple[Observation, ...]:
        """Run and check a scenario, and note what kernels complained of."""
        found = self._targets.run_and_check_each(scenario, fresh_vm=fresh_vm)
        self._alarms += [(seen.subject, alarm) for seen in found for alarm in seen.alarms]
        for seen in found:
            self._stats.add_all("asserted", Counter(one.name for one in seen.asserted))
        return found

    def _scenario(self, scenario: Scenario) -> None:
        self._alarms.clear()
        found = self._run(scenario, fresh_vm=False)
        self._with.on_run()
        self._stats.add("count", "scenarios")
        covered: set[int] = set()
        for seen in found:
            if seen.other is None:
                self._stats.add("status", seen.checked.status)
                for index in features(seen.traces[0], seen.checked):
                    self._with.count_coverage(index)
                    self._stats.saw(index)
                    covered.add(index)
            self._count(seen.checked)
        self._with.offer(scenario, covered)
        clusters = clusters_of(found)
        if clusters:
            self._unexplained(scenario, found, clusters)
        if self._stats.get("count", "scenarios") % SAMPLED == 0:
            self._stats.add("count", "again")
            again = self._run(scenario, fresh_vm=False)
            if stability_key(again) != stability_key(found):
                self._stats.add("count", "unstable")
        if self._alarms:
            self._complaints(scenario)
        self._recent.append(scenario)

    def _count(self, checked: CheckResult) -> None:
        stats = self._stats
        stats.add_all("exits", checked.exits)
        stats.add_all("relations", checked.relations)
        stats.add_all("unchecked", checked.unchecked)
        stats.add_all("undefined", checked.undefined)
        stats.add_all("attempted", checked.attempted)
        stats.add_all("incomplete", checked.incomplete)
        stats.add_all("stood_in", checked.stood_in)
        if checked.dropped:
            stats.add("count", "dropped", checked.dropped)
        known = [judged.known for judged in checked.judged if judged.known is not None]
        stats.add_all("known", Counter([entry.id for entry in known]))
        stats.add("count", "by_conditions", sum(isinstance(entry, Known) and not entry.by_rule for entry in known))
        ways = chain.from_iterable([path for _, path in checked.paths])
        for (name, taken), count in Counter(ways).items():
            stats.add("branches", f"{name}{TAKEN if taken else NOT_TAKEN}", count)
        # An exit counts as checked when the host's turn after it was replayed on the model and compared.  The last
        # exit of a scenario has no such turn.
        exits = checked.relations.get("save", 0) - sum(1 for name, _ in checked.paths if name == "FIRST")
        if exits > 0:
            stats.add("count", "checked_exits", exits)
            if not stats.get("time", "first_exit"):
                stats.put("time", "first_exit", self._with.ticks())

    # ---- divergences that nothing explains ---------------------------------------------------------------------

    def _unexplained(
        self, scenario: Scenario, found: tuple[Observation, ...], clusters: Mapping[Key, list[Divergence]]
    ) -> None:
        weight, leaders = simplicity(scenario), leaders_of(clusters)
        shown = [
            _Shown(key, self._id(key), members, self._id(leaders[key]) if key in leaders else "")
            for key, members in clusters.items()
        ]
        new = [one for one in shown if self._leads_otherwise(one) or self._is_simpler(one, weight)]
        texts = {(s.subject, s.other): texts_of(s) for s in found} if new else {}
        same: set[Key] = set()
        fresh: set[Key] = set()
        try:
            if new:
                self._stats.add("count", "confirmations")
                same = set(clusters_of(self._run(scenario, fresh_vm=False)))
                fresh = set(clusters_of(self._run(scenario, fresh_vm=True)))
        except TargetError:
            # Not confirmed, not forgotten: kept as flaky, and the caller sees to the machine.
            for one in new:
                self._keep(scenario, one, (Tries(int(one.key in same), 1), Tries(0, 0)), texts[one.key[:2]])
            raise
        else:
            for one in new:
                tries = Tries(int(one.key in same), 1), Tries(int(one.key in fresh), 1)
                self._keep(scenario, one, tries, texts[one.key[:2]])
        finally:
            for one in shown:
                if one not in new:
                    self._known(one.id, len(one.members))

    def _is_simpler(self, shown: _Shown, weight: int) -> bool:
        """Whether a cluster is new, or is shown by a simpler scenario than the one that is kept."""
        return self._confirmed.get(shown.id, weight + 1) > weight

    def _leads_otherwise(self, shown: _Shown) -> bool:
        """Whether no scenario is kept in which a cluster follows this leader; it is asked for once."""
        leaders = self._leaders.setdefault(shown.id, set())
        if not shown.leader or shown.leader in leaders or len(leaders) >= MAX_EXAMPLES:
            return False
        leaders.add(shown.leader)
        return True

    def _keep(self, scenario: Scenario, shown: _Shown, tries: tuple[Tries, Tries], extra: Mapping[str, str]) -> None:
        """Store a cluster: as confirmed if it came back whenever it was tried, which were two times."""
        subject, other, name = shown.key
        values = tuple(difference(d) for d in shown.members[:MAX_DIVERGENCES])
        count, now = len(shown.members), self._with.now()
        finding = Finding("divergence", name, subject, values, count, *tries, now, other=other)
        confirmed = all(each.hits for each in tries)
        self._stats.add("unexplained" if confirmed else "flaky", finding.id, count)
        if not confirmed:
            self._store(self._with.flaky, finding, scenario, extra)
        elif self._store(self._with.findings, finding, scenario, extra, shown.leader):
            weight = simplicity(scenario)
            self._confirmed[finding.id] = min(weight, self._confirmed.get(finding.id, weight))

    def _id(self, key: Key) -> str:
        found = self._ids.get(key)
        if found is None:
            found = self._ids[key] = finding_id("divergence", key[2], *key[:2])
        return found

    def _known(self, id_: str, members: int) -> None:
        """Count a cluster that needs no confirmation: it is neither new nor simpler."""
        self._stats.add("unexplained", id_, members)
        self._more[id_] += 1
        now = self._with.ticks()
        if now >= self._next_bump:
            self._next_bump = now + BUMP_NS
            self._bump()

    def _bump(self) -> None:
        """Write what was counted: a transaction for each scenario would take as long as running it."""
        if not self._more:
            return
        try:
            self._with.findings.bump(self._more, self._with.now())
        except OSError as error:
            self._stats.add("unwritten", f"{error.strerror or error}")
        self._more.clear()

    def _texts_of(self, finding: Finding) -> Mapping[str, str]:
        """Return the texts of the targets that a finding is of."""
        first, *_ = self._targets.subjects
        if finding.other is not None:
            return self._with.described
        wanted = TARGET if finding.subject == first else OTHER_TARGET
        return {TARGET: self._with.described[wanted]} if wanted in self._with.described else {}

    def _store(
        self, store: Store, finding: Finding, scenario: Scenario | None, extra: Mapping[str, str], leader: str = ""
    ) -> bool:
        try:
            store.add(finding, scenario, {**self._texts_of(finding), **extra}, leader)
        except OSError as error:
            # The campaign goes on counting; the summary says that this could not be kept.
            self._stats.add("unwritten", f"{error.strerror or error}")
            self._stats.put("missing", f"{finding.id} {' '.join(finding.signature)}", 1)
            return False
        return True

    # ---- what kernels complain of -------------------------------------------------------------------------------

    def _complaints(self, scenario: Scenario) -> None:
        """Keep what kernels complained of while a scenario ran: as flaky, if fresh machines do not do it again."""
        for subject in dict.fromkeys(subject for subject, _ in self._alarms):
            of_one = once_each(alarm for whose, alarm in self._alarms if whose == subject)
            for signature, (alarm, count) in of_one.items():
                self._alarm(scenario, self._plain("alarm", signature, subject, alarm.sentence), alarm, count)

    def _alarm(self, scenario: Scenario, finding: Finding, alarm: Alarm, count: int) -> None:
        id_ = finding.id
        if id_ in self._confirmed:
            self._stats.add("alarms", id_, count)
            self._more[id_] += 1
            return
        again = self._rate_of(finding, scenario)
        confirmed = again is not None and again.hits > 0
        self._stats.add("alarms" if confirmed else "flaky", id_, count)
        if again is None and self._tries[id_]:  # it is among the flaky ones
            return
        texts = {CONSOLE: alarm.splat} | _earlier(
            tuple(self._recent)[-again.before :] if again and again.before else ()
        )
        if again is not None:
            hits, runs = again.sequence if again.before else again.alone
            texts[FRESH_QEMU] = f"{hits} {runs}"
        kept = self._store(self._with.findings if confirmed else self._with.flaky, finding, scenario, texts)
        if confirmed and kept:
            self._confirmed[id_] = simplicity(scenario)

    def _rate_of(self, finding: Finding, scenario: Scenario) -> Again | None:
        """Return how often fresh machines show an alarm; None: that was tried often enough, or there is no time."""
        if self.ending or self._tries[finding.id] >= MAX_TRIES:
            return None

        def shown(machine: ScenarioRunner, trace: Trace) -> bool:
            found = sort_alarms(machine.alarms(), trace).findings
            return any(alarm.signature == finding.signature for alarm in found)

        boot = partial(self._targets.boot_again, finding.subject)
        try:
            again = Reproducer(boot, lambda _: False, lambda: self.ending, shown).find(tuple(self._recent), scenario)
        except Interrupted:
            return None
        self._tries[finding.id] += 1
        self._stats.add("reproduced", "yes" if again.hits else "no")
        return again

    # ---- what is no divergence -----------------------------------------------------------------------------------

    def _lost(self, scenario: Scenario | None, error: TargetError) -> None:
        end, reason = _end(error), str(error)
        console, config = (error.console_tail, error.config) if isinstance(error, VmLost) else ("", "")
        self._stats.add("lost", f"{end.kind}: {re.sub(r'0x[0-9a-fA-F]+|[0-9]+', 'N', reason)}")
        subject = next((s for s in self._targets.subjects if s.target == config), self._targets.subjects[0])
        finding = self._plain("crash", end.signature, subject, end.sentence)
        report = Report(end.kind, end.words, end.place, reason, self._remains(error, finding.id))
        self._stats.add("crashes", finding.id)
        if self._was_tried(finding.id):
            self._more[finding.id] += 1
        else:
            self._store(self._with.findings, finding, scenario, _left(report, console, self._recent))
        self._losses += 1
        self.close()
        if self._losses >= MAX_LOSSES:
            if not self._is_well():
                raise GiveUp(f"the machine was lost {self._losses} times in a row, the last time: {reason}") from error
            self._losses = 0
        if scenario is not None:
            self._again(finding, report, console, scenario)

    def _is_well(self) -> bool:
        """Whether the target still runs the plainest scenario.

        libFuzzer piles mutations on one input: where the first of them ends the machine, the others do, too.
        """
        try:
            self._start()
            self._targets.run_and_check_each(PLAINEST, fresh_vm=True)
        except TargetError:
            self.close()
            return False
        return True

    def _remains(self, error: TargetError, id_: str) -> Remains:
        remains = error.remains if isinstance(error, VmLost) else None
        if remains is None:
            return Remains(missing=("nothing was taken from the machine",))
        if remains.dump is None:
            return remains
        try:
            dump, gone = self._with.dumps.keep(remains.dump, id_)
        except OSError as full:
            self._stats.add("dumps", "not kept")
            return replace(remains, dump=None, missing=(*remains.missing, f"no memory dump: {full.strerror}"))
        self._stats.add("dumps", "written")
        if gone:
            self._stats.add("dumps", "removed for newer ones", gone)
        return replace(remains, dump=dump)

    def _was_tried(self, id_: str) -> bool:
        """Tell whether it is known of a crash if it comes back: others of it are only counted."""
        try:
            return from_text(self._with.findings.texts(id_).get(CRASH, "")).again is not None
        except (InputError, ValueError):
            return False

    def _again(self, finding: Finding, report: Report, console: str, scenario: Scenario) -> None:
        """Try to bring a loss back, and note with the finding how often that worked."""
        if self.ending or self._tries[finding.id] >= MAX_TRIES or self._was_tried(finding.id):
            return
        self._tries[finding.id] += 1
        earlier = tuple(self._recent)

        def same(error: TargetError) -> bool:
            return _end(error).signature == finding.signature

        try:
            boot = partial(self._targets.boot_again, finding.subject)
            again = Reproducer(boot, same, lambda: self.ending).find(earlier, scenario)
        except Interrupted:
            return
        self._stats.add("reproduced", "yes" if again.hits else "no")
        if not again.hits and self._tries[finding.id] < MAX_TRIES:
            return  # another member may
        # The finding is described by the member that was tried, even if another is simpler: of this one it is known.
        try:
            self._with.findings.revise(finding, scenario, _left(replace(report, again=again), console, earlier))
        except OSError as full:
            self._stats.add("unwritten", f"{full.strerror or full}")

    def _failed(self, scenario: Scenario, error: Exception) -> None:
        where = traceback.extract_tb(error.__traceback__)[-1]
        text = "".join(traceback.format_exception(error))
        signature_ = (type(error).__name__, f"{where.filename.rpartition('/')[2]}:{where.name}")
        finding = self._plain("internal", signature_, self._targets.subjects[0], str(error))
        self._store(self._with.findings, finding, scenario, {"traceback.txt": text})
        self._stats.add("internal", finding.id)
        self._internal += 1
        if self._internal >= MAX_INTERNAL:
            raise GiveUp(f"shadowfuzz itself failed {self._internal} times, the last time: {error!r}") from error

    def _plain(self, kind: str, key: Signature, subject: Subject, detail: str) -> Finding:
        never = Tries(0, 0)
        return Finding(kind, key, subject, (), 0, never, never, self._with.now(), detail)


def _left(report: Report, console: str, earlier: Iterable[Scenario]) -> dict[str, str]:
    """Return the texts of a crash; ``earlier`` are in the order in which they ran, numbered from the last one."""
    return {CONSOLE: console, CRASH: to_text(report), **_earlier(earlier)}


def _earlier(scenarios: Iterable[Scenario]) -> dict[str, str]:
    """Return the texts of scenarios that ran before, given in that order; the last one is the first."""
    ran = enumerate(reversed(tuple(scenarios)), 1)
    return {f"{EARLIER}{i:02}.scn": format_scenario(scenario) for i, scenario in ran}


def _end(error: TargetError) -> End:
    """Return how a machine ended."""
    if not isinstance(error, VmLost):
        return end_of(str(error), "", protocol=True)
    return end_of(error.reason, error.console_tail, error.remains)
