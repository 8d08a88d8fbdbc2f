# SPDX-License-Identifier: Apache-2.0
"""Build HTML from values: text is escaped, markup has its own type; tables and pages."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from html import escape

from harness.report.html_script import LIVE_SCRIPT, SCRIPT, hash_of
from harness.report.html_style import CSS
from harness.report.terminal import printable

POLICY = f"default-src 'none'; style-src 'unsafe-inline'; script-src 'sha256-{hash_of(SCRIPT)}'"
"""Policy of a file: nothing is loaded, and only the report's own script runs, whatever a kernel wrote to its
console."""
LIVE_POLICY = (
    f"default-src 'none'; style-src 'unsafe-inline'; connect-src 'self'; script-src 'sha256-{hash_of(LIVE_SCRIPT)}'"
)
"""Policy of a page of ``shadowfuzz serve``: it may also load data from that server."""


class Markup(str):
    """Text that is HTML already."""

    __slots__ = ()


Content = str | int | float | Markup
VOID = frozenset({"meta"})
SVG_VOID = frozenset({"line", "polyline", "rect", "circle"})


def put(*contents: Content) -> Markup:
    """Concatenate contents; all but :class:`Markup` is escaped, with control characters made visible."""
    return Markup("".join(c if isinstance(c, Markup) else escape(_visible(str(c))) for c in contents))


def _visible(text: str) -> str:
    return "\n".join(printable(line) for line in text.split("\n"))


def el(name: str, /, *contents: Content, **attributes: str) -> Markup:
    """Return an element; ``class_`` and ``aria_label`` are written ``class`` and ``aria-label``."""
    given = "".join(
        f' {key.rstrip("_").replace("_", "-")}="{escape(_visible(value))}"' for key, value in attributes.items()
    )
    if name in SVG_VOID:  # HTML would not close these elements
        return Markup(f"<{name}{given}/>")
    return Markup(f"<{name}{given}>" if name in VOID else f"<{name}{given}>{put(*contents)}</{name}>")


def join(parts: Iterable[Markup], between: str = "\n") -> Markup:
    """Concatenate markup."""
    return Markup(between.join(parts))


def document(title: str, *body: Markup, css: str = CSS, live: bool = False) -> str:
    """Return a self-contained HTML file; a ``live`` one may load data from its server."""
    head = (
        el("meta", charset="utf-8"),
        el("meta", name="viewport", content="width=device-width, initial-scale=1"),
        el("meta", http_equiv="Content-Security-Policy", content=LIVE_POLICY if live else POLICY),
        el("title", title),
        el("style", Markup(css)),
    )
    script = el("script", Markup(LIVE_SCRIPT if live else SCRIPT))
    return "<!DOCTYPE html>\n" + el("html", el("head", join(head)), el("body", *body, script), lang="en") + "\n"


def table(heads: Sequence[str], rows: Iterable[Sequence[Content]], caption: str, class_: str = "") -> Markup:
    """Return a table that scrolls horizontally on a narrow page; ``caption`` describes it.

    A table of class ``stack`` shows its cells below each other there, each with the head of its column.
    """
    head = el("tr", *(el("th", text, scope="col") for text in heads))
    named = [{"data_head": text} if "stack" in class_.split() else {} for text in heads]
    body = [el("tr", *(el("td", cell, **name) for name, cell in zip(named, row, strict=True))) for row in rows]
    inner = el("table", el("caption", caption), el("thead", head), el("tbody", *body), class_=class_)
    return el("div", inner, class_="wide", tabindex="0", role="region", aria_label=caption)


def details(title: Content, *contents: Content) -> Markup:
    """Return a foldable element."""
    return el("details", el("summary", title), *contents)


def when(iso: str) -> str:
    """Format a time in ISO 8601 for people; another text is returned unchanged."""
    try:
        return datetime.fromisoformat(iso).astimezone(UTC).strftime("%Y-%m-%d %H:%M UTC")
    except (ValueError, OverflowError):
        return iso
