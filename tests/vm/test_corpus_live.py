# SPDX-License-Identifier: Apache-2.0
"""The corpus on every target: seeds are clean, regressions show their findings and nothing else.

Campaigns depend on this: if a seed had an unexplained divergence, every mutant of it would; if a regression lost its
finding, or the same scenario gave another result the second time, no finding would be reliable.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Mapping
from functools import partial

import pytest

from fuzz.paths import SHOWN
from fuzz.triage.check_recording import check_file
from harness.coverage.exercised_steps import Exercise
from harness.coverage.reachable_exits import DEBUG_EXITS, GUEST_EXITS, possible, unreached_reason
from harness.findings.checked import CheckResult, signature
from harness.findings.finding import difference, place_text
from harness.findings.regressions import Regression, load_regressions
from harness.handover.shown import check_of, load_shown
from harness.relations.divergence import Divergence, causes, is_new
from harness.relations.errata import SHARED
from harness.scenario.steps import STEP_KINDS
from harness.vm.config import DEFAULT_TARGET, PROJECT, list_configs
from tests.vm.running import (
    CATALOGUE,
    CORPUS,
    REGRESSIONS,
    SEEDS,
    booted,
    check_all,
    findings,
    run_all,
    runnable,
    two_at_a_time,
)

Results = Mapping[str, CheckResult]
EVERYTHING = {**SEEDS, **REGRESSIONS}
FINDINGS = load_regressions(CORPUS / "regressions" / "expected.toml")

OF_THE_EMULATOR = frozenset({"fetch_misaligned"})
"""The architecture has a PC alignment fault in the guest, so that KVM sees nothing (Arm ARM AArch64.CheckPCAlignment).

QEMU 7.2 and 10.0.2 have an abort at stage 2 instead; 10.0.13 has one or the other, depending on what ran before.
"""
# These return random numbers, the time, or (in 6.1, for a CPU interface that the VM does not have) values of another
# VM.
NOT_THE_SAME_TWICE = OF_THE_EMULATOR | frozenset(
    {"smccc_trng", "smccc_trng_rnd", "smccc_vendor"}
    | {"contract_calls_smccc", "contract_sysregs_timer_read", "contract_sysregs_gic_read"}
)


def _several_times(target: str) -> tuple[Results, Results, Results]:
    """Return runs in separate VMs, then twice in one VM, in another order each time."""
    with booted(target) as executor:
        first = check_all(target, EVERYTHING, executor, fresh_vm=True)
        again = [
            check_all(target, dict(order.sample(list(EVERYTHING.items()), len(EVERYTHING))), executor, fresh_vm=False)
            for order in (random.Random(1), random.Random(2))
        ]
    return first, again[0], again[1]


@pytest.fixture(scope="module")
def several_times() -> tuple[Results, Results, Results]:
    return _several_times(DEFAULT_TARGET)


@pytest.fixture(scope="module")
def exercised() -> Mapping[str, Exercise]:
    """Return the coverage of the runs of ``corpus``, after they are done."""
    return {name: Exercise() for name in list_configs()}


@pytest.fixture(scope="module")
def corpus(exercised: Mapping[str, Exercise]) -> Mapping[str, Results]:
    jobs = (partial(run_all, name, EVERYTHING, exercise=counts) for name, counts in exercised.items())
    return dict(zip(exercised, two_at_a_time(jobs), strict=True))


def _rows(target: str, scenario: str) -> list[Regression]:
    return [row for row in FINDINGS if target in row.targets and scenario in row.scenarios]


def _shown(checked: CheckResult, *, interrupted: bool = False) -> dict[str, list[Divergence]]:
    """Return unexplained divergences, by signature; at an interrupt any divergence of another exit can occur."""
    shown: dict[str, list[Divergence]] = {}
    for divergence in checked.unexplained:
        if interrupted or divergence.exit_class != "IRQ":
            shown.setdefault(place_text(signature(divergence)), []).append(divergence)
    return shown


@pytest.mark.parametrize("target", list_configs())
def test_seeds_are_clean(corpus: Mapping[str, Results], target: str) -> None:
    for name in runnable(target, SEEDS):
        checked = corpus[target][name]
        assert (checked.status, checked.dropped) == ("ok", 0), name
        assert checked.unexplained == (), name
        assert not checked.undefined, name


@pytest.mark.parametrize("target", list_configs())
def test_every_scenario_is_compared_in_every_relation(corpus: Mapping[str, Results], target: str) -> None:
    total: Counter[str] = Counter()
    for checked in corpus[target].values():
        assert sum(checked.exits.values()) > 0
        assert checked.relations["switch"] > 0
        total.update(checked.exits)
    # IRQ is asynchronous; the others are exits of scenario steps.
    real = {name for name in total if not name.startswith("forged:")}
    assert real - {"IRQ"} == {*GUEST_EXITS, *DEBUG_EXITS}


@pytest.mark.parametrize("target", list_configs())
def test_regressions_show_their_findings_and_nothing_else(corpus: Mapping[str, Results], target: str) -> None:
    """At least one divergence of each finding that names the scenario on this target, and none of any other."""
    for name in runnable(target, REGRESSIONS):
        checked, rows = corpus[target][name], _rows(target, name)
        shown = _shown(checked)
        assert findings(checked) <= {divergence for row in rows for divergence in row.divergences}, name
        for text, members in shown.items():
            assert all(any(row.shows(text, [difference(d)]) for row in rows) for d in members), (name, text)
            errata = {SHARED.get(row.id, row.id) for row in rows}
            determined = [d.cause for d in members if d.cause]
            # Other errata of the target may contribute.
            assert all(errata & {*causes(cause)} and not is_new(cause) for cause in determined), (name, text)
        for row in rows:
            everywhere = _shown(checked, interrupted=True)
            shows = any(row.matching(text) for text in everywhere)
            assert shows or name in OF_THE_EMULATOR, f"{name} does not show {row.id}"
        ends = {row.ends for row in rows} or {"ok"}
        assert checked.status in ends and checked.dropped == 0, name


@pytest.mark.parametrize("row", FINDINGS, ids=lambda row: row.id)
def test_each_signature_of_a_finding_is_shown_on_each_of_its_targets(
    corpus: Mapping[str, Results], row: Regression
) -> None:
    for target in row.targets:
        results = corpus[target]
        shown = {text for name in row.scenarios if name in results for text in _shown(results[name], interrupted=True)}
        assert set(row.signatures) == {row.matching(text) for text in shown} - {None}, target


def test_what_mails_and_programs_show_is_shown(corpus: Mapping[str, Results]) -> None:
    """``corpus/regressions/shown.json``, for the findings of the project's targets."""
    stored = load_shown(SHOWN, REGRESSIONS.__getitem__)
    for row in FINDINGS:
        shown = stored[row.id]
        if shown.target in corpus:
            there = [check_of(d) for d in corpus[shown.target][shown.name].unexplained]
            values = {check[1:] for check in there if check is not None}
            assert {check[1:] for check in shown.checks} <= values, row.id
        else:
            assert not row.targets, row.id


