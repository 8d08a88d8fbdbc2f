# SPDX-License-Identifier: Apache-2.0
"""Texts use plain words: documents, catalogue, help, messages, and the code of :data:`ROOMS` avoid a short list.

Scanned are the rows of :data:`TEXTS`.  Names of files, code in backticks, fenced blocks and links are not prose.
"""

from __future__ import annotations

import ast
import io
import re
import tokenize
import tomllib
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from tests.support.commands import all_words, help_of
from tests.support.paths import ROOT


class Banned(NamedTuple):
    """A banned word: a pattern of whole words, and what to write instead."""

    pattern: str
    instead: str


BANNED: tuple[Banned, ...] = (
    Banned(r"owe[sd]?|owing", "must, expected, required"),
    Banned(r"nobody|somebody|whoever", "unknown, not determined, the reader"),
    Banned(r"behind", "after"),
    Banned(r"tells?|told", "reports, shows"),
    Banned(r"ours", "the project's"),
    Banned(r"beside", "next to, in addition to"),
    Banned(r"mends?|mended", "fixes, fixed"),
    Banned(r"affairs?", "responsibility"),
    Banned(r"surely", "how often; a confidence"),
    Banned(r"sides? with|siding with", "predicts, agrees with"),
    Banned(r"for ever", "without end"),
    Banned(r"takes? it for granted", "assumes"),
    Banned(r"all the same", "still"),
    Banned(r"(?:that|than) there (?:is|are) not", "that does not exist, unknown"),
    Banned(r"when(?:ever)? (?:it|they) likes?", "at any time"),
    Banned(r"comes? of it|came of it", "result, outcome"),
    Banned(r"gets? on|got on", "makes progress"),
    Banned(r"now and then", "sometimes, from time to time"),
    Banned(r"again and again", "repeatedly"),
    Banned(r"but for", "except"),
)


class Allowed(NamedTuple):
    """A legitimate use: the prefix of the text's name, the words around it, and the reason."""

    text: str
    words: str
    why: str


ALLOWED: tuple[Allowed, ...] = (
    Allowed("tests/project/test_citations.py", "owed|nobody|told|behind|tells", "a pattern of words that it finds"),
)


ROOMS: tuple[str, ...] = (
    "fuzz",
    "harness/arch",
    "harness/coverage",
    "harness/findings",
    "harness/gic",
    "harness/guest",
    "harness/handover",
    "harness/model",
    "harness/lemma",
    "harness/relations",
    "harness/report",
    "harness/scenario",
    "harness/trace",
    "harness/vm",
    "tests/unit/fuzz",
    "tests/unit/harness/lemma",
)
"""Rooms whose docstrings, comments and strings are scanned; add a row for each further one."""

FILES: tuple[str, ...] = (
    "harness/*.py",
    "tests/project/*.py",
    "tests/support/*.py",
    "tests/unit/harness/*.py",
    *(
        f"tests/unit/harness/{room}/**/*.py"
        for room in ("arch", "coverage", "findings", "gic", "guest", "handover", "model", "relations", "report")
    ),
    *(f"tests/unit/harness/{room}/**/*.py" for room in ("scenario", "trace", "vm")),
    "tests/vm/*.py",
    "tools/*.py",
)
"""Further files that are scanned in the same way: ground files, tests, tools."""

SOURCES: tuple[str, ...] = (
    *(f"harness/**/*.{suffix}" for suffix in ("c", "h", "c.in")),
    "Makefile",
    "qemu_configs/*.toml",
    "tests/vm/*.c",
    "tools/*.sh",
    "tools/*.txt",
)
"""C sources, scripts and target files: their whole text is scanned."""


def documents() -> Iterator[tuple[str, str]]:
    """Yield every hand-written or generated page; the modules' first sentences are docstrings, which come later."""
    pages = (ROOT / "README.md", ROOT / "CHANGELOG.md", *sorted((ROOT / "docs").rglob("*.md")))
    for page in pages:
        name = page.relative_to(ROOT).as_posix()
        if name != "docs/reference/modules.md":
            yield name, page.read_text(encoding="utf-8")


def catalogue() -> Iterator[tuple[str, str]]:
    """Yield the texts for people of each row of the catalogue and of the kept findings."""
    for path in sorted((ROOT / "corpus").rglob("*.toml")):
        for number, row in enumerate(_rows(tomllib.loads(path.read_text(encoding="utf-8")))):
            named = f"{path.relative_to(ROOT)}: {row.get('id', number)}"
            yield from ((f"{named}.{key}", row[key]) for key in ("summary", "why") if key in row)


