# SPDX-License-Identifier: Apache-2.0
"""Every citation is valid: sources, links, pages with their sections, and names of files and of code.

The tests have no list of modules: they find files by walking the tree, and dotted names by importing them.
"""

from __future__ import annotations

import ast
import importlib
import pkgutil
import re
import subprocess
import tomllib
from collections.abc import Iterable, Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from tests.support.paths import ROOT

ME = "tests/project/test_citations.py"
MENU = "mkdocs.yml"
"""Names pages by their paths from docs; tests/project/test_docs.py looks them up."""
TEXTS = frozenset({".py", ".c", ".h", ".toml", ".md", ".sh", ".yml"})


@cache
def tracked() -> frozenset[str]:
    """Every file of the project, by its path from the root."""
    done = subprocess.run(["git", "ls-files", "-co", "--exclude-standard"], cwd=ROOT, capture_output=True, text=True)
    return frozenset(name for name in done.stdout.splitlines() if (ROOT / name).is_file())


@cache
def text_of(name: str) -> str:
    return (ROOT / name).read_text(encoding="utf-8")


@cache
def prose_of(name: str) -> str:
    """Return the text on one line: a line break and a comment mark may split a citation."""
    return re.sub(r"[ \t]*\n[ \t]*(?:(?:#|//|\*(?!\*)) ?)?", " ", text_of(name))


def citing() -> list[str]:
    """Return every file whose citations are checked: code, catalogue and documents, without golden files."""
    followed = (name for name in tracked() if Path(name).suffix in TEXTS and "/golden/" not in name)
    return sorted(name for name in followed if name not in (ME, MENU))


# ---- pages: links, sections, and names in a section

_HEADING = re.compile(r"^(#+) +(.*?) *$", re.MULTILINE)
_LINK = re.compile(
    r"\]\((?P<inline>[^)\s]+)(?: +\"[^\"]*\")?\)"
    r"|^ *\[[^\]]+\]: +(?P<reference>\S+)"
    r"|(?:href|src)=\"(?P<html>[^\"]+)\"",
    re.MULTILINE,
)
"""Patterns of the target of a Markdown link: inline, reference or HTML; also images."""
_PAGE = re.compile(
    r"(?<![\w/.-])(docs/[\w/-]+\.md)"
    r"(?:,? sections? (?P<numbers>\d+(?:\.\d+)?(?:(?:, | and )\d+(?:\.\d+)?(?!\.?\d))*)"
    r"(?P<rest>(?:(?!docs/)[^;:()\n\"])*))?"
)


def anchor(heading: str) -> str:
    """The anchor of a heading, as GitHub makes it."""
    plain = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading).lower()
    return re.sub(r"[^\w\- ]", "", plain).replace(" ", "-")


def anchors(text: str) -> set[str]:
    fenced = re.sub(r"^```.*?^```", "", text, flags=re.MULTILINE | re.DOTALL)
    return {anchor(title) for _, title in _HEADING.findall(fenced)} | set(re.findall(r'(?:id|name)="([^"]+)"', text))


def section(text: str, number: str) -> str | None:
    """The section with this number, up to the next heading that is not below it; None if there is none."""
    headings = list(_HEADING.finditer(text))
    for i, heading in enumerate(headings):
        if re.match(rf"{re.escape(number)}(?:\.(?!\d)| |$)", heading[2]):
            ends = (h.start() for h in headings[i + 1 :] if len(h[1]) <= len(heading[1]))
            return text[heading.start() : next(ends, len(text))]
    return None


def plain(text: str) -> str:
    """Normalise text for a comparison of words: without marks, in lower case."""
    return " ".join(re.sub(r"[`*_\\|]", " ", text).lower().split())


def names_in(rest: str) -> list[str]:
    """The words after a citation's section number: ``4 prep_abort``, ``3, save.reveal``."""
    return [name for part in rest.split(",") if (name := plain(part))]


