# SPDX-License-Identifier: Apache-2.0
"""A process imports a build of the sources that are here, all of it, or the sources."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from fuzz.compiled.modules import MODULES, ROOMS, SOURCES, key_of
from fuzz.compiled.use import KIND, PURE, SUFFIX, CompiledFinder, find_build, use_compiled
from harness.vm.cache import Cache

ASK = (
    "import os, sys; from fuzz.compiled.use import use_compiled; {first}; "
    "print(use_compiled(os.environ)); import harness.trace.pending as m; print(m.__file__.rpartition('/')[2])"
)


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """A cache with a build for the sources that are here: of one module, as a file that is no extension module."""

    def build(directory: Path) -> dict[str, object]:
        (directory / f"harness.trace.rounds{SUFFIX}").write_bytes(b"no extension module")
        return {}

    Cache(tmp_path / "shadowfuzz").get(KIND, key_of(), build)
    return tmp_path


def test_a_build_is_found_by_its_sources(place: Path, tmp_path: Path) -> None:
    environ = {"XDG_CACHE_HOME": str(place)}
    found = find_build(environ)
    assert found is not None
    assert find_build({**environ, PURE: "1"}) is None
    assert find_build({"XDG_CACHE_HOME": str(tmp_path / "empty")}) is None
    edited = tmp_path / "edited"
    for room in ROOMS:
        shutil.copytree(SOURCES / room, edited / room, dirs_exist_ok=True)
    assert find_build(environ, edited) == found
    (edited / "harness" / "trace" / "pending.py").open("a").write("\n")
    assert find_build(environ, edited) is None, "a build never meets a source that it was not made from"
    assert find_build(environ, tmp_path / "none") is None


def test_the_finder_finds_what_the_build_has(place: Path) -> None:
    build = find_build({"XDG_CACHE_HOME": str(place)})
    assert build is not None
    finder = CompiledFinder(build.path)
    spec = finder.find_spec("harness.trace.rounds")
    assert spec is not None and spec.origin == str(build.path / f"harness.trace.rounds{SUFFIX}")
    assert finder.find_spec("harness.trace.pending") is None


def ask(place: Path, first: str = "", **more: str) -> list[str]:
    environ = {"PATH": "/usr/bin", "XDG_CACHE_HOME": str(place), "PYTHONPATH": str(SOURCES), **more}
    argv = [sys.executable, "-c", ASK.format(first=first or "pass")]
    done = subprocess.run(argv, env=environ, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    return done.stdout.split()


def test_a_process_uses_the_build_or_none_of_it(place: Path, tmp_path: Path) -> None:
    assert ask(place) == ["True", "pending.py"]
    assert ask(place, **{PURE: "1"}) == ["False", "pending.py"]
    assert ask(tmp_path / "empty") == ["False", "pending.py"]
    assert ask(place, "import harness.arch.exits") == ["False", "pending.py"], "some of it is imported already"


def test_this_process_has_imported_the_sources() -> None:
    import harness.trace.rounds

    assert harness.trace.rounds.__file__.endswith(".py"), "pytest always imports the sources"
    assert "harness.trace.rounds" in MODULES and not use_compiled({})
