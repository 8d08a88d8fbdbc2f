# SPDX-License-Identifier: Apache-2.0
"""What a worker does with divergences: they are confirmed, kept and counted; simpler scenarios wait."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from fuzz.campaign.worker import SPREAD
from harness.errors import VmLost
from harness.findings.checked import CheckResult
from harness.scenario.scenario import format_scenario
from tests.support.fake_worker import DIVERGENCE, OTHER, SCENARIO, TEXT, FakeExecutor, checked, make_worker


def test_fake_divergence_that_is_reproduced_is_a_finding(tmp_path: Path) -> None:
    b = make_worker(tmp_path, *[checked(DIVERGENCE)] * 3, checked(DIVERGENCE, DIVERGENCE))
    b.worker.run_input(TEXT)
    assert b.executor.fresh == [False, False, True]
    assert b.executor.seen == [1]  # the coverage of confirmation runs does not count for the input
    b.worker.run_input(TEXT)  # a later member of the cluster is not confirmed again
    assert len(b.executor.fresh) == 4
    (id_,) = b.findings.ids()
    kept = b.findings.load(id_)
    assert b.findings.count(id_) == 2
    assert (kept.same_vm.hits, kept.fresh_vm.hits) == (1, 1)
    assert b.findings.entry(id_).scenario == TEXT.decode()
    assert "trace.json" in b.findings.texts(id_)
    assert (b.count("unexplained"), b.count("flaky"), b.get("count", "confirmations")) == (3, 0, 1)


LONGER = format_scenario(replace(SCENARIO, steps=SCENARIO.steps * 3)).encode()


def test_fake_simpler_scenario_of_a_kept_finding_waits_for_its_turn(tmp_path: Path) -> None:
    shows = checked(DIVERGENCE)
    b = make_worker(tmp_path, *[shows] * 4, *[checked()] * (SPREAD - 3), shows, *[checked(DIVERGENCE, OTHER)] * 3)
    b.worker.run_input(LONGER)
    b.worker.run_input(TEXT)
    assert b.executor.fresh == [False, False, True, False], "the simpler one is not confirmed at once"
    (id_,) = b.findings.ids()
    assert b.findings.entry(id_).scenario == LONGER.decode(), "and what was found is kept already"
    for _ in range(SPREAD - 2):
        b.worker.run_input(LONGER)
    assert b.executor.fresh[-3:] == [False, False, True] and len(b.executor.fresh) == SPREAD + 2 + 3
    assert b.get("count", "confirmations") == 2
    assert b.findings.entry(id_).scenario == TEXT.decode()
    assert len(b.findings.ids()) == 2, "what it shows for the first time is kept, too"
    assert not b.executor.answers


def test_fake_scenario_that_shows_only_what_is_kept_is_run_twice(tmp_path: Path) -> None:
    shows = checked(DIVERGENCE)
    b = make_worker(tmp_path, *[shows] * 4, *[checked()] * (SPREAD - 2), *[shows] * 2)
    for text in (LONGER, TEXT, *[LONGER] * (SPREAD - 2)):
        b.worker.run_input(text)
    assert b.executor.fresh[-2:] == [False, True] and len(b.executor.fresh) == SPREAD + 2 + 2
    (id_,) = b.findings.ids()
    kept = b.findings.load(id_)
    assert (kept.same_vm.hits, kept.fresh_vm.hits) == (1, 1)
    assert b.findings.entry(id_).scenario == TEXT.decode() and not b.executor.answers


def test_fake_simpler_scenario_of_what_an_erratum_explains_does_not_wait(tmp_path: Path) -> None:
    shows = checked(DIVERGENCE._replace(cause="an-erratum"))
    b = make_worker(tmp_path, *[shows] * 4, *[checked()] * (SPREAD - 2))
    for text in (LONGER, TEXT, *[LONGER] * (SPREAD - 2)):
        b.worker.run_input(text)
    (id_,) = b.findings.ids()
    assert b.findings.entry(id_).scenario == LONGER.decode() and not b.executor.answers


GONE = VmLost("fake", "QEMU ended with status -9")


def test_fake_machine_that_a_waiting_scenario_ends_is_its_crash(tmp_path: Path) -> None:
    b = make_worker(tmp_path, *[checked(DIVERGENCE)] * 4, *[checked()] * (SPREAD - 2), GONE)
    for text in (LONGER, TEXT, *[LONGER] * (SPREAD - 2)):
        b.worker.run_input(text)
    (id_,) = (id_ for id_ in b.findings.ids() if id_.startswith("crash-"))
    assert b.findings.entry(id_).scenario == TEXT.decode()


@pytest.mark.parametrize(
    "again", [(checked(), checked(DIVERGENCE)), (checked(DIVERGENCE), checked()), (checked(OTHER), checked(OTHER))]
)
def test_fake_divergence_that_is_not_reproduced_is_flaky(tmp_path: Path, again: tuple[CheckResult, ...]) -> None:
    b = make_worker(tmp_path, checked(DIVERGENCE), *again)
    b.worker.run_input(TEXT)
    assert b.findings.ids() == () and len(b.flaky.ids()) == 1
    assert (b.count("unexplained"), b.count("flaky")) == (0, 1)


def test_fake_what_the_fast_qemu_shows_is_confirmed_on_the_other_one(tmp_path: Path) -> None:
    own = FakeExecutor([checked(DIVERGENCE)])
    b = make_worker(tmp_path, *[checked(DIVERGENCE)] * 2, own_qemu=own)
    assert own.boots == 0, "until there is something to confirm"
    b.worker.run_input(TEXT)
    assert (b.executor.fresh, own.fresh) == ([False, False], [True])
    (id_,) = b.findings.ids()
    assert b.flaky.ids() == () and "Debian's own" in b.findings.texts(id_)["confirmed_on.txt"]
    b.worker.close()


def test_fake_what_only_the_fast_qemu_shows_is_no_finding(tmp_path: Path) -> None:
    b = make_worker(tmp_path, *[checked(DIVERGENCE)] * 2, own_qemu=FakeExecutor([checked()]))
    b.worker.run_input(TEXT)
    assert b.findings.ids() == () and len(b.flaky.ids()) == 1


def test_fake_cluster_of_an_earlier_campaign_is_known(tmp_path: Path) -> None:
    make_worker(tmp_path, *[checked(DIVERGENCE)] * 3).worker.run_input(TEXT)
    b = make_worker(tmp_path, checked(DIVERGENCE))
    b.worker.run_input(TEXT)
    assert b.executor.fresh == [False]
    assert [b.findings.count(id_) for id_ in b.findings.ids()] == [2]


def test_fake_scenarios_with_different_leaders_are_kept(tmp_path: Path) -> None:
    late = OTHER._replace(event=3)
    alone, both = checked(late), checked(DIVERGENCE, late)
    b = make_worker(tmp_path, *[alone] * 3, *[both] * 3, *[both])
    for _ in range(3):
        b.worker.run_input(TEXT)
    ids = {name: id_ for id_ in b.findings.ids() for name in b.findings.load(id_).signature[1:2]}
    leaders = {id_: {one.leader for one in found} for id_, found in b.findings.examples().items()}
    assert leaders == {ids["pc"]: {ids["pc"], ids["xN"]}, ids["xN"]: {ids["xN"]}}
    assert b.get("count", "confirmations") == 2, "the third has the same leader"


def test_fake_divergence_with_a_cause_has_no_leader(tmp_path: Path) -> None:
    known = DIVERGENCE._replace(cause="an-erratum")
    b = make_worker(tmp_path, *[checked(known, OTHER._replace(event=3))] * 3)
    b.worker.run_input(TEXT)
    (examples,) = b.findings.examples().values()
    assert b.findings.load(examples[0].leader).signature[1] == "pc"
    assert {b.findings.load(id_).signature[4:] for id_ in b.findings.ids()} == {(), ("an-erratum",)}
