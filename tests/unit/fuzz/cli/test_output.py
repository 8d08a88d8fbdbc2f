# SPDX-License-Identifier: Apache-2.0
"""Colour is used on terminals only, and not with NO_COLOR; names of commands; tables; JSON."""

from __future__ import annotations

import io
from pathlib import Path

import pytest

from fuzz.cli.output import json_text, page_with_program_name, print_table, style_of, with_program_name
from harness.report.terminal import MIN_WIDTH

TEXT = "get it: {0} setup; shadowfuzz: `{0} kernels list`, not /opt/shadowfuzz setup, shadowfuzz it"


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize(
    ("stream", "environ", "colour"),
    [
        (Terminal(), {}, True),
        (Terminal(), {"NO_COLOR": ""}, True),
        (Terminal(), {"NO_COLOR": "1"}, False),
        (Terminal(), {"TERM": "dumb"}, False),
        (io.StringIO(), {}, False),
    ],
)
def test_colour(stream: io.StringIO, environ: dict[str, str], colour: bool) -> None:
    assert style_of(stream, environ).colour == colour


def test_width(monkeypatch: pytest.MonkeyPatch) -> None:
    for columns, width in (("132", 132), ("20", MIN_WIDTH)):
        monkeypatch.setenv("COLUMNS", columns)
        assert style_of(Terminal(), {}).width == width


def called_as(path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """Return the text for a user who called the program by a path."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.touch(mode=0o755)
    monkeypatch.setattr("sys.argv", [str(path)])
    return with_program_name(
        "get it: shadowfuzz setup; shadowfuzz: `shadowfuzz kernels list`, not /opt/shadowfuzz setup, shadowfuzz it"
    )


def test_printed_commands_can_be_executed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PATH", "/usr/bin")
    text = TEXT
    assert called_as(tmp_path / "my env/bin/shadowfuzz", monkeypatch) == text.format("'my env/bin/shadowfuzz'")
    assert called_as(tmp_path / "b/shadowfuzz", monkeypatch) == text.format("b/shadowfuzz")
    monkeypatch.setenv("PATH", str(tmp_path / "b"))
    assert called_as(tmp_path / "b/shadowfuzz", monkeypatch) == text.format("shadowfuzz")
    assert called_as(tmp_path / "pytest", monkeypatch) == text.format("shadowfuzz")


def test_a_page_has_them_too_as_markup(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PATH", "/usr/bin")
    assert called_as(tmp_path / "a&b/shadowfuzz", monkeypatch) == TEXT.format("'a&b/shadowfuzz'")
    page = page_with_program_name("<h1>shadowfuzz: all</h1><pre>shadowfuzz replay x</pre>")
    assert page == "<h1>shadowfuzz: all</h1><pre>&#x27;a&amp;b/shadowfuzz&#x27; replay x</pre>"


def test_json_has_its_version_first() -> None:
    assert json_text("lint", {"files": 1}) == '{\n "version": 1,\n "files": 1\n}\n'
    with pytest.raises(KeyError):
        json_text("nothing", {})


def test_a_table_fits_into_the_terminal(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("COLUMNS", "60")
    print_table(
        ("", "what", "found"), [("ok", "gcc", "/usr/bin/gcc " * 9), ("MISSING", "[bold]", "x")], red=lambda _: True
    )
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) >= 4 and all(len(line) <= 60 for line in lines)
    assert "[bold]" in lines[-1] and "\x1b" not in "".join(lines), "names are no markup; the output is no terminal"
