# SPDX-License-Identifier: Apache-2.0
"""``shadowfuzz fuzz``: what is no campaign is refused."""

from __future__ import annotations

import argparse

import pytest

from fuzz.cli.fuzz import add_parser


@pytest.mark.parametrize(
    "argv",
    [["--seconds", "0"], ["--seconds", "nan"], ["--jobs", "0"], ["--jobs", "1.5"], ["--seed", "-1"], ["--level", "x"]],
)
def test_bad_usage(argv: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    parser = argparse.ArgumentParser()
    add_parser(parser.add_subparsers())
    with pytest.raises(SystemExit) as stop:
        parser.parse_args(["fuzz", *argv])
    assert stop.value.code == 2 and argv[0] in capsys.readouterr().err