def _rows(document: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    for value in document.values():
        yield from value if isinstance(value, list) else ()


def helps() -> Iterator[tuple[str, str]]:
    """Yield the help of the command and of every one of its commands."""
    for words in all_words():
        yield f"shadowfuzz {words} --help", " ".join(help_of(words).split())


def command_messages() -> Iterator[tuple[str, str]]:
    """Yield the texts of the files of commands: help, error messages, progress."""
    for path in sorted((ROOT / "fuzz" / "cli").glob("*.py")):
        yield path.relative_to(ROOT).as_posix(), path.read_text(encoding="utf-8")


def rooms() -> Iterator[tuple[str, str]]:
    """Yield the docstrings, comments and other strings of each file of :data:`ROOMS`."""
    for room in ROOMS:
        for path in sorted((ROOT / room).rglob("*.py")):
            yield path.relative_to(ROOT).as_posix(), texts_of(path.read_text(encoding="utf-8"))


def files() -> Iterator[tuple[str, str]]:
    """Yield the same of each file of :data:`FILES`, but for this one, which has the words."""
    for path in _found(FILES):
        if path != Path(__file__).resolve():
            yield path.relative_to(ROOT).as_posix(), texts_of(path.read_text(encoding="utf-8"))


def sources() -> Iterator[tuple[str, str]]:
    """Yield the text of each file of :data:`SOURCES`."""
    for path in _found(SOURCES):
        yield path.relative_to(ROOT).as_posix(), path.read_text(encoding="utf-8")


def _found(patterns: Iterable[str]) -> list[Path]:
    found = {pattern: sorted(ROOT.glob(pattern)) for pattern in patterns}
    assert all(found.values()), [pattern for pattern, paths in found.items() if not paths]
    return sorted({path for paths in found.values() for path in paths})


def texts_of(source: str) -> str:
    """Return a module's strings, docstrings and parts of f-strings among them, and its comments."""
    strings = [node.value for node in ast.walk(ast.parse(source)) if isinstance(node, ast.Constant)]
    tokens = tokenize.generate_tokens(io.StringIO(source).readline)
    comments = [token.string.lstrip("# ") for token in tokens if token.type == tokenize.COMMENT]
    return "\n".join(text for text in (*strings, *comments) if isinstance(text, str)).replace("``", "`")


TEXTS: Mapping[str, Callable[[], Iterator[tuple[str, str]]]] = {
    "documents": documents,
    "catalogue": catalogue,
    "help": helps,
    "commands": command_messages,
    "rooms": rooms,
    "files": files,
    "sources": sources,
}
"""The scanned texts; add a function that yields names and texts to scan more."""

_NOT_PROSE = re.compile(r"^ *```.*?^ *```|`[^`\n]+`|\]\([^)]*\)|<!--.*?-->", re.MULTILINE | re.DOTALL)
_WORDS = tuple((re.compile(rf"\b(?:{one.pattern})\b", re.IGNORECASE), one.instead) for one in BANNED)


def prose(text: str) -> str:
    """The words of a text: without code, targets of links and comments."""
    return " ".join(_NOT_PROSE.sub(" ", text).split())


def wrong_words(name: str, text: str) -> Iterator[str]:
    """Yield each banned word with the text around it, and what to write instead."""
    words = prose(text)
    for pattern, instead in _WORDS:
        for found in pattern.finditer(words):
            around = words[max(0, found.start() - 40) : found.end() + 40]
            if not any(name.startswith(one.text) and one.words in around for one in ALLOWED):
                yield f"{name}: {found[0]!r} (write: {instead}) in {around!r}"


@pytest.mark.parametrize("kind", TEXTS)
def test_words_are_plain(kind: str) -> None:
    assert [wrong for name, text in TEXTS[kind]() for wrong in wrong_words(name, text)] == []


@pytest.mark.parametrize("kind", TEXTS)
def test_something_is_scanned(kind: str) -> None:
    texts = list(TEXTS[kind]())
    assert len(texts) > 20 and sum(len(prose(text)) for _, text in texts) > 10_000


def test_every_exception_is_used() -> None:
    texts = [(name, prose(text)) for scanned in TEXTS.values() for name, text in scanned()]
    unused = [
        one for one in ALLOWED if not any(name.startswith(one.text) and one.words in text for name, text in texts)
    ]
    assert unused == []


def test_a_banned_word_is_found() -> None:
    text = "The guest is owed it.\n\n```text\nnobody\n```\nSee `behind` and [there](behind.md); Behind\nthe exit."
    assert [wrong.split("'")[1] for wrong in wrong_words("a", text)] == ["owed", "Behind"]
    assert list(wrong_words("a", "The storyteller followed; ourselves, hours.")) == []


def test_strings_and_comments_of_a_module_are_found() -> None:
    source = (
        '"""Names ``owed`` and ``told``."""\nowed = f"is {1} owed"  # nobody\n# stands behind\n# and owes\nx = "told"\n'
    )
    found = [wrong.split("'")[1] for wrong in wrong_words("a", texts_of(source))]
    assert sorted(found) == ["behind", "nobody", "owed", "owes", "told"]


def test_rooms_exist() -> None:
    assert all((ROOT / room / "__init__.py").is_file() for room in ROOMS)


def test_the_list_is_short() -> None:
    assert len(BANNED) <= 20
    assert all(Path(ROOT / one.text).exists() or ":" in one.text for one in ALLOWED)
