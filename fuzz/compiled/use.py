# SPDX-License-Identifier: Apache-2.0
"""Let imports find the compiled checker, if the cache has a build of the very sources that are here."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from importlib.machinery import ModuleSpec
from importlib.util import spec_from_file_location
from pathlib import Path
from types import ModuleType

from fuzz.compiled.modules import MODULES, SOURCES, key_of
from harness.vm.cache import Cache, Entry, default_root

KIND = "compiled"
"""The kind of the cache's entries: an extension module a file, with its full name (:mod:`fuzz.compiled.build`)."""
PURE = "SHADOWFUZZ_PURE"
"""The environment variable that, with any value, leaves the build alone."""
SUFFIX = ".so"


class CompiledFinder:
    """Finds some modules in a directory of extension modules; a row of :data:`sys.meta_path`."""

    def __init__(self, directory: Path) -> None:
        self.files = {path.name.removesuffix(SUFFIX): path for path in directory.glob(f"*{SUFFIX}")}

    def find_spec(
        self, name: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """Return where a module is, None if it is not in the directory (importlib.abc.MetaPathFinder)."""
        file = self.files.get(name)
        return None if file is None else spec_from_file_location(name, file)


def find_build(environ: Mapping[str, str], sources: Path = SOURCES) -> Entry | None:
    """Return the build of the sources that are here; None: there is none, or it is switched off."""
    cache = Cache(default_root(environ))
    if environ.get(PURE) or next(cache.root.glob(f"{KIND}-*"), None) is None:  # most often: the sources are not read
        return None
    try:
        return cache.find(KIND, key_of(sources))
    except OSError:
        return None


def use_compiled(environ: Mapping[str, str]) -> bool:
    """Let this process import the compiled checker if there is one; return whether it will.

    All of it or nothing: not if a module of it was imported already.
    """
    if any(name in sys.modules for name in MODULES):
        return False
    build = find_build(environ)
    if build is None:
        return False
    sys.meta_path.insert(0, CompiledFinder(build.path))
    return True


def is_compiled() -> bool:
    """Whether this process checks with the compiled checker."""
    return any(isinstance(finder, CompiledFinder) for finder in sys.meta_path)
