# SPDX-License-Identifier: Apache-2.0
"""Check one recorded scenario: replay, compare, look up what is known.  Pure; everything that callers show is here."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence

from harness import protocol
from harness.arch.cpu_models import Cpu
from harness.findings.checked import CheckResult, Comparison, ComparisonListener, ExplainedDivergence
from harness.findings.known_divergences import Catalogue
from harness.guest.context import GuestContext
from harness.guest.debugger import Debugger
from harness.guest.memory import Memory
from harness.guest.predict_run import PredictedRun, predict_run
from harness.model.memoised_replay import shortcut
from harness.model.prediction import Prediction
from harness.protocol import DEBUG_OPS
from harness.relations import isolate, save_restore, switch
from harness.relations.debug_registers import compare_debug_registers
from harness.relations.divergence import Divergence, Unchecked
from harness.relations.donated_memory import compare_donated_memory
from harness.relations.fp_simd import compare_vectors
from harness.relations.gic import GicMonitor
from harness.relations.guest_debug import compare_debugged
from harness.relations.host import compare_entry_state
from harness.relations.hyp_copy import RELATIONS, compare_hyp_copy, host_visible_gprs, hyp_copies
from harness.relations.isolate_unswitched import compare_unswitched_registers, reads_any
from harness.relations.memory_slots import compare_slots
from harness.relations.mmio import compare_mmio_exit
from harness.scenario.code_layout import Code, codes_of
from harness.scenario.requirements import uses_gic
from harness.scenario.scenario import Scenario
from harness.trace import rounds
from harness.trace.events import EXIT, Host, Switch, Trace
from harness.trace.rounds import Round
from harness.trace.slot_timeline import SlotTimeline


def check(
    scenario: Scenario,
    trace: Trace,
    level: str,
    cpu: Cpu,
    catalogue: Catalogue,
    witness: ComparisonListener | None = None,
) -> CheckResult:
    """Compare a trace with ``level`` of the model and with the architecture; ``witness`` is told what was compared."""
    classes: Counter[str] = Counter()
    relations: Counter[str] = Counter()
    unchecked: Counter[str] = Counter()
    undefined: Counter[str] = Counter()
    judged: list[ExplainedDivergence] = []
    paths: list[tuple[str, tuple[tuple[str, bool], ...]]] = []
    classes.update([event.exit_class for event in trace.events if event.kind == EXIT and isinstance(event, Switch)])
    lossy = cpu.lossy if trace.vhe else {}
    codes = codes_of(scenario)
    watch = GicMonitor(trace.lists) if uses_gic(scenario) else None
    followed: dict[int, PredictedRun] = {}
    switched: dict[int, tuple[Divergence | Unchecked, ...]] = {}
    for run, differs in follow_runs(trace, codes, cpu, watch):
        followed[run.event], switched[run.event] = run, differs
    predict, hyps, restarts = shortcut(level), hyp_copies(trace), set[int]()
    for round_ in rounds.rounds(trace.events):
        prediction = predict(round_)
        if round_.reset and round_.others:
            restarts.add(round_.first)
        paths.append((round_.exit_class, prediction.path))
        if reason := save_restore.why_not_comparable(round_):
            unchecked[f"save, restore, host: {reason}"] += 1
            if witness is not None:
                for relation in ("save", "restore", "host"):
                    witness(Comparison(relation, round_.first, reason))
            continue
        _count(relations, unchecked, undefined, prediction)
        if witness is not None:
            _notify_model(witness, round_, prediction)
        seen: list[Divergence] = []
        ended = followed.get(round_.first)
        if ended is not None:
            relations["reveal"] += 1
            beside = hyps.get(round_.first)
            seen_by_host = None if beside is None else host_visible_gprs(beside, ended.exit)
            revealed = tuple(save_restore.compare_reveal(round_, ended, prediction, seen_by_host))
            if witness is not None:
                _notify(witness, "reveal", round_.first, revealed)
            for item in revealed:
                if isinstance(item, Unchecked):
                    unchecked[f"{item.what}: {item.why}"] += 1
                else:
                    seen.append(item)
        judged += explain_round(round_, prediction, catalogue, lossy, seen)
        relations["host"] += 1
        if round_.others:
            relations["isolate"] += 1
            if witness is not None:
                witness(Comparison("isolate", round_.first))
            judged += (ExplainedDivergence(found, None) for found in isolate.compare_isolation(round_))
        at_level = ended.walk_level if ended is not None else None
        owed = (*compare_entry_state(round_, lossy, at_level), *compare_mmio_exit(round_), *compare_debugged(round_))
        if watch is not None:
            owed += tuple(watch.compare(round_))
        for found in owed:
            _record(found, judged, unchecked)
        if witness is not None:
            _notify(witness, "host", round_.first, owed)
    for index, found_there in switched.items():
        relations["switch"] += 1
        for found in found_there:
            _record(found, judged, unchecked)
        if witness is not None:
            _notify(witness, "switch", index, found_there)
    for counts, differs_there in _once(trace, codes, followed, watch, restarts):
        relations.update(counts)
        for found in differs_there:
            _record(found, judged, unchecked)
    return CheckResult(
        trace.status, trace.dropped, classes, relations, tuple(judged), unchecked, undefined, tuple(paths)
    )


def follow_runs(
    trace: Trace, codes: Mapping[bool, Code], cpu: Cpu, watch: GicMonitor | None = None
) -> Iterator[tuple[PredictedRun, tuple[Divergence | Unchecked, ...]]]:
    """Yield each run of a guest, followed, and what of it differs; memory, slots and debuggers as they are by then."""
    debuggers: dict[int, Debugger] = {}
    contexts = {protected: GuestContext(code, cpu, Memory(code)) for protected, code in codes.items()}
    shapes = SlotTimeline()
    begin = 0
    for guest_run in rounds.runs(trace.events):
        index, entry, exit_ = guest_run
        for at in range(begin, index):
            event = trace.events[at]
            if watch is not None:
                watch.see(at, event)
            if not isinstance(event, Host) or event.error:
                continue
            if event.op == protocol.OP_WRITE:
                contexts[shapes.world(event.context).protected].memory.write(event.a, event.b)
            elif event.op in DEBUG_OPS:
                debuggers[event.context] = debuggers.get(event.context, Debugger()).after(event)
            else:
                shapes.apply(event)
        begin = index
        world = shapes.world(entry.context)
        context = contexts[world.protected]
        context.memory.regions = world.regions
        gic = None if watch is None else watch.enters(exit_.context)
        debugger = debuggers.get(entry.context) if entry.debugged else None
        if gic is not None or debugger is not None:
            context = GuestContext(context.code, cpu, context.memory, gic, debugger)
        run = predict_run(guest_run, context)
        if watch is not None:
            watch.left(index, exit_)
        yield run, tuple(switch.compare_run(run, context))
    if watch is not None:
        for at in range(begin, len(trace.events)):
            watch.see(at, trace.events[at])


def _once(
    trace: Trace,
    codes: Mapping[bool, Code],
    followed: Mapping[int, PredictedRun],
    watch: GicMonitor | None,
    restarts: Collection[int],
) -> Iterator[tuple[Mapping[str, int], Iterable[Divergence | Unchecked]]]:
    """Yield what is compared once a trace: how much it counts for each relation, and what differs."""
    yield {}, compare_slots(trace.events)
    if True in codes:
        yield {}, compare_donated_memory(trace.events)
    if reads_any(codes[False]):
        yield {"isolate": 1}, compare_unswitched_registers(trace, followed, codes[False])
    if trace.hyp:
        yield dict.fromkeys(RELATIONS, len(trace.hyp) // 2), compare_hyp_copy(trace)
    if trace.points:
        yield {"points": 1}, compare_debug_registers(trace, codes[False], restarts)
    if trace.lists and watch is not None:
        yield {"lists": 1}, watch.found
    if trace.vectors:
        yield {"vectors": 1}, compare_vectors(trace, followed, restarts)


def _record(found: Divergence | Unchecked, judged: list[ExplainedDivergence], unchecked: Counter[str]) -> None:
    """File what a relation without a model found: no catalogue entry can explain it."""
    if isinstance(found, Unchecked):
        unchecked[f"{found.what}: {found.why}"] += 1
    else:
        judged.append(ExplainedDivergence(found, None))


def _notify(witness: ComparisonListener, relation: str, event: int, found: tuple[Divergence | Unchecked, ...]) -> None:
    witness(Comparison(relation, event))
    for one in found:
        if isinstance(one, Unchecked):
            witness(Comparison(relation, event, one.why))


def _notify_model(witness: ComparisonListener, round_: Round, prediction: Prediction) -> None:
    """The comparisons of :func:`~harness.relations.save_restore.compare_round`; the same conditions."""
    if prediction.undefined:
        for relation in ("save", "restore"):
            witness(Comparison(relation, round_.first, f"the model is undefined: {prediction.undefined}"))
        return
    witness(Comparison("save", round_.first))
    witness(Comparison("restore", round_.first, "" if prediction.state is not None else "the model panicked"))


def _count(relations: Counter[str], unchecked: Counter[str], undefined: Counter[str], prediction: Prediction) -> None:
    if prediction.undefined:
        undefined[prediction.undefined] += 1
        return
    relations["save"] += 1
    if prediction.state is None:
        unchecked["restore: the model panicked"] += 1
    else:
        relations["restore"] += 1


def explain_round(
    round_: Round,
    prediction: Prediction,
    catalogue: Catalogue,
    lossy: Mapping[int, int],
    seen: Sequence[Divergence] = (),
) -> list[ExplainedDivergence]:
    """Return the divergences of one turn of the host, and those ``seen`` there, with what explains each."""
    found = (*save_restore.compare_round(round_, prediction), *seen)
    if not found:
        return []
    explain = catalogue.explainer(round_, prediction, lossy)
    return [ExplainedDivergence(divergence, explain(divergence)) for divergence in found]
