# SPDX-License-Identifier: Apache-2.0
"""Unit tests mirror the tree: a module has its own test file, or a row here names its test and the reason.

``tests/unit/<package>/<room>/test_<module>.py`` tests the module, ``test_<room>.py`` in a room tests its ``__init__``.
``tests/vm`` needs real VMs, ``tests/project`` is about the project as a whole, ``tests/support`` holds no tests.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from dataclasses import dataclass
from fnmatch import fnmatch
from functools import cache
from itertools import pairwise
from pathlib import Path

import pytest

from tests.support.paths import ROOT

TESTS = ROOT / "tests"
UNIT = TESTS / "unit"


@dataclass(frozen=True)
class Row:
    """A module without its own test file, and a file of ``tests`` that exercises it.

    That file imports the module, or the first module of ``via``, each of which imports the next, and the last one the
    module.  If ``via`` begins with a command's name, the file calls ``shadowfuzz`` with that word.
    """

    module: str
    test: str
    via: tuple[str, ...] = ()


MAIN, TABLE = "fuzz.cli.main", "fuzz.cli.tree"
LIVE_BENCH = "vm/test_bench_live.py"
LIVE_MAP, LIVE_CRASH, LIVE_TARGET = "vm/test_coverage_live.py", "vm/test_crash_live.py", "vm/test_target_live.py"
LIVE_CLUSTER = "vm/test_cluster_live.py"
ACTOR = ("fuzz.cluster.campaign", "fuzz.cluster.ray_actor")
LEVELS = ("tests.support.model_states", "harness.model")

ROWS: dict[str, tuple[Row, ...]] = {
    "tables, names and constants: that one is wrong shows only where it is used": (
        Row("fuzz.paths", "unit/harness/findings/test_regressions.py"),
        Row("harness.arch.cpu_models", "unit/harness/guest/test_walk.py"),
        Row("harness.arch.exits", "unit/harness/relations/test_contract.py"),
        Row("harness.arch.registers", "unit/harness/arch/test_a64.py"),
        Row("harness.arch.reset_values", "unit/harness/relations/test_contract.py"),
        Row("harness.arch.sysregs", "unit/harness/relations/test_isolate_unswitched.py"),
        Row("harness.coverage.kvm_handlers", "unit/harness/coverage/test_kvm_code.py"),
        Row("harness.errors", "unit/fuzz/cli/test_main.py"),
        Row("harness.input_file", "project/test_wrong_invocations.py"),
        Row("harness.output_file", "project/test_wrong_invocations.py", (MAIN, "fuzz.cli.options")),
        Row("harness.exit_status", "unit/fuzz/cli/test_main.py"),
        Row("fuzz.store.migrations.env", "unit/fuzz/store/test_migrate.py"),
        Row("fuzz.store.migrations.versions.v0001", "unit/fuzz/store/test_migrate.py"),
        Row("fuzz.store.migrations.versions.v0002", "unit/fuzz/store/test_migrate.py"),
        Row("fuzz.store.migrations.versions.v0003", "unit/fuzz/store/test_migrate.py"),
        Row("fuzz.store.migrations.versions.v0004", "unit/fuzz/store/test_migrate.py"),
        Row("fuzz.store.schema", "unit/fuzz/store/test_migrate.py"),
        Row("fuzz.cluster.nodes", "unit/fuzz/cluster/test_head.py"),
        Row("fuzz.campaign.limits", "unit/fuzz/campaign/test_live_campaign.py"),
        Row("fuzz.store.mark_limits", "unit/fuzz/cli/test_findings.py", ("set", MAIN, "fuzz.cli.finding_marks")),
        Row("harness.gic.registers", "unit/harness/gic/test_distributor.py"),
        Row("harness.layout", "unit/harness/vm/build/test_protocol_header.py"),
        Row("harness.model.constants", "unit/harness/model/test_machine.py"),
        Row("harness.model.prediction", "unit/harness/relations/test_save_restore.py"),
        Row("harness.relations.divergence", "unit/harness/findings/test_checked.py"),
        Row("harness.report.glossary", "unit/harness/report/test_html_report.py", ("harness.report.html_report",)),
        Row("harness.report.html_style", "unit/harness/report/test_html_report.py", ("harness.report.html_markup",)),
        Row("harness.trace.environment", "unit/harness/findings/test_check_recording.py"),
        Row("harness.trace.events", "unit/harness/trace/test_decode.py"),
    ),
    "the levels of the model: each test of a function asks all of them": (
        Row("harness.model.body", "unit/harness/model/test_spec.py", LEVELS),
        Row("harness.model.kernel", "unit/harness/model/test_spec.py", LEVELS),
        Row("harness.model.low", "unit/harness/model/test_spec.py", LEVELS),
        Row("harness.model.machine_kernel", "unit/harness/model/test_machine.py"),
        Row("harness.model.paging_kernel", "unit/harness/model/test_paging.py"),
        Row("harness.model.state", "unit/harness/model/test_model.py"),
    ),
    "a step on the way of a run: what it does is seen in the run that is predicted": (
        Row("harness.gic.cpu_interface", "unit/harness/gic/test_distributor.py"),
        Row("harness.guest.debug_stops", "unit/harness/guest/test_debugger.py", ("harness.guest.predict_run",)),
        Row("harness.guest.execute", "unit/harness/guest/test_walk.py", ("harness.guest.walk",)),
        Row("harness.guest.gic_access", "unit/harness/gic/test_distributor.py", ("harness.guest.walk",)),
        Row("harness.guest.load_store", "unit/harness/guest/test_mmu.py"),
        Row("harness.guest.predict_run", "unit/harness/guest/test_stage1_faults.py"),
        Row("harness.trace.debug_state", "unit/harness/guest/test_debugger.py"),
    ),
    "a part of the expected state at an entry: rounds are compared as a whole": (
        Row(
            "harness.findings.explanations",
            "unit/harness/findings/test_known_divergences.py",
            ("harness.findings.known_divergences",),
        ),
        Row("harness.model.replay", "unit/harness/model/test_memoised_replay.py"),
        Row("harness.relations.expected_state", "unit/harness/relations/test_host.py", ("harness.relations.host",)),
        Row("harness.relations.isolate", "unit/harness/relations/test_host.py"),
        Row("harness.relations.userspace_actions", "unit/harness/relations/test_host.py", ("harness.relations.host",)),
        Row("harness.trace.psci", "unit/harness/relations/test_host.py"),
    ),
    "one subject of several modules, tested as one": (
        Row("fuzz.bench.comparison_tables", "unit/fuzz/bench/test_compare.py"),
        Row("fuzz.campaign.lemma_run", "unit/fuzz/cli/test_lemma.py"),
        Row("fuzz.corpus.exercise_counts", "unit/harness/report/test_step_coverage.py"),
        Row("fuzz.corpus.recordings", "unit/fuzz/corpus/test_recorded_seeds.py"),
        Row("fuzz.targets.kernels", "unit/fuzz/cli/test_kernels.py"),
        Row("fuzz.targets.options", "unit/fuzz/targets/test_target_set.py"),
        Row("fuzz.targets.prepared_side", "unit/fuzz/cli/test_replay.py"),
        Row("fuzz.targets.record_program", "unit/fuzz/corpus/test_recorded_seeds.py"),
        Row("fuzz.triage.findings_text", "unit/fuzz/cli/test_findings.py"),
        Row("fuzz.triage.problems_text", "unit/fuzz/cli/test_findings.py", ("findings", MAIN, "fuzz.cli.findings")),
        Row("harness.report.problem_data", "unit/fuzz/cli/test_findings.py", ("findings", MAIN, "fuzz.cli.findings")),
        Row("fuzz.store.marks", "unit/fuzz/cli/test_findings.py", ("findings", MAIN, "fuzz.cli.findings")),
        Row("fuzz.triage.matrix_run", "unit/fuzz/triage/test_matrix.py", ("fuzz.cli.matrix",)),
        Row("fuzz.corpus.coverage_report", "vm/test_coverage_live.py", ("coverage", MAIN, "fuzz.cli.coverage")),
        Row("fuzz.targets.emulators", "unit/fuzz/triage/test_confirm.py", ("fuzz.triage.confirm",)),
        Row("fuzz.triage.export", "unit/fuzz/cli/test_export.py", ("export", MAIN, "fuzz.cli.export")),
        Row("fuzz.triage.handover", "unit/harness/handover/test_mail.py"),
        Row("harness.handover.selftest_steps", "unit/harness/handover/test_selftest.py"),
        Row(
            "harness.handover.steps_in_words",
            "unit/harness/handover/test_mail.py",
            ("fuzz.triage.handover", "harness.handover.letter"),
        ),
        Row("harness.handover.words", "unit/harness/handover/test_letter.py"),
        Row("fuzz.triage.tree_check", "vm/test_tree_live.py", ("ci", MAIN, "fuzz.cli.ci")),
        Row("fuzz.triage.replay", "unit/fuzz/cli/test_replay.py", ("replay", MAIN, "fuzz.cli.replay")),
        Row("fuzz.triage.report_server", "unit/fuzz/cli/test_report.py"),
        Row("fuzz.triage.report_site", "unit/fuzz/cli/test_report.py", ("fuzz.triage.report_page",)),
        Row("harness.report.api", "unit/fuzz/cli/test_report.py"),
        Row("fuzz.campaign.status_line", "unit/fuzz/campaign/test_summary.py"),
        Row("fuzz.campaign.campaign_results", "unit/fuzz/campaign/test_summary.py"),
        Row("fuzz.campaign.summary_text", "unit/fuzz/campaign/test_summary.py"),
        Row("fuzz.store.findings", "unit/fuzz/store/test_database.py"),
        Row("fuzz.store.runs", "unit/fuzz/store/test_database.py"),
        Row("harness.lemma.symbolic_starts", "unit/harness/lemma/test_prove.py", ("harness.lemma.prove",)),
        Row("harness.relations.donated_memory", "unit/harness/guest/test_pkvm_calls.py"),
        Row("harness.relations.guest_debug", "unit/harness/guest/test_debugger.py"),
        Row("harness.report.contract_page", "unit/harness/relations/test_contract_rules.py"),
        Row("harness.scenario.agent_operations", "unit/harness/scenario/test_memory_slots.py"),
        Row("harness.scenario.code_layout", "unit/harness/guest/test_walk.py"),
        Row("harness.scenario.requirements", "unit/harness/relations/test_gic.py"),
        Row("harness.trace.recorded_rounds", "unit/harness/findings/test_check_recording.py"),
        Row("harness.trace.recorded_resets", "unit/harness/findings/test_check_recording.py"),
        Row("harness.vm.kernels.btf", "unit/harness/vm/kernels/test_vcpu_layout.py"),
        Row("harness.vm.kernels.kallsyms", "unit/harness/vm/kernels/test_kvm_functions.py"),
        Row("harness.vm.plugins.hyp_copy", "unit/harness/relations/test_hyp_copy.py"),
        Row("harness.vm.plugins.plugin", "unit/harness/vm/plugins/test_edges.py", ("harness.vm.plugins.edges",)),
    ),
    "steps of a generated scenario: whole scenarios are generated and looked at": (
        Row("fuzz.generate.steps", "unit/fuzz/generate/test_mutator.py", ("fuzz.generate.mutator",)),
    ),
    "a worker's part: workers are tested on a fake executor": (
        Row("fuzz.campaign.reproduce_crash", "unit/fuzz/campaign/test_failures.py", ("fuzz.campaign.failures",)),
        Row("fuzz.campaign.worker_context", "unit/fuzz/campaign/test_worker.py", ("fuzz.campaign.worker",)),
        Row("fuzz.campaign.worker_machines", "unit/fuzz/campaign/test_worker.py", ("fuzz.campaign.worker",)),
        Row("fuzz.campaign.worker_process", "vm/test_hyp_copy_fuzz_live.py"),
        Row("fuzz.targets.observation", "unit/fuzz/targets/test_target_set.py"),
    ),
    "a part of what a command prints: the command's output is looked at": (
        Row("fuzz.campaign.lemma_campaign", "unit/fuzz/cli/test_lemma.py", ("lemma", MAIN, "fuzz.cli.lemma")),
        Row("fuzz.triage.report_page", "unit/harness/report/test_html_report.py"),
        Row("harness.report.campaign_data", "unit/harness/report/test_html_report.py", ("harness.report.html_report",)),
        Row("harness.report.crash", "unit/harness/report/test_export.py", ("harness.report.export",)),
        Row("harness.report.exchange_formats", "unit/fuzz/cli/test_findings.py", ("fuzz.triage.findings_text",)),
        Row("harness.report.finding_data", "unit/fuzz/cli/test_findings.py"),
        Row("harness.report.html_markup", "unit/harness/report/test_html_report.py"),
        Row("harness.report.html_findings", "unit/harness/report/test_html_report.py", ("harness.report.html_report",)),
        Row(
            "harness.report.html_nodes",
            "unit/fuzz/triage/test_metrics.py",
            ("fuzz.triage.report_page", "harness.report.html_report"),
        ),
        Row("harness.report.html_nights", "unit/harness/report/test_nights.py"),
        Row("harness.report.html_problems", "unit/harness/report/test_html_report.py", ("harness.report.html_report",)),
        Row("harness.report.html_script", "unit/harness/report/test_html_report.py"),
        Row("harness.report.readme_tables", "project/test_docs.py"),
        Row("harness.report.recording", "unit/fuzz/triage/test_check_recording.py"),
        Row("harness.report.trace_text", "unit/harness/report/test_terminal.py"),
    ),
    "a command: it is called, on a recording or on what was kept before": (
        Row("fuzz.cli.check", "unit/fuzz/corpus/test_extract_seeds.py", ("check", MAIN)),
        Row("fuzz.cli.distil", "unit/fuzz/corpus/test_extract_seeds.py", ("distil", MAIN)),
    ),
    "a command that needs machines: here it refuses bad input, and what it calls has tests": (
        Row("fuzz.cli.finding_marks", "unit/fuzz/cli/test_findings.py", ("set", MAIN)),
        Row("fuzz.cli.replay_output", "unit/fuzz/cli/test_replay.py", ("replay", MAIN, "fuzz.cli.replay")),
        Row("fuzz.cli.confirm", "project/test_malformed.py", ("confirm", MAIN)),
        Row("fuzz.cli.matrix", "unit/fuzz/triage/test_matrix.py"),
        Row("fuzz.cli.minimise", "project/test_malformed.py", ("minimise", MAIN)),
        Row("fuzz.cli.trial", "project/test_malformed.py", ("coverage-trial", MAIN)),
        Row("fuzz.cli.triage", "project/test_malformed.py", ("triage", MAIN)),
        Row("fuzz.cli.against", "project/test_malformed.py", ("against", MAIN)),
    ),
    "it needs a machine, and one that is faked would be all there is to it": (
        Row("fuzz.bench.checked_campaign", "unit/fuzz/bench/test_benchmark.py"),
        Row("fuzz.bench.machines", LIVE_BENCH, ("bench", MAIN, "fuzz.cli.bench", "fuzz.bench.benchmark")),
        Row("fuzz.bench.stages", LIVE_BENCH, ("bench", MAIN, "fuzz.cli.bench", "fuzz.bench.benchmark")),
        Row("fuzz.cli.bench", LIVE_BENCH, ("bench", MAIN)),
        Row("fuzz.cli.bench_compare", LIVE_BENCH, ("bench", MAIN)),
        Row("fuzz.cli.bisect", "vm/test_kernels_live.py", ("bisect", MAIN)),
        Row("fuzz.cli.ci", "vm/test_tree_live.py", ("ci", MAIN)),
        Row("fuzz.cli.record", "vm/test_record_live.py", ("record", MAIN)),
        Row("fuzz.cluster.cell_actor", LIVE_CLUSTER),
        Row("fuzz.cluster.node", LIVE_CLUSTER, (MAIN, "fuzz.cli.fuzz", *ACTOR)),
        Row("fuzz.cluster.ray_actor", LIVE_CLUSTER, (MAIN, "fuzz.cli.fuzz", *ACTOR[:-1])),
        Row("fuzz.cluster.triage", LIVE_CLUSTER, ("triage", MAIN, "fuzz.cli.triage")),
        Row("fuzz.cluster.triage_actor", LIVE_CLUSTER),
        Row("fuzz.cluster.ray_nodes", LIVE_CLUSTER, (MAIN, "fuzz.cli.fuzz", "fuzz.cluster.campaign")),
        Row("harness.vm.kernels.selftest_tree", "vm/test_exported_selftests_live.py"),
        Row("harness.vm.plugins.kvm_coverage", LIVE_MAP),
        Row("harness.vm.postmortem", LIVE_CRASH),
        Row("harness.vm.qemu", LIVE_TARGET),
        Row("harness.vm.qemu_command", LIVE_TARGET),
        Row("harness.vm.target", LIVE_TARGET),
    ),
}
"""Reasons, each with the modules that have no test file of their own for it."""
ALL = [row for rows in ROWS.values() for row in rows]


def name_of(path: Path) -> str:
    """Return the dotted name of a file below the root."""
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


FILES = {name_of(path): path for top in ("harness", "fuzz", "tests") for path in (ROOT / top).rglob("*.py")}
MODULES = {name for name, path in FILES.items() if name.split(".")[0] != "tests" and path.name != "__init__.py"}


@cache
def tree_of(path: Path) -> ast.Module:
    return ast.parse(path.read_text())


def imported(path: Path) -> Iterator[str]:
    """Yield the modules of this project that a file imports itself."""
    for node in ast.walk(tree_of(path)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name in FILES)
        elif isinstance(node, ast.ImportFrom) and node.module in FILES:
            below = [f"{node.module}.{alias.name}" for alias in node.names]
            yield from (name if name in FILES else node.module for name in below)
    if name_of(path) == MAIN:  # a table names the commands that it imports
        words = (node.value for node in ast.walk(tree_of(FILES[TABLE])) if isinstance(node, ast.Constant))
        yield from (word.partition(":")[0] for word in words if isinstance(word, str) and word.startswith("fuzz.cli."))


def calls(path: Path, command: str) -> bool:
    """Whether a file contains a word of a command line."""
    words = (node.value for node in ast.walk(tree_of(path)) if isinstance(node, ast.Constant))
    return any(isinstance(word, str) and word == command for word in words)


def home_of(module: str) -> Path:
    """Return the path of a module's own test file."""
    *rooms, last = module.split(".")
    return UNIT.joinpath(*rooms, f"test_{last}.py")


