# SPDX-License-Identifier: Apache-2.0
"""Process one input in a worker of a campaign on real KVM: run, compare, confirm, count, store.

A worker is one process with its own machines.  ``worker_process`` calls it from atheris (Python's libFuzzer), which
chooses the inputs; this module does not know atheris.  A divergence or alarm that is new is *confirmed*: its scenario
is run again, in the same VM and in a fresh one.  What is not seen again is stored as *flaky*.
"""

from __future__ import annotations

import re
import traceback
from collections import Counter, deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import chain
from typing import NamedTuple

from fuzz.campaign.counters_file import StatsWriter
from fuzz.campaign.features import features
from fuzz.campaign.reproduce_crash import Interrupted, Reproducer
from fuzz.store.dumps import Dumps
from fuzz.store.findings import CONFIRMED_ON, CONSOLE, FRESH_QEMU, Store
from fuzz.targets.observation import ClusterKey, Observation, clusters_of, leaders_of, stability_key, texts_of
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
from harness.vm.crash import CRASH, EARLIER, End, Report, Reproduction, end_of, from_text, to_text

FIRST_BOOTS = 2
"""Number of tries of a worker to boot its first machine."""
MAX_INTERNAL = 20
"""Number of internal errors after which a worker gives up, because its counts are no longer reliable."""
SAMPLED = 100
"""One of this number of scenarios is run again, whatever its result, to measure the share of unstable ones."""
SPREAD = 32
"""A scenario that shows stored findings more simply waits: after each such number of scenarios one is confirmed."""
REMEMBERED = 16
"""Number of earlier scenarios that are stored with a crash."""
BUMP_NS = 1_000_000_000
"""Nanoseconds between two writes of the counts of known clusters; a killed worker loses those since the last write."""
MAX_TRIES = 2
"""Number of times that a worker tries to reproduce one crash or alarm."""


OWN_QEMU = "Found on the fast QEMU; fresh_vm are runs on Debian's own.\n"


class GiveUp(Exception):
    """The worker cannot continue; the text is the reason."""


