# SPDX-License-Identifier: Apache-2.0
"""The programs for the kernel's KVM selftests, built in its tree and run in targets: they fail if KVM has the bug.

``UPDATE_SHOWN=1 pytest tests/vm/test_exported_selftests_live.py -k keep`` runs every kept scenario and rewrites
``corpus/regressions/shown.json``; read the diff before a commit.
"""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Mapping
from pathlib import Path

import pytest

from fuzz.paths import ALARMS, KEPT, SHOWN
from fuzz.targets.runner import run_to_end
from fuzz.triage.handover import CheckedRun, best_shown, kept_handover, program
from harness.arch.cpu_models import cpu_model
from harness.errors import InputError
from harness.findings.check import check
from harness.findings.regressions import Regression, errata_of, load_regressions
from harness.handover.shown import Origin, Shown, to_json
from harness.vm.build.prepare import prepare
from harness.vm.cache import Cache, default_root
from harness.vm.config import PROJECT, list_configs, load_config
from harness.vm.kernels.selftest_tree import build_selftests, selftest_tree
from tests.vm.bare import run_as_init
from tests.vm.running import CATALOGUE, REGRESSIONS, booted, runnable

TARGETS = ("kvm-nvhe", "kvm-vhe", "kvm-6.12-nvhe", "kvm-7.3-nvhe")
FAILED, SKIPPED, PASSED = 254, 4, 0
"""Exit statuses of a selftest: TEST_ASSERT in the kernel's lib/assert.c, KSFT_SKIP in kselftest.h, and 0."""
FINDINGS = load_regressions(KEPT)
INIT = PROJECT / "tests" / "vm" / "selftests.c"
LEAST = 6
"""Minimum number of programs that fail on one kernel of TARGETS and pass on another."""


def _programs() -> dict[str, tuple[Regression, str]]:
    """Return every kept finding with a program, and its text, by the name of the program's file."""
    found = {}
    for row in (*FINDINGS, *load_regressions(ALARMS)):
        handover = kept_handover(row.id)
        assert handover is not None
        try:
            name, text = program(handover)
        except InputError:
            continue
        found[name] = (row, text)
    return found


PROGRAMS = _programs()


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Mapping[str, Path]:
    """Return all programs, compiled by the kernel's Makefile, and the init that runs them sequentially."""
    work = tmp_path_factory.mktemp("selftests")
    tree = selftest_tree(Cache(default_root(os.environ)))
    paths = build_selftests(tree, {name: text for name, (_, text) in PROGRAMS.items()}, work)
    init = work / "init"
    compiler = ["aarch64-linux-gnu-gcc", "-static", "-O1", "-Wall", "-Wextra", "-Werror", "-o", init, INIT]
    subprocess.run(compiler, check=True)
    return {"init": init} | {path.name: path for path in paths}


@pytest.mark.timeout(900)  # the first time 150 MB of the kernel's source are fetched
def test_every_program_compiles_in_a_kernel_tree(built: Mapping[str, Path]) -> None:
    assert {f"{name}.c" for name in built} >= set(PROGRAMS)


@pytest.mark.timeout(180)
@pytest.mark.parametrize("target", TARGETS)
def test_a_program_fails_where_its_finding_is_and_passes_elsewhere(
    built: Mapping[str, Path], target: str, tmp_path: Path
) -> None:
    files = {name: path.read_bytes() for name, path in built.items() if name != "init"}
    printed = run_as_init(target, built["init"].read_bytes(), tmp_path, files)
    results = dict(re.findall(r"RESULT (\w+) (-?\d+)", printed))
    assert results.keys() == files.keys(), printed
    for name, (row, _) in PROGRAMS.items():
        status = int(results[name.removesuffix(".c")])
        assert status in ((FAILED,) if target in row.targets else (PASSED, SKIPPED)), (name, printed)


def test_enough_programs_fail_on_one_kernel_and_pass_on_another() -> None:
    rows = [row for row, _ in PROGRAMS.values()]
    assert sum(0 < sum(target in row.targets for target in TARGETS) < len(TARGETS) for row in rows) >= LEAST


def _seen(target: str) -> dict[str, CheckedRun]:
    """Run every kept scenario on a target."""
    cpu, errata, config = cpu_model(load_config(target).cpu), errata_of(FINDINGS, target), load_config(target)
    release = prepare(config).kernel_release
    found: dict[str, CheckedRun] = {}
    with booted(target) as executor:
        for name, scenario in runnable(target, REGRESSIONS).items():
            trace = run_to_end(executor, scenario, fresh_vm=True)
            checked = check(scenario, trace, "spec", cpu, CATALOGUE, errata=errata)
            found[name] = Origin(target, release, name), scenario, trace, checked
    return found


ELSEWHERE = "kvm-protected@7.1.13"
"""A kernel with every finding that no target of the project has."""


@pytest.mark.timeout(900)
@pytest.mark.skipif(not os.environ.get("UPDATE_SHOWN"), reason="writes corpus/regressions/shown.json: UPDATE_SHOWN=1")
def test_keep_what_is_shown() -> None:
    seen = {target: _seen(target) for target in (*list_configs(), ELSEWHERE)}
    found: dict[str, Shown] = {}
    for row in FINDINGS:
        targets = row.targets or (ELSEWHERE,)
        runs = [seen[target][name] for target in targets for name in row.scenarios if name in seen[target]]
        shown = best_shown(row, FINDINGS, runs)
        assert shown is not None, row.id
        found[row.id] = shown
    SHOWN.write_text(to_json(found))
