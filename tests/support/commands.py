# SPDX-License-Identifier: Apache-2.0
"""Return the commands' names and their help, and the command as it is installed."""

from __future__ import annotations

import io
import sys
from collections.abc import Iterator
from contextlib import redirect_stdout
from pathlib import Path

from fuzz.cli.main import main
from fuzz.cli.tree import GROUPS, leaves
from tests.support.paths import ROOT


def help_of(words: str) -> str:
    """Return the output of ``shadowfuzz WORDS --help`` without a terminal; no words: the main help."""
    with redirect_stdout(io.StringIO()) as printed:
        assert main([*words.split(), "--help"]) == 0
    return printed.getvalue()


def all_words() -> Iterator[str]:
    """Yield the words of every command and every group, the program's own (none) first."""
    yield ""
    yield from (str(group.name) for group in GROUPS)
    yield from (words for words, _, _ in leaves())


def launcher(directory: Path) -> Path:
    """Write the script that tools/setup.sh writes to the virtual environment; return its path."""
    path = directory / "shadowfuzz"
    path.write_text(f"#!{sys.executable} -IS\n{(ROOT / 'tools/launcher.py').read_text()}")
    path.chmod(0o755)
    return path
