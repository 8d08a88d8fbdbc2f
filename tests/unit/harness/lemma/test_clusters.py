# SPDX-License-Identifier: Apache-2.0
"""The lemma campaign: comparing, generating, minimising, storing; and every stored cluster on its stored state."""

from __future__ import annotations

import json
import random
from pathlib import Path

import pytest

from harness.errors import InputError
from harness.lemma.campaign_recall import load_trials, missing, store_trial
from harness.lemma.case import SLOTS, build, case_of
from harness.lemma.cluster_meaning import MEANINGS, meaning
from harness.lemma.clusters import cluster_of, find_clusters, goals_of, load, merge, store, verify
from harness.lemma.compare_levels import (
    EQUAL,
    MAIN_PAIRS,
    PAIRS,
    VACUOUS,
    Difference,
    Question,
    ask,
    field_class,
    fork,
    questions,
)
from harness.lemma.coq import export
from harness.lemma.docs_page import render
from harness.lemma.generate import PROFILES, SHARES, SLOTS_OF, draw, rows
from harness.lemma.path_states import changed, load_paths
from harness.lemma.shrink import least, order
from harness.lemma.surviving_mutants import REASONS
from harness.model import FUNCTIONS, LEVEL_NAMES
from harness.model.constants import CTXT_FIELDS
from harness.model.state import BLANK, HOST_FIELDS
from tests.support.paths import CORPUS, ROOT

LEMMAS = CORPUS / "lemmas"
STORED = [c for path in sorted(LEMMAS.glob("*-*.json")) for c in load(path)]
LOW_BODY = ("low", "body")


@pytest.mark.parametrize("cluster", STORED, ids=lambda c: f"{':'.join(c.question.pair)}-{c.question.function}")
def test_a_stored_cluster_still_shows(cluster: object) -> None:
    assert verify(cluster) is None  # type: ignore[arg-type]


def test_every_stored_path_ends_as_it_did() -> None:
    rows = load_paths(LEMMAS / "paths.json")
    assert {row.function for row in rows} == {f.name for f in FUNCTIONS}
    assert {level for row in rows for level, _ in row.outcomes} == set(LEVEL_NAMES)
    assert [text for row in rows if (text := changed(row)) is not None] == []


def test_every_main_pair_is_stored() -> None:
    assert {c.question.pair for c in STORED} == set(MAIN_PAIRS)


def test_verify_says_what_changed(tmp_path: Path) -> None:
    cluster = next(c for c in STORED if c.left)
    row = cluster.to_json()
    row["left"][row["fields"][0]] = "something else"
    path = tmp_path / "low-body.json"
    path.write_text(json.dumps([row]))
    assert "left" in (verify(load(path)[0]) or "")
    path.write_text(json.dumps([cluster.to_json() | {"counterexample": {"vmid": 17}}]))
    assert verify(load(path)[0]) == "the two sides agree now"
    path.write_text(json.dumps([cluster.to_json() | {"counterexample": {"no such slot": 1}}]))
    with pytest.raises(InputError, match="no such slot"):
        load(path)


def test_the_page_is_current() -> None:
    assert (ROOT / "docs" / "lemmas.md").read_text() == render(LEMMAS)


def test_questions_cover_every_pair_and_function() -> None:
    assert len(PAIRS) == 12
    assert len(questions(PAIRS)) == 12 * len(FUNCTIONS)
    assert [q.layer for q in questions((LOW_BODY,), "VCPUOps")] == ["VCPUOps"] * 2
    assert questions((LOW_BODY,), "VCPUOps", "prep_wfx") == ()


# ---- one comparison


def test_left_undefined_claims_nothing() -> None:
    assert ask(Question(LOW_BODY, "prep_wfx"), {"vmid": 17})[0] == VACUOUS


def test_right_undefined_is_a_counterexample() -> None:
    difference = ask(Question(("spec", "low"), "restore_shadow_kvm_regs"), {"ctxt.dirty": 1 << 32, "ctxt.pc": 1 << 48})[
        0
    ]
    assert isinstance(difference, Difference)
    assert (difference.fields, difference.undefined) == ((), "is_addr pc")


def test_logs_are_a_switch() -> None:
    case = {"ctxt.dirty": (1 << 64) - 1}
    difference = ask(Question(LOW_BODY, "restore_shadow_kvm_regs"), case)[0]
    assert isinstance(difference, Difference)
    assert difference.fields == ("log.info",)
    assert ask(Question(LOW_BODY, "restore_shadow_kvm_regs", logs=False), case)[0] == EQUAL


def test_oracle_positions_and_revealed_count() -> None:
    difference = ask(Question(("spec", "low"), "prep_abort"), {"data.0": 64})[0]
    assert isinstance(difference, Difference)
    assert set(difference.fields) == {"data_log", "revealed"}


def test_a_level_agrees_with_itself() -> None:
    rng = random.Random(3)
    for question in questions(tuple((level, level) for level in ("spec", "low", "body", "kernel"))):
        for _ in range(60):
            verdict = ask(question, draw(rng, question.function))[0]
            assert verdict in (EQUAL, VACUOUS)


