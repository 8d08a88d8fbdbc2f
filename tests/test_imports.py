# SPDX-License-Identifier: Apache-2.0
"""Imports go one way: a module of ``harness`` imports only from rows above its own, libraries have one user each."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from fnmatch import fnmatch
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]

ROWS: tuple[str, ...] = (
    "harness",
    *("harness.vm.crash", "harness.errors", "harness.jsonfile"),
    *("harness.arch.registers", "harness.arch.exits", "harness.layout", "harness.protocol"),
    "harness.scenario.memory_slots",
    *(
        "harness.arch.a64",
        "harness.arch.sysregs",
        "harness.scenario.steps",
        "harness.scenario.scenario",
        "harness.trace.events",
        "harness.arch.exceptions",
    ),
    "harness.arch.cpu_models",
    *("harness.gic", "harness.gic.registers", "harness.gic.cpu_interface", "harness.gic.distributor"),
    *(
        "harness.guest.memory",
        "harness.guest.stage1",
        "harness.guest.execute",
        "harness.guest.load_store",
        "harness.guest.mmu",
        "harness.guest.pkvm_calls",
    ),
    *(
        "harness.guest.syndrome",
        "harness.guest.debugger",
        "harness.guest.debug_stops",
        "harness.scenario.code_layout",
        "harness.guest.stage1_faults",
    ),
    *("harness.guest.gic_access", "harness.trace.environment", "harness.trace.slot_timeline"),
    "harness.guest.instruction_fetch",
    *("harness.relations.contract", "harness.trace.psci", "harness.trace.debug_state"),
    *(
        "harness.guest.el2_refusals",
        "harness.guest.walk",
        "harness.guest.predict_run",
        "harness.trace.rounds",
        "harness.relations.save_restore",
        "harness.relations.fp_simd",
    ),
    *("harness.relations.isolate_unswitched", "harness.relations.hyp_copy", "harness.relations.donated_memory"),
    *(
        "harness.relations.mmio",
        "harness.relations.host",
        "harness.relations.memory_slots",
        "harness.relations.guest_debug",
        "harness.relations.debug_registers",
    ),
    *("harness.relations.gic_list_registers", "harness.relations.gic"),
    *("harness.model.constants", "harness.model.state", "harness.model.locks"),
    *("harness.model.paging", "harness.model.paging_kernel", "harness.model.machine", "harness.model.machine_kernel"),
    *("harness.model.spec", "harness.model.low", "harness.model.body", "harness.model.kernel"),
    *(
        "harness.model",
        "harness.model.replay",
        "harness.model.memoised_replay",
        "harness.findings.explanations",
        "harness.findings.known_divergences",
    ),
    *("harness.findings.intended_changes", "harness.findings.check"),
    *("harness.findings.compare_releases", "harness.findings.finding", "harness.findings.release_history"),
    "harness.findings.regressions",
    *("harness.minimiser", "harness.scenario.simplify", "harness.findings.verdict", "harness.trace.tracefile"),
    *(
        "harness.trace.recording",
        "harness.trace.ring",
        "harness.trace.recorded_rounds",
        "harness.findings.check_recording",
        "fuzz.corpus.extract_seeds",
    ),
    *("harness.lemma", "harness.lemma.*"),
    "harness.coverage.kvm_handlers",
    *("harness.report", "harness.report.esr", "harness.report.sites", "harness.report.replay_result"),
    *(
        "harness.report.terminal",
        "harness.report.trace_text",
        "harness.report.replay_json",
        "harness.report.readme_tables",
    ),
    "harness.report.release_pairs",
    *("harness.report.crash", "harness.report.glossary"),
    *("harness.report.finding_data", "harness.report.exchange_formats", "harness.report.campaign_data"),
    "harness.report.recording",
    *("harness.report.html_style", "harness.report.html_markup", "harness.report.html_report", "harness.report.export"),
    *("harness.vm", "harness.vm.config", "harness.vm.tools", "harness.vm.cache", "harness.vm.debian.apt_sources"),
    *(
        "harness.vm.debian.versions",
        "harness.vm.debian.apt",
        "harness.vm.debian.kernel_archive",
        "harness.vm.kernels.files",
        "harness.vm.kernels.btf",
    ),
    *(
        "harness.vm.kernels.vcpu_layout",
        "harness.vm.kernels.dwarf",
        "harness.vm.debian.changelog",
        "harness.vm.kernels.kallsyms",
        "harness.vm.kernels.fetch",
    ),
    *(
        "harness.vm.qemu_versions",
        "harness.vm.build.initramfs",
        "harness.vm.build.protocol_header",
        "harness.vm.build.prepare",
    ),
    *(
        "harness.vm.build.doctor",
        "harness.vm.plugins.plugin",
        "harness.vm.plugins.edges",
        "harness.vm.kernels.kvm_functions",
        "harness.vm.template",
    ),
    "harness.vm.plugins.hyp_copy",
    *("harness.vm.qemu_command", "harness.vm.qemu", "harness.vm.clone"),
    *("harness.vm.gdbstub", "harness.vm.postmortem", "harness.vm.fetch_storm"),
    *("harness.vm.executor", "harness.vm.target", "harness.vm.plugins.kvm_coverage"),
    *("harness.vm.build.programs", "harness.vm.recorder"),
    *("harness.coverage.kvm_code", "harness.report.kvm_coverage", "harness.report.guidance_trial"),
    *("harness.coverage.exercised_steps", "harness.coverage.reachable_exits", "harness.report.step_coverage"),
    *("harness.relations.contract_rules", "harness.coverage.exercised_rules", "harness.report.contract_page"),
)
"""Every module of ``harness``, each below all that it imports.  A package's own row is its ``__init__``; a row with a
star is a room whose modules may import each other, though not in a circle.
"""

USERS: tuple[tuple[str, tuple[str, ...]], ...] = (
    # A library, and the modules that may import it (patterns).
    ("capstone", ("harness.arch.a64",)),
    ("elftools", ("harness.vm.kernels.dwarf",)),
    ("qemu", ("harness.vm.qemu",)),
    ("z3", ("harness.lemma.*",)),
    ("sqlalchemy", ("fuzz.store.database",)),
    ("atheris", ("fuzz.campaign.worker_process", "fuzz.campaign.lemma_campaign*", "fuzz.campaign.libfuzzer_counters")),
    ("asyncio", ("harness.vm.qemu",)),
)


def module_name(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


FILES = [path for top in ("harness", "fuzz") for path in sorted((ROOT / top).rglob("*.py"))]
MODULES: dict[str, Path] = {module_name(path): path for path in FILES}


def imports(path: Path) -> Iterator[tuple[int, str]]:
    """Yield line and full name of all that a file imports, anywhere in it: modules of ours by their own name."""
    for node in ast.walk(ast.parse(path.read_text(), str(path))):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}:{node.lineno}: relative import"
            assert node.module is not None
            for alias in node.names:
                below = f"{node.module}.{alias.name}"
                yield node.lineno, below if below in MODULES else node.module


def row_of(name: str) -> int | None:
    """Return the number of a module's row."""
    exact = [i for i, row in enumerate(ROWS) if row == name]
    return next(iter(exact + [i for i, row in enumerate(ROWS) if "*" in row and fnmatch(name, row)]), None)


