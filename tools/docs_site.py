# SPDX-License-Identifier: Apache-2.0
"""Hooks for MkDocs: make the README the start page, and link files of the project to pages with their text.

Documents link to source files and to each other by their paths in the checkout.  On the site a source file is a text
file below ``source/``, a directory is a page with the list of its files.
"""

from __future__ import annotations

import posixpath
import re
from pathlib import Path
from typing import Any

from mkdocs.structure.files import File, Files, InclusionLevel

ROOT = Path(__file__).resolve().parent.parent
PAGES = {"README.md": "index.md", "CHANGELOG.md": "changes.md"}
"""Documents outside docs, and their paths on the site."""
_LINK = re.compile(r"(\]\()([^)\s#]+)((?:#[^)\s]*)?\))")
_FENCE = re.compile(r"^( *)(```|~~~).*?^\1\2", re.MULTILINE | re.DOTALL)


def on_files(files: Files, *, config: Any) -> Files:
    """Add the start page, the list of changes, and every file that a document links to."""
    for name, place in PAGES.items():
        files.append(File.generated(config, place, content=(ROOT / name).read_text(encoding="utf-8")))
    for page in list(files.documentation_pages()):
        for _, target, _ in _LINK.findall(_FENCE.sub("", page.content_string)):
            found = _outside(page.src_uri, target)
            if found and found not in PAGES and files.get_file_from_path(_place(found)) is None:
                hidden = InclusionLevel.NOT_IN_NAV
                files.append(File.generated(config, _place(found), content=_text(found), inclusion=hidden))
    return files


def on_page_markdown(markdown: str, *, page: Any, config: Any, files: Files) -> str:
    """Rewrite links to files outside docs to their paths on the site."""
    here = posixpath.dirname(page.file.src_uri)

    def led(match: re.Match[str]) -> str:
        found = _outside(page.file.src_uri, match[2])
        if found is None:
            return match[0]
        place = PAGES.get(found) or _place(found)
        return f"{match[1]}{posixpath.relpath(place, here or '.')}{match[3]}"

    pieces, end = [], 0
    for fence in _FENCE.finditer(markdown):
        pieces += [_LINK.sub(led, markdown[end : fence.start()]), fence[0]]
        end = fence.end()
    return "".join((*pieces, _LINK.sub(led, markdown[end:])))


def _outside(page: str, target: str) -> str | None:
    """Return the path of a link's target from the checkout's root; None: the link needs no change.

    ValueError: the file does not exist.
    """
    if re.match(r"\w+:", target):
        return None
    source = next((name for name, place in PAGES.items() if place == page), f"docs/{page}")
    found = posixpath.normpath(posixpath.join(posixpath.dirname(source), target))
    if found.startswith("docs/") and source.startswith("docs/"):
        return None
    if not (ROOT / found).exists():
        raise ValueError(f"{source}: {target}: no such file")
    return found


def _place(found: str) -> str:
    if found.startswith("docs/"):
        return found.removeprefix("docs/")
    return f"source/{found}/index.md" if (ROOT / found).is_dir() else f"source/{found.removesuffix('.txt')}.txt"


def _text(found: str) -> str:
    path = ROOT / found
    if path.is_dir():
        rows = "".join(f"- {entry.name}\n" for entry in sorted(path.iterdir()) if entry.name != "__pycache__")
        return f"---\nsearch: {{exclude: true}}\n---\n# {found}\n\n{rows}"
    return path.read_text(encoding="utf-8")
