# SPDX-License-Identifier: Apache-2.0
"""Imports have one direction: a room imports only from rooms above its own, and each library has fixed users."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from fnmatch import fnmatch
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

from tests.support.paths import ROOT

GROUND = ("errors", "layout", "protocol", "jsonfile", "minimiser", "exit_status", "input_file", "output_file")
"""The ground files of ``harness``: every room may import them."""
ROOMS: tuple[tuple[str, ...], ...] = (
    ("harness",),
    ("harness.arch",),
    ("harness.gic", "harness.scenario"),
    ("harness.trace",),
    ("harness.guest", "harness.model", "harness.vm"),
    ("harness.lemma", "harness.relations"),
    ("harness.findings",),
    ("harness.coverage",),
    ("harness.report",),
    ("harness.handover",),
    ("fuzz",),
    ("fuzz.compiled", "fuzz.generate"),
    ("fuzz.store",),
    ("fuzz.targets",),
    ("fuzz.campaign",),
    ("fuzz.bench", "fuzz.corpus"),
    ("fuzz.triage",),
    ("fuzz.cluster",),
    ("fuzz.cli",),
)
"""Each row is a level: a room imports only from itself and from rooms in rows above its own.

The row with a package's name is for its ground files.  Rooms in one row do not import each other.
"""

USERS: tuple[tuple[str, tuple[str, ...]], ...] = (
    # A library, and the modules that may import it (patterns).
    ("capstone", ("harness.arch.a64",)),
    ("debian", ("harness.vm.debian.*",)),
    ("elftools", ("harness.vm.kernels.dwarf",)),
    ("qemu", ("harness.vm.qemu",)),
    ("z3", ("harness.lemma.*",)),
    ("sqlalchemy", ("fuzz.store.database", "fuzz.store.migrate")),
    ("alembic", ("fuzz.store.migrate", "fuzz.store.migrations.*")),
    ("atheris", ("fuzz.campaign.worker_process", "fuzz.campaign.lemma_campaign", "fuzz.campaign.libfuzzer_counters")),
    ("click", ("fuzz.cli.*",)),
    ("rich", ("fuzz.cli.*",)),
    ("asyncio", ("harness.vm.qemu",)),
    ("prometheus_client", ("fuzz.triage.metrics",)),
    ("ray", ("fuzz.cluster.ray_nodes",)),
    ("fsspec", ("fuzz.cluster.files",)),
)


def module_name(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


FILES = [path for top in ("harness", "fuzz") for path in sorted((ROOT / top).rglob("*.py"))]
MODULES: dict[str, Path] = {module_name(path): path for path in FILES}


def imports(path: Path) -> Iterator[tuple[int, str]]:
    """Yield line and full name of every import of a file; for the project's modules the module's name."""
    for node in ast.walk(ast.parse(path.read_text(), str(path))):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}:{node.lineno}: relative import"
            assert node.module is not None
            for alias in node.names:
                below = f"{node.module}.{alias.name}"
                yield node.lineno, below if below in MODULES else node.module


def room_of(name: str) -> str:
    """Return the room of a module; for ground files, their package."""
    parts = name.split(".")
    return ".".join(parts[:2]) if len(parts) > 2 or (MODULES[name].name == "__init__.py") else parts[0]


FLOOR = {room: number for number, row in enumerate(ROOMS) for room in row}


def ours(name: str) -> Iterator[tuple[int, str]]:
    """Yield line and name of what a module imports from this project."""
    for line, what in imports(MODULES[name]):
        if what.split(".")[0] in ("harness", "fuzz", "tests"):
            yield line, what


@pytest.mark.parametrize("name", MODULES)
def test_a_room_imports_only_from_rooms_above(name: str) -> None:
    own = room_of(name)
    wrong = [
        f"{MODULES[name]}:{line}: {what}"
        for line, what in ours(name)
        if room_of(what) != own and FLOOR[room_of(what)] >= FLOOR[own]
    ]
    assert not wrong, f"{name} may not import these"


def test_nothing_is_imported_in_a_circle() -> None:
    graph = {name: {what for _, what in ours(name) if what != name} for name in MODULES}
    TopologicalSorter(graph).prepare()  # raises CycleError with the cycle


def test_every_room_has_its_row() -> None:
    rooms = {room_of(name) for name in MODULES}
    assert sorted(FLOOR) == sorted(rooms), "a new room needs a row, or a removed room still has one"
    assert len(FLOOR) == sum(map(len, ROOMS)), "a room has two rows"


def test_ground_files_are_few() -> None:
    flat = {name for name in MODULES if len(name.split(".")) == 2 and MODULES[name].name != "__init__.py"}
    assert flat == {f"harness.{name}" for name in GROUND} | {"fuzz.paths"}, "all other modules belong into a room"


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
    assert ast.get_docstring(tree) or not tree.body  # an empty __init__ needs no docstring