def test_fork() -> None:
    left, right = (("a", True), ("b", True), ("b", False)), (("b", True), ("c", True), ("b", True))
    assert fork(left, right) == "b"
    assert fork(left, left) == ""


def test_field_classes() -> None:
    assert field_class("ctxt.x7") == field_class("ctxt.x30") == "ctxt.x"
    assert field_class("ctxt.sctlr_el1") == "ctxt.el1"
    assert (field_class("ctxt.pc"), field_class("data_log")) == ("ctxt.pc", "data_log")
    assert field_class("ctxt[16].pc") == "other context"


# ---- cases


def test_a_case_builds_what_it_says() -> None:
    case = {"vmid": 2, "vcpuid": 3, "ctxt.pc": 5, "data.1": 7, "data_log": 2, "lock.info": 1, "core.1": 0x5003}
    case |= {"page.s2page.owner": 9, "pool.pmd": 2, "reg_desc.3": 4, "info.vm_inc_exe": 1}
    d, args = build(case, "restore_shadow_kvm_regs", False)
    assert (args, d.cur_vmid, d.cur_vcpuid, d.ctxt(19)["pc"]) == ((), 2, 3, 5)
    assert (d.data(2, 0), d.data(2, 1), d.lock, d.s2page) == (0, 7, {24: True}, {5: (9, 0, 0)})
    assert (d.reg_desc(3), d.info(2).vm_inc_exe, d.npt(2).pmd_next) == (4, 1, 65536 + 2 * 33554432 + 33554432)


def test_coupling_lays_out_what_the_host_shows() -> None:
    case = {"ctxt.dirty": 5, "ctxt.ec": 2, "host.x0": 10, "host.x2": 12, "ctxt.flags": 2, "ctxt.hpfar_el2": 0x70}
    d, _ = build({**case, "walk.pte": 3}, "restore_shadow_kvm_regs", True)
    assert (d.doracle[1][:3], d.core_doracle[1]) == ((10, 12, 0), (0x7000, 3, 0))


def test_every_slot_is_generated_somewhere() -> None:
    seen = {name for slots in SLOTS_OF.values() for name in slots}
    seen |= {name for profiles in PROFILES.values() for profile in profiles for name in profile}
    never = set(SLOTS) - seen
    assert {name.partition(".")[0] for name in never} <= {"host", "core", "data", "walk", "curid"}
    assert set(SLOTS_OF) == set(PROFILES) == {f.name for f in FUNCTIONS}
    assert set(BLANK) == set(CTXT_FIELDS)
    assert {"esr_el2", "sp_el0"} <= set(HOST_FIELDS)


def test_defaults_are_left_out() -> None:
    assert case_of({"vmid": 1, "ctxt.pc": 0, "ctxt.pstate": 3}) == (("ctxt.pstate", 3),)
    with pytest.raises(KeyError):
        case_of({"no such slot": 1})


@pytest.mark.parametrize("pair", MAIN_PAIRS)
def test_most_inputs_are_defined_on_the_left(pair: tuple[str, str]) -> None:
    rng, vacuous, total = random.Random(5), 0, 0
    for question in questions((pair,)):
        for _ in range(150):
            total += 1
            vacuous += ask(question, draw(rng, question.function))[0] == VACUOUS
    assert vacuous / total < 0.25


# ---- clusters


def finds(question: Question, seed: int, tries: int) -> list[tuple[Question, str, tuple[tuple[str, int], ...]]]:
    rng = random.Random(seed)
    found: dict[tuple[str, tuple[str, ...]], tuple[tuple[str, int], ...]] = {}
    for _ in range(tries):
        case = draw(rng, question.function)
        difference = ask(question, case)[0]
        if isinstance(difference, Difference):
            for goal in difference.goals():
                found.setdefault((goal, difference.branch()), case_of(case))
    return [(question, goal, case) for (goal, _), case in found.items()]


@pytest.mark.parametrize("seed", (1, 2, 3))
@pytest.mark.parametrize("function", ("prep_abort", "sync_dirty_to_shadow"))
def test_random_search_finds_the_stored_clusters(function: str, seed: int) -> None:
    question = Question(LOW_BODY, function)
    stored = {c.key for c in STORED if c.question == question}
    assert {c.key for c in find_clusters(finds(question, seed, 4000))} == stored


def test_counterexamples_are_least() -> None:
    for cluster in STORED:
        difference = ask(cluster.question, dict(cluster.case))[0]
        assert isinstance(difference, Difference)
        for name, _ in cluster.case:
            without = case_of({n: v for n, v in cluster.case if n != name})
            smaller = cluster_of(cluster.question, without)
            assert smaller is None or smaller.key != cluster.key


def test_least_is_deterministic_and_keeps_the_goal() -> None:
    question = Question(LOW_BODY, "prep_abort")
    start = case_of({"data.0": 31 << 16 | 1 << 21 | 5, "ctxt.hpfar_el2": 0x123456, "ctxt.x3": 7, "vcpuid": 3})
    goal = "ctxt.dirty at "
    small = least(question, start, goal)
    assert small == (("data.0", 31 << 16),)
    assert order(small) < order(start)
    with pytest.raises(ValueError, match="does not satisfy"):
        least(question, (), goal)


