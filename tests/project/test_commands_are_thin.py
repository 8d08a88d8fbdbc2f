# SPDX-License-Identifier: Apache-2.0
"""Commands only parse, call and print; the code that they call does not print, parse options or boot machines."""

from __future__ import annotations

import ast
from collections.abc import Iterator

import pytest

from tests.project.test_imports import MODULES, imports

CLI = "fuzz.cli."
SHARED = frozenset({f"fuzz.cli.{name}" for name in ("declare", "options", "output", "progress", "replay_output")})
"""Modules of their own room that commands may import."""
TABLE = frozenset({"fuzz.cli.main", "fuzz.cli.tree"})
"""The table of all commands, and the module that runs one."""
COMMANDS = sorted(name for name in MODULES if name.startswith(CLI) and name not in {*SHARED, *TABLE})
BELOW = sorted(name for name in MODULES if not name.startswith(CLI))
MAX_LINES = 180
MAX_PARAMETERS = 7
PRINTS = {
    "fuzz.bench.checked_campaign": "a process of its own, whose output is its answers",
    "fuzz.campaign.worker_process": "a process of its own, whose output is its log",
    "harness.vm.kernels.selftest_tree": "a process of its own for tools/kvm-selftests.sh, whose output is a path",
}
"""Modules other than commands that print, and why."""
BOOTS = {
    "fuzz.targets.prepared_side": "the facility that all others use",
    "fuzz.targets.fast_qemu": "one target on two programs, one of which is not to be used yet",
}
"""Modules of ``fuzz`` that boot machines, and why."""


def tree_of(name: str) -> ast.Module:
    return ast.parse(MODULES[name].read_text(), name)


def printing(tree: ast.Module) -> Iterator[int]:
    """Yield the lines that print, or that use a standard stream."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Name) and node.id == "print":
            yield node.lineno
        if isinstance(node, ast.Attribute) and ast.unparse(node) in ("sys.stdout", "sys.stderr"):
            yield node.lineno


@pytest.mark.parametrize("name", BELOW)
def test_only_commands_print(name: str) -> None:
    lines = list(printing(tree_of(name)))
    assert bool(lines) == (name in PRINTS), f"{name} prints in lines {lines}"


@pytest.mark.parametrize("name", BELOW)
def test_only_commands_know_options(name: str) -> None:
    assert not {"argparse", "click"} & {what for _, what in imports(MODULES[name])}


@pytest.mark.parametrize("name", COMMANDS)
def test_commands_do_not_import_each_other(name: str) -> None:
    own_room = {what for _, what in imports(MODULES[name]) if what.startswith(CLI)}
    assert own_room <= SHARED


@pytest.mark.parametrize("name", COMMANDS)
def test_commands_are_short(name: str) -> None:
    lines = MODULES[name].read_text().count("\n")
    assert lines <= MAX_LINES, (
        f"{name} has {lines} lines: code other than parsing and printing belongs into other rooms"
    )


@pytest.mark.parametrize("name", COMMANDS)
def test_commands_neither_check_nor_boot(name: str) -> None:
    wrong = {"harness.findings.check", "harness.vm.target", "harness.vm.qemu", "subprocess", "multiprocessing"}
    assert not wrong & {what for _, what in imports(MODULES[name])}


def test_one_module_boots_machines() -> None:
    found: set[str] = set()
    for name in (name for name in MODULES if name.startswith("fuzz.")):
        for node in ast.walk(tree_of(name)):
            if isinstance(node, ast.ImportFrom) and node.module in ("harness.vm.target", "harness.vm.qemu"):
                found |= {name} if {"boot", "Qemu"} & {alias.name for alias in node.names} else set()
    assert found == set(BOOTS)


@pytest.mark.parametrize("name", [name for name in MODULES if name.split(".")[0] == "fuzz"])
def test_parameters_are_few(name: str) -> None:
    """A function that needs more takes a frozen dataclass."""
    for node in ast.walk(tree_of(name)):
        if isinstance(node, ast.FunctionDef):
            given = [*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs]
            count = sum(each.arg not in ("self", "cls") for each in given)
            assert count <= MAX_PARAMETERS, f"{name}:{node.lineno}: {node.name} has {count} parameters"