def wrong_page(page: str, numbers: str | None, rest: str, texts: Mapping[str, str], *, strict: bool) -> str | None:
    """Return why a citation of a page is invalid; ``strict``: the section must contain its words literally."""
    if page not in texts:
        return f"{page}: no such page"
    if numbers is None:
        return None
    found = [(number, section(texts[page], number)) for number in re.findall(r"\d+(?:\.\d+)?", numbers)]
    missing = [number for number, text in found if text is None]
    if missing:
        return f"{page} has no section {', '.join(missing)}"
    where = plain(found[-1][1] or "")
    lost = [name for name in names_in(rest) if strict and not _names(name, where)]
    return f"{page} section {numbers} does not name {lost[0]!r}" if lost else None


def _names(name: str, where: str) -> bool:
    """Whether a section contains the words; ``step 4``, ``steps 2 and 3`` are items of a numbered list."""
    if steps := re.fullmatch(r"steps? (\d+)(?: and (\d+))?", name):
        return all(re.search(rf"(?:^| ){number}\. ", where) for number in steps.groups() if number)
    return name in where


def pages() -> dict[str, str]:
    return {name: text_of(name) for name in tracked() if name.endswith(".md")}


def wrong_links(name: str, text: str, known: Mapping[str, str]) -> Iterator[str]:
    for found in _LINK.finditer(text):
        target = found["inline"] or found["reference"] or found["html"]
        if re.match(r"\w+:", target):
            continue
        path, _, label = target.partition("#")
        page = (ROOT / name).parent.joinpath(path).resolve() if path else ROOT / name
        if path and not page.exists():
            yield f"{name}: {target}"
        elif label and label not in anchors(known.get(page.relative_to(ROOT).as_posix(), "")):
            yield f"{name}: {target}: no such heading"


def test_links_lead_to_a_page_and_to_a_heading_of_it() -> None:
    known = pages()
    assert [wrong for name, text in known.items() for wrong in wrong_links(name, text, known)] == []


def bare_pages(name: str, text: str, known: Iterable[str]) -> list[str]:
    """Yield pages that a text names without a path, except as the text of a link or in its own directory."""
    here = {Path(page).name for page in known if Path(page).parent in (Path(), Path(name).parent)}
    words = re.findall(r"(?<![\w/.<*\"-])([a-z][\w-]*\.md)\b", re.sub(r"\[[^\]]*\]\([^)]*\)", "", text))
    return [] if _made(name) else [word for word in words if word not in here]


def test_pages_are_cited_by_path_and_have_the_section() -> None:
    known, wrong = pages(), []
    for name in citing():
        for page, numbers, rest in _PAGE.findall(prose_of(name)):
            why = wrong_page(page, numbers or None, rest, known, strict=False)
            wrong += [f"{name}: {why}"] if why else []
        wrong += [f"{name}: {bare} without its path" for bare in bare_pages(name, text_of(name), known)]
    assert wrong == []


def _made(name: str) -> bool:
    """Whether a file is a test, which may name files that it creates."""
    return name.startswith("tests/") or "/tests/" in name


def test_a_wrong_link_or_section_is_found() -> None:
    text = "# A\n## 1. One\nfoo `bar_baz`\n1. x\n### 1.1 Sub\nqux\n## 2. Two\n"
    known = {"docs/a.md": text}
    assert "foo" in (section(text, "1") or "") and "qux" in (section(text, "1") or "")
    assert "foo" not in (section(text, "1.1") or "") and section(text, "3") is None
    assert wrong_page("docs/a.md", "1", " bar_baz", known, strict=True) is None
    assert wrong_page("docs/a.md", "1", ", step 1", known, strict=True) is None
    assert wrong_page("docs/a.md", "1", ", step 2", known, strict=True)
    assert wrong_page("docs/a.md", "2", " bar_baz", known, strict=True)
    assert wrong_page("docs/a.md", "1 and 3", "", known, strict=False)
    assert wrong_page("docs/b.md", None, "", known, strict=False)
    assert list(wrong_links("docs/a.md", "[x](none.md) [y](#one-more)", known)) == [
        "docs/a.md: none.md",
        "docs/a.md: #one-more: no such heading",
    ]
    for link in ('[x](none.md "title")', "![x](none.md)", "[x]: none.md", '<a href="none.md">x</a>'):
        assert list(wrong_links("docs/a.md", link, known)) == ["docs/a.md: none.md"], link
    assert anchors(text) >= {"1-one", "11-sub"}
    assert bare_pages("harness/x.py", "see a.md, docs/a.md", known) == ["a.md"]
    assert bare_pages("docs/b.md", "see a.md, [c.md](../c.md)", known) == []


