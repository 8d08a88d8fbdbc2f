# SPDX-License-Identifier: Apache-2.0
"""Compile the checker with mypyc, for the sources that are here, and keep the result in the cache."""

from __future__ import annotations

import importlib.metadata
import shutil
import sys
import sysconfig
import tempfile
import time
from collections.abc import Mapping
from functools import partial
from importlib.util import find_spec
from pathlib import Path

from fuzz.compiled.modules import MODULES, SOURCES, key_of
from fuzz.compiled.use import KIND, SUFFIX
from harness.errors import SetupError
from harness.vm.cache import Cache, Entry
from harness.vm.tools import Progress, quiet, require_tool, run_tool

ROOM = 192 << 20
"""Bytes that a build takes at its peak: sources, C, objects."""
KEPT = 3
"""So many builds stay in the cache: of the checkouts and commits that were used last."""
SECONDS = 1800.0
"""Longer than a build takes on a slow and busy machine; it takes about a minute and a half of one core."""
OPTIONS: Mapping[str, str] = {"MYPYC_OPT_LEVEL": "2", "MYPYC_DEBUG_LEVEL": "0"}
"""For the C compiler; -O3 takes longer and gives nothing."""


def compile_checker(cache: Cache, progress: Progress = quiet, sources: Path = SOURCES) -> Entry:
    """Return the build of the sources that are here, made if the cache has none.

    SetupError: a tool is missing, or it complains.
    """
    build = partial(_build, sources, progress)
    return cache.get(KIND, key_of(sources), build, progress, ROOM, keep=KEPT)


def _build(sources: Path, progress: Progress, place: Path) -> Mapping[str, object]:
    _require_tools()
    begin = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="sources-", dir=place) as name:
        work = Path(name)
        # mypyc writes its output next to what it compiles, and reads the types of all that this imports.
        for package in ("harness", "fuzz"):
            shutil.copytree(sources / package, work / package, ignore=_no_sources)
        shutil.copy(sources / "pyproject.toml", work)
        before = key_of(sources)
        if key_of(work) != before:
            raise SetupError("a source file was changed while the checker was compiled; run the command again")
        files = [f"{module.replace('.', '/')}.py" for module in MODULES]
        argv = [sys.executable, "-m", "mypyc", *files]
        run_tool(argv, "compiling the checker", progress=progress, cwd=work, env=OPTIONS, timeout=SECONDS)
        shutil.rmtree(work / "build")
        for found in sorted(work.rglob(f"*{SUFFIX}")):
            module = ".".join(found.relative_to(work).parts).removesuffix(str(sysconfig.get_config_var("EXT_SUFFIX")))
            shutil.move(found, place / f"{module}{SUFFIX}")
    missing = [module for module in MODULES if not (place / f"{module}{SUFFIX}").is_file()]
    if missing:
        raise SetupError(f"compiling the checker failed: mypyc made no {missing[0]}")
    return {"mypy": importlib.metadata.version("mypy"), "seconds": round(time.monotonic() - begin, 1)}


def _no_sources(_directory: str, names: list[str]) -> list[str]:
    """Return what of a directory is not needed: what holds no Python."""
    return [name for name in names if name == "__pycache__" or ("." in name and not name.endswith((".py", ".pyi")))]


def _require_tools() -> None:
    """SetupError: a compiler, Python's headers or mypyc is missing."""
    require_tool("gcc", "gcc")
    headers = Path(sysconfig.get_path("include")) / "Python.h"
    if not headers.is_file():
        raise SetupError(f"{headers} is missing: install the Debian package python3-dev, or run make setup")
    for module in ("mypyc", "setuptools"):
        if find_spec(module) is None:
            raise SetupError(f"{module} is missing: run make setup")