def ours(name: str) -> Iterator[tuple[int, str]]:
    """Yield line and name of what a module imports from this project."""
    for line, what in imports(MODULES[name]):
        if what.split(".")[0] in ("harness", "fuzz", "tests"):
            yield line, what


@pytest.mark.parametrize("name", [name for name in MODULES if name.split(".")[0] == "harness"])
def test_harness_imports_only_from_rows_above(name: str) -> None:
    own = row_of(name)
    assert own is not None, f"{name} has no row: put it below all that it imports"
    limit = own + 1 if "*" in ROWS[own] else own
    wrong = []
    for line, what in ours(name):
        row = row_of(what)
        if row is None or row >= limit:
            wrong.append(f"{MODULES[name]}:{line}: {what}")
    assert not wrong, f"{name} may not import these"


def test_nothing_is_imported_in_a_circle() -> None:
    graph = {name: {what for _, what in ours(name) if what != name} for name in MODULES}
    TopologicalSorter(graph).prepare()  # raises CycleError, with the circle


def test_every_row_is_there_once() -> None:
    assert len(set(ROWS)) == len(ROWS)
    assert {row for row in ROWS if "*" not in row} - set(MODULES) == set()


@pytest.mark.parametrize("name", MODULES)
def test_libraries_have_their_users(name: str) -> None:
    wrong = [
        f"{MODULES[name]}:{line}: {library}"
        for line, what in imports(MODULES[name])
        for library, users in USERS
        if what.split(".")[0] == library and not any(fnmatch(name, user) for user in users)
    ]
    assert not wrong


@pytest.mark.parametrize("name", [name for name in MODULES if name.split(".")[0] == "fuzz"])
def test_fuzz_imports_no_tests(name: str) -> None:
    assert not [what for _, what in imports(MODULES[name]) if what.split(".")[0] == "tests"]


@pytest.mark.parametrize("name", MODULES)
def test_licence_line_and_docstring(name: str) -> None:
    text = MODULES[name].read_text()
    assert text.startswith("# SPDX-License-Identifier: Apache-2.0\n")
    tree = ast.parse(text)
    assert ast.get_docstring(tree) or not tree.body  # an empty __init__ has nothing to say