def test_expected_toml_names_what_there_is() -> None:
    listed = [name for row in FINDINGS for name in row.scenarios]
    assert set(listed) == set(REGRESSIONS)
    assert {target for row in FINDINGS for target in row.targets} <= set(list_configs())


def test_every_known_entry_is_used(corpus: Mapping[str, Results]) -> None:
    """An entry that explains nothing in the corpus, nor in recorded programs, is untested or not needed."""
    used = {j.known.id for results in corpus.values() for c in results.values() for j in c.judged if j.known}
    for path in sorted((PROJECT / "tests" / "golden" / "selftests").glob("*.trace")):
        used |= set(check_file(path, ("spec",), lambda line: None).tally.known)
    assert used == {entry.id for entry in CATALOGUE.entries}


@pytest.mark.parametrize("target", list_configs())
def test_each_step_is_exercised_and_judged(
    corpus: Mapping[str, Results], exercised: Mapping[str, Exercise], target: str
) -> None:
    """Every kind of step, at each place that harness/coverage/reachable_exits.py calls possible, except those with a
    reason."""
    found = exercised[target]
    assert {kind.keyword for kind in STEP_KINDS} <= {place.step for place in found.reached}
    assert {p for p in possible() if p not in found.reached and unreached_reason(p, target) is None} == set()
    for kind in STEP_KINDS:
        judged = {r for p, rs in found.judged.items() if p.step == kind.keyword for r, j in rs.items() if j.whole}
        assert judged, f"{kind.keyword}: no relation ever compared it completely"


def _judged(checked: CheckResult) -> frozenset[tuple[object, ...]]:
    """Return the found divergences, independent of their place and number.

    An interrupt moves later events, and a trapped access may trap once more.  ``save.reveal`` occurs at every exit, and
    a first access may fault once more.
    """
    return frozenset(
        (d.name, d.expected, d.observed, d.exit_class, d.step, d.helper, j.known.id if j.known else None)
        for j in checked.judged
        for d in [j.divergence]
        if d.exit_class != "IRQ" and d.name != "save.reveal"
    )


TRIES = 8


def _mostly(name: str, first: frozenset[tuple[object, ...]]) -> bool:
    """Whether a scenario nearly always shows the same divergences.

    An interrupt of the host may make KVM load the vCPU again, and registers that trap until a first access trap again
    then.
    """
    scenario = {name: EVERYTHING[name]}
    with booted(DEFAULT_TARGET) as executor:
        tries = [check_all(DEFAULT_TARGET, scenario, executor, fresh_vm=bool(n % 2))[name] for n in range(TRIES)]
    return sum(_judged(one) == first for one in tries) >= TRIES - 1


@pytest.mark.parametrize("name", sorted(set(EVERYTHING) - NOT_THE_SAME_TWICE))
def test_equal_results_in_a_used_vm(
    corpus: Mapping[str, Results], several_times: tuple[Results, ...], name: str
) -> None:
    """In a VM that was used before, with any earlier scenario, and on another boot."""
    if name not in corpus[DEFAULT_TARGET]:
        pytest.skip("the default target has no protected VM")
    runs = (corpus[DEFAULT_TARGET], *several_times)
    assert all((results[name].status, results[name].dropped) == ("ok", 0) for results in several_times)
    judged = [_judged(results[name]) for results in runs]
    usual = max(judged, key=judged.count)
    assert all(one == usual for one in judged) or (judged.count(usual) >= len(runs) - 1 and _mostly(name, usual))
