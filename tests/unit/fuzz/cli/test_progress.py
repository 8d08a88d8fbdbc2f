# SPDX-License-Identifier: Apache-2.0
"""Progress goes to stderr, behind a command's name."""

from __future__ import annotations

import pytest

from fuzz.cli.progress import progress_printer, say


def test_lines_are_on_stderr(capsys: pytest.CaptureFixture[str]) -> None:
    say("one")
    progress_printer("shadowfuzz")("two")
    assert capsys.readouterr() == ("", "one\nshadowfuzz: two\n")