def test_store_and_load(tmp_path: Path) -> None:
    mine = [c for c in STORED if c.question.pair == LOW_BODY]
    store(tmp_path, LOW_BODY, reversed(mine))
    assert sorted(load(tmp_path / "low-body.json"), key=str) == sorted(mine, key=str)


@pytest.mark.parametrize("pair", MAIN_PAIRS)
def test_merging_the_stored_clusters_changes_nothing(pair: tuple[str, str]) -> None:
    mine = tuple(c for c in STORED if c.question.pair == pair)
    assert merge(reversed(mine)) == mine


def test_merge_drops_what_another_one_on_fewer_branches_shows() -> None:
    question = Question(("spec", "low"), "restore_shadow_kvm_regs")
    skip = cluster_of(question, case_of({"ctxt.pc": 1 << 48, "ctxt.dirty": 1 << 32}))
    both = cluster_of(question, case_of({"ctxt.dirty": 3 << 32, "vbar": 1 << 48}))
    assert skip is not None
    assert both is not None
    assert goals_of(skip) == goals_of(both) == ("undefined is_addr pc at ",)
    assert merge((both, skip)) == merge((skip, both, both)) == (skip,)
    assert merge((both,)) == (both,)


def test_clusters_do_not_depend_on_the_number_of_processes() -> None:
    found = finds(Question(LOW_BODY, "prep_abort"), 1, 400)
    assert find_clusters(found, 2) == find_clusters(found) == find_clusters(reversed(found))


# ---- the generator


@pytest.mark.parametrize("function", ("post_handle_shadow_s2pt_fault", "restore_shadow_kvm_regs"))
def test_mapping_states_are_frequent(function: str) -> None:
    """Owner by free space by conflict, each in the thousands of any run of a minute."""
    rng, total = random.Random(7), 4000
    seen: dict[str, int] = {}
    for _ in range(total):
        difference = ask(Question(("spec", "kernel"), function), draw(rng, function))[0]
        for label in difference.branch() if isinstance(difference, Difference) else ():
            seen[label] = seen.get(label, 0) + 1
    labels: tuple[str, ...] = ("assign_pfn_to_vm.host_owns", "assign_pfn_to_vm.vm_owns", "insert.conflict")
    labels += ("not assign_pfn_to_vm.vm_owns", "not assign_pfn_to_vm.unshared", "insert.room", "not insert.room")
    assert {label: seen.get(label, 0) for label in labels if seen.get(label, 0) < total // 200} == {}


def test_rows_and_shares_cover_every_function() -> None:
    assert set(SHARES) == {f.name for f in FUNCTIONS}
    for f in FUNCTIONS:
        assert all(set(case) <= set(SLOTS) and min(case.values(), default=0) >= 0 for case in rows(f.name))
    assert sum(1 for _ in rows("post_handle_shadow_s2pt_fault")) > 70


# ---- trials


def test_a_trial_says_what_was_missed(tmp_path: Path) -> None:
    mine = tuple(c for c in STORED if c.question.pair == LOW_BODY)
    store(tmp_path, LOW_BODY, mine[1:])
    report = {"seconds": 60.0, "workers": 2, "comparisons": 5}
    chosen = questions((LOW_BODY,))
    trial = missing(tmp_path, LOW_BODY, 4, report, mine[:-1], chosen)
    assert (trial.listed, len(trial.missed), len(trial.unlisted)) == (len(mine) - 1, 1, 1)
    assert (
        trial.text()
        .splitlines()[0]
        .endswith(f"{len(mine) - 2} of {len(mine) - 1} listed clusters found, 1 that are not listed")
    )
    for seed in (4, 3, 4):
        store_trial(tmp_path, missing(tmp_path, LOW_BODY, seed, report, mine, chosen))
    assert [row["seed"] for row in load_trials(tmp_path, "low:body")] == [3, 4]
    assert "| low:body | 3 | 60 | 2 | 5 |" in render(tmp_path)


# ---- what a reader sees


def test_every_survivor_of_the_mutation_test_is_reviewed() -> None:
    assert set(json.loads((LEMMAS / "mutants.json").read_text())["survivors"]) == set(REASONS)


def test_every_cluster_has_words_and_every_row_is_used() -> None:
    assert all(meaning(c) for c in STORED)
    used = {next((m for m in MEANINGS if m.fits(c)), None) for c in STORED}
    assert [m.word for m in MEANINGS if m not in used] == []


def test_coq_export() -> None:
    text = export(c for c in STORED if c.question.pair == LOW_BODY)
    assert text.count("\nSection ") == text.count("\nEnd ") == sum(c.question.pair == LOW_BODY for c in STORED)
    assert "restore_shadow_kvm_regs_spec0 d = Some d'" in text
    assert "restore_shadow_kvm_regs_body E0 le' (m, d') Out_normal" in text
    for opening, closing in ("()", "{}", "[]"):
        assert text.count(opening) == text.count(closing)
    kernel = export(c for c in STORED if c.question.pair == ("spec", "kernel"))
    assert "\nSection " not in kernel