# ---- sources: the parts that each must have, by a small grammar

_KERNEL_FILE = r"(?:arch|include|Documentation|kernel|lib|mm|scripts|virt)/[\w/.-]+\.(?:c|h|S|rst|txt)"
_KINDS: Mapping[str, str] = {
    "Arm ARM": r"Arm ARM,? (?:[A-K]\d{1,2}(?:\.\d+)*|AArch(?:32|64)\.\w+|glossary)",
    "GIC architecture": r"(?:Arm )?IHI 0069,? (?:GIC[DR]|IC[CH]|the|its)",
    "PSCI, SMCCC, TRNG": r"(?:Arm )?DEN (?:0022|0028|0098)[A-Z]?\b",
    "KVM API": r"KVM API \d",
    "kernel": _KERNEL_FILE,
    "commit": r"commit [0-9a-f]{12} \"",
    "QEMU": r"QEMU (?:target|hw|linux-headers)/[\w/.-]+\.c",
    "CPU manual": r"TRM \((?:DDI )?\d+\)",
    "page": r"docs/[\w/-]+\.md",
    "project": r"(?:harness|fuzz|corpus)/[\w/.-]+\.(?:py|toml)",
}
_ANY_KIND = re.compile("|".join(f"(?:{pattern})" for pattern in _KINDS.values()))
_API = re.compile(r"KVM API (\d+(?:\.\d+)?)(?:,? \(?(KVM_(?!CAP_|GUESTDBG_)\w+))?")
KVM_API: Mapping[str, str] = {
    "4.2": "KVM_CREATE_VM",
    "4.25": "KVM_IRQ_LINE",
    "4.32": "KVM_SET_VCPU_EVENTS",
    "4.35": "KVM_SET_USER_MEMORY_REGION",
    "4.39": "KVM_SET_MP_STATE",
    "4.59": "KVM_IOEVENTFD",
    "4.68": "KVM_SET_ONE_REG",
    "4.82": "KVM_ARM_VCPU_INIT",
    "4.87": "KVM_SET_GUEST_DEBUG",
    "4.116": "KVM_REGISTER_COALESCED_MMIO",
    "5": "KVM_EXIT_",
    "8.36": "KVM_CAP_ARM_SYSTEM_SUSPEND",
}
"""Sections of Documentation/virt/kvm/api.rst that are cited, and the call that each describes."""


def wrong_api(text: str) -> Iterator[str]:
    """Yield the citations of a section of the KVM API document that describes another call."""
    for number, name in _API.findall(text):
        if number not in KVM_API or not (name or KVM_API[number]).startswith(KVM_API[number]):
            yield f"KVM API {number} {name}".rstrip()


def wrong_source(source: str, ids: Iterable[str], known: Mapping[str, str]) -> str | None:
    """Return why a source does not identify a place in a document; ``as ID`` refers to a row in ``ids``."""
    as_row = re.match(r"as ([\w-]+)", source)
    if as_row and as_row[1] not in ids:
        return f"{source!r}: no row {as_row[1]!r}"
    if not as_row and not _ANY_KIND.search(source):
        return f"{source!r} names nothing that can be looked up"
    for page, numbers, rest in _PAGE.findall(source):
        if why := wrong_page(page, numbers or None, rest, known, strict=True):
            return f"{source!r}: {why}"
    return next((f"{source!r}: {why}" for why in wrong_api(source)), None)


def values(document: Any, key: str) -> Iterator[str]:
    """Yield every text that a TOML document has under ``key``, at any depth."""
    if isinstance(document, dict):
        for name, value in document.items():
            if name == key and isinstance(value, str):
                yield value
            yield from values(value, key)
    elif isinstance(document, list):
        for value in document:
            yield from values(value, key)


