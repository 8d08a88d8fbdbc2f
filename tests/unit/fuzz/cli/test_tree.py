# SPDX-License-Identifier: Apache-2.0
"""The table of commands: its rows, older names, and lazy imports."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from fuzz.cli import main, tree
from fuzz.cli.declare import Args, Command
from tests.support.commands import help_of
from tests.support.paths import ROOT

SLOW = ("sqlalchemy", "z3", "atheris", "capstone", "elftools", "importlib.metadata", "rich", "fuzz.store.database")


def test_the_help_lists_about_fifteen_commands_in_groups() -> None:
    names = [row.name for section in tree.COMMANDS.sections.values() for row in section]
    assert 13 <= len(names) <= 16 and len(tree.COMMANDS.sections) >= 5
    text = help_of("")
    assert all(f"\n{title}:\n" in text for title in tree.COMMANDS.sections)
    assert all(f"\n  {name} " in text for name in names)
    assert not any(f"\n  {row.name} " in text for row in tree.COMMANDS.old)


def test_every_row_is_a_command() -> None:
    for words, row, command in tree.leaves():
        assert isinstance(command, Command) and command.name == row.name, words
    for row in tree.COMMANDS.old:
        assert isinstance(row.load(), Command)


OLD: tuple[tuple[str, str], ...] = (
    ("serve --port 0", "report serve --port 0"),
    ("export d4 --to a --out b", "findings export d4 --out a --campaign b"),
    ("matrix a.scn --targets x y --missing", "kernels matrix a.scn --target x --target y --missing"),
    ("bisect a.scn --out c", "kernels bisect a.scn --campaign c"),
    ("against a b c.scn", "kernels against a b c.scn"),
    ("record --out t --linux", "recording record --out t --linux"),
    ("record --out t prog --out x -h", "recording record --out t prog --out x -h"),
    ("check t", "recording check t"),
    ("distil t --out d", "recording distil t --out d"),
    ("coverage", "corpus coverage"),
    ("reach --mutants 0", "corpus reach --mutants 0"),
    ("cmin a b", "corpus cmin a --out b"),
    ("coverage-trial --page d", "bench trial --page d"),
    ("bench --quick", "bench exits --quick"),
    ("report --out a", "report write --out a"),
    ("findings --new --out c", "findings list --new --campaign c"),
    ("findings --out c show d4", "findings show d4 --campaign c"),
    ("triage --out c", "triage --campaign c"),
    ("replay a.scn --known", "replay a.scn --verbose"),
    ("setup --target a b", "setup --target a --target b"),
)
"""Command lines of version 0.1, and their present form."""


@pytest.mark.parametrize(("old", "new"), OLD)
def test_command_lines_of_an_older_version(old: str, new: str) -> None:
    assert main.parsed(old.split()) == main.parsed(new.split())
    assert isinstance(main.parsed(old.split()), Args)


def imported_by(code: str) -> set[str]:
    """Return the modules that a piece of code imports, in a new process."""
    script = f"import sys\n{code}\nprint(*sys.modules, file=sys.stderr)"
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=True)
    return set(done.stderr.split())


@pytest.mark.parametrize(
    "code",
    [
        "from fuzz.cli.main import main\nmain(['--help'])",
        "from fuzz.cli import tree\nfor words, row, command in tree.leaves(): pass",
        "from fuzz.cli.main import main\nmain(['replay', '--nonsense'])",
    ],
)
def test_help_imports_nothing_slow(code: str) -> None:
    assert not imported_by(code) & set(SLOW)


def test_only_the_standard_library_is_imported_before_interrupts_are_handled() -> None:
    own = {name.partition(".")[0] for name in imported_by("import fuzz.cli.main") - imported_by("")}
    assert own - sys.stdlib_module_names == {"fuzz", "harness"}


def complete(words: str) -> list[str]:
    """Return the completions for bash after words."""
    program = [sys.executable, "-c", "import sys; from fuzz.cli.main import main; sys.exit(main())"]
    environment = {
        "PYTHONPATH": str(ROOT),
        "_SHADOWFUZZ_COMPLETE": "bash_complete",
        "COMP_WORDS": f"shadowfuzz {words}",
        "COMP_CWORD": str(len(words.split(" "))),
    }
    done = subprocess.run(program, env=environment, capture_output=True, text=True, check=False, cwd=Path.cwd())
    return [line.partition(",")[2] for line in done.stdout.splitlines()]


def test_completion() -> None:
    assert complete("re") == ["replay", "report", "recording"]
    assert "list" in complete("findings ") and "--level" in complete("replay --le")
    assert complete("replay --level s") == ["spec"]
    assert "--known" not in complete("replay --kn")
