# SPDX-License-Identifier: Apache-2.0
"""The documents match the code: generated tables are current, commands exist, links have targets.

``UPDATE_DOCS=1 pytest tests/project/test_docs.py`` rewrites the generated blocks of the README and of every page in
docs, and docs/reach.md.
"""

from __future__ import annotations

import os
import re
import shlex
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from fuzz.cli.main import parsed
from fuzz.cli.output import JSON_VERSIONS
from fuzz.cli.tree import COMMANDS, leaves
from fuzz.corpus.exercise_counts import read_counts
from harness.report import readme_tables, step_coverage
from harness.scenario.scenario import format_scenario, parse
from tests.support.commands import help_of
from tests.support.paths import ROOT

README = ROOT / "README.md"
DOCS = ROOT / "docs"
MAX_README = 150
CORE = ("setup", "doctor", "fuzz", "replay", "minimise", "confirm", "triage", "findings", "report", "kernels", "ci")
"""Commands that the README lists; docs/reference/commands.md has all."""


def pages() -> tuple[Path, ...]:
    """Return the README, the list of changes and every page in docs."""
    return (README, ROOT / "CHANGELOG.md", *sorted(DOCS.rglob("*.md")))


def core_commands() -> str:
    """The commands of the README, as `shadowfuzz --help` lists them."""
    named = {row.name: row.does for rows in COMMANDS.sections.values() for row in rows}
    return readme_tables.table(("command", "what it does"), ((f"`{name}`", named[name]) for name in CORE))


def commands() -> str:
    """Every command with its help, as a terminal of 100 columns shows it."""
    listed = [(words, row.does, help_of(words)) for words, row, _ in leaves()]
    table = readme_tables.table(
        ("command", "what it does"), ((f"[`{name}`](#{name.replace(' ', '-')})", does) for name, does, _ in listed)
    )
    sections = [f"## {name}\n\n```text\n{_of_any_machine(text)}\n```" for name, _, text in listed]
    return "\n\n".join((table, *sections))


def json_versions() -> str:
    """The version of every JSON output."""
    return readme_tables.table(("command", "version"), ((f"`{n}`", str(v)) for n, v in JSON_VERSIONS.items()))


def _of_any_machine(text: str) -> str:
    """Return help without the number of the machine's cores."""
    return re.sub(r"\(here:\s+\d+\)", "(here: number of cores)", text).rstrip()


def test_generated_tables_are_current(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "102")
    made = {
        **readme_tables.blocks(ROOT),
        "core_commands": core_commands(),
        "commands": commands(),
        "json_versions": json_versions(),
    }
    texts = {page: page.read_text(encoding="utf-8") for page in pages()}
    wanted = {page: readme_tables.render(text, made) for page, text in texts.items()}
    if os.environ.get("UPDATE_DOCS"):
        for page, text in wanted.items():
            if text != texts[page]:
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


NO_JSON = {"kernels config", "report serve", "findings open"}
"""Commands whose output is a file, or a page in a browser."""


def test_every_command_prints_json_with_a_version_that_is_documented() -> None:
    takes = {words for words, _, command in leaves() if any(param.name == "json" for param in command.params)}
    assert takes == JSON_VERSIONS.keys() == {words for words, _, _ in leaves()} - NO_JSON
    heads = re.findall(r"^### (.*)$", (DOCS / "formats.md").read_text(encoding="utf-8"), re.MULTILINE)
    assert sorted(", ".join(heads).split(", ")) == sorted(JSON_VERSIONS)
    printed = [
        name
        for path in (ROOT / "fuzz" / "cli").glob("*.py")
        for name in re.findall(
            r'(?:print_json|json_text|_for_machines)\(\s*"([^"]+)"', path.read_text(encoding="utf-8")
        )
    ]
    assert set(printed) == set(JSON_VERSIONS), "two outputs have the same version key"


def test_the_readme_is_a_page() -> None:
    assert len(README.read_text(encoding="utf-8").splitlines()) <= MAX_README


def printed_commands(text: str) -> Iterator[str]:
    """Yield the arguments of every ``shadowfuzz`` command that a page prints after a prompt."""
    for line in re.findall(r"^ *\$ shadowfuzz (.*)", text, re.MULTILINE):
        yield re.sub(r"\s+#.*|\s+[>|].*", "", line)


@pytest.mark.parametrize("page", pages(), ids=lambda page: str(page.relative_to(ROOT)))
def test_commands_that_a_page_prints_parse(page: Path) -> None:
    for command in printed_commands(page.read_text(encoding="utf-8")):
        parsed(shlex.split(command))


def scenarios_of(text: str) -> list[str]:
    """Return the scenarios that a page shows: each begins with the header, and is a block or indented."""
    found = re.findall(r"^( *)(shadowfuzz-scenario 1\n(?:\1[^`\n]+\n)*)", text, re.MULTILINE)
    return [re.sub(rf"^{indent}", "", block, flags=re.MULTILINE) for indent, block in found]


def test_scenarios_of_the_pages_are_canonical() -> None:
    shown = {page: scenarios_of(page.read_text(encoding="utf-8")) for page in pages()}
    assert len(shown[DOCS / "tutorial.md"]) >= 3 and len(shown[DOCS / "scenarios.md"]) >= 2
    for page, scenarios in shown.items():
        for text in scenarios:
            assert format_scenario(parse(text, str(page))) == text


def test_the_readme_prints_a_command() -> None:
    assert len(list(printed_commands(README.read_text(encoding="utf-8")))) >= 1


def test_every_page_is_listed() -> None:
    """The site's menu names every page and nothing else; the README's index names every page."""
    _, _, menu = (ROOT / "mkdocs.yml").read_text(encoding="utf-8").partition("\nnav:\n")
    names = [page.relative_to(DOCS).as_posix() for page in pages() if page.is_relative_to(DOCS)]
    assert sorted(re.findall(r"[\w/-]+\.md", menu)) == sorted([*names, "index.md", "changes.md"])
    index = README.read_text(encoding="utf-8")
    assert [name for name in names if f"docs/{name}" not in index and not name.startswith("spec/")] == []


def test_make_targets_of_the_pages_exist() -> None:
    texts = "".join(page.read_text(encoding="utf-8") for page in pages())
    names = set(re.findall(r"^    make (\w+)", texts, re.MULTILINE))
    assert names >= {"campaign", "test", "docs"}
    for name in names:
        done = subprocess.run(["make", "-n", name], cwd=ROOT, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr


def test_the_site_fails_at_a_wrong_link() -> None:
    """With --quiet, MkDocs 1.6 counts no warnings, and --strict has no effect."""
    done = subprocess.run(["make", "-n", "docs"], cwd=ROOT, capture_output=True, text=True, check=True)
    (build,) = (line for line in done.stdout.splitlines() if "mkdocs build" in line)
    assert "--strict" in build and "quiet" not in build and " -q" not in build


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