@cache
def modules() -> tuple[str, ...]:
    """Every module of the two packages that a test may import."""
    found = []
    for package in ("harness", "fuzz"):
        where = [str(ROOT / package)]
        found += [package, *(module.name for module in pkgutil.walk_packages(where, f"{package}."))]
    return tuple(name for name in found if not name.endswith("__main__"))


def row_sources() -> dict[str, str]:
    """Every ``source`` of a row that a module has in a table, and the module."""
    found: dict[str, str] = {}
    for module in modules():
        for value in vars(importlib.import_module(module)).values():
            rows = value.values() if isinstance(value, Mapping) else value if isinstance(value, tuple) else ()
            for row in rows:
                if hasattr(type(row), "__dataclass_fields__") and isinstance(source := getattr(row, "source", 0), str):
                    found.setdefault(source, module)
    return found


def test_every_source_in_the_corpus_can_be_looked_up() -> None:
    catalogues = [name for name in tracked() if name.startswith("corpus/") and name.endswith(".toml")]
    documents = {name: tomllib.loads(text_of(name)) for name in catalogues}
    ids, known = {one for d in documents.values() for one in values(d, "id")}, pages()
    sources = [(name, source) for name, document in documents.items() for source in values(document, "source")]
    assert len(catalogues) >= 4 and len(sources) > 80
    assert [f"{name}: {why}" for name, source in sources if (why := wrong_source(source, ids, known))] == []


def test_every_source_of_a_row_in_the_code_can_be_looked_up() -> None:
    sources, known = row_sources(), pages()
    assert len(sources) > 80
    instructions = {source for source in sources if re.fullmatch(r"C[67]\.2 .+", source)}  # of the Arm ARM, by a64
    wrong = (f"{sources[s]}: {why}" for s in sources.keys() - instructions if (why := wrong_source(s, (), known)))
    assert sorted(wrong) == []


def test_sections_of_the_kvm_api_are_those_of_the_call() -> None:
    assert [f"{name}: {why}" for name in citing() for why in wrong_api(prose_of(name))] == []


def test_a_wrong_source_is_found() -> None:
    known = {"docs/a.md": "## 1. One\nfoo\n"}
    assert wrong_source("Arm ARM D17.2.37 ESR_EL1", (), known) is None
    assert wrong_source("as other; more", ("other",), known) is None
    assert wrong_source("docs/a.md section 1 foo; KVM API 4.25 KVM_IRQ_LINE", (), known) is None
    two = "docs/a.md section 1 foo, docs/a.md section 1 bar"
    for wrong in ("common knowledge", "Arm ARM", "as above", "as other", "docs/a.md section 1 bar", "docs/b.md", two):
        assert wrong_source(wrong, ("none",), known), wrong
    for wrong in ("KVM API 4.31 KVM_SET_VCPU_EVENTS", "KVM API 4.25 KVM_SET_ONE_REG", "KVM API 7.33"):
        assert wrong_source(wrong, (), known), wrong


# ---- names of files

_TOP = r"(?:harness|fuzz|tests|docs|corpus|tools|qemu_configs)"
_FILE = re.compile(rf"(?<![\w/.~-])({_TOP}/[\w/.*-]*[\w*])")
_SCRIPT = re.compile(r"(?<![\w/.*~-])([a-z_]\w*\.py)\b")
PLACEHOLDERS = frozenset({"qemu_configs/NAME.toml"})
MADE = re.compile(
    r"corpus/(?:seeds|regressions)/[\w-]+\.scn|corpus/(?:minimised|new)\b|docs/\w+\.png"
    r"|tools/(?:testing/selftests|include|arch|scripts|build|lib)\b.*"
)
"""Files that a command of an example reads or writes, and files of a kernel tree in a folder with the name of a project
folder."""


def wrong_file(cited: str, known: Iterable[str]) -> bool:
    """Whether a cited path, which may be a directory or a pattern, matches no file."""
    wanted = re.compile("".join(r"[^/]*" if c == "*" else re.escape(c) for c in cited.rstrip("/")) + r"(?:\.py|/.*)?")
    return not any(wanted.fullmatch(name) for name in known)


