# SPDX-License-Identifier: Apache-2.0
"""``shadowfuzz fuzz`` rejects invalid campaigns."""

from __future__ import annotations

import pytest

from fuzz.cli.main import main


@pytest.mark.parametrize(
    "argv",
    [["--seconds", "0"], ["--seconds", "nan"], ["--jobs", "0"], ["--jobs", "1.5"], ["--seed", "-1"], ["--level", "x"]],
)
def test_bad_usage(argv: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["fuzz", *argv]) == 2 and argv[0] in capsys.readouterr().err