@dataclass(frozen=True)
class WorkerContext:
    """The targets, counters and stores of a worker.

    ``targets`` are the one or two targets; they run and check scenarios.  ``count_coverage`` gets the index of a
    coverage counter.  ``on_run`` is called after an input has been run, before its divergences are confirmed.
    ``findings`` stores confirmed findings, ``flaky`` those that were not seen again, ``dumps`` the memory of lost
    machines.  ``now`` returns the date as ISO 8601, ``ticks`` the time of a clock that all processes share, in
    nanoseconds.  ``described`` are texts that describe the targets, stored with each finding.  ``own_qemu`` are the
    same targets on Debian's own QEMU, if these run on the fast one.  ``offer`` is called with each scenario and the
    indices of the coverage counters that it hit.
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
    own_qemu: TargetSet[Side] | None = None
    offer: Callable[[Scenario, AbstractSet[int]], None] = lambda _, __: None


class _Shown(NamedTuple):
    """A cluster of divergences that a scenario shows, with its id and its members in this run.

    ``leader`` is the id of the first cluster in this run: the later ones may be its consequences
    (:mod:`harness.findings.problems`).  It is empty if an erratum predicts this cluster.
    """

    key: ClusterKey
    id: str
    members: list[Divergence]
    leader: str


SIMPLEST_SCENARIO = parse(b"shadowfuzz-scenario 1\nabout The plainest.\nhvc 0x0\n")


class Worker:
    """Runs scenarios on its machines, and counts and stores the results."""

    def __init__(self, context: WorkerContext) -> None:
        self._with = context
        self._targets = context.targets
        self._stats = context.stats
        self._losses = 0
        self._internal = 0
        self.ending = False
        """Set when the campaign ends: long work such as reproducing a crash is then skipped."""
        # The last scenarios on the machines of now; tries to reproduce a crash or alarm, by finding; ids of clusters;
        # members by finding that are not written yet (see BUMP_NS); alarms of the scenario of now.
        self._recent: deque[Scenario] = deque(maxlen=REMEMBERED)
        self._simpler: dict[str, tuple[int, Scenario]] = {}
        """By the id of a kept finding, the simplest scenario that showed it since and waits to be confirmed."""
        self._tries: Counter[str] = Counter()
        self._ids: dict[ClusterKey, str] = {}
        self._more: Counter[str] = Counter()
        self._alarms: list[tuple[Subject, Alarm]] = []
        self._next_bump = 0
        # By finding: the simplicity of its stored scenario (a simpler scenario is confirmed and replaces it), and the
        # leaders for which a scenario is stored.
        self._confirmed = context.findings.simplicities()
        self._leaders = {id_: {one.leader for one in found} for id_, found in context.findings.examples().items()}

    def begin(self) -> None:
        """Boot for the first time.  TargetError: the machine does not boot; a finding has its console."""
        for left in reversed(range(FIRST_BOOTS)):
            try:
                self._start()
            except TargetError as error:
                self._on_loss(None, error)
                if not left:
                    raise
            else:
                return

    def _start(self) -> None:
        self._recent.clear()
        self._targets.start()
        if not self._stats.get("time", "ready"):
            self._stats.put("time", "ready", self._with.ticks())
            for subject, alarms in self._targets.alarms_at_boot.items():  # a property of the target: once per worker
                self._stats.add_all("boot_alarms", Counter(f"{subject.target}: {one.sentence}" for one in alarms))

    def close(self) -> None:
        """End the machines."""
        self._write_counts()
        self._targets.stop()
        if self._with.own_qemu is not None:
            self._with.own_qemu.stop()

    def run_input(self, data: bytes) -> None:
        """Run, check and count one input, a scenario as text.  GiveUp, SetupError: the worker cannot continue."""
        try:
            scenario = parse(data)
        except InputError:
            self._stats.add("count", "invalid")
            return
        self._attempt(scenario, self._scenario)
        if self._simpler and self._stats.get("count", "scenarios") % SPREAD == 0 and not self.ending:
            _, simplest = min(self._simpler.values(), key=lambda one: one[0])
            self._simpler = {id_: one for id_, one in self._simpler.items() if one[1] is not simplest}
            self._attempt(simplest, self._confirm_simpler)

    def _attempt(self, scenario: Scenario, work: Callable[[Scenario], None]) -> None:
        """Do some work with a scenario on a machine; whatever ends it is kept with the scenario."""
        try:
            if not self._targets.running:
                self._start()
            work(scenario)
            self._losses = 0
        except TargetError as error:
            self._on_loss(scenario, error)
        except SetupError:
            raise
        except Exception as error:  # an internal error is a finding, too: it must not end the campaign
            self._on_internal_error(scenario, error)

    def _run(
        self, scenario: Scenario, *, fresh_vm: bool, targets: TargetSet[Side] | None = None
    ) -> tuple[Observation, ...]:
        """Run and check a scenario, and collect the kernels' alarms."""
        found = (targets or self._targets).run_and_check_each(scenario, fresh_vm=fresh_vm)
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
            if seen.other is None:  # else it compares the traces of both targets, whose own observations are counted
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
            self._store_alarms(scenario)
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
        # An exit counts as checked if its round was replayed on the model and compared with relation ``save``.  The
        # round before a vCPU's first entry (FIRST) has no exit.  The last exit of a scenario begins no complete round.
        exits = checked.relations.get("save", 0) - sum(1 for name, _ in checked.paths if name == "FIRST")
        if exits > 0:
            stats.add("count", "checked_exits", exits)
            if not stats.get("time", "first_exit"):
                stats.put("time", "first_exit", self._with.ticks())

    # ---- unexplained divergences -------------------------------------------------------------------------------

    def _unexplained(
        self, scenario: Scenario, found: tuple[Observation, ...], clusters: Mapping[ClusterKey, list[Divergence]]
    ) -> None:
        weight, shown = simplicity(scenario), self._shown(clusters)
        new = [one for one in shown if self._is_new_leader(one) or one.id not in self._confirmed]
        for one in shown:
            if one not in new and self._is_simpler(one.id, weight):
                self._simpler[one.id] = weight, scenario
        self._confirm(scenario, found, shown, new)

    def _confirm_simpler(self, scenario: Scenario) -> None:
        """Run a scenario that waited, and confirm and keep what it shows more simply, or for the first time."""
        self._alarms.clear()
        found, weight = self._run(scenario, fresh_vm=False), simplicity(scenario)
        new = [one for one in self._shown(clusters_of(found)) if self._confirmed.get(one.id, weight + 1) > weight]
        self._confirm(scenario, found, new, new)
        if self._alarms:
            self._store_alarms(scenario)
        self._recent.append(scenario)

    def _shown(self, clusters: Mapping[ClusterKey, list[Divergence]]) -> list[_Shown]:
        leaders = leaders_of(clusters)
        return [
            _Shown(key, self._id(key), members, self._id(leaders[key]) if key in leaders else "")
            for key, members in clusters.items()
        ]

    def _confirm(
        self, scenario: Scenario, found: tuple[Observation, ...], shown: Sequence[_Shown], new: Sequence[_Shown]
    ) -> None:
        """Try the clusters ``new`` again and keep them; count the others of those that are ``shown``."""
        texts = {(s.subject, s.other): texts_of(s) for s in found} if new else {}
        same: set[ClusterKey] = set()
        fresh: set[ClusterKey] = set()
        try:
            if new:
                self._stats.add("count", "confirmations")
                same = set(clusters_of(self._run(scenario, fresh_vm=False)))
                # What only the fast QEMU shows is not confirmed: it is kept as flaky.
                fresh = set(clusters_of(self._run(scenario, fresh_vm=True, targets=self._with.own_qemu)))
        except TargetError:
            # The divergence is not confirmed: store it as flaky; the caller handles the lost machine.
            for one in new:
                self._store_cluster(scenario, one, (Tries(int(one.key in same), 1), Tries(0, 0)), texts[one.key[:2]])
            raise
        else:
            for one in new:
                tries = Tries(int(one.key in same), 1), Tries(int(one.key in fresh), 1)
                self._store_cluster(scenario, one, tries, texts[one.key[:2]])
        finally:
            for one in shown:
                if one not in new:
                    self._count_known(one.id, len(one.members))

    def _is_simpler(self, id_: str, weight: int) -> bool:
        """Whether a scenario is simpler than the one that is kept with a finding, and than the one that waits."""
        waiting = self._simpler.get(id_)
        return weight < min(self._confirmed[id_], weight + 1 if waiting is None else waiting[0])

    def _is_new_leader(self, shown: _Shown) -> bool:
        """Return whether a scenario is needed that shows a cluster with this leader: none is stored yet.

        It is true only once for each pair of cluster and leader, and for at most MAX_EXAMPLES leaders of a cluster.
        """
        leaders = self._leaders.setdefault(shown.id, set())
        if not shown.leader or shown.leader in leaders or len(leaders) >= MAX_EXAMPLES:
            return False
        leaders.add(shown.leader)
        return True

    def _store_cluster(
        self, scenario: Scenario, shown: _Shown, tries: tuple[Tries, Tries], extra: Mapping[str, str]
    ) -> None:
        """Store a cluster: as confirmed if both tries reproduced it, else as flaky."""
        subject, other, name = shown.key
        values = tuple(difference(d) for d in shown.members[:MAX_DIVERGENCES])
        count, now = len(shown.members), self._with.now()
        finding = Finding("divergence", name, subject, values, count, *tries, now, other=other)
        confirmed = all(each.hits for each in tries)
        if self._with.own_qemu is not None:
            extra = {**extra, CONFIRMED_ON: OWN_QEMU}
        self._stats.add("unexplained" if confirmed else "flaky", finding.id, count)
        if not confirmed:
            self._store(self._with.flaky, finding, scenario, extra)
        elif self._store(self._with.findings, finding, scenario, extra, shown.leader):
            weight = simplicity(scenario)
            self._confirmed[finding.id] = min(weight, self._confirmed.get(finding.id, weight))

    def _id(self, key: ClusterKey) -> str:
        found = self._ids.get(key)
        if found is None:
            found = self._ids[key] = finding_id("divergence", key[2], *key[:2])
        return found

    def _count_known(self, id_: str, members: int) -> None:
        """Count members of a known cluster, whose scenario is not simpler than the stored one."""
        self._stats.add("unexplained", id_, members)
        self._more[id_] += 1
        now = self._with.ticks()
        if now >= self._next_bump:
            self._next_bump = now + BUMP_NS
            self._write_counts()

    def _write_counts(self) -> None:
        """Write the counts of members: a transaction for each scenario would take as long as running it."""
        if not self._more:
            return
        try:
            self._with.findings.bump(self._more, self._with.now())
        except OSError as error:
            self._stats.add("unwritten", f"{error.strerror or error}")
        self._more.clear()

    def _texts_of(self, finding: Finding) -> Mapping[str, str]:
        """Return the texts that describe the targets of a finding."""
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
            # The campaign continues; the summary reports the finding that could not be stored.
            self._stats.add("unwritten", f"{error.strerror or error}")
            self._stats.put("missing", f"{finding.id} {' '.join(finding.signature)}", 1)
            return False
        return True

    # ---- alarms of the kernels ----------------------------------------------------------------------------------

    def _store_alarms(self, scenario: Scenario) -> None:
        """Store the alarms (kernel warnings) of a scenario: as flaky if freshly booted machines do not show them."""
        for subject in dict.fromkeys(subject for subject, _ in self._alarms):
            of_one = once_each(alarm for owner, alarm in self._alarms if owner == subject)
            for signature, (alarm, count) in of_one.items():
                self._store_alarm(
                    scenario, self._crash_finding("alarm", signature, subject, alarm.sentence), alarm, count
                )

    def _store_alarm(self, scenario: Scenario, finding: Finding, alarm: Alarm, count: int) -> None:
        id_ = finding.id
        if id_ in self._confirmed:
            self._stats.add("alarms", id_, count)
            self._more[id_] += 1
            return
        again = self._rate_of(finding, scenario)
        confirmed = again is not None and again.hits > 0
        self._stats.add("alarms" if confirmed else "flaky", id_, count)
        if again is None and self._tries[id_]:  # it is stored as flaky already
            return
        texts = {CONSOLE: alarm.splat} | _earlier_texts(
            tuple(self._recent)[-again.before :] if again and again.before else ()
        )
        if again is not None:
            hits, runs = again.sequence if again.before else again.alone
            texts[FRESH_QEMU] = f"{hits} {runs}"
        kept = self._store(self._with.findings if confirmed else self._with.flaky, finding, scenario, texts)
        if confirmed and kept:
            self._confirmed[id_] = simplicity(scenario)

    def _rate_of(self, finding: Finding, scenario: Scenario) -> Reproduction | None:
        """Return how often freshly booted machines show an alarm again; None: no try or no time is left."""
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

    # ---- lost machines and internal errors --------------------------------------------------------------------------

    def _on_loss(self, scenario: Scenario | None, error: TargetError) -> None:
        """Store how a machine was lost, end all machines, and try to reproduce the loss on fresh ones.

        ``scenario``: the one that ran; None: the machine was booting.  GiveUp: the machine was lost too often in a row,
        and does not even run the simplest scenario.
        """
        end, reason = _end_of(error), str(error)
        console, config = (error.console_tail, error.config) if isinstance(error, VmLost) else ("", "")
        self._stats.add("lost", f"{end.kind}: {re.sub(r'0x[0-9a-fA-F]+|[0-9]+', 'N', reason)}")
        subject = next((s for s in self._targets.subjects if s.target == config), self._targets.subjects[0])
        finding = self._crash_finding("crash", end.signature, subject, end.sentence)
        report = Report(end.kind, end.words, end.place, reason, self._collect_remains(error, finding.id))
        self._stats.add("crashes", finding.id)
        if self._was_tried(finding.id):
            self._more[finding.id] += 1
        else:
            self._store(self._with.findings, finding, scenario, _crash_texts(report, console, self._recent))
        self._losses += 1
        self.close()
        if self._losses >= MAX_LOSSES:
            if not self._runs_simplest():
                raise GiveUp(f"the machine was lost {self._losses} times in a row, the last time: {reason}") from error
            self._losses = 0
        if scenario is not None:
            self._reproduce_loss(finding, report, console, scenario)

    def _runs_simplest(self) -> bool:
        """Return whether the target still runs the simplest scenario.

        libFuzzer mutates one input several times in a row: if the first mutant ends the machine, the others often do,
        too.
        """
        try:
            self._start()
            self._targets.run_and_check_each(SIMPLEST_SCENARIO, fresh_vm=True)
        except TargetError:
            self.close()
            return False
        return True

    def _collect_remains(self, error: TargetError, id_: str) -> Remains:
        """Keep what could be read from a lost machine, its memory dump among others; at least why there is none."""
        remains = error.remains if isinstance(error, VmLost) else None
        if remains is None:
            return Remains(missing=("nothing was taken from the machine",))
        if remains.dump is None:
            return remains
        try:
            dump, removed = self._with.dumps.keep(remains.dump, id_)
        except OSError as full:
            self._stats.add("dumps", "not kept")
            return replace(remains, dump=None, missing=(*remains.missing, f"no memory dump: {full.strerror}"))
        self._stats.add("dumps", "written")
        if removed:
            self._stats.add("dumps", "removed for newer ones", removed)
        return replace(remains, dump=dump)

    def _was_tried(self, id_: str) -> bool:
        """Return whether the reproduction of a crash was measured already: further crashes of it are only counted."""
        try:
            return from_text(self._with.findings.texts(id_).get(CRASH, "")).again is not None
        except (InputError, ValueError):
            return False

    def _reproduce_loss(self, finding: Finding, report: Report, console: str, scenario: Scenario) -> None:
        """Try to reproduce a loss, and store the rate with the finding."""
        if self.ending or self._tries[finding.id] >= MAX_TRIES or self._was_tried(finding.id):
            return
        self._tries[finding.id] += 1
        earlier = tuple(self._recent)

        def same(error: TargetError) -> bool:
            return _end_of(error).signature == finding.signature

        try:
            boot = partial(self._targets.boot_again, finding.subject)
            again = Reproducer(boot, same, lambda: self.ending).find(earlier, scenario)
        except Interrupted:
            return
        self._stats.add("reproduced", "yes" if again.hits else "no")
        if not again.hits and self._tries[finding.id] < MAX_TRIES:
            return  # another scenario with the same loss may reproduce it
        # Store the scenario that reproduced the loss, even if another one is simpler.
        try:
            self._with.findings.revise(finding, scenario, _crash_texts(replace(report, again=again), console, earlier))
        except OSError as full:
            self._stats.add("unwritten", f"{full.strerror or full}")

    def _on_internal_error(self, scenario: Scenario, error: Exception) -> None:
        where = traceback.extract_tb(error.__traceback__)[-1]
        text = "".join(traceback.format_exception(error))
        signature_ = (type(error).__name__, f"{where.filename.rpartition('/')[2]}:{where.name}")
        finding = self._crash_finding("internal", signature_, self._targets.subjects[0], str(error))
        self._store(self._with.findings, finding, scenario, {"traceback.txt": text})
        self._stats.add("internal", finding.id)
        self._internal += 1
        if self._internal >= MAX_INTERNAL:
            raise GiveUp(f"shadowfuzz itself failed {self._internal} times, the last time: {error!r}") from error

    def _crash_finding(self, kind: str, key: Signature, subject: Subject, detail: str) -> Finding:
        never = Tries(0, 0)
        return Finding(kind, key, subject, (), 0, never, never, self._with.now(), detail)


def _crash_texts(report: Report, console: str, earlier: Iterable[Scenario]) -> dict[str, str]:
    """Return the texts of a crash; ``earlier`` scenarios are in the order in which they ran, and numbered backwards."""
    return {CONSOLE: console, CRASH: to_text(report), **_earlier_texts(earlier)}


def _earlier_texts(scenarios: Iterable[Scenario]) -> dict[str, str]:
    """Return the texts of earlier scenarios, given in the order in which they ran; the last one has number 1."""
    ran = enumerate(reversed(tuple(scenarios)), 1)
    return {f"{EARLIER}{i:02}.scn": format_scenario(scenario) for i, scenario in ran}


def _end_of(error: TargetError) -> End:
    """Classify how a machine ended."""
    if not isinstance(error, VmLost):
        return end_of(str(error), "", protocol=True)
    return end_of(error.reason, error.console_tail, error.remains)