def test_files_that_are_cited_are_there() -> None:
    scripts, wrong = {Path(name).name for name in tracked()}, set()
    for name in citing():
        text = text_of(name)
        found = {cited for cited in _FILE.findall(text) if cited not in PLACEHOLDERS and not MADE.fullmatch(cited)}
        wrong |= {(name, cited) for cited in found if wrong_file(cited, tracked())}
        if not _made(name):
            wrong |= {(name, script) for script in _SCRIPT.findall(text) if script not in scripts}
    assert sorted(wrong) == []


def test_a_wrong_file_is_found() -> None:
    known = ("harness/vm/x.py", "tests/test_a.py", "corpus/seeds/a.scn")
    assert not any(wrong_file(c, known) for c in ("harness/vm", "harness/vm/x.py", "corpus/*/*.scn", "tests/test_a"))
    assert all(wrong_file(c, known) for c in ("harness/x.py", "harness/v", "corpus/*.scn", "tests/test_b"))


# ---- names of code

_ROLE = re.compile(r":(?:mod|class|func|data|meth|attr|exc|const):`~?\.?([\w.]+)(?:\(\))?`")
_DOTTED = re.compile(r"(?<![\w/.-])((?:harness|fuzz)(?:\.[A-Za-z_]\w*)+)(?![\w/]|\.\*)")


@cache
def resolves(dotted: str) -> bool:
    """Whether a dotted name is a module, or an attribute of one."""
    parts = dotted.split(".")
    for length in range(len(parts), 0, -1):
        try:
            found: object = importlib.import_module(".".join(parts[:length]))
        except ImportError:
            continue
        for part in parts[length:]:
            if not hasattr(found, part) and part not in getattr(found, "__annotations__", {}):
                return False
            found = getattr(found, part, None)
        return True
    return False


def names_of(source: str) -> set[str]:
    """Return every name that a module defines, at any depth."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            found.add(node.name)
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            found.add(node.id)
        elif isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store):
            found.add(node.attr)
        elif isinstance(node, ast.Import | ast.ImportFrom):
            found |= {(alias.asname or alias.name).partition(".")[0] for alias in node.names}
    return found


def imports_of(source: str) -> dict[str, str]:
    """Return the dotted name of each imported name."""
    found: dict[str, str] = {}
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.ImportFrom):
            found |= {alias.asname or alias.name: f"{node.module}.{alias.name}" for alias in node.names}
    return found


def wrong_roles(source: str) -> Iterator[str]:
    """Yield the names in roles (``:func:`x```) that neither the module nor its imports define."""
    cited = set(_ROLE.findall(source))
    own, imported = (names_of(source), imports_of(source)) if cited else (set(), {})
    for name in sorted(cited):
        first, dot, rest = name.partition(".")
        through = f"{imported.get(first, first)}{dot}{rest}"
        if not all(part in own for part in name.split(".")) and not resolves(through):
            yield name


def test_code_that_is_cited_is_there() -> None:
    wrong = []
    for name in citing():
        if name.endswith(".py"):
            wrong += [f"{name}: {cited}" for cited in wrong_roles(text_of(name))]
        wrong += [f"{name}: {cited}" for cited in sorted(set(_DOTTED.findall(text_of(name)))) if not resolves(cited)]
    assert wrong == []


def test_a_wrong_name_is_found() -> None:
    assert resolves("harness") and resolves("json.decoder.JSONDecoder.decode")
    assert not resolves("harness.none") and not resolves("json.none") and not resolves("json.decoder.JSONDecoder.none")
    text = '"""See :func:`here`, :meth:`Own.go`, :mod:`json`, :func:`gone` and :class:`~json.none`."""\n'
    assert list(wrong_roles(f"{text}def here(): ...\nclass Own:\n    def go(self): ...\n")) == ["gone", "json.none"]


@pytest.mark.parametrize("name", ["model", "differential", "kvm"])
def test_the_pages_of_the_specification_stand_alone(name: str) -> None:
    """They state what the code relies on in the project's own words, and name their sources."""
    text = text_of(f"docs/spec/{name}.md")
    assert not re.search(r"\b(?:owed|nobody|told|behind|tells|the seed)\b", text, re.IGNORECASE)
    assert "../seed" not in text and "/shared" not in text
