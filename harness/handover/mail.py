# SPDX-License-Identifier: Apache-2.0
"""Render a letter as a mail to the maintainers of KVM/arm64: plain text of 72 columns.  Pure."""

from __future__ import annotations

import re
import textwrap
from collections.abc import Iterable, Iterator

from harness.handover.letter import Command, Letter

COLUMNS = 72
LIST = "kvmarm@lists.linux.dev"
"""The mailing list of KVM/arm64 (MAINTAINERS of the kernel)."""
SECTIONS: tuple[str, ...] = (
    "What goes wrong",
    "Why",
    "Releases",
    "Least scenario",
    "Required and observed",
    "How to see it",
)
NOTHING = "Not known."


def mail_text(letter: Letter) -> str:
    """Return the mail, headers first, with every section of :data:`SECTIONS`."""
    lines = [f"To: {LIST}", *_fold(f"Subject: [BUG] KVM: arm64: {_plain(letter.subject)}", 0, 1), ""]
    bodies = (
        _paragraphs(letter.wrong),
        _paragraphs(letter.why),
        _items(letter.releases),
        _items(letter.scenario),
        _items(letter.values),
        _commands(letter.commands),
    )
    for title, body in zip(SECTIONS, bodies, strict=True):
        lines += [title, "-" * len(title), *(body or [NOTHING]), ""]
    return "\n".join(lines)


def _plain(text: str) -> str:
    """Return text as one line, with sequences of blanks as one."""
    return _item(" ".join(text.split()))


def _fold(text: str, first: int, rest: int) -> list[str]:
    return textwrap.wrap(
        text, COLUMNS, initial_indent=" " * first, subsequent_indent=" " * rest, break_on_hyphens=False
    )


def _paragraphs(texts: Iterable[str]) -> list[str]:
    lines: list[str] = []
    for text in texts:
        lines += [*([""] if lines else []), *_fold(_plain(text), 0, 0)]
    return lines


def _items(texts: Iterable[str]) -> list[str]:
    return [line for text in texts for line in _fold(_item(text), 2, 6)]


def _item(text: str) -> str:
    """Return a line without characters that a mail cannot show; blanks are kept."""
    return "".join(character if character.isprintable() else "?" for character in text)


def _commands(commands: Iterable[Command]) -> list[str]:
    lines: list[str] = []
    for command in commands:
        lines += [*([""] if lines else []), *_fold(_plain(command.what), 0, 0), ""]
        lines += [piece for line in command.lines for piece in _shell(line)]
    return lines


_JOINED = "\N{NO-BREAK SPACE}"
_OPTION = re.compile(r"(?<= )(--?\w[\w-]*) ([^- ]\S*)")
_ROOM = COLUMNS - 10
"""Maximum length of a line of a command, without its indentation and the backslash at its end."""


def _shell(line: str) -> Iterator[str]:
    """Yield a command broken between words with backslashes; an option and its value stay together."""
    joined = _OPTION.sub(lambda at: at[0].replace(" ", _JOINED) if len(at[0]) <= _ROOM else at[0], _item(line))
    pieces = textwrap.wrap(joined, _ROOM, break_long_words=False, break_on_hyphens=False)
    for number, piece in enumerate(pieces):
        text = piece.replace(_JOINED, " ") + (" \\" if number < len(pieces) - 1 else "")
        yield f"{' ' * min(8 if number else 4, max(1, COLUMNS - len(text)))}{text}"
