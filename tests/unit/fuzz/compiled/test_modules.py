# SPDX-License-Identifier: Apache-2.0
"""A build's key changes with every source that can change what the build does."""

from __future__ import annotations

import ast
import re
import shutil
from pathlib import Path

import pytest

from fuzz.compiled.modules import MODULES, ROOMS, SOURCES, key_of
from tests.project.test_imports import MODULES as ALL
from tests.project.test_imports import ours


@pytest.fixture(scope="module")
def sources(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("sources")
    for room in ROOMS:
        (place / room).mkdir(parents=True, exist_ok=True)
        for path in (SOURCES / room).glob("*.py"):
            shutil.copy(path, place / room)
    return place


def test_a_copy_has_the_same_key(sources: Path) -> None:
    assert key_of(sources) == key_of()


@pytest.mark.parametrize("module", [*MODULES[::9], "harness.model.replay", "harness.protocol"])
def test_an_edited_source_changes_the_key(sources: Path, module: str) -> None:
    path = sources / f"{module.replace('.', '/')}.py"
    before, text = key_of(sources), path.read_text()
    path.write_text(f"{text}# edited\n")
    assert key_of(sources) != before
    path.write_text(text)
    assert key_of(sources) == before


def test_a_new_source_changes_the_key(sources: Path) -> None:
    before, new = key_of(sources), sources / ROOMS[-1] / "added.py"
    new.write_text("")
    assert key_of(sources) != before
    new.unlink()


def test_all_that_compiled_modules_import_is_in_the_key() -> None:
    open_, seen = list(MODULES), set(MODULES)
    while open_:
        for _, what in ours(open_.pop()):
            if what not in seen:
                seen.add(what)
                open_.append(what)
    outside = {name for name in seen if str(ALL[name].parent.relative_to(SOURCES)) not in ROOMS}
    assert not outside


def test_no_level_of_the_model_is_compiled() -> None:
    """It runs over numbers that are no int, which compiled code refuses."""
    assert not [name for name in MODULES if name.startswith("harness.model")]


def _not_final(path: Path) -> list[str]:
    """Return the constants of a module that are not declared ``Final``."""
    found: list[ast.expr] = []
    for node in ast.parse(path.read_text()).body:
        if isinstance(node, ast.Assign):
            found += [name for one in node.targets for name in (one.elts if isinstance(one, ast.Tuple) else [one])]
        elif isinstance(node, ast.AnnAssign) and "Final" not in ast.unparse(node.annotation):
            found.append(node.target)
    return [one.id for one in found if isinstance(one, ast.Name) and re.fullmatch("_?[A-Z][A-Z0-9_]*", one.id)]


def test_constants_of_compiled_modules_are_final() -> None:
    """Compiled code looks up any other name of a module in a dictionary, each time."""
    assert {name: found for name in MODULES if (found := _not_final(ALL[name]))} == {}


def test_no_compiled_module_relies_on_cached_property() -> None:
    """Compiled code computes one at each use, as any property."""
    assert not [name for name in MODULES if "cached_property" in ALL[name].read_text()]
