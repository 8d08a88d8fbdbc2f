# SPDX-License-Identifier: Apache-2.0
"""Compiling says what is missing, and builds what mypyc can take; the checker itself is built in tests/vm."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from fuzz.compiled import build, modules
from fuzz.compiled.use import SUFFIX
from harness.errors import SetupError
from harness.layout import CODE
from harness.vm.cache import Cache

SMALL = ("harness.layout",)
ASK = (
    "import sys; from pathlib import Path; from fuzz.compiled.use import CompiledFinder; "
    "sys.meta_path.insert(0, CompiledFinder(Path(sys.argv[1]))); import harness.layout as m; "
    "print(m.__file__, m.CODE.base)"
)


def test_missing_headers_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fuzz.compiled.build.sysconfig.get_path", lambda _: str(tmp_path))
    with pytest.raises(SetupError, match="Debian package python3-dev"):
        build.compile_checker(Cache(tmp_path / "cache"))
    assert not list((tmp_path / "cache").glob("compiled-*"))


def test_a_missing_mypyc_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(build, "find_spec", lambda name: None)
    with pytest.raises(SetupError, match="mypyc is missing"):
        build.compile_checker(Cache(tmp_path))


def test_one_module_is_built_and_imported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(build, "MODULES", SMALL)
    lines: list[str] = []
    entry = build.compile_checker(Cache(tmp_path), lines.append)
    assert entry.path.name == f"compiled-{modules.key_of()}"
    done = subprocess.run([sys.executable, "-c", ASK, str(entry.path)], capture_output=True, text=True, timeout=60)
    assert done.stdout.split() == [str(entry.path / f"harness.layout{SUFFIX}"), str(CODE.base)], done.stderr
