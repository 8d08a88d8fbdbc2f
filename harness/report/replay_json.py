# SPDX-License-Identifier: Apache-2.0
"""Export a replay as one JSON object.  64-bit values are hexadecimal strings, counts are numbers.

Keys::

    level                the level of the model
    exit_status          the process's exit status
    targets[]            target, kernel, boots, seconds, exits{class: n},
                         totals{runs, exits, known, unexplained, not_compared, lost, alarms, asserted, failed, unmet},
                         compared{relation: n}, complete (share of comparisons without gaps),
                         stood_in{reason: n} (made by another relation), not_compared{reason: n}, runs[], lost[],
                         boot_alarms[]
      runs[]             scenario, repeat, about, steps, status, dropped, exits{}, compared{}, not_compared{},
                         known, unexplained, sites[], alarms[], asserted[], left_out[], failed[], and with --trace
                         the trace (harness/trace/tracefile.py)
        sites[]          event, step, address, text, instruction (of the trap; null before the first entry),
                         exit_class, syndrome{esr, far, hpfar, ipa, fields{}, note}, pending[], kvm{outcome, skip,
                         inject}, host[], model{level, helper, dirty, decisions[[name, taken]]}, columns[],
                         registers[], divergences[]
          registers[]    register, values{column: value or null}, differing_bits
          divergences[]  relation, register, name, expected, observed, signature[], cause (the errata that predict it),
                         basis (harness/relations/basis.py: the violated specification; empty: the model's prediction),
                         known (null: unexplained; else id, verdict, why, source)
        alarms[]         kind (harness/vm/alarms.py), function (may be empty), words, splat, signature[2]
        asserted[]       as alarms[], KVM's own assertions about forged exits, with kind_of_exit
                         (harness/relations/forged_exits.py) and esr
        left_out[]       relation, why, needs (what is missing for it), event (null: the whole trace), step, exit_class
        failed[]         step, text, error: host steps that failed
        expected[]       before (the step), name, expected, observed (null: why it was not compared), failed, event, why
      lost[]             scenario (null: during boot), repeat, reason, console_tail
    known[]              id, verdict, counts{target: n}: divergences that each entry of the catalogue explained
    clusters[]           signature[], counts{target: n}, reproduced[runs, of], first (scenario)
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict

from harness.findings.checked import ExplainedDivergence, signature
from harness.report.left_out import LeftOut
from harness.report.replay_result import Lost, Ran, TargetResult, clusters, exit_status, known_counts
from harness.report.sites import Site
from harness.trace.expectations import Expectation
from harness.trace.tracefile import trace_to_json
from harness.vm.alarms import Alarm

Json = Mapping[str, object]


def document(results: tuple[TargetResult, ...], level: str, *, traces: bool = False) -> Json:
    """Return the whole replay; ``traces``: with every recorded event."""
    return {
        "level": level,
        "exit_status": exit_status(results),
        "targets": [_target(result, level, traces) for result in results],
        "known": [
            {"id": entry, "verdict": verdict, "counts": dict(counts)}
            for (entry, verdict), counts in known_counts(results).items()
        ],
        "clusters": [
            {"signature": list(c.signature), "counts": dict(c.counts), "reproduced": c.reproduced, "first": c.first}
            for c in clusters(results)
        ],
    }


def _target(result: TargetResult, level: str, traces: bool) -> Json:
    return {
        "target": result.target,
        "kernel": result.kernel,
        "boots": result.boots,
        "seconds": round(result.seconds, 3),
        "totals": dict(result.totals),
        "exits": dict(result.exits_by_class()),
        "compared": dict(result.relations()),
        "complete": round(result.complete_share, 4),
        "stood_in": dict(result.stood_in()),
        "not_compared": dict(result.not_compared()),
        "runs": [_run(ran, level, traces) for ran in result.ran],
        "lost": [_lost(lost) for lost in result.lost],
        "boot_alarms": [alarm_json(alarm) for alarm in result.boot_alarms],
    }


def _lost(lost: Lost) -> Json:
    job = lost.job
    where = {"scenario": job.name if job else None, "repeat": job.repeat if job else None}
    return {**where, "reason": lost.reason, "console_tail": lost.console_tail}


def _run(ran: Ran, level: str, traces: bool) -> Json:
    run: dict[str, object] = {
        "scenario": ran.job.name,
        "repeat": ran.job.repeat,
        "about": ran.job.scenario.about,
        "steps": len(ran.job.scenario.steps),
        "status": ran.checked.status,
        "dropped": ran.checked.dropped,
        "exits": dict(ran.checked.exits),
        "compared": dict(ran.checked.relations),
        "not_compared": dict(ran.not_compared),
        "known": ran.known,
        "unexplained": ran.unexplained,
        "sites": [site_json(site, level) for site in ran.sites],
        "alarms": [alarm_json(alarm) for alarm in ran.alarms],
        "asserted": [{**alarm_json(one.alarm), "kind_of_exit": one.kind, "esr": hex(one.esr)} for one in ran.asserted],
    }
    run["left_out"] = [{"relation": one.what, **_without(one, "what")} for one in ran.left_out]
    run["failed"] = [one._asdict() for one in ran.failed]
    run["expected"] = [_expected_json(one) for one in ran.expected]
    if traces:
        run["trace"] = trace_to_json(ran.trace)
    return run


def _expected_json(one: Expectation) -> dict[str, object]:
    before, name, value = one.expect
    seen = None if one.observed is None else hex(one.observed)
    judged = {"failed": one.failed, "event": one.event, "why": one.why}
    return {"before": before, "name": name, "expected": hex(value), "observed": seen, **judged}


def _without(one: LeftOut, name: str) -> Json:
    return {key: value for key, value in one._asdict().items() if key != name}


def alarm_json(alarm: Alarm) -> dict[str, object]:
    """Return one alarm of a kernel."""
    return {**asdict(alarm), "signature": list(alarm.signature)}


def site_json(site: Site, level: str) -> Json:
    """Return one site."""
    place, why, done, said = site.place, site.syndrome, site.action, site.prediction
    return {
        "event": site.event,
        "step": place.step if place else None,
        "address": hex(place.address) if place else None,
        "text": place.text if place else None,
        "instruction": place.instruction if place else None,
        "exit_class": site.exit_class,
        "syndrome": None
        if why is None
        else {
            **{name: hex(getattr(why, name)) for name in ("esr", "far", "hpfar", "ipa")},
            "fields": dict(why.fields),
            "note": why.note,
        },
        "pending": list(site.pending),
        "kvm": None if done is None else {"outcome": done.outcome, "skip": done.skip, "inject": done.inject},
        "host": list(site.host),
        "model": None
        if said is None
        else {
            "level": level,
            "helper": said.helper,
            "dirty": hex(said.dirty),
            "decisions": [list(decision) for decision in said.path],
        },
        "columns": list(site.columns),
        "registers": [
            {
                "register": row.register,
                "values": dict(zip(site.columns, (None if v is None else hex(v) for v in row.values), strict=True)),
                "differing_bits": hex(row.bits),
            }
            for row in site.rows
        ],
        "divergences": [_divergence(judged) for judged in site.judged],
    }


def _divergence(judged: ExplainedDivergence) -> Json:
    found, known = judged.divergence, judged.known
    return {
        "relation": found.relation,
        "register": found.register,
        "name": found.name,
        "expected": _value(found.expected),
        "observed": _value(found.observed),
        "signature": list(signature(found)),
        "cause": found.cause,
        "basis": found.basis,
        "known": None if known is None else {name: getattr(known, name) for name in ("id", "verdict", "why", "source")},
    }


def _value(value: int | str) -> str:
    return hex(value) if isinstance(value, int) else value