def module_of(test: Path) -> str:
    """Return the module that a unit test is for: one of the room, or else the room itself."""
    room, name = test.relative_to(UNIT).parent.parts, test.stem.removeprefix("test_")
    module = ".".join((*room, name))
    return ".".join(room) if module not in FILES and name == room[-1] else module


UNIT_TESTS = sorted(UNIT.rglob("test_*.py"))


@pytest.mark.parametrize("test", UNIT_TESTS, ids=name_of)
def test_a_unit_test_is_of_a_module_and_uses_it(test: Path) -> None:
    module = module_of(test)
    assert module in FILES, f"there is no {module}"
    reached = set(imported(test))
    reached |= {name for support in reached if support.startswith("tests.support") for name in imported(FILES[support])}
    near = reached.union(*(imported(FILES[name]) for name in reached))
    assert module in near, f"{test} imports {module} neither itself nor in what it imports"


def test_unit_holds_only_tests() -> None:
    assert not [path for path in UNIT.rglob("*.py") if path not in UNIT_TESTS and path.name != "__init__.py"]


def test_every_module_has_a_test_file_or_a_row() -> None:
    rows = {row.module for row in ALL}
    assert sorted(MODULES - rows - {name for name in MODULES if home_of(name).exists()}) == []


def test_rows_are_of_modules_that_need_one() -> None:
    assert len({row.module for row in ALL}) == len(ALL), "two rows of one module"
    assert [row.module for row in ALL if row.module not in MODULES] == [], "modules that do not exist"
    assert [row.module for row in ALL if home_of(row.module).exists()] == [], "modules that now have a test file"


@pytest.mark.parametrize("row", ALL, ids=lambda row: row.module)
def test_the_test_of_a_row_exercises_its_module(row: Row) -> None:
    test, via = TESTS / row.test, list(row.via)
    assert test.name.startswith("test_") and test.exists(), f"there is no {row.test}"
    if via and via[0] not in FILES:
        assert calls(test, via.pop(0)), f"{row.test} does not call that command"
    for importer, module in pairwise([test, *via, row.module]):
        path = FILES[importer] if isinstance(importer, str) else importer
        assert module in set(imported(path)), f"{path} does not import {module}"


def test_no_folder_of_tests_is_left_out(pytestconfig: pytest.Config) -> None:
    """A room may be called build, a name that pytest ignores by default."""
    patterns = pytestconfig.getini("norecursedirs")
    folders = {path.parent.relative_to(TESTS) for path in TESTS.rglob("test_*.py")}
    assert not [folder for folder in folders for part in folder.parts for p in patterns if fnmatch(part, p)]
    assert all((TESTS / folder / "__init__.py").exists() for folder in folders), "two tests of one name need packages"
