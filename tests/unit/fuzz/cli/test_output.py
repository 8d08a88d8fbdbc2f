# SPDX-License-Identifier: Apache-2.0
"""Colour is for terminals whose user did not refuse it."""

from __future__ import annotations

import io

import pytest

from fuzz.cli.output import style_of
from harness.report.terminal import MIN_WIDTH


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
