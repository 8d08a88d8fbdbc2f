# SPDX-License-Identifier: Apache-2.0
"""The documents say what the code does: generated tables are current, commands exist, links lead somewhere.

``UPDATE_DOCS=1 pytest tests/project/test_docs.py`` rewrites the README's tables and docs/reach.md.
"""

from __future__ import annotations

import argparse
import os
import re
import subprocess

import pytest

from fuzz.cli.main import build_parser
from fuzz.corpus.exercise_counts import read_counts
from harness.report import readme_tables, step_coverage
from tests.support.paths import ROOT

README = ROOT / "README.md"


def commands() -> str:
    """Every command, as `shadowfuzz --help` lists it."""
    (group,) = (action for action in build_parser()._actions if isinstance(action, argparse._SubParsersAction))
    return readme_tables.table(
        ("command", "what it does"), ((f"`{c.dest}`", str(c.help)) for c in group._choices_actions)
    )


def test_generated_tables_are_current() -> None:
    made = {**readme_tables.blocks(ROOT), "commands": commands()}
    pages = README, ROOT / "docs" / "architecture.md", ROOT / "docs" / "modules.md", ROOT / "docs" / "errata.md"
    texts = {page: page.read_text(encoding="utf-8") for page in pages}
    wanted = {page: readme_tables.render(text, made) for page, text in texts.items()}
    if os.environ.get("UPDATE_DOCS"):
        for page, text in wanted.items():
            page.write_text(text, encoding="utf-8")
    assert texts == wanted, "run UPDATE_DOCS=1 pytest tests/project/test_docs.py"
    assert all(f"<!-- {name}: generated" in "".join(texts.values()) for name in made)


def test_the_page_of_what_is_reached_is_current() -> None:
    path, wanted = (
        ROOT / "docs" / "reach.md",
        step_coverage.page(step_coverage.Reach.from_json(read_counts(ROOT / "corpus/reach.json"))),
    )
    if os.environ.get("UPDATE_DOCS"):
        path.write_text(wanted, encoding="utf-8")
    assert path.read_text(encoding="utf-8") == wanted, "run UPDATE_DOCS=1 pytest tests/project/test_docs.py"


def test_links_lead_to_files() -> None:
    for page in (README, *sorted((ROOT / "docs").glob("*.md"))):
        for target in re.findall(r"\]\(([^)#]+)\)", page.read_text(encoding="utf-8")):
            if "://" not in target:
                assert (page.parent / target).exists(), f"{page.name}: {target}"


def test_commands_of_the_readme_parse() -> None:
    commands = re.findall(r"^    \$ shadowfuzz (.*)", README.read_text(encoding="utf-8"), re.MULTILINE)
    assert len(commands) >= 2
    for command in commands:
        build_parser().parse_args(command.split())


def test_make_targets_of_the_readme_exist() -> None:
    for name in set(re.findall(r"^    make (\w+)", README.read_text(encoding="utf-8"), re.MULTILINE)):
        done = subprocess.run(["make", "-n", name], cwd=ROOT, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("pattern", [r"deb\.debian|pypi\.org", r"/work/", r"/tmp/v\b"])
def test_nothing_committed_names_a_machine_or_a_registry(pattern: str) -> None:
    command = ["git", "grep", "-nE", pattern, "--", ":!tests/project/test_docs.py"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 1, done.stdout


def test_an_empty_block_swallows_nothing() -> None:
    begin = "<!-- one: generated, tests/project/test_docs.py -->\n"
    text = f"{begin}<!-- end -->\nkept\n{begin}old\n<!-- end -->\n"
    made = f"{begin}new\n<!-- end -->\n"
    assert readme_tables.render(text, {"one": "new"}) == f"{made}kept\n{made}"
