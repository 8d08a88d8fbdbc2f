# SPDX-License-Identifier: Apache-2.0
"""``shadowfuzz corpus coverage`` and related commands: bad input is one line."""

from __future__ import annotations

import pytest

from fuzz.cli.main import main


@pytest.mark.parametrize(
    ("argv", "said"),
    [
        (["coverage", "/nowhere/a.scn"], "cannot be read"),
        (["coverage", "--repeat", "0"], "from 1 to 100"),
        (["cmin", "/nowhere", "out"], "expected a directory"),
        (["coverage-trial", "--page", "/nowhere"], "cannot be read"),
    ],
)
def test_bad_input_is_one_line(argv: list[str], said: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(argv) == 2
    error = capsys.readouterr().err
    assert said in error
    assert error.count("\n") == 1
